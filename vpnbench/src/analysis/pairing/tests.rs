//! A model tunnel whose losses are known, against the books.

use std::collections::BTreeMap;

use bytemuck::Zeroable;
use proptest::prelude::*;
use vpnbench_common::catalog::{Kind, Tap};
use vpnbench_common::event::{Drop, Packet, Taken, packet_flags};
use vpnbench_common::layout;

use super::{Output, Pairing};
use crate::analysis::Context;
use crate::trace::Event;
use crate::trace::model::{Clock, End, Start, Symbols, WatchedDevice};

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// The TUN ring is full.
    RingDrop,
    /// The daemon reads it and does not send it.
    DaemonLoss,
    /// It leaves and does not arrive.
    WireLoss,
    /// The receiver's socket is full.
    SocketDrop,
    /// The receiver's daemon takes it and does not write it.
    ReceiverLoss,
}

const FATES: [Fate; 6] = [
    Fate::Arrives,
    Fate::RingDrop,
    Fate::DaemonLoss,
    Fate::WireLoss,
    Fate::SocketDrop,
    Fate::ReceiverLoss,
];

#[derive(Default)]
struct Records(Vec<Vec<u64>>);

impl Records {
    fn push<E: layout::Event>(&mut self, event: &E) {
        self.0
            .push(bytemuck::cast_slice(bytemuck::bytes_of(event)).to_vec());
    }

    fn packet(&mut self, time_ns: u64, tap: Tap, number: u32, size: u32) {
        let mut packet = Packet::zeroed();
        packet.header.time_ns = time_ns;
        packet.header.kind = Kind::Packet as u8;
        packet.header.tid = 7;
        let right = matches!(tap, Tap::OuterRx | Tap::TunWrite);
        let outer = matches!(tap, Tap::OuterQueue | Tap::OuterTx | Tap::OuterRx);
        (packet.netns, packet.tap) = (if right { 2 } else { 1 }, tap as u8);
        // Few addresses: they are used again and again.
        packet.skb = u64::from(number % 5) * 2 + u64::from(outer) + 1;
        (packet.ip_version, packet.ip_proto) = (4, 17);
        if outer {
            (packet.len, packet.payload_len, packet.l2_len) = (size + 74, size + 32, 14);
            (packet.flags, packet.marker) = (packet_flags::WIREGUARD, number);
            (packet.dport, packet.saddr[0], packet.daddr[0]) = (51820, 10, 11);
        } else {
            (packet.len, packet.payload_len) = (size, size - 28);
            (packet.ip_id, packet.saddr[0], packet.daddr[0]) = (number & 0xffff, 12, 13);
        }
        self.push(&packet);
    }

    fn taken(&mut self, time_ns: u64, tap: Tap, number: u32, size: u32) {
        let mut taken = Taken::zeroed();
        taken.header.time_ns = time_ns;
        taken.header.kind = Kind::Taken as u8;
        taken.header.tid = 7;
        let right = tap == Tap::OuterRecv;
        (taken.tap, taken.netns, taken.location) = (tap as u8, if right { 2 } else { 1 }, 9);
        (taken.len, taken.skb) = (size, u64::from(number % 5) * 2 + 1);
        if right {
            (taken.len, taken.port, taken.ip_proto, taken.skb) = (size + 32, 51820, 17, 0);
        }
        self.push(&taken);
    }

    fn drop(&mut self, time_ns: u64, netns: u32, number: u32, outer: bool) {
        let mut drop = Drop::zeroed();
        drop.header.time_ns = time_ns;
        drop.header.kind = Kind::Drop as u8;
        (drop.netns, drop.skb) = (netns, u64::from(number % 5) * 2 + u64::from(outer) + 1);
        self.push(&drop);
    }
}

