//! The kernel gives up a packet.

super::packet::packet_event! {
    /// `kfree_skb` of a packet on a watched device or of a watched socket. `tap` is
    /// `Tap::None`; a field that the dropped skb no longer has is 0.
    Drop, 160 bytes {
        /// kernel code address that dropped it
        location: u64,
        /// `enum skb_drop_reason` of this kernel; the trace holds the names
        reason: u32,
        /// interface on which it arrived (`skb_iif`), 0 if sent from this host
        iif: u32,
        /// role of the device (`settings::role`)
        role: u32,
        /// reserved, 0
        reserved2: u32,
    }
}

crate::event! {
    /// `udp_fail_queue_rcv_skb`: a datagram did not fit its socket.
    SockDrop = SockDrop, 96 bytes {
        /// kernel address of the socket
        sk: u64,
        /// kernel address of the skb, 0 before 6.12
        skb: u64,
        /// inode number of the network namespace
        netns: u32,
        /// return code: -12 receive buffer full (UdpRcvbufErrors), -105 memory limit (UdpMemErrors)
        error: i32,
        /// local port
        lport: u16,
        /// remote port of a connected socket, else 0
        rport: u16,
        /// 4 or 6
        ip_version: u8,
        /// IP protocol of the socket (17 UDP, 136 UDP-Lite)
        ip_proto: u8,
        /// reserved, 0
        reserved: u16,
        /// bytes of the skb, 0 before 6.12
        len: u32,
        /// `sk_rcvbuf` in bytes of truesize
        rcvbuf: u32,
        /// `sk_backlog.rmem_alloc` in bytes of truesize
        rmem: u32,
        /// reserved, 0
        reserved2: u32,
        /// local address; IPv4 in the first four bytes
        laddr: [u8; 16],
        /// remote address of a connected socket, else 0
        raddr: [u8; 16],
    }
}
