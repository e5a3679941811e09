//! Outer packets go elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vpnbench_common::catalog::{ProbeId, Tap};

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "path-detour",
    claim: "outer packets go to another address than the peer (relay, overlay hop)",
    judged: "outer packets of the sender whose destination is no address of the receiver's host, by bytes; and outer packets that reach the receiver from another host than the sender",
    needs: &[
        Need::Daemon,
        Need::Packets,
        Need::BothEnds,
        Need::Probe(ProbeId::NetDevStartXmit),
    ],
    remedy: "let the hosts reach each other directly: open the daemon's UDP port on both, name the peer's endpoint in its configuration, forbid relays; then compare again",
    refuted_by: "outer packets go to an address of the peer's host",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(way) = &facts.way else {
        return Judgement::unseen("no packet passed a tap");
    };
    let own = addresses(facts, &way.receiver);
    let sender = addresses(facts, &way.sender);
    if own.is_empty() {
        return Judgement::unseen("the addresses of the receiver's host are not known");
    }
    let daemon_ports: BTreeSet<u16> = facts
        .context
        .start
        .tunnels
        .iter()
        .flat_map(|tunnel| &tunnel.sockets)
        .map(|socket| socket.local_port)
        .collect();
    let (mut straight, mut elsewhere) = (0u64, 0u64);
    let mut others: BTreeSet<IpAddr> = BTreeSet::new();
    for row in facts.flows_at(Tap::OuterTx, &way.sender) {
        let (source, destination) = (end(&row.src), end(&row.dst));
        let Some((to, _)) = destination else { continue };
        let ours = source
            .is_some_and(|(from, port)| sender.contains(&from) && daemon_ports.contains(&port));
        if !ours {
            continue;
        }
        if own.contains(&to) {
            straight += row.bytes;
        } else {
            elsewhere += row.bytes;
            others.insert(to);
        }
    }
    let all = (straight + elsewhere) as f64;
    if all == 0.0 {
        return Judgement::unseen("no outer packet of the sender's daemon was seen");
    }
    let part = elsewhere as f64 / all;
    let (packets, _) = facts.passed(Tap::OuterTx, &way.sender).unwrap_or((0, 0));
    let names: Vec<String> = others.iter().map(IpAddr::to_string).collect();
    Known {
        // A relay carries the data, not only control traffic: most of the bytes.
        probability: confidence::ratio_above(part * packets as f64, packets as f64, 0.5),
        share: Some(part),
        summary: match names.as_slice() {
            [] => "all outer packets go to the peer's host".to_owned(),
            names => format!(
                "{} of the outer bytes go to {} instead of the peer",
                units::percent(part),
                names.join(", ")
            ),
        },
        evidence: vec![
            Evidence::new("outer bytes to other hosts", part, "ratio", "flows").expected("0"),
            Evidence::new(
                "other destinations",
                others.len() as f64,
                "addresses",
                "flows",
            )
            .expected("0"),
        ],
        remedy: None,
    }
    .into()
}

/// Addresses of a host.
fn addresses(facts: &Facts<'_>, namespace: &str) -> BTreeSet<IpAddr> {
    let environment = &facts.context.start.environment;
    let netns = facts.netns(namespace);
    let place = environment
        .namespaces
        .iter()
        .find(|one| Some(one.netns) == netns);
    let links = place.into_iter().flat_map(|place| &place.links);
    let texts = links.flat_map(|link| &link.addresses);
    texts
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .collect()
}

/// Address and port of `address:port` or `[address]:port`.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let end: std::net::SocketAddr = text.parse().ok()?;
    Some((end.ip(), end.port()))
}
