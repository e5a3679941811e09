//! The TCP parts of the report.

use std::collections::BTreeMap;

use super::model::{
    LimitedBy, Predicted, Quantiles, ResentSegment, Spurious, SpuriousEvidence, TcpFlow, WhatIf,
};
use crate::analysis::connections::TcpFlow as Sender;
use crate::analysis::spurious::Mark;
use crate::analysis::what_if::summary::Prediction;
use crate::analysis::{Context, retransmits};

/// Senders by namespace, own end and other end. Ports used again share one entry: the first, which
/// carried most.
pub(super) fn by_ends(senders: &[Sender]) -> BTreeMap<(u32, &str, &str), &Sender> {
    let mut result = BTreeMap::new();
    for sender in senders {
        let key = (sender.netns, sender.local.as_str(), sender.remote.as_str());
        result.entry(key).or_insert(sender);
    }
    result
}

pub(super) fn rtt(sender: &Sender) -> Option<Quantiles> {
    let found = sender.limits.rtt_us?;
    Some(Quantiles {
        p50: Some(found.p50),
        p90: Some(found.p90),
        p99: Some(found.p99),
        max: Some(found.max),
        min: Some(found.min),
    })
}

pub(super) fn limited_by(sender: &Sender) -> Option<LimitedBy> {
    let found = sender.limits.limited_by?;
    Some(LimitedBy {
        cwnd: found.cwnd,
        rwnd: found.rwnd,
        sndbuf: found.sndbuf,
        app: found.app,
    })
}

fn resent(sender: &Sender, causes: &BTreeMap<u32, &'static str>) -> Vec<ResentSegment> {
    let point = |mark: &Mark| ResentSegment {
        time_s: mark.time.saturating_sub(sender.began_ns) as f64 / 1e9,
        offset: mark.offset,
        cause: causes.get(&mark.key).copied().unwrap_or("other").to_owned(),
        original_arrived: mark.arrived,
    };
    sender.resent.iter().map(point).collect()
}

pub(super) fn flows(
    context: &Context<'_>,
    senders: &[Sender],
    causes: &BTreeMap<u32, &'static str>,
) -> Vec<TcpFlow> {
    let rows = senders.iter().map(|sender| {
        let limits = &sender.limits;
        TcpFlow {
            src: sender.local.clone(),
            dst: sender.remote.clone(),
            namespace: context.namespace_name(sender.netns),
            acked_bytes: limits.acked_bytes,
            throughput_bps: limits.throughput_bps,
            mss: limits.mss,
            rtt_us: limits.rtt_us,
            rtt_source: limits.rtt_source.map(str::to_owned),
            cwnd_mean: limits.cwnd_mean,
            times: limits.times,
            limited_by: limits.limited_by,
            chrono: limits.chrono,
            recovery: sender.sums.recovery,
            loss: sender.sums.loss,
            acks: limits.acks.clone(),
            series: limits.series.clone(),
            resent: resent(sender, causes),
        }
    });
    rows.collect()
}

pub(super) fn spurious(output: &retransmits::Output) -> Option<Spurious> {
    let tally = &output.spurious;
    if tally.segments == 0 {
        return None;
    }
    let receiver_seen = tally.segments > tally.sender_only;
    let sender_seen = tally.segments > 0;
    let open = if output.verdicts_incomplete {
        tally.segments - tally.spurious
    } else {
        tally.undecided
    };
    let judged = tally.segments - open;
    // Seen from the sender alone the count is a lower bound, and so is the ratio.
    let unknown = output.unjudged + open + tally.open;
    Some(Spurious {
        count: tally.spurious,
        ratio: (!output.verdicts_incomplete && judged > 0)
            .then(|| tally.spurious as f64 / judged as f64),
        by_cause: output.spurious_by_cause,
        evidence: SpuriousEvidence {
            original_seen: receiver_seen.then_some(tally.original_seen),
            dsack: sender_seen.then_some(tally.dsack),
            undo: sender_seen.then_some(tally.undo),
            timestamps: sender_seen.then_some(tally.timestamps),
            early: sender_seen.then_some(tally.early),
        },
        judged: judged.saturating_sub(tally.open),
        unknown,
        sender_agrees: (tally.compared > 0).then(|| tally.agree as f64 / tally.compared as f64),
    })
}

pub(super) fn what_if(predictions: &[Prediction]) -> Vec<WhatIf> {
    let rows = predictions.iter().map(|one| WhatIf {
        change: one.change.to_owned(),
        predicted: Predicted {
            retransmits: Some(one.retransmits),
            by_cause: Some(one.by_cause),
            spurious: one.spurious,
            throughput_bps: one.throughput_bps.map(|all| all.0),
            throughput_low_bps: one.throughput_bps.map(|all| all.1),
            throughput_high_bps: one.throughput_bps.map(|all| all.2),
            throughput: one.throughput,
        },
        basis: basis(one),
        kernel: one.kernel.clone(),
        reproduced: Some(one.reproduced),
    });
    rows.collect()
}

fn basis(one: &Prediction) -> String {
    let found = &one.reproduced;
    let share = found.fast_retransmits.map_or_else(
        || "there were no fast retransmissions to reproduce".to_owned(),
        |share| {
            format!(
                "the model reproduces {:.1} % of the fast retransmissions",
                100.0 * share
            )
        },
    );
    let throughput = found.simulated_throughput.map_or_else(
        || "no run was simulated for throughput".to_owned(),
        |share| format!("simulated runs as it was carry {share:.2} times what was carried in fact"),
    );
    format!(
        "replay of the recorded acknowledgements; {share} and, running free, {} of {} retransmissions; {throughput}",
        found.simulated_retransmits, found.actual_retransmits
    )
}
