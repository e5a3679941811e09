//! Second tier: the daemon took a datagram off its outer socket, with the skb's identity.

use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;
use vpnbench_common::catalog::{ProbeId, Tap};
use vpnbench_common::event::Taken;

use crate::kernel::Pointer;
use crate::skb::segmentation;
use crate::{emit, field, filter, sock};

#[fentry(function = "skb_consume_udp")]
fn skb_consume_udp(ctx: FEntryContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let skb: Pointer = ctx.arg(1);
    let netns = sock::netns(sk);
    let ip_proto = field!(sk, sk_protocol as u16) as u8;
    let port = sock::local_port(sk);
    if !filter::port(netns, port, ip_proto) {
        return 0;
    }
    let gso = segmentation(skb);
    emit::emit(ProbeId::SkbConsumeUdp, |header| Taken {
        header,
        skb: skb as u64,
        sk: sk as u64,
        location: 0,
        netns,
        ifindex: 0,
        // From the UDP header on: the datagram is 8 bytes shorter.
        len: field!(skb, skb_len as u32).saturating_sub(8),
        gso_segs: gso.segments,
        port,
        tap: Tap::OuterRecv as u8,
        ip_proto,
        l2_len: 0,
        reserved: 0,
        gso_size: gso.size,
        header_len: 0,
    });
    0
}
