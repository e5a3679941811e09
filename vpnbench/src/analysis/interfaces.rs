//! Interface counters beside what the taps counted. A pure join over outputs.
//!
//! What passed a tap is what was recorded plus what the filter left out plus what was lost. It is
//! compared with a counter only where both count the same objects:
//!
//! * TUN and TAP devices count skbs: `tx_packets` in `tun_do_read`, `tx_dropped` in `tun_net_xmit`,
//!   `rx_packets` in `tun_get_user` (drivers/net/tun.c); with IFF_NAPI GRO may merge writes
//!   before the tap.
//! * Other devices: transmit counters of hardware may count wire segments; receive counters count
//!   before GRO, the tap after it.
//! * Tunnels in the kernel count outer packets on transmit.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vpnbench_common::catalog::{ProbeId, Tap};

use super::books::{Reconciliation, Relation};
use super::drops;
use super::taps::TapCount;
use super::{Context, Problem};
use crate::trace::model::{Link, LinkCounters, TunnelKind, WatchedDevice};

/// `IFF_NAPI | IFF_NAPI_FRAGS` (include/uapi/linux/if_tun.h).
const TUN_NAPI: u32 = 0x0010 | 0x0020;

const UNSETTLED: &str = "the counter grew by as much between its readings before and after watching \
    began or ended";

/// What passed a tap of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// Tap name.
    pub tap: String,
    /// Units: recorded, left out by the filter, and lost.
    pub units: u64,
    /// Of these, recorded.
    pub recorded_units: u64,
    /// Of these, other traffic left out by the filter.
    pub filtered_units: u64,
    /// Of these, without room in the ring buffer.
    pub lost_units: u64,
    /// Bytes of all `units`; null where the tap does not see them.
    pub bytes: Option<u64>,
}

/// One watched device: its counters over the run and what its taps saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Device.
    pub device: String,
    /// Inode number of its namespace.
    pub netns: u32,
    /// Name of its namespace.
    pub namespace: String,
    /// "tunnel" or "outer".
    pub role: String,
    /// Link kind; null for hardware or unknown.
    pub kind: Option<String>,
    /// Increase of the counters over the run; null if a snapshot lacks the device or it was
    /// created again.
    pub counters: Option<LinkCounters>,
    /// What its taps saw.
    pub seen: Vec<Seen>,
}

impl Interface {
    /// Units and bytes that the counters of a virtual device count as sent beyond those that its tap saw. Hardware may
    /// count segments, and a device without counters says nothing: null.
    #[must_use]
    pub fn hidden(&self, tap: Tap) -> Option<(u64, u64)> {
        self.kind.as_ref()?;
        let counted = self.counters?;
        let seen = self.seen.iter().find(|row| row.tap == tap.name());
        let (units, bytes) = seen.map_or((0, Some(0)), |row| (row.units, row.bytes));
        Some((
            counted.tx_packets.checked_sub(units)?,
            counted.tx_bytes.checked_sub(bytes?)?,
        ))
    }
}

/// Interfaces and their books.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Watched devices.
    pub interfaces: Vec<Interface>,
    /// Counters beside taps.
    pub books: Vec<Reconciliation>,
}

/// Lays counters and taps side by side.
#[must_use]
pub fn join(
    context: &Context<'_>,
    taps: &[TapCount],
    drops: &drops::Output,
) -> (Output, Vec<Problem>) {
    let mut watched: BTreeMap<(u32, &str), &WatchedDevice> = BTreeMap::new();
    let changed = context.changes.iter().flat_map(|change| &change.devices);
    for device in context.start.devices.iter().chain(changed) {
        watched.insert((device.netns, &device.name), device);
    }
    let mut output = Output::default();
    let mut problems = Vec::new();
    for device in watched.into_values() {
        let (before, after) = links(context, device);
        let captured = context.is_captured(device.netns);
        let counters = match (before, after) {
            // A capture has no counters, unless they were given with it.
            (Some(before), Some(after)) if captured => {
                let none = LinkCounters::default();
                let given = after.counters != none || before.counters != none;
                let grown = after.counters.since(&before.counters);
                grown.filter(|_| given)
            }
            _ if captured => None,
            (Some(before), Some(after)) if before.ifindex == after.ifindex => {
                after.counters.since(&before.counters)
            }
            // Created during the run: its counters began at 0.
            (None, Some(after)) => Some(after.counters),
            _ => None,
        };
        if counters.is_none() && context.end.is_some() && !captured {
            let message = format!(
                "{} has no counters over the whole run, so its taps cannot be checked",
                device.name
            );
            problems.push(Problem::info("interfaces", message));
        }
        let interface = Interface {
            device: device.name.clone(),
            netns: device.netns,
            namespace: context.namespace_name(device.netns),
            role: device.role.clone(),
            kind: before.or(after).and_then(|link| link.kind.clone()),
            counters,
            seen: seen(context, taps, device),
        };
        let sheet = Sheet {
            context,
            interface: &interface,
            link: before.or(after),
            unsettled: [before, after].map(|link| link.and_then(|link| link.unsettled)),
            taps,
            drops,
        };
        if !captured || interface.counters.is_some() {
            output.books.extend(sheet.lines());
        }
        output.interfaces.push(interface);
    }
    (output, problems)
}

