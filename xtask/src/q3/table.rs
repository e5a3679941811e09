//! The tables of docs/q3.md from the runs' reports.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Stages in the order of the columns; `other-calls` and `other` are one.
const STAGES: [&str; 8] = [
    "tun-read",
    "daemon-send",
    "outer-send",
    "outer-receive",
    "daemon-receive",
    "tun-write",
    "softirq",
    "other",
];
/// Stages that are calls, of which there are batches.
const CALLS: [&str; 4] = ["tun-read", "outer-send", "outer-receive", "tun-write"];
/// Threads with less of their daemon's CPU time are left out.
const LEAST: f64 = 0.03;

/// One run.
pub(super) struct Run {
    vpn: &'static str,
    cores: &'static str,
    load: Vec<f64>,
    report: Value,
}

impl Run {
    pub(super) fn read(path: &Path, vpn: &'static str, cores: &'static str) -> Result<Run> {
        let name = path.display();
        let text = fs::read(path).with_context(|| format!("cannot read {name}"))?;
        let mut whole: Value =
            serde_json::from_slice(&text).with_context(|| format!("{name} is no JSON"))?;
        let load = whole["load"].as_array().cloned().unwrap_or_default();
        Ok(Run {
            vpn,
            cores,
            load: load.iter().filter_map(Value::as_f64).collect(),
            report: whole["report"].take(),
        })
    }

    /// Its daemons: the sender of the benchmark's data first.
    fn daemons(&self) -> Vec<&Value> {
        let mut all: Vec<&Value> = self.report["daemon_limits"]
            .as_array()
            .map_or_else(Vec::new, |list| list.iter().collect());
        let outward = |one: &Value| {
            let count = |key: &str| one[key].as_i64().unwrap_or(0);
            count("packets_out") - count("packets_in")
        };
        all.sort_by_key(|one| std::cmp::Reverse(outward(one)));
        all
    }

    /// The threads of a daemon that did a share of its work.
    fn threads(&self, daemon: &Value) -> Vec<&Value> {
        let list = self.report["threads"].as_array();
        let own = list.into_iter().flatten();
        let own = own.filter(|thread| thread["pid"] == daemon["pid"]);
        let all = daemon["cpu_s"].as_f64().unwrap_or(0.0);
        own.filter(|thread| thread["cpu_s"].as_f64().unwrap_or(0.0) >= LEAST * all)
            .collect()
    }
}

/// Several values of one figure.
#[derive(Default)]
struct Figures(Vec<f64>);

impl Figures {
    fn add(&mut self, value: Option<f64>) {
        self.0.extend(value);
    }

    fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => None,
            count if count % 2 == 1 => Some(sorted[count / 2]),
            count => Some(f64::midpoint(sorted[count / 2 - 1], sorted[count / 2])),
        }
    }

    /// The median, and the extremes of more than one.
    fn text(&self, digits: usize) -> String {
        let Some(median) = self.median() else {
            return "-".to_owned();
        };
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self.0.len() {
            1 => format!("{median:.digits$}"),
            _ => format!("{median:.digits$} ({least:.digits$}-{most:.digits$})"),
        }
    }

    fn short(&self, digits: usize) -> String {
        let median = self.median();
        median.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    }
}

/// The whole page.
pub(super) fn text(vpns: &[&'static str], cores: &[&'static str], runs: &[Run]) -> String {
    let mut page = head(runs);
    for (end, title) in ["the sender", "the receiver"].iter().enumerate() {
        let _ = writeln!(
            page,
            "\n## CPU time per packet at {title}\n\nns of CPU by stage, all threads together, medians; `all` with its extremes.\n"
        );
        stages(vpns, cores, runs, end, &mut page);
    }
    page.push_str("\n## Threads\n\nThreads with at least 3 % of their daemon's CPU time, busiest first, of the run with the median CPU time per packet. `batch`: segments per call that moved any.\n\n");
    threads(vpns, cores, runs, &mut page);
    page.push_str("\n## What they could carry\n\n`implied`: the lowest ceiling of a thread, waiting for a core as it did; `own core`: the lowest, had each thread a core to itself; medians with extremes.\n\n");
    limits(vpns, cores, runs, &mut page);
    page
}

