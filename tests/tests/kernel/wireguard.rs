//! wireguard-go between two namespaces.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use vpnbench_common::catalog::Tap;
use vpnbench_tests::wireguard::End;

use crate::hosts::{Family, Host, wire, wired};
use crate::recorder::{Recorded, Row, record_with};
use crate::traffic::{flood, iperf3, local, ping, reachable};

/// Two hosts with a tunnel: network 99 outside, 98 inside.
pub(crate) struct Pair {
    // Daemons end before their namespaces are deleted: fields are dropped in this order.
    pub(crate) ends: [End; 2],
    pub(crate) hosts: [Host; 2],
}

impl Pair {
    pub(crate) fn new(family: Family) -> Result<Self> {
        let hosts = wired(family)?;
        let start = |host: &Host, number| -> Result<End> {
            End::start(&host.namespace, 51820, &family.with_prefix(98, number))
        };
        let ends = [start(&hosts[0], 1)?, start(&hosts[1], 2)?];
        for (own, other, number) in [(&ends[0], &ends[1], 2), (&ends[1], &ends[0], 1)] {
            let endpoint = SocketAddr::new(family.address(99, number), 51820);
            let length = if family == Family::V4 { 32 } else { 128 };
            let allowed = format!("{}/{length}", family.address(98, number));
            own.peer(other, &endpoint.to_string(), &allowed)?;
        }
        let pair = Self { ends, hosts };
        reachable(&pair.hosts[0], family.address(98, 2))?;
        Ok(pair)
    }

    /// Numbers of the daemons' processes.
    pub(crate) fn daemons(&self) -> [u32; 2] {
        [self.ends[0].pid(), self.ends[1].pid()]
    }

    pub(crate) fn selectors(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (host, end) in self.hosts.iter().zip(&self.ends) {
            all.extend(["--netns", host.name(), "--tun", &end.device].map(str::to_owned));
        }
        all
    }
}

pub(crate) fn wireguard_go(family: Family) -> Result<()> {
    let pair = Pair::new(family)?;
    let [a, b] = &pair.hosts;
    let to = family.address(98, 2);
    let sender = a.udp(family.address(98, 1), 0)?;
    let receiver = b.udp(to, 0)?;
    // Other traffic on the wire, which the filter leaves out but counts.
    let beside = a.udp(family.address(99, 1), 0)?;
    let beside_to = local(&b.udp(family.address(99, 2), 0)?)?;
    let selectors = pair.selectors();
    let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
    let target = local(&receiver)?;
    let recorded = record_with(&pair.daemons(), &[a, b], &selectors, || {
        // Before the flood, which a slow machine still has in its queues for longer than a ping waits.
        ping(a, to)?;
        flood(&sender, target, 5000, 1300)?;
        flood(&beside, beside_to, 500, 1300)?;
        iperf3(a, b, to, 8 << 20)?;
        Ok(())
    })?;
    let mut on_wire: BTreeMap<Tap, Vec<Row<2>>> = BTreeMap::new();
    for index in 0..2 {
        for (tap, row) in check(&recorded, &pair, index)? {
            on_wire.entry(tap).or_default().push(row);
        }
    }
    for (tap, rows) in &on_wire {
        recorded.agree(*tap, wire(), rows)?;
    }
    ensure!(
        recorded.parts(a, wire(), Tap::OuterTx).1 >= 500,
        "nothing filtered"
    );
    Ok(())
}

/// Checks the taps of one end's tunnel; those of the wire, which has the same name at both ends.
fn check(recorded: &Recorded, pair: &Pair, index: usize) -> Result<Vec<(Tap, Row<2>)>> {
    let (host, device) = (&pair.hosts[index], pair.ends[index].device.as_str());
    let tunnel = recorded.accounts[index].link(device)?;
    let link = recorded.accounts[index].link(wire())?;
    recorded.same_counters(host, device, tunnel)?;
    recorded.same_counters(host, wire(), link)?;
    let taps = [
        (device, Tap::TunRead, [tunnel.tx_packets, tunnel.tx_bytes]),
        (device, Tap::TunWrite, [tunnel.rx_packets, tunnel.rx_bytes]),
        (wire(), Tap::OuterTx, [link.tx_packets, link.tx_bytes]),
        (wire(), Tap::OuterRx, [link.rx_packets, link.rx_bytes]),
    ];
    let mut figures = Vec::new();
    let mut on_wire = Vec::new();
    for (device, tap, counted) in taps {
        let seen: [u64; 2] = recorded.seen(host, device, tap)?.into();
        if device == wire() {
            on_wire.push((tap, (seen, counted)));
        } else {
            recorded.agree(tap, device, &[(seen, counted)])?;
        }
        let filtered = recorded.parts(host, device, tap).1;
        figures.push(format!(
            "{} {} ({filtered} filtered)",
            tap.name(),
            counted[0]
        ));
    }
    let handed = recorded.seen(host, device, Tap::TunTx)?.0;
    let counted = tunnel.tx_packets + tunnel.tx_dropped;
    recorded.agree(Tap::TunTx, device, &[([handed], [counted])])?;
    let full = recorded.drops(host, "FULL_RING").0;
    // A packet that a hidden task hands over may also be one that is dropped.
    let hidden = counted - handed;
    ensure!(
        full <= tunnel.tx_dropped && tunnel.tx_dropped - full <= hidden,
        "FULL_RING {full}, {tunnel:?}, hidden {hidden}"
    );
    figures.push(format!("tun.tx {handed}, of these dropped {full}"));
    crate::say(&format!("  {}", figures.join(", ")));
    Ok(on_wire)
}
