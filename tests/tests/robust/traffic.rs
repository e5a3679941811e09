//! A wire between two namespaces, and packets on it.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use vpnbench::probe::netns::{Netns, NetnsSpec};
use vpnbench_tests::netns::{Namespace, connect};

use crate::recorder::wait;

/// Where bursts go: nobody listens, and every packet crosses the wire.
const NOBODY: &str = "10.99.0.2:9";

/// Two namespaces with `vd0` between them.
pub(crate) struct Wire {
    pub(crate) a: Namespace,
    _b: Namespace,
}

impl Wire {
    pub(crate) fn new() -> Result<Self> {
        let (a, b) = (Namespace::new()?, Namespace::new()?);
        connect(&a, &b)?;
        // Neighbours are known before anything is counted.
        a.exec("ping -q -c 1 -W 5 10.99.0.2")?;
        Ok(Self { a, _b: b })
    }

    /// Selector of the wire.
    pub(crate) fn select(&self) -> String {
        format!("--netns {} --outer vd0", self.a.name)
    }
}

/// A socket that sends from a namespace.
pub(crate) struct Sender(UdpSocket);

impl Sender {
    pub(crate) fn new(namespace: &Namespace) -> Result<Self> {
        let netns = Netns::open(&NetnsSpec::Name(namespace.name.clone()))?;
        let socket = netns.run(|| UdpSocket::bind("10.99.0.1:0"))?;
        Ok(Self(socket))
    }

    pub(crate) fn port(&self) -> Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// Sends packets; returns how many the kernel took.
    pub(crate) fn burst(&self, packets: u64) -> u64 {
        let payload = [0; 100];
        (0..packets)
            .filter(|_| self.0.send_to(&payload, NOBODY).is_ok())
            .count() as u64
    }
}

/// Packets all the time, until dropped.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sending: Option<JoinHandle<()>>,
}

impl Stream {
    pub(crate) fn start(namespace: &Namespace) -> Result<Self> {
        let sender = Sender::new(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let sending = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                sender.burst(20);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let sending = Some(sending);
        Ok(Self { stop, sending })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(sending) = self.sending.take() {
            let _ = sending.join();
        }
    }
}

/// Waits until the trace has grown by blocks of records.
pub(crate) fn wait_for_blocks(trace: &Path) -> Result<()> {
    let size = || std::fs::metadata(trace).map_or(0, |data| data.len());
    let start = size();
    wait("blocks in the trace", || size() > start + 20_000)
}

/// Units at a tap of a device.
pub(crate) fn units(report: &Value, tap: &str, device: &str) -> u64 {
    let taps = report["taps"].as_array().into_iter().flatten();
    taps.filter(|one| one["tap"] == tap && one["device"] == device)
        .filter_map(|one| one["units"].as_u64())
        .sum()
}

/// Packets at a tap from a source `address:port`.
pub(crate) fn packets_from(report: &Value, tap: &str, source: &str) -> u64 {
    let flows = report["flows"].as_array().into_iter().flatten();
    flows
        .filter(|flow| flow["tap"] == tap && flow["src"] == source)
        .filter_map(|flow| flow["packets"].as_u64())
        .sum()
}