fn links<'a>(
    context: &Context<'a>,
    device: &WatchedDevice,
) -> (Option<&'a Link>, Option<&'a Link>) {
    let (start, end) = context.namespace(device.netns);
    let find = |links: &'a [Link]| links.iter().find(|link| link.name == device.name);
    (
        start.and_then(|one| find(&one.links)),
        end.and_then(|one| find(&one.links)),
    )
}

fn seen(context: &Context<'_>, taps: &[TapCount], device: &WatchedDevice) -> Vec<Seen> {
    let mut rows = Vec::new();
    for tap in Tap::ALL {
        let recorded = find(taps, device.netns, &device.name, tap);
        let left_out = context.end.and_then(|end| {
            end.unrecorded.iter().find(|one| {
                one.netns == device.netns && one.device == device.name && one.tap == tap as u8
            })
        });
        if recorded.is_none() && left_out.is_none() {
            continue;
        }
        let recorded_units = recorded.map_or(0, |row| row.units);
        let (filtered, lost, more_bytes) = left_out.map_or((0, 0, 0), |one| {
            (
                one.filtered_units,
                one.lost_units,
                one.filtered_bytes + one.lost_bytes,
            )
        });
        let bytes = recorded.map_or(Some(0), |row| row.bytes);
        rows.push(Seen {
            tap: tap.name().to_owned(),
            units: recorded_units + filtered + lost,
            recorded_units,
            filtered_units: filtered,
            lost_units: lost,
            bytes: bytes.map(|bytes| bytes + more_bytes),
        });
    }
    rows
}

fn find<'a>(taps: &'a [TapCount], netns: u32, device: &str, tap: Tap) -> Option<&'a TapCount> {
    taps.iter().find(|row| {
        row.netns == netns && row.device.as_deref() == Some(device) && row.tap == tap.name()
    })
}

/// The books of one device.
struct Sheet<'a> {
    context: &'a Context<'a>,
    interface: &'a Interface,
    link: Option<&'a Link>,
    /// What the counters grew by while watching began and ended.
    unsettled: [Option<LinkCounters>; 2],
    taps: &'a [TapCount],
    drops: &'a drops::Output,
}

