//! TCP retransmissions.

/// Kernel stack frames kept with a retransmission: enough to reach the caller that decided.
pub const STACK_DEPTH: usize = 12;

super::tcp::tcp_state_event! {
    /// One call of `__tcp_retransmit_skb` with the sender's state at that instant. The stack
    /// names the cause exactly; the state corroborates it.
    Retransmit, 408 bytes {
        /// kernel address of the retransmitted skb
        skb: u64,
        /// time of the skb's last transmission, ns of the TCP clock (`skb_mstamp_ns`), 0 unknown
        sent_ns: u64,
        /// 0 sent; negative errno otherwise (kernels before 6.17 report successes only)
        error: i32,
        /// first sequence number (`TCP_SKB_CB(skb)->seq`)
        seq: u32,
        /// sequence number after the last byte (`end_seq`)
        end_seq: u32,
        /// bytes of payload in the skb
        len: u32,
        /// `tcp_gso_segs`, at least 1: what TcpRetransSegs counts
        segments: u16,
        /// `TCP_SKB_CB(skb)->sacked` bits before this retransmission is entered
        sacked: u8,
        /// low byte of the skb's TCP flags (SYN 2)
        tcp_flags: u8,
        /// valid entries of `stack`
        depth: u32,
        /// kernel return addresses, innermost first
        stack: [u64; 12],
    }
}

crate::event! {
    /// A SYN-ACK sent again (`tcp_retransmit_synack`); one segment in TcpRetransSegs.
    SynAckRetransmit = SynAckRetransmit, 80 bytes {
        /// kernel address of the listening socket
        sk: u64,
        /// kernel address of the request socket
        request: u64,
        /// inode number of the network namespace
        netns: u32,
        /// local port
        lport: u16,
        /// remote port
        rport: u16,
        /// 4 or 6
        ip_version: u8,
        /// retransmissions of this SYN-ACK so far (`num_timeout`), 255 unknown
        timeouts: u8,
        /// reserved, 0
        reserved: [u8; 6],
        /// local address; IPv4 in the first four bytes
        laddr: [u8; 16],
        /// remote address; IPv4 in the first four bytes
        raddr: [u8; 16],
    }
}
