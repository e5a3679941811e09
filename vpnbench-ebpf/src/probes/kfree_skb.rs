//! The kernel drops a packet: of a watched device, or of a socket that a watched device fed.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use vpnbench_common::catalog::{ProbeId, Tap};
use vpnbench_common::event::Drop;
use vpnbench_common::settings::{Device, role};

use super::packet::{belongs, packet_record};
use crate::kernel::Pointer;
use crate::skb::{Direction, parse, place, segmentation};
use crate::sock;
use crate::{emit, filter, need, setting};

#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let skb: Pointer = ctx.arg(0);
    let rx_sk: Pointer = if setting!(kfree_skb_params) > 3 {
        ctx.arg(3)
    } else {
        core::ptr::null()
    };
    let owner = need!(skb, skb_sk as Pointer);
    let sk = if rx_sk.is_null() { owner } else { rx_sk };
    let iif = need!(skb, skb_iif as u32);
    // Behind the device layer `dev` is cleared or reused, but the arrival index stays.
    let found = filter::device(need!(skb, skb_dev as Pointer)).or_else(|| {
        if sk.is_null() {
            None
        } else {
            filter::interface(sock::netns(sk), iif)
        }
    });
    if let Some(device) = found {
        record(&ctx, skb, sk, device, iif);
    }
    0
}

#[inline(always)]
fn record(ctx: &BtfTracePointContext, skb: Pointer, sk: Pointer, device: &Device, iif: u32) {
    let received = iif != 0 && iif == device.ifindex;
    let direction = if received {
        Direction::Receive
    } else {
        Direction::Transmit
    };
    let mut place = place(skb, direction, device.l2_len);
    if received {
        network_header(skb, &mut place);
    }
    let gso = segmentation(skb);
    let parsed = parse(&place, gso.size != 0);
    if device.role == role::OUTER && device.port_filter != 0 && !belongs(device, &parsed, direction)
    {
        return;
    }
    let location: u64 = ctx.arg(1);
    let reason: u32 = ctx.arg(2);
    emit::emit(ProbeId::KfreeSkb, |header| {
        packet_record!(Drop, device, &place, gso, &parsed, {
            header,
            skb: skb as u64,
            sk: sk as u64,
            tap: Tap::None as u8,
            flags: parsed.flags,
            location,
            reason,
            iif,
            role: device.role,
            reserved2: 0,
        })
    });
}

/// Up the stack `data` moves behind the headers while `network_header` stays: go back to it.
#[inline(always)]
fn network_header(skb: Pointer, place: &mut crate::skb::Place) {
    let head = need!(skb, skb_head as u64);
    let network = head + u64::from(need!(skb, skb_network_header as u16));
    let data = need!(skb, skb_data as u64);
    // Behind a tag inside the frame it is that of the tag.
    if network != head && network < place.l3 && place.l3 == data {
        let pulled = (place.l3 - network) as u32;
        if pulled < 256 {
            place.l3 = network;
            place.available += pulled;
            place.l3_len += pulled;
            // `len` was counted from the link-layer header to the end: unchanged. The header
            // itself is what lies between that and the network header.
            place.l2_len = place.l2_len.saturating_sub(pulled as u16);
        }
    }
}