/// One packet after the other through the tunnel.
fn record(fates: &[(Fate, u32)]) -> Records {
    let mut records = Records::default();
    for (at, &(fate, size)) in fates.iter().enumerate() {
        let number = at as u32 + 65_530;
        let start = 1_000_000_000 + at as u64 * 1_000_000;
        records.packet(start, Tap::TunQueue, number, size);
        records.packet(start + 1, Tap::TunTx, number, size);
        if fate == Fate::RingDrop {
            records.drop(start + 2, 1, number, false);
            continue;
        }
        records.taken(start + 100, Tap::TunRead, number, size);
        if fate == Fate::DaemonLoss {
            continue;
        }
        records.packet(start + 200, Tap::OuterQueue, number, size);
        records.packet(start + 201, Tap::OuterTx, number, size);
        if fate == Fate::WireLoss {
            continue;
        }
        records.packet(start + 300, Tap::OuterRx, number, size);
        if fate == Fate::SocketDrop {
            records.drop(start + 301, 2, number, true);
            continue;
        }
        records.taken(start + 400, Tap::OuterRecv, number, size);
        if fate != Fate::ReceiverLoss {
            records.packet(start + 500, Tap::TunWrite, number, size);
        }
    }
    records
}

fn analyse(records: &[Vec<u64>], lost: &BTreeMap<u8, u64>) -> Output {
    let device = |netns, ifindex, role: &str| WatchedDevice {
        netns,
        ifindex,
        role: role.to_owned(),
        ..WatchedDevice::default()
    };
    let devices = vec![
        device(1, 1, "tunnel"),
        device(1, 2, "outer"),
        device(2, 1, "tunnel"),
        device(2, 2, "outer"),
    ];
    let start = Start {
        devices,
        ..Start::default()
    };
    let mut pairing = Pairing::default();
    pairing.begin(&start);
    // Whether `outer.recv` is observed comes from the probes, which this start frame has none of.
    pairing.without_recv = false;
    for record in records {
        pairing.observe(&Event::from_record(record).expect("a record of a known kind"));
    }
    let end = End {
        clock: Clock {
            monotonic_ns: 60_000_000_000,
            ..Clock::default()
        },
        ..End::default()
    };
    let symbols = Symbols::default();
    let context = Context::new(&start, Some(&end), &[], &symbols, lost);
    pairing.finish(&context).0
}

fn count(fates: &[(Fate, u32)], wanted: Fate) -> u64 {
    fates.iter().filter(|(fate, _)| *fate == wanted).count() as u64
}

fn lost_in(output: &Output, stage: &str) -> u64 {
    output
        .ledger
        .stages
        .iter()
        .filter(|row| row.name == stage)
        .map(|row| row.lost)
        .sum()
}