impl Sheet<'_> {
    fn lines(&self) -> Vec<Reconciliation> {
        let tunnel = self.context.tunnels().find(|tunnel| {
            tunnel.netns == self.interface.netns && tunnel.interface == self.interface.device
        });
        match (
            self.interface.role.as_str(),
            tunnel.map(|tunnel| (tunnel.kind, tunnel.tun_flags)),
        ) {
            ("tunnel", Some((TunnelKind::Tun | TunnelKind::Tap, flags))) => {
                self.tun(flags.unwrap_or(0))
            }
            ("tunnel", _) => vec![
                self.line("tx_packets", Tap::TunTx, Relation::NotComparable)
                    .note("a tunnel in the kernel counts outer packets on transmit"),
                self.line("rx_packets", Tap::TunWrite, Relation::NotComparable)
                    .note("a tunnel in the kernel also counts keepalives, before GRO"),
            ],
            _ => vec![self.transmit(), self.receive()],
        }
    }

    fn tun(&self, flags: u32) -> Vec<Reconciliation> {
        let writes = if flags & TUN_NAPI == 0 {
            self.line("rx_packets", Tap::TunWrite, Relation::Equal)
        } else {
            self.line("rx_packets", Tap::TunWrite, Relation::NotComparable)
                .note("with IFF_NAPI writes may be merged before the tap")
        };
        let dropped: u64 = self
            .drops
            .drops
            .iter()
            .filter(|row| row.netns == self.interface.netns)
            .filter(|row| row.device.as_deref() == Some(&self.interface.device))
            .filter(|row| row.stage == "tun-queue")
            .map(|row| row.units)
            .sum();
        let kernel = self.interface.counters.map(|counters| counters.tx_dropped);
        let dropped = self.context.attached(ProbeId::KfreeSkb).then_some(dropped);
        let name = format!("{}.tx_dropped", self.interface.device);
        let drops = Reconciliation::new(&name, &self.place(), kernel, dropped, Relation::Equal)
            .explain(self.unsettled(|one| one.tx_dropped), UNSETTLED);
        vec![
            self.line("tx_packets", Tap::TunRead, Relation::Equal),
            drops,
            writes,
        ]
    }

    fn transmit(&self) -> Reconciliation {
        let software = self.interface.kind.as_deref().is_some_and(counts_units);
        if software || self.single(Tap::OuterTx) {
            return self.line("tx_packets", Tap::OuterTx, Relation::Equal);
        }
        self.line("tx_packets", Tap::OuterTx, Relation::NotComparable)
            .note("the driver may count wire segments, the tap counts skbs")
    }

    fn receive(&self) -> Reconciliation {
        let offloads = self.link.map(|link| &link.offloads);
        let gro = offloads.and_then(|all| {
            all.get("rx-gro")
                .or_else(|| all.get("generic-receive-offload"))
        });
        if gro == Some(&false) || self.single(Tap::OuterRx) {
            return self.line("rx_packets", Tap::OuterRx, Relation::Equal);
        }
        self.line("rx_packets", Tap::OuterRx, Relation::NotComparable)
            .note("the counter is before GRO, the tap after it")
    }

    /// Whether everything at the tap was recorded and is one segment per unit, so that counting
    /// units, segments or packets before GRO comes to the same.
    fn single(&self, tap: Tap) -> bool {
        let row = find(self.taps, self.interface.netns, &self.interface.device, tap);
        let complete = self
            .seen(tap)
            .is_none_or(|seen| seen.units == seen.recorded_units);
        complete && row.is_none_or(|row| row.units == row.segments)
    }

    fn observed(&self, tap: Tap) -> bool {
        self.context.attached(match tap {
            Tap::TunRead => ProbeId::ConsumeSkb,
            Tap::TunTx | Tap::OuterTx => ProbeId::NetDevStartXmit,
            _ => ProbeId::NetifReceiveSkb,
        })
    }

    fn seen(&self, tap: Tap) -> Option<&Seen> {
        self.interface
            .seen
            .iter()
            .find(|seen| seen.tap == tap.name())
    }

    fn line(&self, counter: &str, tap: Tap, relation: Relation) -> Reconciliation {
        let kernel = self.interface.counters.map(|counters| match counter {
            "rx_packets" => counters.rx_packets,
            _ => counters.tx_packets,
        });
        let own = self
            .observed(tap)
            .then(|| self.seen(tap).map_or(0, |seen| seen.units));
        let name = format!("{}.{counter}", self.interface.device);
        let unsettled = self.unsettled(|one| match counter {
            "rx_packets" => one.rx_packets,
            _ => one.tx_packets,
        });
        let line = Reconciliation::new(&name, &self.place(), kernel, own, relation)
            .explain(unsettled, UNSETTLED);
        match self.seen(tap) {
            Some(seen) if seen.lost_units > 0 => line.add_note(&format!(
                "{} of the units at {} were counted, not recorded",
                seen.lost_units,
                tap.name()
            )),
            _ => line,
        }
    }

    fn unsettled(&self, of: impl Fn(&LinkCounters) -> u64) -> u64 {
        self.unsettled.iter().flatten().map(of).sum()
    }

    fn place(&self) -> String {
        self.context.namespace_name(self.interface.netns)
    }
}

/// Software devices whose transmit counter counts skbs, as the tap does.
fn counts_units(kind: &str) -> bool {
    matches!(kind, "veth" | "dummy" | "bridge" | "vlan" | "ifb")
}