fn head(runs: &[Run]) -> String {
    let loads = || runs.iter().flat_map(|run| run.load.iter().copied());
    let (least, most) = (
        loads().fold(f64::INFINITY, f64::min),
        loads().fold(0.0, f64::max),
    );
    let first = runs.first().map_or(&Value::Null, |run| &run.report["run"]);
    format!(
        "# Question Q3, measured\n\nWritten by `cargo xtask q3`: one iperf3 stream (5 s) over a plain pair of links, both ends on one machine of {} cores, Linux {}; {} runs. Daemons and benchmark are kept to core 1, or to cores 0 and 1 (`[cpus]`). Load average of the machine {least:.1} to {most:.1}: with other work on it, CPU time per packet and shares of time on a core are what to read; rates, and shares with waiting for a core, are lower and higher than on a quiet one. docs/threads.md has the formulas and the answer.\n",
        first["cpus"],
        first["kernel"].as_str().unwrap_or("?"),
        runs.len()
    )
}

fn of<'a>(runs: &'a [Run], vpn: &str, cores: &str) -> Vec<&'a Run> {
    runs.iter()
        .filter(|run| run.vpn == vpn && run.cores == cores)
        .collect()
}

/// CPU s of the stages of a daemon, by column.
fn by_stage(daemon: &Value) -> BTreeMap<&'static str, f64> {
    let mut sums = BTreeMap::new();
    for stage in daemon["stages"].as_array().into_iter().flatten() {
        let name = stage["stage"].as_str().unwrap_or_default();
        let column = STAGES.iter().find(|one| **one == name).unwrap_or(&"other");
        *sums.entry(*column).or_insert(0.0) += stage["cpu_s"].as_f64().unwrap_or(0.0);
    }
    sums
}

fn packets(daemon: &Value) -> f64 {
    let count = |key: &str| daemon[key].as_f64().unwrap_or(0.0);
    count("packets_out") + count("packets_in")
}

fn stages(
    vpns: &[&'static str],
    cores: &[&'static str],
    runs: &[Run],
    end: usize,
    page: &mut String,
) {
    let _ = writeln!(page, "| VPN | cores | {} | all |", STAGES.join(" | "));
    let _ = writeln!(page, "| --- | --- |{} --- |", " --- |".repeat(STAGES.len()));
    for vpn in vpns {
        for cores in cores {
            let mut columns: Vec<Figures> = STAGES.iter().map(|_| Figures::default()).collect();
            let mut all = Figures::default();
            for run in of(runs, vpn, cores) {
                let daemons = run.daemons();
                let Some(daemon) = daemons.get(end) else {
                    continue;
                };
                let (sums, count) = (by_stage(daemon), packets(daemon).max(1.0));
                for (figures, stage) in columns.iter_mut().zip(STAGES) {
                    figures.add(Some(sums.get(stage).unwrap_or(&0.0) * 1e9 / count));
                }
                all.add(daemon["ns_per_packet"].as_f64());
            }
            let columns: Vec<String> = columns.iter().map(|one| one.short(0)).collect();
            let _ = writeln!(
                page,
                "| {vpn} | {cores} | {} | {} |",
                columns.join(" | "),
                all.text(0)
            );
        }
    }
}

/// The run whose sender has the median CPU time per packet.
fn typical<'a>(runs: &[&'a Run]) -> Option<&'a Run> {
    let cost = |run: &Run| {
        let daemons = run.daemons();
        daemons
            .first()
            .and_then(|one| one["ns_per_packet"].as_f64())
            .unwrap_or(f64::INFINITY)
    };
    let mut sorted: Vec<&Run> = runs.to_vec();
    sorted.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn threads(vpns: &[&'static str], cores: &[&'static str], runs: &[Run], page: &mut String) {
    page.push_str("| VPN | cores | end | thread does | ns/packet | tun-read | outer-send | outer-receive | tun-write | batch: read, send, receive, write | calls/packet | on a core | saturated | implied packets/s |\n");
    let _ = writeln!(page, "|{}", " --- |".repeat(14));
    for vpn in vpns {
        for cores in cores {
            let Some(run) = typical(&of(runs, vpn, cores)) else {
                continue;
            };
            for (daemon, end) in run.daemons().into_iter().zip(["sender", "receiver"]) {
                for thread in run.threads(daemon) {
                    let _ = writeln!(page, "| {vpn} | {cores} | {end} | {} |", row(thread));
                }
            }
        }
    }
}

