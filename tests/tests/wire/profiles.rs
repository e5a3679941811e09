//! The study's profiles on the bare wire come out as their options say, for both models and units.

use std::time::Duration;

use libtest_mimic::Failed;
use vpnbench::lab::wire::{Impairment, Model, WireAccount};
use vpnbench::lab::{Run, Topology, netns};

use super::probe::{self, Flood, flood, reordered};
use crate::{Case, Outcome, check};

/// Name and body of each case.
pub(crate) const CASES: &[Case] = &[
    ("baseline_loses_and_delays_nothing", baseline),
    ("low_comes_out_as_predicted", || profile("low")),
    ("medium_comes_out_as_predicted", || profile("medium")),
    ("high_comes_out_as_predicted", || profile("high")),
];

const PACKETS: u64 = 20_000;
const PINGS: u32 = 2000;

fn baseline() -> Outcome {
    let run = probe::start("backend = 'embedded'", Topology::default())?;
    let arrived = flood(&run.hosts.a, &run.hosts.b, single())?;
    let account = run.wire.account()?;
    let egress = account.hosts[0].embedded.as_ref().ok_or("no account")?;
    check(
        arrived.len() as u64 == PACKETS,
        format!("{} arrived", arrived.len()),
    )?;
    check(
        reordered(&arrived) == 0 && egress.reordered == 0,
        "reordered",
    )?;
    check(
        egress.lost.units + egress.over_limit.units == 0,
        format!("{egress:?}"),
    )?;
    books(&account)?;
    run.finish()?;
    Ok(())
}

fn profile(name: &str) -> Outcome {
    let mut failures = Vec::new();
    // What the hosts and ping itself take on this machine at this moment.
    let plain = probe::start("backend = 'embedded'", Topology::default())?;
    let idle_ns = ping(&plain)?;
    plain.finish()?;
    for model in ["netem", "exact"] {
        for unit in ["skb", "packet"] {
            let wire = format!(
                "backend = 'embedded'\nprofile = '{name}'\nmodel = '{model}'\nunit = '{unit}'"
            );
            let run = probe::start(&wire, Topology::default())?;
            if let Err(failed) = one(&run, idle_ns) {
                let text = failed.message().unwrap_or("failed").to_owned();
                failures.push(format!("{model}, {unit}: {text}"));
            }
            run.finish()?;
        }
    }
    check(failures.is_empty(), failures.join("; "))
}

fn one(run: &Run, idle_ns: f64) -> Outcome {
    let arrived = flood(&run.hosts.a, &run.hosts.b, single())?;
    let account = run.wire.account()?;
    books(&account)?;
    let model = account.model;
    let (a, b) = (&account.hosts[0], &account.hosts[1]);
    let egress = a.embedded.as_ref().ok_or("no account")?;
    losses(&a.configured, model, PACKETS - arrived.len() as u64)?;
    // Other packets than probes are few: neighbour discovery.
    let strangers = egress
        .entered
        .units
        .checked_sub(PACKETS)
        .ok_or_else(|| format!("only {} packets entered", egress.entered.units))?;
    check(
        strangers < 50,
        format!("{strangers} packets that are no probes"),
    )?;
    let (seen, counted) = (reordered(&arrived), egress.reordered);
    check(
        seen.abs_diff(counted) <= strangers,
        format!("{seen} probes arrived reordered, the wire counted {counted}"),
    )?;
    check(seen > PACKETS / 100, format!("only {seen} reordered"))?;
    jumps(&a.configured, model, egress.jumped.units)?;
    let delay = egress.delay.as_ref().ok_or("no delays")?;
    let late = egress.lateness.as_ref().ok_or("no lateness")?;
    let expected = a.configured.expected_delay_ns(model);
    near(
        "mean delay at the wire",
        delay.mean_ns - late.mean_ns,
        expected,
        0.05,
    )?;

    let ping = ping(run)?;
    let after = run.wire.account()?;
    let late = |host: usize| {
        let egress = after.hosts[host].embedded.as_ref();
        egress
            .and_then(|egress| egress.lateness.as_ref())
            .map_or(0.0, |late| late.mean_ns)
    };
    // The wire states its own error and an idle wire shows the hosts'; what is left is the
    // options' doing. The hosts' share varies with the machine's load: allow as much again.
    let own = late(0) + late(1);
    let expected = expected + b.configured.expected_delay_ns(model);
    let found = ping - own;
    check(
        found >= 0.95 * expected && found <= 1.05 * expected + 2.0 * idle_ns,
        format!(
            "mean of ping {:.3} ms, predicted {:.3} ms and {:.3} ms on an idle wire",
            found / 1e6,
            expected / 1e6,
            idle_ns / 1e6
        ),
    )
}

