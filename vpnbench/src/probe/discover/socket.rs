//! The sockets of a daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};

use procfs::FromReadSI;
use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries};

use crate::trace::model::OuterSocket;

/// IP protocol number of UDP.
pub(crate) const UDP: u8 = 17;
/// IP protocol number of TCP.
pub(crate) const TCP: u8 = 6;

/// Inode numbers of the TCP and UDP sockets among a process's descriptors, with the protocol.
/// Where the kernel does not tell it, a socket is listed under both.
pub(crate) fn inodes(pid: u32) -> BTreeSet<(u8, u64)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    let mut inodes = BTreeSet::new();
    for entry in entries.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let text = target
            .to_str()
            .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        if let Some(inode) = text.and_then(|text| text.parse().ok()) {
            inodes.extend(
                protocols(&entry.path())
                    .iter()
                    .map(|&protocol| (protocol, inode)),
            );
        }
    }
    inodes
}

/// Whether a process holds a multipath TCP socket, as Go's listeners are by default. The kernel's
/// tables list its subflows only, under inode numbers that no descriptor has (net/mptcp/subflow.c).
pub(crate) fn holds_multipath(pid: u32) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32];
    entries.flatten().any(|entry| {
        rustix::fs::getxattr(entry.path(), c"system.sockprotoname", &mut buffer)
            .is_ok_and(|(name, _)| name.starts_with(b"MPTCP"))
    })
}

/// Asks a socket for its protocol, so that unix and netlink sockets are not searched for in every
/// namespace, nor the TCP tables for UDP: the kernel walks its whole hash table for those.
fn protocols(path: &std::path::Path) -> &'static [u8] {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32];
    match rustix::fs::getxattr(path, c"system.sockprotoname", &mut buffer) {
        Ok((name, _)) if name.starts_with(b"UDP") => &[UDP],
        Ok((name, _)) if name.starts_with(b"TCP") => &[TCP],
        Ok(_) => &[],
        Err(_) => &[UDP, TCP],
    }
}

/// Sockets of one protocol in the calling thread's namespace, by inode number.
pub(crate) fn table(netns: u32, protocol: u8) -> BTreeMap<u64, OuterSocket> {
    let mut table = BTreeMap::new();
    let mut add = |ip_proto, local: SocketAddr, remote: SocketAddr, inode, listening| {
        // Inode 0: the kernel's own or a dying socket.
        if inode == 0 {
            return;
        }
        let remote = (remote.port() != 0).then(|| (plain(remote.ip()), remote.port()));
        let (local, local_port) = (plain(local.ip()), local.port());
        table.insert(
            inode,
            OuterSocket {
                ip_proto,
                local,
                local_port,
                remote,
                netns,
                inode,
                listening,
            },
        );
    };
    let system = procfs::current_system_info();
    let wanted =
        |own: u8, files: [&'static str; 2]| files.into_iter().filter(move |_| protocol == own);
    for file in wanted(UDP, ["udp", "udp6"]) {
        let path = format!("/proc/thread-self/net/{file}");
        for entry in UdpNetEntries::from_file(path, system)
            .map(|list| list.0)
            .unwrap_or_default()
        {
            add(
                UDP,
                entry.local_address,
                entry.remote_address,
                entry.inode,
                false,
            );
        }
    }
    for file in wanted(TCP, ["tcp", "tcp6"]) {
        let path = format!("/proc/thread-self/net/{file}");
        for entry in TcpNetEntries::from_file(path, system)
            .map(|list| list.0)
            .unwrap_or_default()
        {
            let listening = entry.state == TcpState::Listen;
            add(
                TCP,
                entry.local_address,
                entry.remote_address,
                entry.inode,
                listening,
            );
        }
    }
    table
}

/// IPv4 addresses in IPv6 clothes become IPv4 addresses.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether a socket can carry outer packets: not only reachable on the machine itself, and not
/// bound to an address inside the tunnel (a daemon's own service for its peers).
pub(crate) fn is_outer(socket: &OuterSocket, inside: &[IpAddr]) -> bool {
    let loops = socket
        .remote
        .is_some_and(|(address, _)| address.is_loopback());
    socket.local_port != 0
        && !socket.local.is_loopback()
        && !loops
        && !inside.contains(&socket.local)
}

/// The socket for a sentence: `udp 10.0.0.1:51820`.
pub fn text(socket: &OuterSocket) -> String {
    let protocol = if socket.ip_proto == TCP { "tcp" } else { "udp" };
    let local = SocketAddr::new(socket.local, socket.local_port);
    match socket.remote {
        Some((address, port)) => format!("{protocol} {local} > {}", SocketAddr::new(address, port)),
        None => format!("{protocol} {local}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn own_sockets_are_found() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("[::1]:0");
        let (_unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let inodes = inodes(std::process::id());
        let mut table = super::table(1, UDP);
        table.extend(super::table(1, TCP));
        let port = udp.local_addr().unwrap().port();
        let own: Vec<&OuterSocket> = inodes
            .iter()
            .filter_map(|(_, inode)| table.get(inode))
            .collect();
        let found = own.iter().find(|socket| socket.local_port == port).unwrap();
        assert_eq!((found.ip_proto, found.netns, found.remote), (UDP, 1, None));
        assert_eq!(text(found), format!("udp 127.0.0.1:{port}"));
        assert!(!is_outer(found, &[]), "bound to loopback");
        if let Ok(tcp) = tcp {
            let port = tcp.local_addr().unwrap().port();
            assert!(
                own.iter()
                    .any(|socket| socket.local_port == port && socket.listening)
            );
        }
    }

    #[test]
    fn outer_or_not() {
        let mut socket = OuterSocket {
            ip_proto: UDP,
            local: "10.0.0.1".parse().unwrap(),
            local_port: 655,
            remote: Some(("10.0.0.2".parse().unwrap(), 655)),
            netns: 1,
            inode: 1,
            listening: false,
        };
        assert!(is_outer(&socket, &[]));
        assert!(!is_outer(&socket, &["10.0.0.1".parse().unwrap()]));
        assert_eq!(text(&socket), "udp 10.0.0.1:655 > 10.0.0.2:655");
        socket.remote = Some(("127.0.0.1".parse().unwrap(), 1));
        assert!(!is_outer(&socket, &[]));
        assert_eq!(
            plain("::ffff:1.2.3.4".parse().unwrap()),
            "1.2.3.4".parse::<IpAddr>().unwrap()
        );
    }
}
