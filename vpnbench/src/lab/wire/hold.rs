//! The rule that holds packets inside the sending host until the embedded wire lets them go.
//!
//! At the end of the host's output (netfilter's POSTROUTING, after everything else) each packet for the
//! wire's device goes into a queue of nfnetlink_queue, which `embedded::held` reads. Meanwhile it stays
//! in the books of the socket that sent it, as in netem on the host's egress.
//!
//! Message formats: include/uapi/linux/netfilter/nf_tables.h, nf_tables_compat.h, xt_NFQUEUE.h.
//! Numbers are big-endian there.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::super::error::{LabError, Result};
use super::super::hosts::Host;
use super::super::netns;
use super::request::{self, Body, CREATE_NEW};

/// Number of the queue in each host's namespace.
pub(super) const QUEUE: u16 = 0;

/// nf_tables' number among netfilter's subsystems, and its messages.
const NF_TABLES: u16 = 10;
const NEW_TABLE: u16 = NF_TABLES << 8;
const NEW_CHAIN: u16 = NF_TABLES << 8 | 3;
const NEW_RULE: u16 = NF_TABLES << 8 | 6;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// NLM_F_CREATE and NLM_F_APPEND.
const APPEND: u16 = 0xc00;
const NAME: &str = "vpnbench";
const POSTROUTING: u32 = 4;
/// Behind every other hook: what is decided here is decided.
const LAST: u32 = 1000;
const OUT_DEVICE: u32 = 7;
const REGISTER: u32 = 1;
const EQUAL: u32 = 0;
/// IFNAMSIZ.
const DEVICE_NAME: usize = 16;

/// Makes what a host sends out of its wire device wait in its queue.
pub(super) fn add(host: &Host) -> Result<()> {
    netns::run_in(&host.netns, || {
        let has_ipv6 = host.ipv6.is_some();
        // nft_queue where there is one; else the target of iptables through nft_compat.
        add_rules(&host.device, has_ipv6, &queue())
            .or_else(|_| add_rules(&host.device, has_ipv6, &target()))
            .map_err(|error| {
                LabError::Skipped(format!(
                    "wire.place = \"host\" on the embedded wire: this kernel cannot hold packets in a \
                     queue (nf_tables with nft_queue, or with nft_compat and xt_NFQUEUE): {error}"
                ))
            })
    })
}

fn add_rules(device: &str, has_ipv6: bool, queue: &Body) -> io::Result<()> {
    let families: &[i32] = match has_ipv6 {
        true => &[libc::AF_INET, libc::AF_INET6],
        false => &[libc::AF_INET],
    };
    let mut messages = vec![(BATCH_BEGIN, 0, family(libc::AF_UNSPEC, NF_TABLES))];
    for number in families {
        let start = || family(*number, 0);
        let mut table = start();
        table.put_text(1, NAME);
        let mut hook = Body::default();
        hook.put(1, &POSTROUTING.to_be_bytes());
        hook.put(2, &LAST.to_be_bytes());
        let mut chain = start();
        chain.put_text(1, NAME).put_text(3, NAME);
        chain.put_nested(4, &hook).put_text(7, "filter");
        let mut rule = start();
        rule.put_text(1, NAME).put_text(2, NAME);
        rule.put_nested(4, &expressions(device, queue));
        messages.push((NEW_TABLE, CREATE_NEW, table));
        messages.push((NEW_CHAIN, CREATE_NEW, chain));
        messages.push((NEW_RULE, APPEND, rule));
    }
    messages.push((BATCH_END, 0, family(libc::AF_UNSPEC, NF_TABLES)));
    request::batch(NETLINK_NETFILTER, &messages)
}

/// `struct nfgenmsg`.
fn family(number: i32, resource: u16) -> Body {
    let [high, low] = resource.to_be_bytes();
    Body::new(&[number as u8, 0, high, low])
}

/// `oifname DEVICE`, and then the queue.
fn expressions(device: &str, queue: &Body) -> Body {
    let mut load = Body::default();
    load.put(1, &REGISTER.to_be_bytes());
    load.put(2, &OUT_DEVICE.to_be_bytes());
    let mut name = device.as_bytes().to_vec();
    name.resize(DEVICE_NAME, 0);
    let mut value = Body::default();
    value.put(1, &name);
    let mut compare = Body::default();
    compare.put(1, &REGISTER.to_be_bytes());
    compare.put(2, &EQUAL.to_be_bytes());
    compare.put_nested(3, &value);
    let mut all = Body::default();
    all.put_nested(1, &expression("meta", &load));
    all.put_nested(1, &expression("cmp", &compare));
    all.put_nested(1, queue);
    all
}

fn expression(name: &str, data: &Body) -> Body {
    let mut expression = Body::default();
    expression.put_text(1, name).put_nested(2, data);
    expression
}

/// nft_queue: one queue.
fn queue() -> Body {
    let mut data = Body::default();
    data.put(1, &QUEUE.to_be_bytes());
    data.put(2, &1_u16.to_be_bytes());
    expression("queue", &data)
}

/// The same by iptables' NFQUEUE in its first version, whose number is in the machine's order.
fn target() -> Body {
    let mut options = [0; 8];
    options[..2].copy_from_slice(&QUEUE.to_ne_bytes());
    let mut data = Body::default();
    data.put_text(1, "NFQUEUE").put(2, &0_u32.to_be_bytes());
    data.put(3, &options);
    expression("target", &data)
}