fn single() -> Flood {
    Flood {
        count: PACKETS,
        every: Duration::from_micros(100),
        size: 200,
        batch: 1,
    }
}

/// Loss within what 20,000 independent draws allow once in 10,000 times.
fn losses(configured: &Impairment, model: Model, lost: u64) -> Outcome {
    let share = configured.expected_loss(model);
    within("lost", lost, share)
}

/// Units that `reorder` sent at once: with correlation, successive draws say less.
fn jumps(configured: &Impairment, model: Model, jumped: u64) -> Outcome {
    let share = configured.expected_jumps(model);
    within("sent at once", jumped, share).or_else(|failed| {
        let correlation = configured.reorder_correlation;
        let wider = ((1.0 + correlation) / (1.0 - correlation)).sqrt();
        let mean = PACKETS as f64 * share;
        let bound = 3.9 * wider * (mean * (1.0 - share)).sqrt() + 1.0;
        if model == Model::Exact && (jumped as f64 - mean).abs() <= bound {
            Ok(())
        } else {
            Err(failed)
        }
    })
}

fn within(what: &str, count: u64, share: f64) -> Outcome {
    let mean = PACKETS as f64 * share;
    let bound = 3.9 * (mean * (1.0 - share)).sqrt() + 1.0;
    check(
        (count as f64 - mean).abs() <= bound,
        format!("{count} {what}, expected {mean:.1} +- {bound:.1}"),
    )
}

fn near(what: &str, found: f64, expected: f64, tolerance: f64) -> Outcome {
    check(
        (found / expected - 1.0).abs() <= tolerance,
        format!(
            "{what}: {:.3} ms, predicted {:.3} ms",
            found / 1e6,
            expected / 1e6
        ),
    )
}

/// The ledger adds up and nothing was lost that no option says.
fn books(account: &WireAccount) -> Outcome {
    for host in &account.hosts {
        let egress = host.embedded.as_ref().ok_or("no account")?;
        let left = egress.unexplained();
        check(
            left.units == 0 && left.segments == 0,
            format!("{left:?} unexplained"),
        )?;
        check(
            host.dropped_before == Some(0),
            format!("{:?} dropped before", host.dropped_before),
        )?;
        check(
            egress.over_limit.units == 0,
            format!("{} over the limit", egress.over_limit.units),
        )?;
    }
    Ok(())
}

/// Mean round-trip time of ping in nanoseconds.
fn ping(run: &Run) -> Result<f64, Failed> {
    let mut command = netns::command(&run.hosts.a.netns, "ping")?;
    command.args([
        "-q",
        "-i",
        "0.002",
        "-c",
        &PINGS.to_string(),
        &run.hosts.b.ipv4.to_string(),
    ]);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mean = text
        .lines()
        .find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "))
        .and_then(|figures| figures.split('/').nth(1))
        .and_then(|mean| mean.parse::<f64>().ok());
    let mean = mean.ok_or_else(|| format!("ping gave no summary: {text}"))?;
    Ok(mean * 1e6)
}
