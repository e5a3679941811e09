//! What other tools said beside a capture (`--with`): real output of one run of iperf3 over a veth pair, in `with/`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use vpnbench::report::Report;
use vpnbench_tests::binary::vpnbench;

use crate::join::{report, written};

/// What is in `with/` beside the capture.
pub(crate) const SAMPLES: [&str; 7] = [
    "iperf3.json",
    "nstat-before.txt",
    "nstat-after.txt",
    "ss-1.txt",
    "ss-2.txt",
    "perf-script.txt",
    "ethtool-veth.txt",
];

pub(crate) fn sample(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/offline/with");
    folder.join(name).to_string_lossy().into_owned()
}

/// The report of the capture with these files beside it.
fn with(files: &[&str]) -> Result<Report> {
    let capture = sample("sender.pcap.gz");
    let mut arguments = vec!["analyze", &capture];
    for file in files {
        arguments.extend(["--with", file]);
    }
    report(&arguments)
}

/// Each goes where a live recording has the same.
pub(crate) fn all_kinds() -> Result<()> {
    // The last one's driver tells nothing.
    let files = SAMPLES.map(sample);
    let plain = with(&[])?;
    let found = with(&files.each_ref().map(String::as_str)[..6])?;
    ensure!(
        plain.benchmark.is_none() && plain.cpu.as_ref().is_none_or(|cpu| cpu.stacks.is_empty())
    );

    let benchmark = found.benchmark.as_ref().context("a benchmark")?;
    let compared: Vec<bool> = benchmark
        .intervals
        .iter()
        .filter_map(|one| one.packets.as_ref()?.agrees)
        .collect();
    ensure!(
        compared.len() >= 2 && compared.iter().all(|agrees| *agrees),
        "{:?}",
        benchmark.intervals
    );

    let retransmits = &found.retransmits;
    let line = retransmits
        .reconciliation
        .iter()
        .find(|line| line.counter == "TcpRetransSegs");
    let line = line.context("a line of TcpRetransSegs")?;
    ensure!(
        (line.kernel, line.agrees) == (Some(0), Some(true)),
        "{line:?}"
    );

    let flow = found.tcp_flows.iter().find(|flow| flow.chrono.is_some());
    let flow = flow.context("a flow with the kernel's accounts")?;
    // 102 and 156 segments in the two samples, busy for 8 ms in the last one.
    ensure!(flow.src == "10.77.0.1:41918", "{}", flow.src);
    let busy_s = flow.chrono.map_or(0.0, |one| one.busy_s);
    ensure!(
        flow.cwnd_mean == Some(129.0) && (busy_s - 0.008).abs() < 1e-9,
        "{:?} {busy_s}",
        flow.cwnd_mean
    );

    let cpu = found.cpu.as_ref().context("processor time")?;
    ensure!(cpu.processes.iter().map(|one| one.samples).sum::<u64>() == 3);
    ensure!(cpu.stacks.iter().any(|one| {
        one.stack
            .contains("iperf3 (8132);[unknown];__select;entry_SYSCALL_64")
    }));
    Ok(())
}

/// A driver that does not tell, one reading, other files, damage: stated with file and line, and the rest is used.
pub(crate) fn what_cannot_be_used() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = std::fs::read_to_string(sample("nstat-after.txt"))?;
    let damaged = text.replace(
        "TcpInSegs                       887",
        "TcpInSegs                       8?7",
    );
    ensure!(damaged != text);
    let damaged = written(folder.path(), "damaged.txt", damaged.as_bytes())?;
    let damaged = damaged.to_str().context("a path of letters")?;
    let found = with(&[
        &sample("nstat-before.txt"),
        damaged,
        &sample("ethtool-veth.txt"),
    ])?;
    let says =
        |report: &Report, text: &str| report.problems.iter().any(|one| one.message.contains(text));
    ensure!(says(&found, "damaged.txt, line 7"), "{:?}", found.problems);
    ensure!(
        says(&found, "ethtool-veth.txt: the driver does not tell"),
        "{:?}",
        found.problems
    );
    let retransmits = &found.retransmits;
    ensure!(
        retransmits
            .reconciliation
            .iter()
            .any(|line| line.kernel.is_some())
    );
    let single = with(&[&sample("nstat-before.txt")])?;
    ensure!(
        says(&single, "one reading of nstat"),
        "{:?}",
        single.problems
    );

    // iperf3's JSON that ends too early.
    let text = std::fs::read(sample("iperf3.json"))?;
    let cut = written(folder.path(), "cut.json", &text[..text.len() / 2])?;
    let found = with(&[cut.to_str().context("a path of letters")?])?;
    ensure!(
        found.problems.iter().any(|one| one.part == "benchmark"),
        "{:?}",
        found.problems
    );
    let output = vpnbench()
        .args([
            "analyze",
            &sample("sender.pcap.gz"),
            "--with",
            &sample("sender.pcap.gz"),
        ])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && said.contains("sender.pcap.gz cannot be used"),
        "{said}"
    );
    Ok(())
}
