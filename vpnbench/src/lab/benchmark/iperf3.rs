//! iperf3: a one-off server in b, and the client's command line for a.

use std::time::Duration;

use procfs::net::{TcpNetEntry, TcpState};

use super::{Bench, Ready, Setup};
use crate::lab::error::Result;
use crate::lab::process::{Process, Program};
use crate::lab::{hosts, wait};

const PORT: u16 = 5201;
const LISTEN_LIMIT: Duration = Duration::from_secs(5);

/// Starts the server and waits until it listens.
pub(super) fn prepare(bench: Bench, setup: Setup<'_>) -> Result<Ready> {
    let address = setup.tunnel.b.address().to_string();
    let port = PORT.to_string();
    let server = setup.undo.start(&Program {
        name: "iperf3",
        arguments: &["--server", "--one-off", "--bind", &address, "--port", &port],
        netns: &setup.hosts.b.netns,
        log: setup.logs.join("iperf3-server.log"),
    })?;
    wait::until("iperf3 to listen", LISTEN_LIMIT, &[&server], || {
        Ok(listens(&server, PORT).then_some(()))
    })?;
    let seconds = setup.duration.as_secs().max(1).to_string();
    let mut command = vec![
        "iperf3", "--client", &address, "--port", &port, "--time", &seconds,
    ];
    match bench {
        Bench::Udp => command.extend(["--udp", "--bitrate", "0"]),
        _ if hosts::cubic_is_available() => command.extend(["--congestion", "cubic"]),
        _ => {}
    }
    let mut client_command: Vec<String> = command.into_iter().map(str::to_owned).collect();
    client_command.extend_from_slice(setup.extra);
    Ok(Ready {
        server: Some(server),
        client_command,
    })
}

/// Whether something listens on a TCP port in the namespace of this process.
fn listens(process: &Process, port: u16) -> bool {
    let Ok(view) = i32::try_from(process.pid()).map(procfs::process::Process::new) else {
        return false;
    };
    let listens = |entries: Vec<TcpNetEntry>| {
        entries
            .iter()
            .any(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port)
    };
    view.is_ok_and(|view| view.tcp().is_ok_and(listens) || view.tcp6().is_ok_and(listens))
}
