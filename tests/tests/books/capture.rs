//! Reordering as RFC 4737 defines it, computed a second time, the plain way, from the fields that
//! tshark reads out of a capture at the same tap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpnbench::lab::tunnel::truth::{Fate, Way};
use vpnbench_tests::machine::runs_of;
use vpnbench_tests::netns::wait_for;

use crate::run::{End, Run};

/// Port of iperf3's server.
const PORT: u16 = 5201;
/// Protocol number of UDP.
const UDP: u8 = 17;
/// Longest wait for a program or a device.
const PATIENCE: Duration = Duration::from_secs(20);

/// tcpdump on the receiver's tunnel device; it ends when the device does.
struct Capture {
    child: Child,
    path: PathBuf,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Only if the device outlived the run.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Namespace and tunnel device of an end of the run that a process makes, once it is up.
pub(crate) fn device(lab: u32, end: End) -> Result<(String, String)> {
    let mut id = None;
    let found = wait_for(PATIENCE, || {
        let run = runs_of(lab).into_iter().next();
        id = run.and_then(|name| name.split('.').next().map(str::to_owned));
        id.is_some()
    });
    ensure!(found, "the run has no directory");
    let id = id.context("it was there a moment ago")?;
    let end = end.letter();
    let (netns, device) = (format!("vb-{id}-{end}"), format!("ref{id}{end}"));
    let exists = || {
        let mut ip = Command::new("ip");
        ip.args(["-n", &netns, "link", "show", "up", "dev", &device]);
        let output = ip.output();
        output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
    };
    ensure!(wait_for(PATIENCE, exists), "there is no {device}");
    Ok((netns, device))
}

fn capture(lab: u32) -> Result<Capture> {
    let (netns, device) = device(lab, End::B)?;
    let folder = tempfile::tempdir()?;
    let (path, log) = (folder.path().join("pcap"), folder.path().join("log"));
    let child = Command::new("ip")
        .args([
            "netns", "exec", &netns, "tcpdump", "-i", &device, "-Z", "root", "-B", "65536",
        ])
        // In this mode each packet takes the room of the longest: with the default of 256 KiB a tcpdump that
        // waits 0.1 s for a core loses packets.
        .args(["-s", "128", "-n", "--immediate-mode", "-U", "-w"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    let capture = Capture {
        child,
        path,
        log: log.clone(),
        _folder: folder,
    };
    let listens = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("listening on"));
    ensure!(wait_for(PATIENCE, listens), "tcpdump does not start");
    Ok(capture)
}

/// The IP identifications of the datagrams to iperf3's server, by port of the client, in the order of
/// arrival. Repeated ones are left out, and what was captured before or after the recording: the capture
/// lasts as long as the device.
fn flows(capture: &mut Capture, recorded: (u64, u64)) -> Result<Vec<Vec<i64>>> {
    let ended = wait_for(PATIENCE, || matches!(capture.child.try_wait(), Ok(Some(_))));
    ensure!(ended, "tcpdump does not end");
    let said = std::fs::read_to_string(&capture.log)?;
    ensure!(
        said.contains("\n0 packets dropped by kernel"),
        "the capture is not complete: {said}"
    );
    let mut tshark = Command::new("tshark");
    tshark
        .arg("-r")
        .arg(&capture.path)
        .args(["-Y", "ip && udp.dstport == 5201 && !icmp"]);
    tshark.args([
        "-T",
        "fields",
        "-E",
        "separator=,",
        "-e",
        "udp.srcport",
        "-e",
        "ip.id",
        "-e",
        "frame.time_epoch",
    ]);
    let output = tshark.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "tshark: {}", output.status);
    let mut flows: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let mut fields = line.split(',');
        let mut field = || fields.next().context("three fields");
        let (port, id, time) = (field()?, field()?, field()?);
        if !(recorded.0..=recorded.1).contains(&nanoseconds(time)?) {
            continue;
        }
        let id = u32::from_str_radix(id.trim_start_matches("0x"), 16)?;
        flows.entry(port.parse()?).or_default().push(id);
    }
    let flows = flows.into_values();
    Ok(flows.map(|numbers| continued(&numbers)).collect())
}

