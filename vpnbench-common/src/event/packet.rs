//! A packet (skb unit) at a tap.

/// Bits of [`Packet::flags`].
pub mod flags {
    /// The hardware-accelerated VLAN tag in `vlan_tci` is valid, or the tag was in the frame.
    pub const VLAN: u8 = 1;
    /// `tsval` and `tsecr` hold a TCP timestamp option.
    pub const TIMESTAMPS: u8 = 2;
    /// `marker` holds the low 32 bits of a WireGuard transport counter.
    pub const WIREGUARD: u8 = 4;
    /// Part of the headers was outside the linear area or malformed: later fields are 0.
    pub const TRUNCATED: u8 = 8;
    /// The skb is a clone; its address is that of the clone.
    pub const CLONED: u8 = 16;
    /// The UDP payload begins as a QUIC packet may (RFC 9000 section 17, RFC 9287).
    pub const QUIC: u8 = 32;
    /// The lowest bit of that first byte, which QUIC protects: as often set as not (RFC 9001 section 5.4).
    pub const QUIC_BIT: u8 = 64;
    /// The first bytes of the UDP payload could be read; those of most batches are outside of the linear area.
    pub const UDP_READ: u8 = 128;
}

/// An event that starts with a packet's identity, size, segmentation and parsed headers, and
/// goes on with fields of its own.
macro_rules! packet_event {
    ($(#[$meta:meta])* $name:ident, $size:literal bytes { $($own:tt)* }) => {
        crate::event! {
            $(#[$meta])*
            $name = $name, $size bytes {
                /// kernel address of the skb: identity between taps while the skb lives
                skb: u64,
                /// kernel address of the owning socket, 0 if none
                sk: u64,
                /// inode number of the device's network namespace
                netns: u32,
                /// interface index in that namespace
                ifindex: u32,
                /// bytes of the skb including the link-layer header, as the interface counters count
                len: u32,
                /// bytes of transport payload in this unit
                payload_len: u32,
                /// tap number (`catalog::Tap`)
                tap: u8,
                /// bits of `packet_flags`
                flags: u8,
                /// VLAN tag control information, 0 without a tag
                vlan_tci: u16,
                /// `gso_size` in bytes, 0 if the unit is one segment
                gso_size: u16,
                /// `gso_segs`, 0 if the unit is one segment
                gso_segs: u16,
                /// `SKB_GSO_*` bits
                gso_type: u32,
                /// EtherType in host byte order
                ethertype: u16,
                /// IPv4 protocol or last IPv6 next header
                ip_proto: u8,
                /// 4, 6, or 0 for anything else
                ip_version: u8,
                /// TOS or traffic class
                tos: u8,
                /// TTL or hop limit
                ttl: u8,
                /// IPv4 flags and offset as on the wire (DF 0x4000, MF 0x2000, offset in 8 bytes)
                frag: u16,
                /// IPv4 identification or IPv6 fragment identification, 0 if none
                ip_id: u32,
                /// source port; ICMP: identifier
                sport: u16,
                /// destination port; ICMP: type << 8 | code
                dport: u16,
                /// TCP sequence number; ICMP: sequence number
                seq: u32,
                /// TCP acknowledgement number
                ack: u32,
                /// TCP flags (FIN 1 .. CWR 0x80, AE 0x100)
                tcp_flags: u16,
                /// TCP window as on the wire
                window: u16,
                /// TCP timestamp value
                tsval: u32,
                /// TCP timestamp echo reply
                tsecr: u32,
                /// tunnel sequence marker, valid with `packet_flags::WIREGUARD`
                marker: u32,
                /// transport header length in bytes (TCP data offset x 4; UDP, ICMP 8)
                l4_len: u16,
                /// bytes of link-layer header counted in `len`
                l2_len: u16,
                /// source address; IPv4 in the first four bytes
                saddr: [u8; 16],
                /// destination address; IPv4 in the first four bytes
                daddr: [u8; 16],
                $($own)*
            }
        }
    };
}
pub(crate) use packet_event;

packet_event! {
    /// One skb unit at a tap of the tunnel or outer device. No payload byte.
    Packet, 136 bytes {}
}

impl Packet {
    /// Wire segments this unit holds: `max(1, gso_segs)` (`skb_shinfo(skb)->gso_segs`, include/linux/skbuff.h).
    #[inline]
    #[must_use]
    pub const fn segments(&self) -> u32 {
        if self.gso_segs > 1 {
            self.gso_segs as u32
        } else {
            1
        }
    }

    /// Whether this is a fragment other than the first, which carries no transport header.
    #[inline]
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.frag & 0x1fff != 0
    }
}
