//! A detour: takes datagrams from one end and sends them on to the other, as a relay server does
//! for peers that cannot reach each other.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::lane::{PATIENCE, wait_for};
use crate::lab::error::{LabError, Result};
use crate::lab::{part, signals};

/// Its name among the lab's parts.
pub const NAME: &str = "relay";

/// What a relay needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaySettings {
    /// Where both ends send to.
    pub local: SocketAddr,
    /// The two ends.
    pub ends: [SocketAddr; 2],
    /// Where its account goes at the end.
    pub account: Option<PathBuf>,
}

/// What passed a relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAccount {
    /// Datagrams received from each end.
    pub received: [u64; 2],
    /// Datagrams passed on to each end.
    pub sent: [u64; 2],
    /// Datagrams of neither end, not passed on.
    pub strangers: u64,
    /// Datagrams that could not be passed on.
    pub failed: u64,
}

/// Relays until a signal arrives.
pub(crate) fn run(settings: &str) -> Result<()> {
    let settings: RelaySettings = part::settings(NAME, settings)?;
    let failed = || LabError::failed("relaying on", settings.local);
    let socket = UdpSocket::bind(settings.local).map_err(failed())?;
    socket.set_nonblocking(true).map_err(failed())?;
    let mut account = RelayAccount::default();
    let mut buffer = vec![0; 65_535];
    while signals::received() == 0 {
        wait_for(&[socket.as_fd()], PollFlags::POLLIN, PATIENCE);
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Some(end) = settings.ends.iter().position(|end| *end == from) else {
                account.strangers += 1;
                continue;
            };
            account.received[end] += 1;
            match socket.send_to(&buffer[..length], settings.ends[1 - end]) {
                Ok(_) => account.sent[1 - end] += 1,
                Err(_) => account.failed += 1,
            }
        }
    }
    let Some(path) = &settings.account else {
        return Ok(());
    };
    let json = serde_json::to_vec(&account).map_err(LabError::failed("writing", path.display()))?;
    std::fs::write(path, json).map_err(LabError::file("writing", path))
}
