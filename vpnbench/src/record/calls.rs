//! System calls of watched processes that are recorded.

/// Calls that move packets in or out of a TUN device or socket.
pub(super) const PACKET_CALLS: &[u32] = &[
    libc::SYS_read as u32,
    libc::SYS_readv as u32,
    libc::SYS_write as u32,
    libc::SYS_writev as u32,
    libc::SYS_sendto as u32,
    libc::SYS_sendmsg as u32,
    libc::SYS_sendmmsg as u32,
    libc::SYS_recvfrom as u32,
    libc::SYS_recvmsg as u32,
    libc::SYS_recvmmsg as u32,
    libc::SYS_splice as u32,
    libc::SYS_io_uring_enter as u32,
];

/// Calls after which a process may have other sockets or tunnels.
pub(super) const SOCKET_CALLS: &[u32] = &[
    libc::SYS_socket as u32,
    libc::SYS_bind as u32,
    libc::SYS_connect as u32,
    libc::SYS_accept4 as u32,
];
