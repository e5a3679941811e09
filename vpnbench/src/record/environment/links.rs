//! Interfaces with their queueing disciplines and counters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Stats64};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::offloads::Ethtool;
use super::{Missing, kept};
use crate::probe::discover::{link, netlink};
use crate::trace::model::{Link, LinkCounters, Qdisc};

/// Interfaces of the calling thread's namespace, by index.
pub(super) fn read(missing: &mut Missing) -> Vec<Link> {
    let messages = kept(link::link_messages(), "interfaces", missing).unwrap_or_default();
    let addresses = kept(link::addresses(), "addresses", missing).unwrap_or_default();
    let mut qdiscs = kept(qdiscs(), "queueing disciplines", missing).unwrap_or_default();
    let ethtool = kept(Ethtool::open(), "offloads", missing);
    let mut links: Vec<Link> = messages
        .iter()
        .map(|message| {
            let mut link = convert(message, &addresses);
            link.qdiscs = qdiscs.remove(&link.ifindex).unwrap_or_default();
            if let Some(ethtool) = &ethtool {
                let what = format!("offloads of {}", link.name);
                link.offloads =
                    kept(ethtool.features(&link.name), &what, missing).unwrap_or_default();
            }
            link
        })
        .collect();
    links.sort_by_key(|link| link.ifindex);
    links
}

/// Counters alone of the calling thread's interfaces, by index.
pub(super) fn counters_by_index() -> BTreeMap<u32, LinkCounters> {
    let messages = link::link_messages().unwrap_or_default();
    let links = messages.iter().map(|message| convert(message, &[]));
    links.map(|link| (link.ifindex, link.counters)).collect()
}

fn convert(message: &LinkMessage, addresses: &[(u32, IpAddr, u8)]) -> Link {
    let ifindex = message.header.index;
    let own = addresses.iter().filter(|(index, ..)| *index == ifindex);
    let flags = message
        .header
        .flags
        .iter_names()
        .map(|(name, _)| snake(name));
    let mut link = Link {
        ifindex,
        name: link::name_of(message).unwrap_or_default().to_owned(),
        kind: link::kind_of(message).map(ToString::to_string),
        addresses: own
            .map(|(_, address, length)| format!("{address}/{length}"))
            .collect(),
        flags: flags.collect(),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::TxQueueLen(length) => link.tx_queue_len = *length,
            LinkAttribute::Stats64(stats) => link.counters = counters(stats),
            _ => {}
        }
    }
    link
}

fn counters(stats: &Stats64) -> LinkCounters {
    LinkCounters {
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        rx_dropped: stats.rx_dropped,
        tx_dropped: stats.tx_dropped,
        rx_errors: stats.rx_errors,
        tx_errors: stats.tx_errors,
    }
}

/// `LowerUp` -> `lower_up`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Queueing disciplines by interface index, in the kernel's order.
fn qdiscs() -> std::io::Result<BTreeMap<u32, Vec<Qdisc>>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let answer = netlink::dump(NETLINK_ROUTE, request)?;
    let mut qdiscs: BTreeMap<u32, Vec<Qdisc>> = BTreeMap::new();
    for message in answer.messages {
        if let RouteNetlinkMessage::NewQueueDiscipline(message) = message {
            qdiscs
                .entry(message.header.index as u32)
                .or_default()
                .push(qdisc(&message));
        }
    }
    Ok(qdiscs)
}

fn qdisc(message: &TcMessage) -> Qdisc {
    let mut qdisc = Qdisc {
        parent: handle(message.header.parent),
        ..Qdisc::default()
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => qdisc.kind.clone_from(kind),
            TcAttribute::Stats2(stats) => {
                for stat in stats {
                    if let TcStats2::Queue(queue) = stat {
                        qdisc.drops = u64::from(queue.drops);
                        qdisc.backlog = u64::from(queue.qlen);
                    }
                }
            }
            _ => {}
        }
    }
    qdisc
}

/// A handle as `tc` prints it.
fn handle(handle: TcHandle) -> String {
    if handle == TcHandle::ROOT {
        "root".to_owned()
    } else {
        format!("{:x}:{:x}", handle.major, handle.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(snake("LowerUp"), "lower_up");
        assert_eq!(snake("Up"), "up");
        assert_eq!(handle(TcHandle::ROOT), "root");
        assert_eq!(
            handle(TcHandle {
                major: 0x8001,
                minor: 0x10
            }),
            "8001:10"
        );
    }
}
