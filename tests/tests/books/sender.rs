//! What limits a sender, beside what `ss` reads of the kernel's own accounts during the run
//! (`tcp_get_info_chrono_stats`, net/ipv4/tcp.c); and a benchmark's intervals beside iperf3's own file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vpnbench::analysis::benchmark::model::Way;
use vpnbench::report::model::TcpFlow;

use crate::run::{End, Run};

/// Port of iperf3's server.
const PORT: u16 = 5201;
/// Seconds between two looks of `ss`, and for what a look takes on a machine that is busy.
const STEP: f64 = 0.05;
const LATE: f64 = 0.2;

/// `ss` on the sending host, again and again; it ends when the tunnel's device does.
struct Looks {
    child: Child,
    path: PathBuf,
}

impl Drop for Looks {
    fn drop(&mut self) {
        // Only if the device outlived the run.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn look(lab: u32) -> Result<Looks> {
    let (netns, device) = crate::capture::device(lab, End::A)?;
    let path = crate::keep::folder()?.join("ss");
    let script = format!(
        "while [ -e /sys/class/net/{device} ]; do ss -tinOH dport = :{PORT}; sleep {STEP}; done"
    );
    let child = Command::new("ip")
        .args(["netns", "exec", &netns, "sh", "-c", &script])
        .stdout(std::fs::File::create(&path)?)
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Looks { child, path })
}

/// Seconds in which a socket was busy, and in which the receiver's window and the send buffer limited it.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    busy: f64,
    rwnd: f64,
    sndbuf: f64,
}

/// The last account of each connection by its local port.
fn accounts(looks: &Looks) -> Result<BTreeMap<u16, Account>> {
    let mut found = BTreeMap::new();
    for line in std::fs::read_to_string(&looks.path)?.lines() {
        let seconds = |name: &str| -> Option<f64> {
            let mut words = line.split_whitespace();
            let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))?;
            let number = value.split("ms").next()?;
            Some(number.parse::<f64>().ok()? / 1000.0)
        };
        let local = line.split_whitespace().nth(3).context("four columns")?;
        let port = local.rsplit(':').next().context("a port")?.parse()?;
        // What is 0 is not shown.
        let account = Account {
            busy: seconds("busy").unwrap_or(0.0),
            rwnd: seconds("rwnd_limited").unwrap_or(0.0),
            sndbuf: seconds("sndbuf_limited").unwrap_or(0.0),
        };
        found.insert(port, account);
    }
    Ok(found)
}

/// The connection that carried the load.
fn busiest(run: &Run) -> Result<&TcpFlow> {
    let flows = run.report.tcp_flows.iter();
    let sent = flows.filter(|one| one.namespace.ends_with("-a"));
    sent.max_by_key(|one| one.acked_bytes)
        .context("nothing was sent")
}

/// Which of the sender's limits a scenario is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Cwnd,
    Rwnd,
    SendBuffer,
}

fn limited(by: Limit, wire: &str, sysctls: &str) -> Result<()> {
    crate::table::case(&format!("limits of a sender ({by:?})"));
    let (run, looks) = Run::beside(
        &format!(
            "name = \"books\"\n[wire]\nbackend = \"embedded\"\nunit = \"packet\"\n{wire}\n[vpn]\n\
             name = \"reference\"\n[benchmark]\nname = \"tcp\"\nduration = \"3s\"\n{sysctls}\n"
        ),
        look,
    )?;
    let flow = busiest(&run)?;
    let port: u16 = flow.src.rsplit(':').next().context("no port")?.parse()?;
    let kernel = *accounts(&looks)?.get(&port).context("ss did not see it")?;
    let ours = flow.limited_by.context("never busy")?;
    let chrono = flow.chrono.context("no accounts")?;
    let rtt = flow.rtt_us.context("no round trip")?.p50 / 1e6;
    ensure!(kernel.busy > 2.0, "hardly seen: {kernel:?}");
    let share = |part: f64| part / kernel.busy;
    let row = |what: &str, ours: f64, theirs: f64| {
        let text = |value: f64| format!("{value:.3}");
        crate::table::figure(what, &text(ours), &text(theirs), run.hidden);
    };
    let shares = [
        (
            "share limited by the receive window",
            ours.rwnd,
            share(kernel.rwnd),
        ),
        (
            "share limited by the send buffer",
            ours.sndbuf,
            share(kernel.sndbuf),
        ),
    ];
    for (what, ours, theirs) in shares {
        row(what, ours, theirs);
        // The kernel counts ticks: a limit that begins and ends once per round trip may be one off in each.
        let tolerance = 0.05 + chrono.resolution_s / rtt;
        ensure!(
            (ours - theirs).abs() <= tolerance,
            "{what}: {flow:?} {kernel:?}"
        );
    }
    let accounts = [
        (
            "busy, s",
            chrono.busy_s + chrono.rwnd_s + chrono.sndbuf_s,
            kernel.busy,
        ),
        ("receive window, s", chrono.rwnd_s, kernel.rwnd),
        ("send buffer, s", chrono.sndbuf_s, kernel.sndbuf),
    ];
    for (what, ours, theirs) in accounts {
        row(what, ours, theirs);
        // Ours end with the last acknowledgement that was seen, a round trip or more before the socket closes
        // (`tcp_probe` sees ESTABLISHED only); `ss` looks once a step.
        let apart = STEP + LATE + rtt + 2.0 * chrono.resolution_s;
        ensure!(
            (ours - theirs).abs() <= apart,
            "{what}: {chrono:?} {kernel:?}"
        );
    }
    let made_for = match by {
        Limit::Cwnd => ours.cwnd,
        Limit::Rwnd => ours.rwnd,
        Limit::SendBuffer => ours.sndbuf,
    };
    row("share of what it was made for", made_for, 1.0);
    ensure!(made_for > 0.5, "{by:?}: {ours:?}");
    run.counters_agree()
}

