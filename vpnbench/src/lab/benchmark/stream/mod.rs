//! A real-time stream with retransmission on request, as RIST has it: a sender in a, a receiver in
//! b, 3.3 Mbit/s in packets of 1316 bytes, 400 ms of buffer.
//!
//! The embedded endpoints count every packet; librist's tools, where they are installed, are fed
//! with the same packets and say what they count.

mod embedded;
mod librist;
mod packet;
mod receiver;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::spec::{Stream, StreamBackend};
use super::{Ready, Setup, Transport, endpoint, is_installed, listens};
use crate::lab::error::{LabError, Result};
use crate::lab::part;

pub(in crate::lab) use embedded::{receive, send};
pub(in crate::lab) use librist::feed;

/// Settings of the parts `stream-send` and `stream-receive`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settings {
    receiver: SocketAddr,
    /// Packets the sender sends for the first time.
    packets: u64,
    /// Between two of them, ns.
    interval_ns: u64,
    payload: u32,
    buffer_ns: u64,
}

impl Settings {
    fn new(spec: &Stream, receiver: SocketAddr) -> Settings {
        let interval_s = 8.0 * f64::from(spec.payload) / spec.rate_bps as f64;
        Settings {
            receiver,
            packets: (spec.duration.as_s() / interval_s).ceil().max(1.0) as u64,
            interval_ns: (interval_s * 1e9) as u64,
            payload: spec.payload,
            buffer_ns: u64::try_from(spec.buffer.0.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// Starts the receiver and waits until it has its port.
pub(super) fn prepare(spec: &Stream, setup: Setup<'_>) -> Result<Ready> {
    let there = is_installed("ristsender") && is_installed("ristreceiver");
    match spec.backend {
        StreamBackend::Librist if !there => Err(LabError::Skipped(
            "ristsender and ristreceiver not found (Debian: rist-tools)".to_owned(),
        )),
        StreamBackend::Librist => librist::prepare(spec, setup),
        StreamBackend::Auto if there => librist::prepare(spec, setup),
        StreamBackend::Auto | StreamBackend::Embedded => {
            let address = SocketAddr::new(setup.server_address(), spec.port);
            let settings = Settings::new(spec, address);
            let log = setup.logs.join("stream-receiver.log");
            let netns = &setup.hosts.b.netns;
            let process = part::start(setup.undo, "stream-receive", &settings, netns, log)?;
            listens(&process, Transport::Udp, spec.port)?;
            Ok(Ready::of(
                vec![process],
                endpoint::command("stream-send", &settings)?,
            ))
        }
    }
}
