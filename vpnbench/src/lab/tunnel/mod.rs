//! The reference tunnel: a laboratory instrument, not a VPN to use. It is a small real tunnel (TUN
//! device, outer UDP socket, TCP connection or QUIC stream, ChaCha20-Poly1305 under a pre-shared
//! key) in which every mechanism that is discussed about VPNs is a switch ([`Settings`]), and in
//! which faults ([`faults::DirectionFaults`]) can be planted and are accounted for exactly. It has
//! no key exchange, no replay protection and no roaming.
//!
//! # As a process
//!
//! `vpnbench lab part tunnel JSON` with [`PartSettings`] creates the device (down, without
//! addresses) and carries packets until SIGTERM. SIGUSR1 writes the account and flushes the truth
//! log; so does the end. The account appears by renaming, so a reader never sees half of one.
//!
//! # Account, `vpnbench.tunnel-account.v1`
//!
//! [`account::Account`] as JSON; read it with [`account::Account::read`]. For each direction
//! (`transmit`: device to socket, `receive`: socket to device):
//!
//! - `input`, `output` {units, bytes, parts}: what crossed the border, as the kernel counts it. At
//!   the device units and bytes equal the interface's tx (transmit input) and rx (receive output)
//!   packets and bytes; `parts` are packets in them. At the UDP socket units are messages, bytes UDP
//!   payload, parts datagrams (UdpOutDatagrams counts units, UdpInDatagrams units as delivered).
//! - `read`, `entered`, `crypto`, `left` {packets, bytes}: inner packets past each stage.
//! - `lost` {cause: {packets, bytes}}: see [`account::Cause`].
//! - `duplicates`, `retransmits`: copies that left in addition to `left`.
//! - Always: `read` = `left` + sum of `lost` + `inside`; and (while nothing is inside)
//!   `output.parts` of a transmitting UDP tunnel = `left` + `duplicates` + `retransmits`, unless its
//!   own fragmentation made several datagrams of one packet.
//! - `reordered`, `delayed`, `acks_delayed`, `stalls`, `burnt_ns` and so on: what else was planted.
//!
//! # Truth log
//!
//! With `truth_log = true`, [`truth::Line`] per packet and fate as JSON lines; [`truth::read`].
//! `sequence` is the outer sequence number and joins both ends.

pub mod account;
mod clock;
mod context;
mod crypto;
mod device;
pub mod faults;
mod fragment;
mod impair;
pub mod inner;
mod lane;
#[cfg(test)]
mod manual;
mod pacer;
mod packet;
mod pipeline;
mod queue;
mod quic;
pub mod relay;
pub mod settings;
pub mod span;
mod stream;
mod threads;
pub mod truth;
mod udp;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::{Deserialize, Serialize};

use super::error::{LabError, Result};
use super::{part, signals};
use context::Shared;
use packet::lock;
pub use settings::Settings;
use threads::{Link, Starter};

/// Its name among the lab's parts.
pub const NAME: &str = "tunnel";

/// A packet that has no outer sequence number (yet).
const NO_SEQUENCE: u64 = u64::MAX;

/// What one end needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartSettings {
    /// Name of the tunnel device to create.
    pub device: String,
    /// Address and port of the outer socket.
    pub local: SocketAddr,
    /// Where the peer's is, or the relay's.
    pub peer: SocketAddr,
    /// Whether this end listens (TCP, QUIC); the ends must differ.
    pub listen: bool,
    /// The pre-shared key, 64 hexadecimal digits.
    pub key: String,
    /// Where the account goes.
    pub account: Option<PathBuf>,
    /// Where the truth log goes, if the settings ask for one.
    pub truth: Option<PathBuf>,
    /// The switches and faults.
    pub settings: Settings,
}

/// Runs one end until a signal arrives.
pub(crate) fn run(settings: &str) -> Result<()> {
    let part: PartSettings = part::settings(NAME, settings)?;
    let refused = || LabError::failed::<String>("reading the settings of", "the reference tunnel");
    part.settings.check().map_err(refused())?;
    let key = crypto::parse_key(&part.key)
        .ok_or_else(|| refused()("key: 64 hexadecimal digits are needed".to_owned()))?;
    // Before any thread exists: all of them inherit the mask, so the signal waits to be read.
    let usr1 = SigSet::from(Signal::SIGUSR1);
    let asked = usr1
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&usr1, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
        .map_err(LabError::failed("catching", "SIGUSR1"))?;
    let queues = device::open(&part.device, &part.settings)?;
    let truth = match (&part.truth, part.settings.truth_log) {
        (Some(path), true) => Some(truth::Truth::create(path)?),
        _ => None,
    };
    let key = part.settings.encrypt.then_some(key);
    let cipher = crypto::Cipher::new(key, u32::from(!part.listen));
    let shared = Arc::new(Shared::new(part.settings.clone(), cipher, truth));
    let failure = Mutex::new(None);
    let outcome = thread::scope(|scope| {
        let starter = Starter {
            scope,
            shared: Arc::clone(&shared),
            failure: &failure,
        };
        let outcome = carry(&starter, &queues, &part, &asked);
        shared.stop.store(true, Ordering::SeqCst);
        outcome
    });
    let outcome = lock(&failure).take().map_or(outcome, Err);
    write_account(
        &shared,
        &part,
        if outcome.is_ok() { "exit" } else { "error" },
    )?;
    outcome
}

/// Opens the outer side, starts the threads and serves signals until the end.
fn carry<'scope>(
    starter: &Starter<'scope, '_>,
    queues: &[Arc<device::Tun>],
    part: &PartSettings,
    asked: &SignalFd,
) -> Result<()> {
    let shared = &starter.shared;
    let Some(link) = Link::open(shared, part)? else {
        return Ok(());
    };
    starter.start(queues, link)?;
    log::info!("{} carries packets", part.device);
    while !shared.stopping() {
        serve(shared, part, asked)?;
    }
    Ok(())
}

/// Waits a moment for signals and does what they ask for.
fn serve(shared: &Shared, part: &PartSettings, asked: &SignalFd) -> Result<()> {
    lane::wait_for(&[asked.as_fd()], PollFlags::POLLIN, lane::PATIENCE);
    if signals::received() > 0 {
        shared.stop.store(true, Ordering::SeqCst);
    }
    let signal = asked
        .read_signal()
        .map_err(LabError::failed("reading", "signals"))?;
    if signal.is_some() {
        write_account(shared, part, "signal")?;
    }
    Ok(())
}

fn write_account(shared: &Shared, part: &PartSettings, reason: &str) -> Result<()> {
    if let Some(truth) = &shared.truth {
        truth
            .flush()
            .map_err(LabError::failed("writing", "the truth log"))?;
    }
    match &part.account {
        Some(path) => account::write(&shared.books.account(&part.settings, reason), path),
        None => Ok(()),
    }
}
