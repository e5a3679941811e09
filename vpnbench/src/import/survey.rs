//! The first packets of all files: which way they went.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vpnbench_common::catalog::Tap;

use super::direction::{Address, Evidence, Near, ends_of};
use super::duplicates::signature;
use super::places::{Places, Role, ip, netns};
use super::stream::Item;
use super::{ImportError, Input, Place, Plan, SURVEY, TCP};
use crate::trace::model::OuterSocket;

/// `IPPROTO_UDP`
const UDP: u8 = 17;

/// Which addresses are near on each host.
pub(super) fn survey(
    inputs: &mut [Input],
    places: &mut Places,
    plan: &Plan,
) -> Result<Vec<Near>, ImportError> {
    let hosts = places.names().len();
    let mut evidence: Vec<Evidence> = Vec::new();
    evidence.resize_with(hosts, Default::default);
    for (name, ip) in &plan.local {
        if let Some(host) = places.names().iter().position(|one| one == name) {
            evidence[host].given(*ip);
        }
    }
    for input in inputs.iter_mut() {
        let exact = match input.place {
            Place::Tap(tap) => Some(matches!(tap, Tap::TunTx | Tap::OuterTx)),
            _ => None,
        };
        for ip in input.stream.addresses() {
            evidence[input.host].given(ip);
        }
        for item in input.stream.ahead(SURVEY)? {
            let outgoing = exact.or(item.outgoing);
            evidence[input.host].packet(&Item { outgoing, ..**item });
        }
    }
    crossed(inputs, places, &mut evidence);
    let nears: Vec<Near> = evidence.iter().map(Evidence::settle).collect();
    carried(inputs, places, &mut evidence, &nears);
    let nears: Vec<Near> = evidence.iter().map(Evidence::settle).collect();
    // An address is near on one host only.
    for (host, near) in nears.iter().enumerate() {
        for (other, far) in nears.iter().enumerate().filter(|one| one.0 != host) {
            for (address, score) in far.addresses() {
                let own = near.addresses().find(|one| one.0 == address);
                let own = own.map_or(0.0, |one| one.1);
                if score > own || (score == own && other < host) {
                    evidence[host].elsewhere(address, score + own);
                }
            }
        }
    }
    let mut nears: Vec<Near> = evidence.iter().map(Evidence::settle).collect();
    // Neither is it assumed to be near on two.
    for host in 1..hosts {
        let (before, rest) = nears.split_at_mut(host);
        for (pair, end) in before[0].assumed() {
            let other = if end == pair.0 { pair.1 } else { pair.0 };
            rest[0].assume(pair, other);
        }
    }
    Ok(nears)
}

/// What carries each host's tunnel: the flow of most bytes on its outer devices, datagrams first, as
/// TCP beside them is other traffic.
pub(super) fn carriers(
    inputs: &[Input],
    places: &mut Places,
    nears: &mut [Near],
) -> Vec<Option<OuterSocket>> {
    let flows = nears.iter_mut().enumerate().map(|(host, near)| {
        let mut flows: BTreeMap<(bool, u8, Address, u16, Address, u16), u64> = BTreeMap::new();
        for (number, input) in inputs.iter().enumerate().filter(|one| one.1.host == host) {
            let file = input.stream.file();
            for item in input.stream.waiting() {
                let found = places.find(number, host, input.place, item.device, file);
                let packet = &item.packet;
                let carries = matches!(packet.ip_proto, TCP | UDP) && !packet.is_later_fragment();
                let Some((from, to)) = ends_of(packet).filter(|_| carries) else {
                    continue;
                };
                if found.role != Role::Outer {
                    continue;
                }
                let (from, to) = ((from, packet.sport), (to, packet.dport));
                let (local, remote) = match near.peek(item) {
                    true => (from, to),
                    false => (to, from),
                };
                let datagrams = packet.ip_proto == UDP;
                let key = (
                    datagrams,
                    packet.ip_proto,
                    local.0,
                    local.1,
                    remote.0,
                    remote.1,
                );
                *flows.entry(key).or_default() += u64::from(packet.len);
            }
        }
        let most = flows.into_iter().max_by_key(|(key, bytes)| (key.0, *bytes));
        most.map(
            |((_, ip_proto, local, local_port, remote, port), _)| OuterSocket {
                ip_proto,
                local: ip(local),
                local_port,
                remote: Some((ip(remote), port)),
                netns: netns(host),
                inode: 0,
                listening: false,
            },
        )
    });
    flows.collect()
}

/// Packets that two hosts saw on devices of one role.
fn crossed(inputs: &[Input], places: &mut Places, evidence: &mut [Evidence]) {
    for role in [Role::Tunnel, Role::Outer] {
        let mut first: FxHashMap<u64, (usize, u64)> = FxHashMap::default();
        let mut seen: FxHashMap<(usize, usize), Vec<_>> = FxHashMap::default();
        for (number, input) in inputs.iter().enumerate() {
            let file = input.stream.file();
            for item in input.stream.waiting() {
                let found = places.find(number, input.host, input.place, item.device, file);
                let packet = &item.packet;
                let Some((from, to)) = ends_of(packet).filter(|_| found.role == role) else {
                    continue;
                };
                // Super-packets may be cut differently at the two ends.
                if packet.gso_segs > 1 || packet.ip_id == 0 && packet.payload_len == 0 {
                    continue;
                }
                let place = first.entry(signature(packet, 0));
                let (host, time) = *place.or_insert((input.host, item.time_ns));
                if host != input.host {
                    let later = item.time_ns.wrapping_sub(time) as i64;
                    let both = seen.entry((host, input.host)).or_default();
                    both.push((from, to, later));
                }
            }
        }
        for ((one, other), packets) in seen {
            evidence[one].crossed(&packets);
            let back: Vec<_> = packets
                .iter()
                .map(|(from, to, later)| (*from, *to, -later))
                .collect();
            evidence[other].crossed(&back);
        }
    }
}

/// Outer packets beside the inner ones that they carry.
fn carried(inputs: &[Input], places: &mut Places, evidence: &mut [Evidence], nears: &[Near]) {
    for (host, near) in nears.iter().enumerate() {
        let mut inner = Vec::new();
        let mut outer: Vec<&Item> = Vec::new();
        for (number, input) in inputs.iter().enumerate().filter(|one| one.1.host == host) {
            let file = input.stream.file();
            for item in input.stream.waiting() {
                let found = places.find(number, host, input.place, item.device, file);
                if found.role == Role::Outer {
                    outer.push(item);
                } else if let Some(leaves) = near.known(item) {
                    let length = item.packet.len - u32::from(item.packet.l2_len);
                    inner.push((item.time_ns, length, leaves));
                }
            }
        }
        outer.sort_by_key(|item| item.time_ns);
        evidence[host].carried(&inner, &outer);
    }
}
