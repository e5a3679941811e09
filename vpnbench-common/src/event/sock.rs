//! Life of a socket.

crate::event! {
    /// `inet_sock_set_state`: a TCP connection begins or ends.
    SockState = SockState, 80 bytes {
        /// kernel address of the socket
        sk: u64,
        /// inode number of the network namespace
        netns: u32,
        /// local port
        lport: u16,
        /// remote port
        rport: u16,
        /// 4 or 6
        ip_version: u8,
        /// IP protocol
        ip_proto: u8,
        /// state before (`TCP_ESTABLISHED` 1 ..)
        old: u8,
        /// state after
        new: u8,
        /// reserved, 0
        reserved: u32,
        /// bytes acknowledged by the peer so far
        bytes_acked: u64,
        /// local address; IPv4 in the first four bytes
        laddr: [u8; 16],
        /// remote address; IPv4 in the first four bytes
        raddr: [u8; 16],
    }
}
