//! Reads a `struct sk_buff`: where its headers are, how it is segmented, what the headers say.

use core::mem::MaybeUninit;

use vpnbench_common::event::packet_flags as flags;
use vpnbench_common::settings::MISSING;

use crate::kernel::{Pointer, copy};
use crate::{bits, need, setting};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const UDPLITE: u8 = 136;

/// The headers are read in one piece: an IPv6 header, a TCP header and its timestamps.
const HEADER_BYTES: usize = 80;
/// Where the transport header lies in [`Headers`] unless it follows a plain IPv4 header.
const L4_SLOT: usize = 40;

#[repr(C, align(8))]
struct Headers([u8; HEADER_BYTES]);

/// Which way a packet goes, which decides where its network header is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `data` is at the link-layer header, `network_header` is set.
    Transmit,
    /// `data` is at the network header, `network_header` is not set yet.
    Receive,
}

/// Where the parts of an skb are.
pub struct Place {
    /// Address of the network header.
    pub l3: u64,
    /// Linear bytes from there on.
    pub available: u32,
    /// All bytes from there on.
    pub l3_len: u32,
    /// Bytes including the link-layer header, as interface counters count.
    pub len: u32,
    /// Bytes of link-layer header in `len`.
    pub l2_len: u16,
    /// EtherType at `l3`.
    pub ethertype: u16,
    /// VLAN tag, 0 without one.
    pub vlan_tci: u16,
    /// [`flags::VLAN`] or 0.
    pub flags: u8,
}

