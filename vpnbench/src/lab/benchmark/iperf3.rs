//! iperf3: a one-off server, and the client's command line.

use std::net::IpAddr;
use std::path::Path;

use super::spec::{Tcp, Udp};
use super::{Ready, Setup, Transport, listens};
use crate::lab::error::{LabError, Result};
use crate::lab::hosts;
use crate::lab::process::{Process, Program};
use crate::lab::undo::Undo;

pub(super) const PORT: u16 = 5201;
/// The study's `--connect-timeout`, ms: a tunnel may still be finding its path.
const CONNECT_MS: &str = "600000";

/// Starts the server and waits until it listens.
pub(super) fn tcp(spec: &Tcp, setup: Setup<'_>) -> Result<Ready> {
    let address = setup.server_address();
    let server = server(setup.undo, &setup.hosts.b.netns, address, PORT, setup.logs)?;
    let mut command = client(address, PORT, spec.duration.as_s());
    command.extend(congestion(&spec.congestion)?);
    let mut add = |option: &str, value: Option<String>| {
        command.push(option.to_owned());
        command.extend(value);
    };
    if spec.bidir {
        add("--bidir", None);
    }
    if spec.reverse {
        add("--reverse", None);
    }
    if spec.streams > 1 {
        add("--parallel", Some(spec.streams.to_string()));
    }
    if spec.zerocopy {
        add("--zerocopy", None);
    }
    if spec.rate_bps > 0 {
        add("--bitrate", Some(spec.rate_bps.to_string()));
    }
    if spec.omit.as_s() >= 1.0 {
        add("--omit", Some((spec.omit.as_s() as u64).to_string()));
    }
    Ok(Ready::of(vec![server], command))
}

/// Starts the server and waits until it listens.
pub(super) fn udp(spec: &Udp, setup: Setup<'_>) -> Result<Ready> {
    let address = setup.server_address();
    let server = server(setup.undo, &setup.hosts.b.netns, address, PORT, setup.logs)?;
    let mut command = client(address, PORT, spec.duration.as_s());
    let rate = spec.rate_bps.to_string();
    command.extend(["--udp", "--udp-counters-64bit", "--bitrate", &rate].map(str::to_owned));
    if spec.length > 0 {
        command.extend(["--length".to_owned(), spec.length.to_string()]);
    }
    if spec.reverse {
        command.push("--reverse".to_owned());
    }
    Ok(Ready::of(vec![server], command))
}

/// Starts a server that serves one test; its own JSON is its log.
pub(super) fn server(
    undo: &mut Undo,
    netns: &Path,
    address: IpAddr,
    port: u16,
    logs: &Path,
) -> Result<Process> {
    let (address, port_text) = (address.to_string(), port.to_string());
    let arguments = [
        "--server",
        "--one-off",
        "--json",
        "--bind",
        &address,
        "--port",
        &port_text,
    ];
    let server = undo.start(&Program {
        name: "iperf3",
        arguments: &arguments,
        netns,
        log: logs.join(format!("iperf3-server-{port}.json")),
    })?;
    listens(&server, Transport::Tcp, port)?;
    Ok(server)
}

/// The client's command line up to what the kind of test adds.
pub(super) fn client(address: IpAddr, port: u16, seconds: f64) -> Vec<String> {
    let seconds = (seconds.round() as u64).max(1).to_string();
    let (address, port) = (address.to_string(), port.to_string());
    let command = [
        "iperf3",
        "--json",
        "--client",
        &address,
        "--port",
        &port,
        "--time",
        &seconds,
        "--connect-timeout",
        CONNECT_MS,
    ];
    command.map(str::to_owned).to_vec()
}

/// The option that pins the congestion control.
pub(super) fn congestion(name: &str) -> Result<Vec<String>> {
    match name {
        "" => Ok(Vec::new()),
        _ if hosts::congestion_is_available(name) => {
            Ok(vec!["--congestion".to_owned(), name.to_owned()])
        }
        _ => {
            let why = "this kernel does not have it (net.ipv4.tcp_available_congestion_control); an empty text takes the default";
            Err(LabError::failed("using congestion control", name)(why))
        }
    }
}