fn row(thread: &Value) -> String {
    let number = |value: &Value, digits: usize| {
        let value = value.as_f64();
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let share = |value: &Value| {
        let value = value.as_f64();
        value.map_or("-".to_owned(), |value| format!("{:.0} %", 100.0 * value))
    };
    let duties = thread["duties"].as_array();
    let duties: Vec<&str> = duties
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let duties = match duties.len() {
        4 => "all".to_owned(),
        _ => duties.join(", "),
    };
    let list = thread["stages"].as_array();
    let stage = |name: &str| {
        let mut stages = list.into_iter().flatten();
        stages
            .find(|stage| stage["stage"] == name)
            .unwrap_or(&Value::Null)
    };
    let costs = CALLS.map(|name| number(&stage(name)["ns_per_packet"], 0));
    let batches = CALLS.map(|name| number(&stage(name)["batch_mean"], 1));
    let calls: f64 = CALLS
        .iter()
        .filter_map(|name| stage(name)["calls"].as_f64())
        .sum();
    let per_packet = thread["packets"]
        .as_f64()
        .filter(|packets| *packets > 0.0)
        .map_or("-".to_owned(), |packets| format!("{:.2}", calls / packets));
    [
        duties,
        number(&thread["ns_per_packet"], 0),
        costs.join(" | "),
        batches.join(", "),
        per_packet,
        share(&thread["cpu_share"]),
        share(&thread["saturated_share"]),
        number(&thread["ceiling_packets_per_s"], 0),
    ]
    .join(" | ")
}

fn limits(vpns: &[&'static str], cores: &[&'static str], runs: &[Run], page: &mut String) {
    page.push_str("| VPN | cores | end | measured packets/s | Mbit/s | CPU time, share of one core | saturated most | implied packets/s | own core packets/s | bottleneck named |\n");
    let _ = writeln!(page, "|{}", " --- |".repeat(10));
    for vpn in vpns {
        for cores in cores {
            for (end, name) in ["sender", "receiver"].iter().enumerate() {
                let mut figures: [Figures; 6] = Default::default();
                let (mut named, mut of_runs) = (0, 0);
                for run in of(runs, vpn, cores) {
                    let daemons = run.daemons();
                    let Some(daemon) = daemons.get(end) else {
                        continue;
                    };
                    of_runs += 1;
                    named += usize::from(!daemon["bottleneck"].is_null());
                    let limits = daemon["ceilings"].as_array().into_iter().flatten();
                    let limits = limits.filter(|limit| !limit["tid"].is_null());
                    let least = |key: &str| {
                        let values = limits.clone().filter_map(|limit| limit[key].as_f64());
                        values.min_by(f64::total_cmp)
                    };
                    // Sorted by ceiling, so this is the most saturated one.
                    let first = limits.clone().next().unwrap_or(&Value::Null);
                    let window = daemon["window_s"].as_f64().unwrap_or(0.0).max(1e-9);
                    let percent = |value: Option<f64>| value.map(|value| 100.0 * value);
                    let values = [
                        daemon["packets_per_s"].as_f64(),
                        daemon["bps"].as_f64().map(|bps| bps / 1e6),
                        percent(daemon["cpu_s"].as_f64().map(|time| time / window)),
                        percent(first["saturated_share"].as_f64()),
                        least("ceiling_packets_per_s"),
                        least("own_core_packets_per_s"),
                    ];
                    for (figure, value) in figures.iter_mut().zip(values) {
                        figure.add(value);
                    }
                }
                let [rate, bits, cpu, saturated, implied, own] = figures;
                let _ = writeln!(
                    page,
                    "| {vpn} | {cores} | {name} | {} | {} | {} % | {} % | {} | {} | {named} of {of_runs} |",
                    rate.text(0),
                    bits.text(0),
                    cpu.text(0),
                    saturated.text(0),
                    implied.text(0),
                    own.text(0)
                );
            }
        }
    }
}
