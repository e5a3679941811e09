//! The embedded wire: units, places, books, truth log and its end.

use std::collections::BTreeSet;
use std::time::Duration;

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vpnbench::lab::wire::{FATE_JUMPED, FATE_LOST, FATE_SENT, TruthRecord, read_truth};
use vpnbench::lab::{Run, Topology, TopologyKind, netns};

use super::probe::{self, Flood, PORT, flood};
use crate::{Case, Outcome, check};

/// Name and body of each case.
pub(crate) const CASES: &[Case] = &[
    ("the_truth_log_is_what_happened", || truth_log("egress")),
    (
        "loss_takes_whole_batches_as_units_and_parts_as_packets",
        units,
    ),
    ("segments_cut_by_the_wire_have_right_checksums", checksums),
    ("copies_arrive_twice_and_the_books_add_up", copies),
    ("the_limit_drops_what_finds_no_room", limit),
    ("long_packets_vanish", long_packets),
    (
        "the_middle_delays_without_touching_the_hosts_devices",
        middle,
    ),
    ("a_ring_is_one_segment_with_an_impairment_per_host", ring),
    (
        "without_offload_single_packets_reach_the_middle",
        single_packets,
    ),
    ("a_wire_that_is_killed_is_noticed", killed),
    ("netem_or_a_plain_refusal", netem),
];

const BATCH: u64 = 20;

pub(crate) fn truth_log(place: &str) -> Outcome {
    let wire = "backend = 'embedded'\nprofile = 'medium'\nmodel = 'exact'\ntruth = 'truth.bin'";
    let wire = format!("{wire}\nplace = '{place}'");
    let run = probe::start(&wire, Topology::default())?;
    let arrived = flood(&run.hosts.a, &run.hosts.b, singles(5000))?;
    // Ended in order, it writes out what it has; the file goes with the run.
    let process = run.wire.process().ok_or("no process")?;
    kill(
        Pid::from_raw(i32::try_from(process.pid())?),
        Signal::SIGTERM,
    )?;
    check(
        process.ends_within(Duration::from_secs(5)),
        "it did not end on SIGTERM",
    )?;
    let records = read_truth(&run.directory().join("truth.bin"))?;
    let probes: Vec<&TruthRecord> = records
        .iter()
        .filter(|record| record.protocol == 17 && record.destination_port == PORT)
        .collect();
    let numbers: BTreeSet<u64> = probes.iter().map(|record| record.udp_payload).collect();
    check(
        numbers == (0..5000).collect(),
        "not every probe has a record",
    )?;
    let sent = probes
        .iter()
        .filter(|record| matches!(record.fate, FATE_SENT | FATE_JUMPED));
    let order: Vec<u64> = sent.map(|record| record.udp_payload).collect();
    check(order == arrived, "the log's order is not that of arrival")?;
    let lost = probes
        .iter()
        .filter(|record| record.fate == FATE_LOST)
        .count();
    check(
        lost + arrived.len() == 5000,
        format!("{lost} lost, {} arrived", arrived.len()),
    )?;
    let (from, to) = (run.hosts.a.ipv4.into(), run.hosts.b.ipv4.into());
    let addressed = probes
        .iter()
        .all(|record| record.ip_addresses() == Some((from, to)));
    check(addressed, "wrong addresses in the log")
}

fn units() -> Outcome {
    let count = 500 * BATCH;
    for (unit, expects_parts) in [("skb", false), ("packet", true)] {
        let wire = format!("backend = 'embedded'\nloss = '10%'\nunit = '{unit}'");
        let run = probe::start(&wire, Topology::default())?;
        let batches = Flood {
            count,
            every: Duration::from_micros(500),
            size: 1000,
            batch: BATCH,
        };
        let arrived: BTreeSet<u64> = flood(&run.hosts.a, &run.hosts.b, batches)?
            .into_iter()
            .collect();
        let of = |batch: u64| arrived.range(batch * BATCH..(batch + 1) * BATCH).count() as u64;
        let parts = (0..count / BATCH)
            .filter(|&batch| !matches!(of(batch), 0 | BATCH))
            .count();
        let gone = (0..count / BATCH).filter(|&batch| of(batch) == 0).count();
        if expects_parts {
            // P(a batch is whole) = 0.9^20 = 12 %.
            check(
                parts > 380 && gone == 0,
                format!("{unit}: {parts} in part, {gone} gone"),
            )?;
        } else {
            check(
                parts == 0 && (25..80).contains(&gone),
                format!("{unit}: {parts} in part, {gone} gone"),
            )?;
        }
        let account = run.wire.account()?;
        let egress = account.hosts[0].embedded.as_ref().ok_or("no account")?;
        let lost = count - arrived.len() as u64;
        // Probes of the set-up and neighbour discovery may be hit as well.
        let strangers = egress.entered.segments - count;
        let counted = egress.lost.segments;
        check(
            (lost..=lost + strangers).contains(&counted) && strangers < 50,
            format!("{unit}: {lost} lost, the wire says {counted}, {strangers} no probes"),
        )?;
        run.finish()?;
    }
    Ok(())
}

