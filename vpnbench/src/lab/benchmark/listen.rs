//! Waiting until a server listens: that process itself, not whatever else has the port.

use std::collections::BTreeSet;
use std::time::Duration;

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process as View};

use crate::lab::error::Result;
use crate::lab::process::Process;
use crate::lab::wait;

const LIMIT: Duration = Duration::from_secs(10);

/// Waits until a server listens on a TCP port.
pub(super) fn tcp(server: &Process, port: u16) -> Result<()> {
    until(
        server,
        &format!("to listen on TCP port {port}"),
        |view, own| {
            let all = [view.tcp(), view.tcp6()];
            let mut entries = all.into_iter().flatten().flatten();
            entries.any(|entry| {
                entry.state == TcpState::Listen
                    && entry.local_address.port() == port
                    && own.contains(&entry.inode)
            })
        },
    )
}

/// Waits until a server has bound a UDP port.
pub(super) fn udp(server: &Process, port: u16) -> Result<()> {
    until(server, &format!("to bind UDP port {port}"), |view, own| {
        let all = [view.udp(), view.udp6()];
        let mut entries = all.into_iter().flatten().flatten();
        entries.any(|entry| entry.local_address.port() == port && own.contains(&entry.inode))
    })
}

fn until(
    server: &Process,
    what: &str,
    is_there: impl Fn(&View, &BTreeSet<u64>) -> bool,
) -> Result<()> {
    let what = format!("{} {what}", server.name());
    wait::until(&what, LIMIT, &[server], || {
        let view = i32::try_from(server.pid()).ok().map(View::new);
        let Some(Ok(view)) = view else {
            return Ok(None);
        };
        let own = sockets(&view);
        Ok(is_there(&view, &own).then_some(()))
    })
}

/// Inode numbers of the sockets a process holds.
fn sockets(view: &View) -> BTreeSet<u64> {
    let fds = view.fd().into_iter().flatten().flatten();
    fds.filter_map(|fd| match fd.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    })
    .collect()
}
