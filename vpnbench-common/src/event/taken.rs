//! A packet leaves a queue into the hands of a process.

crate::event! {
    /// The daemon took a packet off the TUN queue (`tun.read`) or a datagram off its outer
    /// socket (`outer.recv`); the header's thread is the one that took it.
    Taken = Taken, 64 bytes {
        /// kernel address of the skb, 0 where the probe does not see it
        skb: u64,
        /// kernel address of the socket, 0 for TUN reads
        sk: u64,
        /// kernel code address that released the skb, 0 where the kernel does not tell (before 6.12)
        location: u64,
        /// inode number of the network namespace
        netns: u32,
        /// interface index, 0 for sockets
        ifindex: u32,
        /// bytes: skb length for TUN reads, datagram length for sockets
        len: u32,
        /// `gso_segs` of the skb, 0 if one segment or unknown
        gso_segs: u16,
        /// local port of the socket, 0 for TUN reads
        port: u16,
        /// tap number (`catalog::Tap`)
        tap: u8,
        /// IP protocol of the socket, 0 for TUN reads
        ip_proto: u8,
        /// bytes of link-layer header in `len`
        l2_len: u8,
        /// reserved, 0
        reserved: u8,
        /// `gso_size` of the skb, 0 if one segment or unknown
        gso_size: u16,
        /// bytes of network and transport header in `len`, each segment has its own; 0 for sockets, and where `gso_size` is 0
        header_len: u16,
    }
}