fn checksums() -> Outcome {
    let run = probe::start("backend = 'embedded'\nunit = 'packet'", Topology::default())?;
    let addresses = [
        Some(run.hosts.b.ipv4.to_string()),
        run.hosts.b.ipv6.map(|ip| ip.to_string()),
    ];
    for address in addresses.into_iter().flatten() {
        let mut server = netns::command(&run.hosts.b.netns, "iperf3")?;
        let mut server = server
            .args(["-s", "-1"])
            .stdout(std::process::Stdio::null())
            .spawn()?;
        let client = ["-c", &address, "-n", "64M", "--connect-timeout", "10000"];
        let sent = retry_until_listening(&run, &client);
        let _ended = server.kill().and_then(|()| server.wait());
        sent?;
    }
    let output = netns::command(&run.hosts.b.netns, "cat")?
        .args(["/proc/net/snmp", "/proc/net/snmp6"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    check(
        mib(&text, "Tcp:", "InCsumErrors") == Some(0),
        format!("checksum errors: {text}"),
    )?;
    check(
        mib(&text, "Tcp:", "InSegs").is_some_and(|segments| segments > 80_000),
        "too few segments: not cut",
    )?;
    run.finish()?;
    Ok(())
}

/// Starts iperf3's client once its server listens.
fn retry_until_listening(run: &Run, arguments: &[&str]) -> Outcome {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let listening = netns::command(&run.hosts.b.netns, "cat")?
            .arg("/proc/net/tcp6")
            .output()?;
        // 5201 is 0x1451; state 0A is LISTEN.
        let table = String::from_utf8_lossy(&listening.stdout).into_owned();
        if table
            .lines()
            .any(|line| line.contains(":1451 ") && line.contains(" 0A "))
        {
            break;
        }
        check(
            std::time::Instant::now() < deadline,
            "iperf3 does not listen",
        )?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = netns::command(&run.hosts.a.netns, "iperf3")?
        .args(arguments)
        .output()?;
    check(
        output.status.success(),
        String::from_utf8_lossy(&output.stdout),
    )
}

/// A counter of /proc/net/snmp.
fn mib(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let names = lines.next()?.split_whitespace();
    let mut values = lines.next()?.split_whitespace();
    let at = names.into_iter().position(|field| field == name)?;
    values.nth(at)?.parse().ok()
}

fn copies() -> Outcome {
    let wire = "backend = 'embedded'\nduplicate = '20%'\nloss = '5%'";
    let run = probe::start(wire, Topology::default())?;
    let arrived = flood(&run.hosts.a, &run.hosts.b, singles(10_000))?;
    let account = run.wire.account()?;
    let egress = account.hosts[0].embedded.as_ref().ok_or("no account")?;
    let once: BTreeSet<u64> = arrived.iter().copied().collect();
    let twice = arrived.len() - once.len();
    // 0.2 are copied; the original or the copy may be lost: both arrive 0.2 * 0.95^2.
    check(
        (1600..2020).contains(&twice),
        format!("{twice} arrived twice"),
    )?;
    let left = egress.unexplained();
    check(
        left.units == 0 && left.segments == 0,
        format!("{left:?} unexplained: {egress:?}"),
    )?;
    run.finish()?;
    Ok(())
}

fn limit() -> Outcome {
    let wire = "backend = 'embedded'\ndelay = '300ms'\nlimit = 50";
    let run = probe::start(wire, Topology::default())?;
    let burst = Flood {
        every: Duration::ZERO,
        ..singles(200)
    };
    let arrived = flood(&run.hosts.a, &run.hosts.b, burst)?;
    let account = run.wire.account()?;
    let egress = account.hosts[0].embedded.as_ref().ok_or("no account")?;
    // All 200 are sent long before the first is due.
    check(
        (45..=50).contains(&arrived.len()),
        format!("{} arrived", arrived.len()),
    )?;
    check(
        egress.backlog_max == 50,
        format!("at most {} waited", egress.backlog_max),
    )?;
    check(
        egress.over_limit.units >= 150,
        format!("{:?} over the limit", egress.over_limit),
    )?;
    run.finish()?;
    Ok(())
}

/// An IP packet of the longest size gets through, one that is a byte longer does not.
fn long_packets() -> Outcome {
    const LONGEST: usize = 1000;
    const HEADERS: usize = 28;
    let wire = format!("backend = 'embedded'\nunit = 'packet'\nsize_limit = {LONGEST}");
    let run = probe::start(&wire, Topology::default())?;
    let of_size = |size| Flood {
        size,
        ..singles(100)
    };
    let whole = flood(&run.hosts.a, &run.hosts.b, of_size(LONGEST - HEADERS))?;
    let longer = flood(&run.hosts.a, &run.hosts.b, of_size(LONGEST - HEADERS + 1))?;
    check(
        (whole.len(), longer.len()) == (100, 0),
        format!("{} and {} arrived", whole.len(), longer.len()),
    )?;
    let account = run.wire.account()?;
    let egress = account.hosts[0].embedded.as_ref().ok_or("no account")?;
    let left = egress.unexplained();
    check(
        egress.too_large.units == 100 && egress.lost.units == 0 && left.units == 0,
        format!("{left:?} unexplained: {egress:?}"),
    )?;
    run.finish()?;
    Ok(())
}

fn middle() -> Outcome {
    let wire = "backend = 'embedded'\nplace = 'middle'\ndelay = '20ms'";
    let run = probe::start(wire, Topology::default())?;
    let (least, _) = round_trip(&run, &run.hosts.a.netns, &run.hosts.b.ipv4.to_string())?;
    check(
        least >= 40.0,
        format!("a round trip of {least} ms through 20 ms each way"),
    )?;
    let account = run.wire.account()?;
    check(
        account.hosts.iter().all(|host| host.embedded.is_some()),
        "no account",
    )?;
    run.finish()?;
    Ok(())
}

fn single_packets() -> Outcome {
    for (offload, cut) in [(true, false), (false, true)] {
        let wire = format!("backend = 'embedded'\nplace = 'middle'\noffload = {offload}");
        let run = probe::start(&wire, Topology::default())?;
        let mut server = netns::command(&run.hosts.b.netns, "iperf3")?;
        let mut server = server
            .args(["-s", "-1"])
            .stdout(std::process::Stdio::null())
            .spawn()?;
        let sent = retry_until_listening(&run, &["-c", "10.99.0.2", "-n", "32M"]);
        let _ended = server.kill().and_then(|()| server.wait());
        sent?;
        let account = run.wire.account()?;
        let egress = account.hosts[0].embedded.as_ref().ok_or("no account")?;
        let entered = egress.entered;
        check(entered.segments > 20_000, format!("{entered:?}"))?;
        check(
            (entered.units == entered.segments) == cut,
            format!("offload = {offload}: {entered:?}"),
        )?;
        run.finish()?;
    }
    Ok(())
}

fn ring() -> Outcome {
    let topology = Topology {
        kind: TopologyKind::Ring,
        ..Topology::default()
    };
    for place in ["egress", "middle"] {
        let wire = format!(
            "backend = 'embedded'\nplace = '{place}'\ndelay = '5ms'\n[forward]\ndelay = '30ms'"
        );
        let run = probe::start(&wire, topology.clone())?;
        let mut found = Vec::new();
        for (from, to) in run.hosts.links() {
            found.push(round_trip(&run, &from.netns, &to.ipv4.to_string())?.0);
        }
        // lom's egress has 30 ms, the others' 5 ms: lom-yuki 35, yuki-luna 10, luna-lom 35.
        let right = found[0] >= 35.0 && found[1] >= 10.0 && found[2] >= 35.0;
        check(
            right && found[1] < found[0] - 15.0,
            format!("{place}: {found:?}"),
        )?;
        run.finish()?;
    }
    Ok(())
}

/// Least and mean round-trip time in milliseconds.
fn round_trip(_run: &Run, netns: &std::path::Path, to: &str) -> Result<(f64, f64), Failed> {
    let mut command = netns::command(netns, "ping")?;
    let output = command
        .args(["-q", "-c", "10", "-i", "0.05", to])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures = text
        .lines()
        .find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "))
        .ok_or_else(|| format!("ping gave no summary: {text}"))?;
    let mut figures = figures
        .split('/')
        .map(|figure| figure.parse::<f64>().unwrap_or(0.0));
    Ok((figures.next().unwrap_or(0.0), figures.next().unwrap_or(0.0)))
}

fn killed() -> Outcome {
    let run = probe::start("backend = 'embedded'\nloss = '1%'", Topology::default())?;
    run.wire.check()?;
    let process = run.wire.process().ok_or("no process")?;
    kill(
        Pid::from_raw(i32::try_from(process.pid())?),
        Signal::SIGKILL,
    )?;
    check(
        process.ends_within(Duration::from_secs(5)),
        "it survived SIGKILL",
    )?;
    for outcome in [run.wire.check(), run.wire.account().map(drop), run.finish()] {
        let text = outcome
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        check(
            text.contains("the embedded wire ended"),
            format!("said {text:?}"),
        )?;
    }
    Ok(())
}

/// Where the kernel has netem it must act; elsewhere asking for it is a skip that says so.
fn netem() -> Outcome {
    let wire = "backend = 'netem'\ndelay = '10ms'";
    match probe::start(wire, Topology::default()) {
        Ok(run) => {
            let (least, _) = round_trip(&run, &run.hosts.a.netns, &run.hosts.b.ipv4.to_string())?;
            check(least >= 20.0, format!("a round trip of {least} ms"))?;
            let account = run.wire.account()?;
            let counted = account.hosts[0]
                .netem
                .as_ref()
                .is_some_and(|netem| netem.sent_segments >= 10);
            check(counted, format!("{:?}", account.hosts[0].netem))?;
            run.finish()?;
            Ok(())
        }
        Err(failed) => {
            let text = failed.message().unwrap_or_default().to_owned();
            check(text.contains("skipped") && text.contains("sch_netem"), text)
        }
    }
}

fn singles(count: u64) -> Flood {
    Flood {
        count,
        every: Duration::from_micros(100),
        size: 200,
        batch: 1,
    }
}