/// The same from the log of the daemon that wrote them to the device.
fn logged(run: &Run) -> Result<Vec<Vec<i64>>> {
    let mut lines = run.truth(End::B, Way::Receive)?;
    lines.retain(|line| line.fate == Fate::Carried);
    lines.sort_by_key(|line| line.ns);
    let mut flows: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for inner in lines.iter().filter_map(|line| line.inner.as_ref()) {
        let of_udp = inner.protocol == UDP && inner.destination_port == Some(PORT);
        if let (true, Some(port), Some(id)) = (of_udp, inner.source_port, inner.ip_id) {
            flows.entry(port).or_default().push(u32::from(id));
        }
    }
    let flows = flows.into_values();
    Ok(flows.map(|numbers| continued(&numbers)).collect())
}

/// Seconds with their fraction, in ns.
fn nanoseconds(seconds: &str) -> Result<u64> {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    Ok(format!("{whole}{fraction:0<9.9}").parse()?)
}

/// Continues numbers that wrap, and leaves out those that came before.
fn continued(numbers: &[u32]) -> Vec<i64> {
    let half = 1i64 << 15;
    let mut last = numbers.first().map_or(0, |first| i64::from(*first));
    let mut known = BTreeSet::new();
    let mut result = Vec::new();
    for number in numbers {
        let step = (i64::from(*number) - last).rem_euclid(2 * half);
        last += if step >= half { step - 2 * half } else { step };
        if known.insert(last) {
            result.push(last);
        }
    }
    result
}

/// RFC 4737, sections 3.4, 4.2.2 and 5.4.2, word for word.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    packets: u64,
    reordered: u64,
    largest_extent: usize,
    n_reordering: Vec<u64>,
}

fn figures(flows: &[Vec<i64>], n_max: usize) -> Figures {
    let mut found = Figures {
        n_reordering: vec![0; n_max],
        ..Figures::default()
    };
    for s in flows {
        found.packets += s.len() as u64;
        for i in 0..s.len() {
            let Some(j) = (0..i).find(|&j| s[j] > s[i]) else {
                continue;
            };
            found.reordered += 1;
            found.largest_extent = found.largest_extent.max(i - j);
            for n in 1..=n_max.min(i) {
                found.n_reordering[n - 1] += u64::from(s[i - n..i].iter().all(|one| *one > s[i]));
            }
        }
    }
    while found.n_reordering.last() == Some(&0) {
        found.n_reordering.pop();
    }
    found
}

pub(crate) fn reordering() -> Result<()> {
    let (run, mut capture) = Run::beside(
        "name = \"books\"\n[wire]\nbackend = \"none\"\n[vpn]\nname = \"reference\"\n\
         [vpn.settings]\ntruth_log = true\ntun_gso = false\ntun_gro = false\n\
         [vpn.settings.faults.transmit]\nreorder = { every = 23, by = 4, at_most = \"20ms\" }\n\
         [benchmark]\nname = \"udp\"\nduration = \"1s\"\nrate_bps = 10000000\nlength = 700\n",
        capture,
    )?;
    let recorded = run.window_of_real_time()?;
    let truth = figures(&flows(&mut capture, recorded)?, 10);
    let mut rows = run.report.reordering.iter();
    let row = rows
        .find(|row| {
            let here = row.tap == "tun.write" && row.namespace.ends_with("-b");
            here && row.numbering.starts_with("udp")
        })
        .context("no row of the receiver's device")?;
    let mut n_reordering = row.n_reordering.clone();
    while n_reordering.last() == Some(&0) {
        n_reordering.pop();
    }
    let found = Figures {
        packets: row.packets,
        reordered: row.reordered,
        largest_extent: row.extent_max.unwrap_or(0.0) as usize,
        n_reordering,
    };
    let text = |one: &Figures| {
        format!(
            "{} packets, {} reordered, extent {}, n-reordering {:?}",
            one.packets, one.reordered, one.largest_extent, one.n_reordering
        )
    };
    let (ours, theirs) = (text(&found), text(&truth));
    crate::table::figure("by fields of tshark", &ours, &theirs, run.hidden);
    let logged = figures(&logged(&run)?, 10);
    crate::table::figure(
        "by the receiver's own log",
        &ours,
        &text(&logged),
        run.hidden,
    );
    ensure!(
        run.hidden > 0 || found == logged,
        "{row:?}, by the daemon {logged:?}"
    );
    ensure!(truth.reordered > 20, "hardly any traffic: {truth:?}");
    if run.hidden == 0 {
        ensure!(found == truth, "{row:?}, by tshark {truth:?}");
    }
    ensure!(
        found.packets.abs_diff(truth.packets) <= run.hidden,
        "{row:?}, by tshark {truth:?}"
    );
    Ok(())
}
