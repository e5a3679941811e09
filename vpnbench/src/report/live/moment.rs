//! The difference of two reports of the same run.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::threads::{Duty, SATURATED_SHARE, ThreadTime};
use crate::report::model::{DaemonLimits, Loss, Report, TapCount};

/// Name of the schema of one line.
pub(super) const SCHEMA: &str = "vpnbench.live.v1";

/// One thread in an interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ThreadMoment {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Role of its process.
    pub role: String,
    /// What it does in a daemon.
    pub duties: Vec<Duty>,
    /// Core that it ran on most; null if it did not run.
    pub core: Option<u16>,
    /// Share of the interval on a core.
    pub on_core_share: f64,
    /// Share in which it was runnable without a core.
    pub runnable_share: f64,
    /// Share in which it slept, as far as it woke up again.
    pub blocked_share: f64,
    /// What it slept in most; null if it did not.
    pub blocked_in: Option<String>,
    /// Share in which it was running or runnable while work waited for it; null where that is not known.
    pub saturated_share: Option<f64>,
    /// Packets a second; null for threads that touch none.
    pub packets_per_s: Option<f64>,
    /// CPU ns per packet, polling without work left out; null without packets in the interval.
    pub ns_per_packet: Option<f64>,
    /// Times switched out, per second.
    pub switches_per_s: f64,
    /// Times it began to run on another core than before.
    pub migrations: u64,
}

/// One daemon in an interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DaemonMoment {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Packets a second, both ways.
    pub packets_per_s: f64,
    /// Bits a second of inner packets in the busier direction.
    pub bps: f64,
    /// Threads that were runnable without a core while work waited, on average.
    pub waiting_for_core: f64,
    /// The thread that was saturated for at least [`SATURATED_SHARE`] of the interval, if one was.
    pub saturated_tid: Option<u32>,
    /// Whether its threads have held each other up, over the run so far.
    pub serialised: bool,
}

/// Packets at one tap of a device in an interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TapMoment {
    /// Tap.
    pub tap: String,
    /// Device or port.
    pub place: String,
    /// Namespace.
    pub namespace: String,
    /// Wire segments a second.
    pub packets_per_s: f64,
    /// 8 x bytes (payload where the tap sees no more) a second.
    pub bps: f64,
    /// Wire segments so far.
    pub packets: u64,
}

/// Packets lost at one place.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LossMoment {
    /// Where on the path.
    pub stage: String,
    /// The kernel's reason, or what the books say.
    pub reason: String,
    /// Device; null where the packet no longer had one.
    pub device: Option<String>,
    /// Namespace.
    pub namespace: String,
    /// Packets in the interval.
    pub packets: u64,
    /// Packets so far.
    pub packets_so_far: u64,
}

/// What happened since the last look.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Moment {
    /// `vpnbench.live.v1`.
    pub schema: &'static str,
    /// Seconds from the start of the recording to the end of the interval.
    pub time_s: f64,
    /// Length of the interval, s.
    pub interval_s: f64,
    /// Threads, busiest first.
    pub threads: Vec<ThreadMoment>,
    /// Daemons that carried packets.
    pub daemons: Vec<DaemonMoment>,
    /// Taps in the order of the path.
    pub taps: Vec<TapMoment>,
    /// Segments sent again in the interval, by cause; null without the probe.
    pub retransmits: Option<BTreeMap<String, u64>>,
    /// Lost packets.
    pub losses: Vec<LossMoment>,
    /// Findings that the run so far supports, ranked.
    pub findings: Vec<String>,
    /// Events that could not be stored so far.
    pub lost_events: u64,
    /// The run so far.
    #[serde(skip)]
    pub report: Report,
}

/// `now` less `before`, for counts that only grow.
fn grown(now: f64, before: f64) -> f64 {
    (now - before).max(0.0)
}

