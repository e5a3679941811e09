//! What the three device probes share: filter by port, then record the packet.

use core::arch::asm;

use vpnbench_common::catalog::{ProbeId, Tap};
use vpnbench_common::event::{PAYLOAD_MAX, Packet, Payload};
use vpnbench_common::header::Header;
use vpnbench_common::settings::{Device, role};

use crate::kernel::Pointer;
use crate::skb::{Direction, Parsed, Place, Segmentation, cloned, parse, place, segmentation};
use crate::{emit, filter, need, setting};

/// A record of kind `$kind` with what a packet's place, segmentation and headers say, and fields of
/// its own: the twin of `packet_event!`, which declares them.
macro_rules! packet_record {
    ($kind:ident, $device:expr, $place:expr, $gso:expr, $parsed:expr, { $($own:tt)* }) => {{
        let (device, place, gso, parsed) = ($device, $place, $gso, $parsed);
        $kind {
            netns: device.netns,
            ifindex: device.ifindex,
            len: place.len,
            payload_len: parsed.payload_len,
            vlan_tci: place.vlan_tci,
            gso_size: gso.size,
            gso_segs: gso.segments(parsed.payload_len),
            gso_type: gso.kind,
            ethertype: place.ethertype,
            ip_proto: parsed.ip_proto,
            ip_version: parsed.ip_version,
            tos: parsed.tos,
            ttl: parsed.ttl,
            frag: parsed.frag,
            ip_id: parsed.ip_id,
            sport: parsed.sport,
            dport: parsed.dport,
            seq: parsed.seq,
            ack: parsed.ack,
            tcp_flags: parsed.tcp_flags,
            window: parsed.window,
            tsval: parsed.tsval,
            tsecr: parsed.tsecr,
            marker: parsed.marker,
            l4_len: parsed.l4_len,
            l2_len: place.l2_len,
            saddr: $crate::sock::bytes(parsed.saddr),
            daddr: $crate::sock::bytes(parsed.daddr),
            $($own)*
        }
    }};
}
pub(super) use packet_record;

/// The taps of a probe on a tunnel and on an outer device.
#[derive(Clone, Copy)]
pub struct Taps {
    pub tunnel: Tap,
    pub outer: Tap,
}

/// Records `skb` on `dev` if the device is watched and the packet passes the port filter.
#[inline(always)]
pub fn observe(probe: ProbeId, skb: Pointer, dev: Pointer, direction: Direction, taps: Taps) {
    let Some(device) = filter::device(dev) else {
        return;
    };
    let tap = if device.role == role::TUNNEL {
        taps.tunnel
    } else {
        taps.outer
    };
    let place = place(skb, direction, device.l2_len);
    let gso = segmentation(skb);
    let parsed = parse(&place, gso.size != 0);
    if device.port_filter != 0 && !belongs(device, &parsed, direction) {
        emit::count_filtered(device, tap as u8, place.len);
        return;
    }
    let Some(slot) = emit::reserve::<Packet>(probe) else {
        emit::count_lost(device, tap as u8, place.len);
        return;
    };
    let time_ns = slot.time_ns;
    emit::fill(slot, |header| {
        record(header, skb, device, tap, &place, gso, &parsed)
    });
    if setting!(keep_payload) != 0 && parsed.payload_len != 0 {
        keep_payload(probe, time_ns, skb, tap, &place, &parsed);
    }
}

/// Whether a packet on an outer device is the daemon's: by its local port. A later fragment has
/// no port and is always kept.
#[inline(always)]
pub fn belongs(device: &Device, parsed: &Parsed, direction: Direction) -> bool {
    if parsed.frag & 0x1fff != 0 {
        return true;
    }
    let local = if direction == Direction::Transmit {
        parsed.sport
    } else {
        parsed.dport
    };
    filter::port(device.netns, local, parsed.ip_proto)
}

#[inline(always)]
fn record(
    header: Header,
    skb: Pointer,
    device: &Device,
    tap: Tap,
    place: &Place,
    gso: Segmentation,
    parsed: &Parsed,
) -> Packet {
    let clone = if cloned(skb) {
        vpnbench_common::event::packet_flags::CLONED
    } else {
        0
    };
    packet_record!(Packet, device, place, gso, parsed, {
        header,
        skb: skb as u64,
        sk: need!(skb, skb_sk as u64),
        tap: tap as u8,
        flags: parsed.flags | clone,
    })
}

/// A length of at most [`PAYLOAD_MAX`], in the register that was compared: the compiler compares others that
/// hold the same, and the verifier of Linux 6.1 does not carry over from those what it learned.
#[inline(always)]
fn at_most_all(len: u32) -> u32 {
    let mut len = u64::from(len);
    // SAFETY: changes its register only.
    unsafe {
        asm!(
            "if {len} <= {most} goto +1",
            "{len} = {most}",
            len = inout(reg) len,
            most = const PAYLOAD_MAX,
            options(pure, nomem, nostack),
        );
    }
    len as u32
}

/// Copies the first payload bytes that are in the linear area. Only with `--keep-payload`.
#[inline(always)]
fn keep_payload(
    probe: ProbeId,
    time_ns: u64,
    skb: Pointer,
    tap: Tap,
    place: &Place,
    parsed: &Parsed,
) {
    let start = parsed.l4_offset + u32::from(parsed.l4_len);
    let linear = place.available.saturating_sub(start);
    let mut len = setting!(keep_payload);
    if len > linear {
        len = linear;
    }
    if len > parsed.payload_len {
        len = parsed.payload_len;
    }
    if len == 0 || len > PAYLOAD_MAX as u32 {
        return;
    }
    let Some(mut slot) = emit::reserve::<Payload>(probe) else {
        return;
    };
    let to = slot.as_mut_ptr();
    let len = at_most_all(len);
    // SAFETY: the record is reserved for us, and zero; `len` is bounded by its size above.
    unsafe {
        // That of its packet, by which the two are found to belong together.
        (*to).header.time_ns = time_ns;
        (*to).skb = skb as u64;
        (*to).tap = u32::from(tap as u8);
        (*to).len = len;
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(
            (&raw mut (*to).bytes).cast(),
            len,
            (place.l3 + u64::from(start)) as *const _,
        );
    }
    slot.submit();
}