pub(crate) fn limits() -> Result<()> {
    limited(Limit::Cwnd, "delay = \"50ms\"\nloss = \"1%\"", "")?;
    limited(
        Limit::Rwnd,
        "delay = \"50ms\"",
        "[sysctls.b]\n\"net.ipv4.tcp_rmem\" = \"4096 16384 32768\"",
    )?;
    limited(
        Limit::SendBuffer,
        "delay = \"50ms\"",
        "[sysctls.a]\n\"net.ipv4.tcp_wmem\" = \"4096 16384 16384\"",
    )
}

/// Each interval beside iperf3's own file and beside the packets.
pub(crate) fn intervals() -> Result<()> {
    let run = Run::of(
        "name = \"books\"\n[wire]\nbackend = \"embedded\"\nunit = \"packet\"\ndelay = \"5ms\"\n\
         loss = \"0.5%\"\n[vpn]\nname = \"reference\"\n[benchmark]\nname = \"tcp\"\n\
         duration = \"4s\"\nrate_bps = 20000000\n",
    )?;
    let text = std::fs::read(run.file("iperf3.json"))?;
    let file: Value = serde_json::from_slice(&text)?;
    let theirs = file["intervals"].as_array().context("no intervals")?;
    let ours = run.report.benchmark.as_ref().context("no benchmark")?;
    let sent: Vec<_> = ours
        .intervals
        .iter()
        .filter(|one| one.way == Way::Sent)
        .collect();
    ensure!(
        sent.len() == theirs.len() && sent.len() >= 4,
        "{} of {} intervals",
        sent.len(),
        theirs.len()
    );
    let mut resent = 0;
    for (number, (one, interval)) in sent.iter().zip(theirs).enumerate() {
        let sum = &interval["sum"];
        let number_of = |name: &str| sum[name].as_f64().context("a number");
        let [bps, start, end] = ["bits_per_second", "start", "end"].map(number_of);
        let (bps, start, end) = (bps?, start?, end?);
        let again = sum["retransmits"].as_u64().context("retransmits")?;
        resent += again;
        ensure!(
            one.throughput_bps
                .is_some_and(|own| (own - bps).abs() < 1.0)
                && (one.start_s - start).abs() < 1e-6
                && (one.end_s - end).abs() < 1e-6
                && one.retransmits == Some(again),
            "{one:?} {sum}"
        );
        let packets = one.packets.as_ref().context("not beside the packets")?;
        let packets_bps = packets.payload_bps;
        let mbit = |bps: f64| format!("{:.3} Mbit/s", bps / 1e6);
        let what = format!("interval {number}, by its packets");
        crate::table::figure(&what, &mbit(packets_bps), &mbit(bps), run.hidden);
        ensure!(packets.agrees == Some(true), "{one:?}");
    }
    // The client counts its own socket's; the connection that controls the test is not among them.
    let flow = busiest(&run)?;
    let port: u64 = flow.src.rsplit(':').next().context("no port")?.parse()?;
    let connected = &file["start"]["connected"][0]["local_port"];
    ensure!(connected.as_u64() == Some(port), "{} {connected}", flow.src);
    let found = run.report.flows.iter();
    let found = found.filter(|one| one.src == flow.src && one.dst == flow.dst);
    let found: u64 = found.filter_map(|one| one.retransmits).sum();
    let total = file["end"]["sum_sent"]["retransmits"]
        .as_u64()
        .context("a sum")?;
    ensure!(
        total == resent,
        "iperf3's own sum: {total}, its intervals {resent}"
    );
    run.equal("sent again, by iperf3", found, total)?;
    ensure!(total > 3, "hardly anything was lost");
    run.counters_agree()
}
