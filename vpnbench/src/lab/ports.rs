//! Waiting until a program has a port open: that process itself, not whatever else has the port.

use std::path::Path;
use std::time::Duration;

use procfs::net::TcpState;
use procfs::process::Process as View;

use super::error::{LabError, Result};
use super::process::Process;
use super::{netns, wait};
use crate::probe::discover::process;
use crate::probe::discover::socket::{self, TCP, UDP};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Transport::Udp => UDP,
            Transport::Tcp => TCP,
        }
    }
}

/// Waits until a program listens on a TCP port, or has bound a UDP port. Where it does not come to
/// that and another program has the port, the error names that one.
pub(super) fn wait(
    program: &Process,
    transport: Transport,
    port: u16,
    limit: Duration,
) -> Result<()> {
    let what = format!(
        "{} to open {} port {port}",
        program.name(),
        transport.name()
    );
    let waited = wait::until(&what, limit, &[program], || {
        Ok(has_open(program, transport, port).then_some(()))
    });
    waited.map_err(|error| {
        let failed = matches!(error, LabError::Ended { .. } | LabError::TimedOut { .. });
        let holder = program.netns().filter(|_| failed);
        match holder.and_then(|netns| holder_of(netns, transport, port)) {
            Some((pid, name)) => {
                let object = format!("{} port {port} for {}", transport.name(), program.name());
                let why = format!(
                    "{name}, pid {pid}, has it; choose another port for one of them ({error})"
                );
                LabError::failed("opening", object)(why)
            }
            None => error,
        }
    })
}

fn has_open(program: &Process, transport: Transport, port: u16) -> bool {
    let Some(Ok(view)) = i32::try_from(program.pid()).ok().map(View::new) else {
        return false;
    };
    let own = socket::inodes(program.pid());
    let holds = |inode| own.contains(&(transport.number(), inode));
    match transport {
        Transport::Tcp => {
            let multipath = socket::holds_multipath(program.pid());
            let all = [view.tcp(), view.tcp6()];
            let mut entries = all.into_iter().flatten().flatten();
            entries.any(|entry| {
                entry.state == TcpState::Listen
                    && entry.local_address.port() == port
                    && (multipath || holds(entry.inode))
            })
        }
        Transport::Udp => {
            let all = [view.udp(), view.udp6()];
            let mut entries = all.into_iter().flatten().flatten();
            entries.any(|entry| entry.local_address.port() == port && holds(entry.inode))
        }
    }
}

/// The process that has a port of a namespace open, if it is one that can be seen.
fn holder_of(netns: &Path, transport: Transport, port: u16) -> Option<(u32, String)> {
    let number = transport.number();
    let table = netns::run_in(netns, || Ok(socket::table(0, number))).ok()?;
    let bound = |inode: u64| {
        table.get(&inode).is_some_and(|socket| {
            socket.local_port == port && (socket.listening || transport == Transport::Udp)
        })
    };
    let mut pids = process::pids().into_iter();
    let pid = pids.find(|&pid| socket::inodes(pid).iter().any(|&(_, inode)| bound(inode)))?;
    Some((pid, process::comm(pid).unwrap_or_else(|| "?".to_owned())))
}
