//! Threads hold each other up.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::{bounds, confidence, units};

pub(super) const RULE: Rule = Rule {
    id: "serialized-send-pipeline",
    claim: "daemon threads block on each other (lock) and outer sends leave one at a time",
    judged: "threads of one duty that end each other's futex waits while packets wait, several of which send, hardly two at once and in turns (docs/threads.md); the share is their mean time in such waits",
    needs: &[
        Need::Daemon,
        Need::Probe(ProbeId::SchedSwitch),
        Need::Probe(ProbeId::SchedWaking),
        Need::Probe(ProbeId::SysExit),
    ],
    remedy: "send without the lock that encryption holds: a lock for each peer and direction only around the counter, a queue in front of the socket, batches (sendmmsg)",
    refuted_by: "workers wait for work, not for each other",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let limits = &facts.outputs.threads.limits;
    if limits.is_empty() {
        return Judgement::unseen("no daemon carried packets while its threads were watched");
    }
    let found = limits
        .iter()
        .filter_map(|daemon| Some((daemon, daemon.serialisation.as_ref()?)));
    let most = found.max_by(|a, b| a.1.wait_share.total_cmp(&b.1.wait_share));
    let Some((daemon, serial)) = most else {
        return Known {
            probability: 0.0,
            summary: "no threads of one duty waited for each other".to_owned(),
            ..Known::default()
        }
        .into();
    };
    let waits = confidence::time_above(
        serial.wait_share,
        daemon.window_s,
        serial.wait_s / (serial.waits as f64).max(1.0),
        bounds::MATERIAL,
    );
    let threads = serial.threads.len() as f64;
    let mut evidence = vec![
        Evidence::new(
            "waiting for each other while packets waited",
            serial.wait_share,
            "of the time",
            "daemons",
        )
        .expected("0 %"),
        Evidence::new("threads that did", threads, "threads", "daemons"),
        Evidence::new(
            "threads that send",
            serial.sending_threads as f64,
            "threads",
            "daemons",
        ),
    ];
    evidence.extend(serial.send_overlap_share.map(|share| {
        Evidence::new(
            "time in a send call with another one beside",
            share,
            "ratio",
            "daemons",
        )
    }));
    Known {
        probability: if serial.serialised { waits } else { 0.0 },
        share: Some(serial.wait_share),
        summary: format!(
            "{threads} threads of {} waited for each other {} of the time while packets waited",
            daemon.comm,
            units::percent(serial.wait_share)
        ),
        evidence,
        remedy: None,
    }
    .into()
}
