//! A segment reaches an established TCP socket; the socket's state is from before it is processed.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::mem::MaybeUninit;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event::TcpProbe;
use vpnbench_common::settings::role;

use crate::kernel::{Pointer, copy, load};
use crate::skb::segmentation;
use crate::sock;
use crate::{emit, field, filter, setting, write_tcp_state};

#[btf_tracepoint(function = "tcp_probe")]
fn tcp_probe(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let skb: Pointer = ctx.arg(1);
    let netns = sock::netns(sk);
    let iif = field!(skb, skb_iif as u32);
    let Some(device) = filter::interface(netns, iif) else {
        return 0;
    };
    if device.role == role::OUTER
        && device.port_filter != 0
        && !filter::port(netns, sock::local_port(sk), 6)
    {
        return 0;
    }
    let tp = sock::tcp(sk);
    if tp.is_null() {
        return 0;
    }
    let Some(mut slot) = emit::reserve::<TcpProbe>(ProbeId::TcpProbe) else {
        return 0;
    };
    // SAFETY: the record is reserved for us and every field is written below.
    let to = unsafe { &mut *slot.as_mut_ptr() };
    write_tcp_state!(to, sk, tp);
    to.skb = skb as u64;
    to.gso_segs = 0;
    to.iif = iif;
    to.reserved2 = 0;
    segment(to, skb);
    slot.submit();
    0
}

/// The segment itself. `data` is at the TCP header, which TCP has pulled into the linear area.
#[inline(always)]
fn segment(to: &mut TcpProbe, skb: Pointer) {
    let data = field!(skb, skb_data as u64);
    let mut header = MaybeUninit::<[u32; 15]>::uninit();
    copy(&mut header, data);
    // SAFETY: `copy` writes all of it, zeros on failure.
    let header = unsafe { header.assume_init_ref() };
    let bits = u32::from_be(header[3]);
    let header_len = (bits >> 28) * 4;
    to.seq = u32::from_be(header[1]);
    to.ack = u32::from_be(header[2]);
    to.tcp_flags = (bits >> 16) as u16 & 0x1ff;
    to.window = bits as u16;
    to.payload_len = field!(skb, skb_len as u32).saturating_sub(header_len);
    to.gso_segs = segmentation(skb).segments(to.payload_len);
    to.dsfield = u32::from(load::<u8>(
        skb,
        setting!(offsets.skb_cb) + setting!(offsets.tcb_dsfield),
    ));
    to.options = 0;
    to.sack_count = 0;
    to.tsval = 0;
    to.tsecr = 0;
    to.sack = [0; 8];
    // NOP NOP timestamps, then NOP NOP SACK: what every stack sends (RFC 7323 appendix A).
    let timestamps = header_len >= 32 && header[5] == 0x0101_080au32.to_be();
    if timestamps {
        to.options = 1;
        to.tsval = u32::from_be(header[6]);
        to.tsecr = u32::from_be(header[7]);
        sack(to, header[8], header_len.saturating_sub(36), data + 36);
    } else {
        sack(to, header[5], header_len.saturating_sub(24), data + 24);
    }
}

/// SACK blocks after a `NOP NOP 5 length` word; `room` is what the header has left after it.
#[inline(always)]
fn sack(to: &mut TcpProbe, lead: u32, room: u32, at: u64) {
    let lead = u32::from_be(lead);
    if lead >> 8 != 0x0001_0105 {
        return;
    }
    let count = ((lead & 0xff).saturating_sub(2) / 8).min(room / 8).min(4);
    let mut blocks = MaybeUninit::<[u32; 8]>::uninit();
    if count == 0 || !copy(&mut blocks, at) {
        return;
    }
    // SAFETY: `copy` has written it.
    let blocks = unsafe { blocks.assume_init_ref() };
    to.sack_count = count as u8;
    let mut index = 0;
    while index < 8 {
        if (index as u32) < count * 2 {
            to.sack[index] = u32::from_be(blocks[index]);
        }
        index += 1;
    }
}