impl Moment {
    /// What `report` has more than the one before it, which ended `interval_s` earlier; without one
    /// the whole run so far.
    #[must_use]
    pub fn new(before: Option<&Report>, report: Report, time_s: f64, interval_s: f64) -> Moment {
        let length = interval_s.max(1e-9);
        let threads = threads(before, &report, length);
        Moment {
            schema: SCHEMA,
            time_s,
            interval_s,
            daemons: daemons(before, &report, &threads, length),
            threads,
            taps: taps(before, &report, length),
            retransmits: retransmits(before, &report),
            losses: losses(before, &report),
            findings: report.supported().map(|one| one.id.clone()).collect(),
            lost_events: report.capture.lost,
            report,
        }
    }

    /// Bits a second of inner packets in the busier direction: of the busiest daemon, else of the busiest tap.
    #[must_use]
    pub fn bps(&self) -> f64 {
        let daemons = self.daemons.iter().map(|one| one.bps);
        let busiest = daemons.fold(0.0, f64::max);
        if busiest > 0.0 {
            return busiest;
        }
        self.taps.iter().map(|one| one.bps).fold(0.0, f64::max)
    }

    /// Segments sent again in the interval.
    #[must_use]
    pub fn resent(&self) -> Option<u64> {
        self.retransmits.as_ref().map(|all| all.values().sum())
    }
}

fn saturated_s(thread: &ThreadTime) -> f64 {
    thread.seconds.iter().map(|second| second.saturated_s).sum()
}

fn threads(before: Option<&Report>, report: &Report, length: f64) -> Vec<ThreadMoment> {
    let earlier = before.map_or(&[][..], |report| &report.threads);
    let mut rows: Vec<ThreadMoment> = report
        .threads
        .iter()
        .map(|now| {
            let same = |one: &&ThreadTime| (one.pid, one.tid) == (now.pid, now.tid);
            let none = ThreadTime::default();
            let then = earlier.iter().find(same).unwrap_or(&none);
            thread(then, now, length)
        })
        .collect();
    rows.sort_by(|a, b| b.on_core_share.total_cmp(&a.on_core_share));
    rows
}

fn thread(then: &ThreadTime, now: &ThreadTime, length: f64) -> ThreadMoment {
    let cpu_s = grown(now.cpu_s, then.cpu_s);
    let core = now.cores.iter().map(|one| {
        let before = then.cores.iter().find(|other| other.cpu == one.cpu);
        (
            one.cpu,
            grown(one.cpu_s, before.map_or(0.0, |other| other.cpu_s)),
        )
    });
    let core = core
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|(_, time)| *time > 0.0);
    let kinds = now.blocked_s.kinds().into_iter();
    let kinds = kinds
        .zip(then.blocked_s.kinds())
        .map(|((name, after), (_, before))| (name, grown(after, before)));
    let blocked = kinds
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|(_, time)| *time > 0.0);
    let packets = now
        .packets
        .map(|all| all - then.packets.unwrap_or(0).min(all));
    let idle_s = grown(
        now.idle_cpu_s.unwrap_or(0.0),
        then.idle_cpu_s.unwrap_or(0.0),
    );
    ThreadMoment {
        pid: now.pid,
        tid: now.tid,
        comm: now.comm.clone(),
        role: now.role.clone(),
        duties: now.duties.clone(),
        core: core.map(|(cpu, _)| cpu),
        on_core_share: cpu_s / length,
        runnable_share: grown(now.runqueue_wait_s, then.runqueue_wait_s) / length,
        blocked_share: grown(now.blocked_s.total(), then.blocked_s.total()) / length,
        blocked_in: blocked.map(|(name, _)| name.to_owned()),
        saturated_share: now
            .saturated_share
            .map(|_| grown(saturated_s(now), saturated_s(then)) / length),
        packets_per_s: packets.map(|count| count as f64 / length),
        ns_per_packet: packets
            .filter(|count| *count > 0)
            .map(|count| (cpu_s - idle_s).max(0.0) * 1e9 / count as f64),
        switches_per_s: (now.switches - then.switches.min(now.switches)) as f64 / length,
        migrations: now.migrations - then.migrations.min(now.migrations),
    }
}

