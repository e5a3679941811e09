//! Beside tshark and tcptrace on the same file, sender by sender. docs/captures.md lists where they differ and why.

#[path = "../../benches/captures/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::join::report;
use crate::tshark;

/// Packets of the file and connections at a time.
const PACKETS: u64 = 60_000;
const PARALLEL: u32 = 2;

/// What is compared of one sender.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Row {
    packets: u64,
    payload: u64,
    retransmitted: u64,
    out_of_order: u64,
    rtt_ms: f64,
}

type Rows = BTreeMap<String, Row>;

/// Why one of them cannot be asked here.
pub(crate) fn missing() -> Option<String> {
    let found = Command::new("tcptrace")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let tcptrace = found
        .is_err()
        .then(|| "tcptrace is not installed".to_owned());
    tshark::missing().or(tcptrace)
}

fn ours(path: &Path) -> Result<Rows> {
    let path = path.to_str().context("a path of letters")?;
    let report = report(&["analyze", path])?;
    let reordered: u64 = report.reordering.iter().map(|row| row.reordered).sum();
    let flows = report.flows.iter().filter(|flow| flow.protocol == "tcp");
    let rows = flows.map(|flow| {
        let row = Row {
            packets: flow.packets,
            payload: flow.payload_bytes,
            retransmitted: flow.retransmits.unwrap_or(0),
            out_of_order: reordered,
            rtt_ms: flow.rtt_us.as_ref().and_then(|rtt| rtt.p50).unwrap_or(0.0) / 1000.0,
        };
        (format!("{} > {}", flow.src, flow.dst), row)
    });
    Ok(rows.collect())
}

fn by_tshark(path: &Path) -> Result<Rows> {
    let fields = [
        "ip.src",
        "tcp.srcport",
        "ip.dst",
        "tcp.dstport",
        "tcp.len",
        "tcp.analysis.retransmission",
        "tcp.analysis.out_of_order",
        "tcp.analysis.ack_rtt",
    ];
    let mut tshark = Command::new("tshark");
    tshark
        .arg("-r")
        .arg(path)
        .args(["-T", "fields", "-E", "separator=,"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "tshark: {}", output.status);
    let mut rows = Rows::new();
    let mut times: BTreeMap<String, (f64, u64)> = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let field: Vec<&str> = line.split(',').collect();
        ensure!(field.len() == fields.len(), "{line}");
        let (from, to) = (field[..2].join(":"), field[2..4].join(":"));
        let row = rows.entry(format!("{from} > {to}")).or_default();
        row.packets += 1;
        row.payload += field[4].parse::<u64>()?;
        row.retransmitted += u64::from(!field[5].is_empty());
        row.out_of_order += u64::from(!field[6].is_empty());
        if !field[7].is_empty() {
            // The round trip of what this packet acknowledges: that of the other end's data.
            let sum = times.entry(format!("{to} > {from}")).or_default();
            sum.0 += field[7].parse::<f64>()? * 1000.0;
            sum.1 += 1;
        }
    }
    for (name, (sum, count)) in times {
        rows.entry(name).or_default().rtt_ms = sum / count as f64;
    }
    Ok(rows)
}

fn by_tcptrace(path: &Path) -> Result<Rows> {
    let output = Command::new("tcptrace")
        .args(["-n", "-l", "-r"])
        .arg(path)
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Each part has both senders of a connection, side by side.
    let mut rows = Rows::new();
    for part in text.split("TCP connection ").skip(1) {
        let mut hosts = part
            .lines()
            .filter_map(|line| line.trim().strip_prefix("host "));
        let mut name = || {
            hosts
                .next()
                .and_then(|rest| rest.split_whitespace().last())
                .map(str::to_owned)
        };
        let (Some(one), Some(other)) = (name(), name()) else {
            // The heading "TCP connection info".
            continue;
        };
        let values = |label: &str| -> Result<[f64; 2]> {
            let line = part
                .lines()
                .find(|line| line.matches(label).count() == 2)
                .context(label.to_owned())?;
            let numbers: Vec<f64> = line
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            ensure!(numbers.len() >= 2, "{line}");
            Ok([numbers[0], numbers[1]])
        };
        let (packets, payload) = (values("total packets:")?, values("actual data bytes:")?);
        let (again, order) = (values("rexmt data pkts:")?, values("outoforder pkts:")?);
        let rtt = values("RTT avg:")?;
        let names = [format!("{one} > {other}"), format!("{other} > {one}")];
        for (at, name) in names.into_iter().enumerate() {
            let row = Row {
                packets: packets[at] as u64,
                payload: payload[at] as u64,
                retransmitted: again[at] as u64,
                out_of_order: order[at] as u64,
                rtt_ms: rtt[at],
            };
            rows.insert(name, row);
        }
    }
    Ok(rows)
}

/// All three agree on packets, payload, what was sent again and the mean round trip of each sender.
pub(crate) fn agree() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("generated.pcap");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path)?);
    let truth = traffic::write(&mut out, PACKETS, PARALLEL)?;
    drop(out);
    let rows = [
        ("vpnbench", ours(&path)?),
        ("tshark", by_tshark(&path)?),
        ("tcptrace", by_tcptrace(&path)?),
    ];
    let sum = |rows: &Rows, of: fn(&Row) -> u64| rows.values().map(of).sum::<u64>();
    for (name, rows) in &rows {
        ensure!(
            sum(rows, |row| row.packets) == truth.packets,
            "{name}: {rows:?}, {truth:?}"
        );
        // tshark calls a segment sent again out of order when it comes within the first round trip (or 3 ms) of
        // a gap: at the sender that is never so.
        let again = sum(rows, |row| row.retransmitted + row.out_of_order);
        ensure!(
            again == truth.retransmitted,
            "{name}: {again} sent again, {truth:?}"
        );
    }
    let ours = &rows[0].1;
    let senders = ours.iter().filter(|(_, row)| row.payload > 0);
    ensure!(senders.clone().count() == PARALLEL as usize, "{ours:?}");
    for (name, row) in senders {
        for (tool, theirs) in &rows[1..] {
            let other = theirs
                .get(name)
                .with_context(|| format!("{tool}: {name}"))?;
            let again = other.retransmitted + other.out_of_order;
            let same = (row.packets, row.payload, row.retransmitted)
                == (other.packets, other.payload, again);
            ensure!(same, "{name}: {tool} {other:?}, vpnbench {row:?}");
            // Nothing leaves a sender out of order.
            let order = row.out_of_order
                + if *tool == "tcptrace" {
                    other.out_of_order
                } else {
                    0
                };
            ensure!(order == 0, "{name}: {tool} {other:?}, {row:?}");
            let off = (row.rtt_ms - other.rtt_ms).abs() / row.rtt_ms;
            ensure!(
                off < 0.05,
                "{name}: round trip {} ms by {tool}, {} ms",
                other.rtt_ms,
                row.rtt_ms
            );
        }
    }
    Ok(())
}
