//! Beside tshark on the same file.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use vpnbench::report::Report;
use vpnbench_tests::binary::vpnbench;

use crate::make::{Format, Link, connection};

/// Why tshark cannot be asked here.
pub(crate) fn missing() -> Option<String> {
    let mut tshark = Command::new("tshark");
    let found = tshark
        .arg("-v")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    (!found.is_ok_and(|status| status.success())).then(|| "tshark is not installed".to_owned())
}

/// Packets, payload bytes and retransmitted segments by sender, as tshark counts them.
type Counts = BTreeMap<String, [u64; 3]>;

fn by_tshark(path: &std::path::Path) -> Result<Counts> {
    let mut tshark = Command::new("tshark");
    tshark
        .arg("-r")
        .arg(path)
        .args(["-Y", "tcp", "-T", "fields", "-E", "separator=,"]);
    for field in [
        "ip.src",
        "tcp.srcport",
        "tcp.len",
        "tcp.analysis.retransmission",
        "tcp.analysis.fast_retransmission",
        "tcp.analysis.spurious_retransmission",
    ] {
        tshark.args(["-e", field]);
    }
    let output = tshark.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "tshark: {}", output.status);
    let mut counts = Counts::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let mut fields = line.split(',');
        let (ip, port) = fields.next().zip(fields.next()).context("an address")?;
        let length: u64 = fields.next().context("a length")?.parse()?;
        let again = fields.any(|field| !field.is_empty());
        let row = counts.entry(format!("{ip}:{port}")).or_default();
        row[0] += 1;
        row[1] += length;
        row[2] += u64::from(again);
    }
    Ok(counts)
}

fn by_vpnbench(path: &std::path::Path) -> Result<Counts> {
    let output = vpnbench()
        .arg("analyze")
        .arg(path)
        .args(["--format", "json"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    let report: Report = serde_json::from_slice(&output.stdout)?;
    let rows = report.flows.iter().filter(|flow| flow.protocol == "tcp");
    Ok(rows
        .map(|flow| {
            let again = flow.retransmits.unwrap_or(0);
            (flow.src.clone(), [flow.packets, flow.payload_bytes, again])
        })
        .collect())
}

pub(crate) fn counts_agree() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("capture.pcap");
    std::fs::write(
        &path,
        Format::PLAIN.file(Link::Ethernet, 65_536, &connection()?),
    )?;
    let (theirs, ours) = (by_tshark(&path)?, by_vpnbench(&path)?);
    ensure!(theirs == ours, "tshark {theirs:?}, vpnbench {ours:?}");
    ensure!(ours["10.0.0.1:40000"][2] == 1, "{ours:?}");
    Ok(())
}

/// Packets through a pipe are those of the file.
pub(crate) fn pipe() -> Result<()> {
    use std::io::Write as _;
    let file = Format::PLAIN.file(Link::Ethernet, 65_536, &connection()?);
    let mut child = vpnbench()
        .args(["analyze", "-", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    for piece in file.chunks(777) {
        input.write_all(piece)?;
    }
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", output.status);
    let report: Report = serde_json::from_slice(&output.stdout)?;
    ensure!(
        report.retransmits.total == Some(1),
        "{:?}",
        report.retransmits
    );
    Ok(())
}
