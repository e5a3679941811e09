//! The study's profiles on the bare wire come out as their options say, for both models and units.

use std::time::Duration;

use libtest_mimic::Failed;
use vpnbench::lab::wire::{Backend, EgressAccount, HostAccount, Impairment, Model, WireAccount};
use vpnbench::lab::{Run, Topology, netns};

use super::probe::{self, Flood, flood, reordered};
use crate::{Case, Outcome, check, say};

/// Counts, loss, order and the wire's own account of delays: none of it needs a quiet machine.
pub(crate) const CASES: &[Case] = &[
    ("baseline_loses_and_delays_nothing", baseline),
    ("low_comes_out_as_predicted", || {
        counts("low", Backend::Embedded, "egress")
    }),
    ("medium_comes_out_as_predicted", || {
        counts("medium", Backend::Embedded, "egress")
    }),
    ("high_comes_out_as_predicted", || {
        counts("high", Backend::Embedded, "egress")
    }),
];

/// The same on the kernel's netem, and both side by side.
pub(crate) const NETEM: &[Case] = &[
    ("low_comes_out_as_predicted_on_netem", || {
        counts("low", Backend::Netem, "egress")
    }),
    ("medium_comes_out_as_predicted_on_netem", || {
        counts("medium", Backend::Netem, "egress")
    }),
    ("high_comes_out_as_predicted_on_netem", || {
        counts("high", Backend::Netem, "egress")
    }),
    ("low_reorders_alike_on_both", || alike("low")),
    ("medium_reorders_alike_on_both", || alike("medium")),
    ("high_reorders_alike_on_both", || alike("high")),
];

/// What ping says: microseconds of other work show in it.
pub(crate) const PING: &[Case] = &[
    ("ping_over_low_is_as_predicted", || {
        pings("low", Backend::Embedded)
    }),
    ("ping_over_medium_is_as_predicted", || {
        pings("medium", Backend::Embedded)
    }),
    ("ping_over_high_is_as_predicted", || {
        pings("high", Backend::Embedded)
    }),
];

/// Likewise on netem.
pub(crate) const PING_NETEM: &[Case] = &[
    ("ping_over_low_is_as_predicted_on_netem", || {
        pings("low", Backend::Netem)
    }),
    ("ping_over_medium_is_as_predicted_on_netem", || {
        pings("medium", Backend::Netem)
    }),
    ("ping_over_high_is_as_predicted_on_netem", || {
        pings("high", Backend::Netem)
    }),
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

/// Runs something over each model and unit that a backend has, and collects what failed.
fn each(name: &str, backend: Backend, place: &str, body: impl Fn(&Run) -> Outcome) -> Outcome {
    let (label, models): (_, &[&str]) = match backend {
        Backend::Netem => ("netem", &["netem"]),
        _ => ("embedded", &["netem", "exact"]),
    };
    let mut failures = Vec::new();
    for model in models {
        for unit in ["skb", "packet"] {
            let wire = format!(
                "backend = '{label}'\nprofile = '{name}'\nmodel = '{model}'\nunit = '{unit}'\nplace = '{place}'"
            );
            let run = probe::start(&wire, Topology::default())?;
            if let Err(failed) = body(&run) {
                let text = failed.message().unwrap_or("failed").to_owned();
                failures.push(format!("model {model}, unit {unit}: {text}"));
            }
            run.finish()?;
        }
    }
    check(failures.is_empty(), failures.join("; "))
}

pub(crate) fn counts(name: &str, backend: Backend, place: &str) -> Outcome {
    each(name, backend, place, |run| {
        let arrived = flood(&run.hosts.a, &run.hosts.b, single())?;
        let account = run.wire.account()?;
        let host = &account.hosts[0];
        let lost = PACKETS - arrived.len() as u64;
        losses(&host.configured, account.model, lost)?;
        let seen = reordered(&arrived);
        check(seen > PACKETS / 100, format!("only {seen} reordered"))?;
        match (&host.embedded, &host.netem) {
            (Some(egress), None) => {
                books(&account)?;
                embedded(&host.configured, account.model, egress, seen)
            }
            (None, Some(netem)) => {
                // Probes of the set-up and neighbour discovery may be hit as well.
                let (dropped, entered) = (netem.dropped_units, netem.sent_segments);
                let strangers = (entered + dropped).saturating_sub(PACKETS);
                check(
                    (lost..=lost + strangers).contains(&dropped) && strangers < 50,
                    format!(
                        "{lost} did not arrive, netem dropped {dropped}, {strangers} no probes"
                    ),
                )?;
                jumps(&host.configured, account.model, netem.jumped_units)
            }
            other => Err(format!("not one account: {other:?}").into()),
        }
    })
}

/// The embedded wire's account beside what the receiver saw and what the options predict.
fn embedded(configured: &Impairment, model: Model, egress: &EgressAccount, seen: u64) -> Outcome {
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
    let counted = egress.reordered;
    check(
        seen.abs_diff(counted) <= strangers,
        format!("{seen} probes arrived reordered, the wire counted {counted}"),
    )?;
    jumps(configured, model, egress.jumped.units)?;
    let delay = egress.delay.as_ref().ok_or("no delays")?;
    let late = egress.lateness.as_ref().ok_or("no lateness")?;
    // Without its own lateness, which is the machine's doing, what the wire drew is left.
    let (found, expected) = (
        delay.mean_ns - late.mean_ns,
        configured.expected_delay_ns(model),
    );
    check(
        (found / expected - 1.0).abs() <= 0.05,
        format!(
            "mean delay at the wire {:.3} ms, predicted {:.3} ms",
            found / 1e6,
            expected / 1e6
        ),
    )
}

/// The embedded wire in netem's model reorders as much as netem does with the same options.
fn alike(name: &str) -> Outcome {
    let mut counts = Vec::new();
    for backend in ["netem", "embedded"] {
        let wire = format!("backend = '{backend}'\nprofile = '{name}'");
        let run = probe::start(&wire, Topology::default())?;
        counts.push(reordered(&flood(&run.hosts.a, &run.hosts.b, single())?));
        run.finish()?;
    }
    let (netem, embedded) = (counts[0] as f64, counts[1] as f64);
    // Sampling makes 2 % of it; the rest is that the sender does not keep its pace exactly.
    check(
        (embedded / netem - 1.0).abs() <= 0.1,
        format!("netem reordered {netem}, the embedded wire {embedded} of {PACKETS}"),
    )
}

/// Ping's mean is within 5 % of what the options predict, and at most what a wire without
/// impairment takes on this machine at this moment above that.
fn pings(name: &str, backend: Backend) -> Outcome {
    let plain = match backend {
        Backend::Netem => "backend = 'none'",
        _ => "backend = 'embedded'",
    };
    let plain = probe::start(plain, Topology::default())?;
    let idle_ns = ping(&plain)?;
    plain.finish()?;
    each(name, backend, "egress", |run| {
        let found = ping(run)?;
        let account = run.wire.account()?;
        let of = |host: &HostAccount| host.configured.expected_delay_ns(account.model);
        let expected: f64 = account.hosts.iter().map(of).sum();
        let text = format!(
            "mean of ping {:.3} ms, predicted {:.3} ms, without impairment {:.3} ms",
            found / 1e6,
            expected / 1e6,
            idle_ns / 1e6
        );
        say(&format!(
            "{name}, {:?}, {:?}: {text}",
            account.model, account.unit
        ));
        check(
            found >= 0.95 * expected && found <= 1.05 * expected + idle_ns,
            text,
        )
    })
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