fn fates() -> impl Strategy<Value = Vec<(Fate, u32)>> {
    let fate = prop_oneof![8 => Just(Fate::Arrives), 2 => prop::sample::select(FATES.to_vec())];
    let size = prop_oneof![Just(1420u32), Just(120u32), 200u32..1400];
    prop::collection::vec((fate, size), 50..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each loss is found in the stage in which it happened, and nothing is unexplained.
    #[test]
    fn every_loss_is_in_its_stage(fates in fates()) {
        let output = analyse(&record(&fates).0, &BTreeMap::new());
        for (fate, stage) in [
            (Fate::RingDrop, "tun-queue"),
            (Fate::DaemonLoss, "daemon-send"),
            (Fate::WireLoss, "wire"),
            (Fate::SocketDrop, "outer-socket"),
            (Fate::ReceiverLoss, "daemon-receive"),
        ] {
            prop_assert_eq!(lost_in(&output, stage), count(&fates, fate), "{}", stage);
        }
        prop_assert_eq!(output.ledger.balanced, Some(true), "{:?}", output.ledger.reason);
    }

    /// Events that are missing with their loss marker make the verdict unknown, never wrong.
    #[test]
    fn missing_events_make_it_unknown(fates in fates(), keep in 2usize..9) {
        let records = record(&fates).0;
        let all = records.len();
        let kept: Vec<Vec<u64>> =
            records.into_iter().enumerate().filter(|(at, _)| at % keep != 1).map(|(_, one)| one).collect();
        let lost = BTreeMap::from([(1, (all - kept.len()) as u64)]);
        let output = analyse(&kept, &lost);
        prop_assert_eq!(output.ledger.balanced, None);
        prop_assert!(output.ledger.reason.is_some());
    }

    /// The same trace gives the same result, whatever the hash tables did.
    #[test]
    fn repeated_runs_agree(fates in fates()) {
        let records = record(&fates).0;
        prop_assert_eq!(analyse(&records, &BTreeMap::new()), analyse(&records, &BTreeMap::new()));
    }
}

/// What a socket still holds when it is closed had arrived: freeing it is no loss of any stage, although
/// its addresses and headers are those of packets that crossed the wire.
#[test]
fn what_is_freed_with_a_socket_is_not_lost_on_the_way() {
    let mut records = record(&[(Fate::Arrives, 1420); 20]);
    let end = 2_000_000_000;
    for number in 65_530..65_550 {
        let mut outer = Records::default();
        outer.packet(end, Tap::OuterRx, number, 1420);
        let mut drop = Drop::zeroed();
        let packet: &[u8] = bytemuck::cast_slice(&outer.0[0]);
        bytemuck::bytes_of_mut(&mut drop)[..packet.len()].copy_from_slice(packet);
        drop.header.kind = Kind::Drop as u8;
        records.push(&drop);
    }
    let output = analyse(&records.0, &BTreeMap::new());
    let lost: u64 = output.ledger.stages.iter().map(|row| row.lost).sum();
    assert_eq!((lost, output.ledger.balanced), (0, Some(true)));
    assert_eq!(output.ledger.drops_elsewhere.units, 20);
}

/// The sender's daemon uses a device that is not watched: what arrived was not lost in it, and what did not
/// is lost there or on the way.
#[test]
fn what_leaves_by_another_device_is_not_lost_in_the_daemon() {
    let mut fates = [(Fate::Arrives, 1420); 40];
    fates[7].0 = Fate::WireLoss;
    let mut records = record(&fates).0;
    // Only a handshake goes the watched way.
    let mut kept = 0;
    records.retain(|record| {
        let event = Event::from_record(record).expect("a record of a known kind");
        let sends = matches!(event, Event::Packet(packet)
            if [Tap::OuterQueue as u8, Tap::OuterTx as u8].contains(&packet.tap));
        kept += u32::from(sends);
        !sends || kept <= 4
    });
    let output = analyse(&records, &BTreeMap::new());
    assert_eq!(lost_in(&output, "daemon-send"), 0, "{:?}", output.ledger);
    let row = output
        .ledger
        .stages
        .iter()
        .find(|row| row.name == "daemon-send");
    let row = row.expect("a row");
    assert_eq!((row.entered, row.left, row.unexplained), (40, 39, 1));
    assert_eq!(output.ledger.balanced, Some(false));
    assert!(output.losses.iter().all(|loss| loss.stage != "daemon-send"));
}

/// Nothing at all is seen leaving: the daemon may be dead, or the wrong device is watched.
#[test]
fn without_any_outer_packet_no_loss_is_proven() {
    let mut fates = [(Fate::DaemonLoss, 1420); 40];
    let output = analyse(&record(&fates).0, &BTreeMap::new());
    assert_eq!(lost_in(&output, "daemon-send"), 0, "{:?}", output.ledger);
    assert_eq!(output.ledger.balanced, Some(false));
    // One that is seen is enough.
    fates[0].0 = Fate::Arrives;
    let output = analyse(&record(&fates).0, &BTreeMap::new());
    assert_eq!(lost_in(&output, "daemon-send"), 39);
}

#[test]
fn times_are_those_of_the_model() {
    let output = analyse(&record(&[(Fate::Arrives, 1420); 100]).0, &BTreeMap::new());
    let p50 = |name: &str| {
        output
            .stages
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.p50_us)
    };
    assert_eq!(p50("tun-queue"), Some(0.099));
    assert_eq!(p50("daemon-send"), Some(0.1));
    assert_eq!(p50("daemon-receive"), Some(0.1));
    assert_eq!(output.waterfalls.first().map(|row| row.total_us), Some(0.5));
}