fn daemons(
    before: Option<&Report>,
    report: &Report,
    threads: &[ThreadMoment],
    length: f64,
) -> Vec<DaemonMoment> {
    let earlier = before.map_or(&[][..], |report| &report.daemon_limits);
    let rows = report.daemon_limits.iter().map(|now| {
        let none = DaemonLimits::default();
        let then = earlier.iter().find(|one| one.pid == now.pid);
        let then = then.unwrap_or(&none);
        let whole = |one: &DaemonLimits| one.packets_out + one.packets_in;
        let most = threads
            .iter()
            .filter(|one| one.pid == now.pid)
            .filter_map(|one| Some((one.tid, one.saturated_share?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, share)| *share >= SATURATED_SHARE);
        let per_s = |pick: fn(&DaemonLimits) -> f64| {
            grown(pick(now) * now.window_s, pick(then) * then.window_s) / length
        };
        DaemonMoment {
            pid: now.pid,
            comm: now.comm.clone(),
            packets_per_s: grown(whole(now) as f64, whole(then) as f64) / length,
            bps: per_s(|one| one.bps),
            waiting_for_core: per_s(|one| one.waiting_for_core),
            saturated_tid: most.map(|(tid, _)| tid),
            serialised: now.serialisation.as_ref().is_some_and(|one| one.serialised),
        }
    });
    rows.collect()
}

fn taps(before: Option<&Report>, report: &Report, length: f64) -> Vec<TapMoment> {
    let earlier = before.map_or(&[][..], |report| &report.taps);
    let key = |one: &TapCount| (one.netns, one.tap.clone(), one.device.clone(), one.port);
    let size = |one: &TapCount| one.bytes.or(one.payload_bytes).unwrap_or(0);
    let rows = report.taps.iter().map(|now| {
        let then = earlier.iter().find(|one| key(one) == key(now));
        let bytes = size(now) as f64 - then.map_or(0, size) as f64;
        let packets = now.segments as f64 - then.map_or(0, |one| one.segments) as f64;
        TapMoment {
            tap: now.tap.clone(),
            place: match (&now.device, now.port) {
                (Some(device), _) => device.clone(),
                (None, Some(port)) => format!("port {port}"),
                (None, None) => "-".to_owned(),
            },
            namespace: now.namespace.clone(),
            packets_per_s: packets.max(0.0) / length,
            bps: 8.0 * bytes.max(0.0) / length,
            packets: now.segments,
        }
    });
    rows.collect()
}

fn retransmits(before: Option<&Report>, report: &Report) -> Option<BTreeMap<String, u64>> {
    let now = report.retransmits.by_cause?.rows();
    let then = before.and_then(|report| report.retransmits.by_cause);
    let then = then.unwrap_or_default().rows();
    let grown = now
        .into_iter()
        .zip(then)
        .map(|((cause, after), (_, before))| (cause.to_owned(), after - before.min(after)));
    Some(grown.collect())
}

fn losses(before: Option<&Report>, report: &Report) -> Vec<LossMoment> {
    let earlier = before.map_or(&[][..], |report| &report.losses);
    let key = |one: &Loss| {
        (
            one.stage.clone(),
            one.reason.clone(),
            one.device.clone(),
            one.place.clone(),
            one.namespace.clone(),
        )
    };
    let rows = report.losses.iter().map(|now| {
        let then = earlier.iter().find(|one| key(one) == key(now));
        let before = then.map_or(0, |one| one.packets);
        LossMoment {
            stage: now.stage.clone(),
            reason: now.reason.clone(),
            device: now.device.clone(),
            namespace: now.namespace.clone(),
            packets: now.packets - before.min(now.packets),
            packets_so_far: now.packets,
        }
    });
    rows.collect()
}