/// Locates the headers of an skb.
#[inline(always)]
pub fn place(skb: Pointer, direction: Direction, l2_len: u32) -> Place {
    let head = need!(skb, skb_head as u64);
    let data = need!(skb, skb_data as u64);
    let tail = head + u64::from(need!(skb, skb_tail as u32));
    let skb_len = need!(skb, skb_len as u32);
    let mut tags = Tags {
        ethertype: u16::from_be(need!(skb, skb_protocol as u16)),
        tci: 0,
        flags: 0,
    };
    if need!(skb, skb_vlan_proto as u16) != 0 {
        tags.tci = need!(skb, skb_vlan_tci as u16);
        tags.flags = flags::VLAN;
    }
    // Bytes of link-layer header in front of `data`.
    let mut before = 0;
    let mut l3 = data;
    match direction {
        Direction::Transmit => {
            let network = head + u64::from(need!(skb, skb_network_header as u16));
            let linked = data + u64::from(l2_len);
            // A bridge leaves `network_header` at a tag.
            l3 = if network >= data && network < tail && !is_tag(tags.ethertype) {
                network
            } else {
                linked
            };
        }
        Direction::Receive => {
            let mac = head + u64::from(need!(skb, skb_mac_header as u16));
            if mac < data {
                before = (data - mac) as u32 & 0xff;
            }
        }
    }
    // Tags inside the frame: one, or two as in IEEE 802.1ad.
    l3 = tags.skip(l3);
    l3 = tags.skip(l3);
    let after = (l3 - data) as u32;
    Place {
        l3,
        available: if tail > l3 { (tail - l3) as u32 } else { 0 },
        l3_len: skb_len.wrapping_sub(after),
        len: skb_len + before,
        l2_len: (before + after) as u16,
        ethertype: tags.ethertype,
        vlan_tci: tags.tci,
        flags: tags.flags,
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD
}

/// VLAN tags of a frame; the outermost counts.
struct Tags {
    ethertype: u16,
    tci: u16,
    flags: u8,
}

impl Tags {
    /// If a tag is at `l3`, notes it and returns where it ends.
    #[inline(always)]
    fn skip(&mut self, l3: u64) -> u64 {
        let mut tag = MaybeUninit::<[u16; 2]>::uninit();
        if !is_tag(self.ethertype) || !copy(&mut tag, l3) {
            return l3;
        }
        // SAFETY: `copy` has written it.
        let tag = unsafe { tag.assume_init() };
        if self.flags & flags::VLAN == 0 {
            self.tci = u16::from_be(tag[0]);
            self.flags |= flags::VLAN;
        }
        self.ethertype = u16::from_be(tag[1]);
        l3 + 4
    }
}

/// How an skb is segmented.
#[derive(Clone, Copy)]
pub struct Segmentation {
    /// `gso_size`
    pub size: u16,
    /// `gso_segs`
    pub segments: u16,
    /// `gso_type`
    pub kind: u32,
}

impl Segmentation {
    /// `gso_segs`, computed for a super-packet that has not been counted: one that a process wrote
    /// to a TUN device (`virtio_net_hdr_to_skb`, include/linux/virtio_net.h).
    #[inline(always)]
    pub fn segments(&self, payload_len: u32) -> u16 {
        let size = u32::from(self.size);
        if self.segments != 0 || size == 0 {
            return self.segments;
        }
        payload_len.div_ceil(size) as u16
    }
}

/// Reads the shared info behind the linear area. Its first eight bytes hold size and count in all
/// kernels, and the type, which only a super-packet has, lies in the first 32; the loader refuses
/// offsets beyond. Two short reads are cheaper than a long one, as most packets need only one.
#[inline(always)]
pub fn segmentation(skb: Pointer) -> Segmentation {
    let end = need!(skb, skb_head as u64) + u64::from(need!(skb, skb_end as u32));
    let mut info = MaybeUninit::<u64>::uninit();
    copy(&mut info, end);
    let base: Pointer = info.as_ptr().cast();
    let mut found = Segmentation {
        size: need!(base, shinfo_gso_size as u16),
        segments: need!(base, shinfo_gso_segs as u16),
        kind: 0,
    };
    if found.size != 0 {
        let mut kind = MaybeUninit::<u32>::uninit();
        if copy(
            &mut kind,
            end + u64::from(setting!(offsets.shinfo_gso_type)),
        ) {
            // SAFETY: `copy` has written it.
            found.kind = unsafe { kind.assume_init() };
        }
    }
    found
}

/// What the headers say. All integers in host byte order.
#[derive(Clone, Copy, Default)]
pub struct Parsed {
    pub flags: u8,
    pub ip_version: u8,
    pub ip_proto: u8,
    pub tos: u8,
    pub ttl: u8,
    pub frag: u16,
    pub ip_id: u32,
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub tcp_flags: u16,
    pub window: u16,
    pub tsval: u32,
    pub tsecr: u32,
    pub marker: u32,
    pub l4_len: u16,
    pub payload_len: u32,
    /// Bytes from the network header to the transport header.
    pub l4_offset: u32,
    pub saddr: [u64; 2],
    pub daddr: [u64; 2],
}

#[inline(always)]
fn byte(at: *const u8, offset: usize) -> u8 {
    // SAFETY: callers stay inside `Headers`.
    unsafe { at.add(offset).read() }
}

#[inline(always)]
fn half(at: *const u8, offset: usize) -> u16 {
    // SAFETY: callers stay inside `Headers`; fields are aligned because both header slots are.
    u16::from_be(unsafe { at.add(offset).cast::<u16>().read() })
}

#[inline(always)]
fn word(at: *const u8, offset: usize) -> u32 {
    // SAFETY: as for `half`.
    u32::from_be(unsafe { at.add(offset).cast::<u32>().read() })
}

#[inline(always)]
fn long(at: *const u8, offset: usize) -> u64 {
    // SAFETY: as for `half`; only for the addresses of an IPv6 header, which are 8-aligned.
    unsafe { at.add(offset).cast::<u64>().read() }
}

/// Parses network and transport header.
#[inline(always)]
pub fn parse(place: &Place, gso: bool) -> Parsed {
    let mut parsed = Parsed {
        flags: place.flags,
        ..Parsed::default()
    };
    if place.ethertype != ETH_P_IP && place.ethertype != ETH_P_IPV6 {
        return parsed;
    }
    let mut headers = MaybeUninit::<Headers>::uninit();
    // An IPv4 header without options, a TCP header and its timestamps end at byte 52.
    let short: &mut MaybeUninit<[u64; 7]> =
        // SAFETY: the first 56 of 80 bytes, equally aligned.
        unsafe { &mut *headers.as_mut_ptr().cast() };
    let copied = if place.ethertype == ETH_P_IP {
        copy(short, place.l3)
    } else {
        copy(&mut headers, place.l3)
    };
    if !copied {
        parsed.flags |= flags::TRUNCATED;
        return parsed;
    }
    let at: *mut u8 = headers.as_mut_ptr().cast();
    let ipv4 = place.ethertype == ETH_P_IP;
    let l4 = if ipv4 {
        ipv4_header(&mut parsed, place, at)
    } else {
        ipv6_header(&mut parsed, place, at)
    };
    if l4.is_null() {
        parsed.flags |= flags::TRUNCATED;
        return parsed;
    }
    let claimed = if ipv4 {
        u32::from(half(at, 2))
    } else {
        u32::from(half(at, 4)) + 40
    };
    // A super-packet's length field is stale or 0 (BIG TCP); a short frame is padded.
    let l3_len = if gso || claimed < parsed.l4_offset || claimed > place.l3_len {
        place.l3_len
    } else {
        claimed
    };
    let after = l3_len.saturating_sub(parsed.l4_offset);
    if parsed.frag & 0x1fff != 0 {
        parsed.payload_len = after;
        return parsed;
    }
    let available = place.available.saturating_sub(parsed.l4_offset);
    transport(&mut parsed, l4, available, after);
    parsed
}

/// Returns where the transport header is in the buffer, null if the header is incomplete.
#[inline(always)]
fn ipv4_header(parsed: &mut Parsed, place: &Place, at: *mut u8) -> *const u8 {
    if place.available < 20 {
        return core::ptr::null();
    }
    parsed.ip_version = 4;
    parsed.tos = byte(at, 1);
    parsed.ip_id = u32::from(half(at, 4));
    parsed.frag = half(at, 6);
    parsed.ttl = byte(at, 8);
    parsed.ip_proto = byte(at, 9);
    parsed.saddr[0] = u64::from(word(at, 12).to_be());
    parsed.daddr[0] = u64::from(word(at, 16).to_be());
    let header = u32::from(byte(at, 0) & 15) * 4;
    parsed.l4_offset = header;
    if header < 20 {
        return core::ptr::null();
    }
    if header == 20 {
        // SAFETY: inside the 80 bytes of `Headers`.
        return unsafe { at.add(20) };
    }
    fetch_transport(place, at, header)
}

/// Options or extension headers moved the transport header: fetch it into its slot.
#[inline(always)]
fn fetch_transport(place: &Place, at: *mut u8, offset: u32) -> *const u8 {
    if offset >= place.available {
        return core::ptr::null();
    }
    // SAFETY: the slot is the last 40 bytes of the 80.
    let slot = unsafe { at.add(L4_SLOT) };
    let mut fetched = MaybeUninit::<[u64; 5]>::uninit();
    if !copy(&mut fetched, place.l3 + u64::from(offset)) {
        return core::ptr::null();
    }
    // SAFETY: both are 40 bytes and 8-aligned.
    unsafe { slot.cast::<[u64; 5]>().write(fetched.assume_init()) };
    slot
}

#[inline(always)]
fn ipv6_header(parsed: &mut Parsed, place: &Place, at: *mut u8) -> *const u8 {
    if place.available < 40 {
        return core::ptr::null();
    }
    parsed.ip_version = 6;
    parsed.tos = (half(at, 0) >> 4) as u8;
    parsed.ttl = byte(at, 7);
    parsed.saddr = [long(at, 8), long(at, 16)];
    parsed.daddr = [long(at, 24), long(at, 32)];
    parsed.l4_offset = 40;
    parsed.ip_proto = byte(at, 6);
    if is_transport(parsed.ip_proto) {
        // SAFETY: inside the 80 bytes of `Headers`.
        return unsafe { at.add(L4_SLOT) };
    }
    extension_headers(parsed, place, at)
}

#[inline(always)]
fn is_transport(proto: u8) -> bool {
    matches!(proto, TCP | UDP | ICMPV6 | UDPLITE)
}

/// Walks hop-by-hop, routing, destination and fragment headers, four at most.
#[inline(always)]
fn extension_headers(parsed: &mut Parsed, place: &Place, at: *mut u8) -> *const u8 {
    let mut offset = 40u32;
    let mut proto = parsed.ip_proto;
    let mut steps = 0;
    while steps < 4 && matches!(proto, 0 | 43 | 44 | 60) {
        let mut header = MaybeUninit::<[u32; 2]>::uninit();
        if offset + 8 > place.available || !copy(&mut header, place.l3 + u64::from(offset)) {
            break;
        }
        // SAFETY: `copy` has written it.
        let header = unsafe { header.assume_init() };
        let first = u32::from_be(header[0]);
        if proto == 44 {
            // As on an IPv4 wire: offset in units of 8 bytes, MF in 0x2000.
            parsed.frag = ((first & 0xfff8) >> 3) as u16 | ((first & 1) << 13) as u16;
            parsed.ip_id = u32::from_be(header[1]);
            offset += 8;
        } else {
            offset += (((first >> 16) & 0xff) + 1) * 8;
        }
        proto = (first >> 24) as u8;
        steps += 1;
        if parsed.frag & 0x1fff != 0 {
            // What follows is data from the middle.
            break;
        }
    }
    parsed.ip_proto = proto;
    parsed.l4_offset = offset;
    fetch_transport(place, at, offset)
}

#[inline(always)]
fn transport(parsed: &mut Parsed, at: *const u8, available: u32, after: u32) {
    let needed = if parsed.ip_proto == TCP { 20 } else { 8 };
    if !matches!(parsed.ip_proto, TCP | UDP | UDPLITE | ICMP | ICMPV6) {
        parsed.payload_len = after;
        return;
    }
    if available < needed || (parsed.ip_proto == TCP && byte(at, 12) < 0x50) {
        parsed.flags |= flags::TRUNCATED;
        return;
    }
    parsed.sport = half(at, 0);
    parsed.dport = half(at, 2);
    parsed.l4_len = 8;
    match parsed.ip_proto {
        TCP => tcp(parsed, at, available),
        ICMP | ICMPV6 => {
            parsed.dport = parsed.sport;
            parsed.sport = half(at, 4);
            parsed.seq = u32::from(half(at, 6));
        }
        _ => {
            wireguard(parsed, at, available);
            quic(parsed, at, available);
        }
    }
    parsed.payload_len = after.saturating_sub(u32::from(parsed.l4_len));
}

#[inline(always)]
fn tcp(parsed: &mut Parsed, at: *const u8, available: u32) {
    parsed.seq = word(at, 4);
    parsed.ack = word(at, 8);
    let bits = half(at, 12);
    parsed.tcp_flags = bits & 0x1ff;
    parsed.l4_len = (bits >> 12) * 4;
    parsed.window = half(at, 14);
    // Only the layout every stack sends (RFC 7323 appendix A): NOP, NOP, timestamps first.
    if parsed.l4_len >= 32 && available >= 32 && word(at, 20) == 0x0101_080a {
        parsed.flags |= flags::TIMESTAMPS;
        parsed.tsval = word(at, 24);
        parsed.tsecr = word(at, 28);
    }
}

/// WireGuard transport data: type 4 and three zero bytes, receiver, 64-bit counter
/// (whitepaper section 5.4.6). All in the clear; no payload byte is read.
#[inline(always)]
fn wireguard(parsed: &mut Parsed, at: *const u8, available: u32) {
    if available >= 24 && word(at, 8) == 0x0400_0000 {
        parsed.flags |= flags::WIREGUARD;
        parsed.marker = u32::from_be(word(at, 16)).to_le();
    }
}

/// Whether a UDP payload begins as a QUIC packet (RFC 9000 section 17): a short header, or a long one of
/// version 1 or 2; the fixed bit may be anything (RFC 9287). One byte says little; that all packets of a
/// socket do, and that a protected bit is random, says it.
#[inline(always)]
fn quic(parsed: &mut Parsed, at: *const u8, available: u32) {
    if available < 13 {
        return;
    }
    parsed.flags |= flags::UDP_READ;
    let first = byte(at, 8);
    let version = (word(at, 8) << 8) | u32::from(byte(at, 12));
    if first & 0x80 == 0 || matches!(version, 1 | 0x6b33_43cf) {
        parsed.flags |= flags::QUIC;
        if first & 1 != 0 {
            parsed.flags |= flags::QUIC_BIT;
        }
    }
}

/// Whether the skb is a clone.
#[inline(always)]
pub fn cloned(skb: Pointer) -> bool {
    setting!(offsets.skb_cloned) != MISSING && bits!(skb, skb_cloned) != 0
}
