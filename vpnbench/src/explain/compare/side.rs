//! What a comparison needs of a run: plain values, whatever they came from.

use std::collections::BTreeMap;

use super::twice::Sight;

/// The figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Bits per second that the receiver got.
    Throughput,
    /// Mean round trip in us.
    Rtt,
}

impl Figure {
    /// Name with its unit, as in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput_bps_received",
            Figure::Rtt => "rtt_us_mean",
        }
    }
}

/// A thread that limits a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ThreadFacts {
    /// Share of the time in which it ran with work.
    pub working: f64,
    /// `working` / packets per second of its daemon: s of its CPU time per packet.
    pub cost_s: f64,
}

/// A count and what it is a count of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counted {
    /// Of these.
    pub count: f64,
    /// All.
    pub of: f64,
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunFacts {
    /// Bits per second received.
    pub throughput_bps: Option<f64>,
    /// Standard deviation of the throughput, or of the RTT where that is compared, from second to second of the
    /// benchmark.
    pub within: Option<f64>,
    /// Mean RTT in us: the benchmark's where it measures it, else TCP's.
    pub rtt_us: Option<f64>,
    /// Whether the benchmark measures latency and not throughput.
    pub latency: bool,
    /// Mean window that the senders kept in flight at most, bytes: congestion window x segment size.
    pub window_bytes: Option<f64>,
    /// The daemons' thread that was saturated most, if one was.
    pub thread: Option<ThreadFacts>,
    /// Its CPU ns per packet of the daemon by stage.
    pub thread_stages_ns: BTreeMap<String, f64>,
    /// Bits per second offered by a sender of datagrams.
    pub offered_bps: Option<f64>,
    /// Datagrams that survived each place, by stage: out / in.
    pub survival: BTreeMap<String, f64>,
    /// Mean time in us by stage, both directions added.
    pub stages_us: BTreeMap<String, f64>,
    /// What makes senders reduce their windows, as a share of the packets sent, by cause.
    pub reductions: BTreeMap<String, f64>,
    /// Counts by name and by the name of what they are counts of.
    pub counts: BTreeMap<(&'static str, &'static str), Counted>,
    /// Conditions by name.
    pub conditions: BTreeMap<String, String>,
    /// Supported findings, ranked.
    pub findings: Vec<String>,
    /// What to do about the first of them.
    pub remedies: BTreeMap<String, String>,
    /// What another recording of the run knows, too.
    pub sight: Sight,
}

/// Runs of one thing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Side {
    /// What the user called it.
    pub name: String,
    /// Its runs.
    pub runs: Vec<RunFacts>,
}

impl Side {
    /// The figure that its runs measure.
    #[must_use]
    pub fn figure(&self) -> Option<Figure> {
        let first = self.runs.first()?;
        match (first.latency, first.throughput_bps, first.rtt_us) {
            (true, _, Some(_)) => Some(Figure::Rtt),
            (_, Some(_), _) => Some(Figure::Throughput),
            (_, _, Some(_)) => Some(Figure::Rtt),
            _ => None,
        }
    }

    /// That figure of each run that has it.
    #[must_use]
    pub fn values(&self, figure: Figure) -> Vec<f64> {
        let pick = |run: &RunFacts| match figure {
            Figure::Throughput => run.throughput_bps,
            Figure::Rtt => run.rtt_us,
        };
        self.runs.iter().filter_map(pick).collect()
    }

    /// Standard deviation of the figure from second to second inside its runs (root of their mean variance); `None`
    /// where a run does not tell.
    #[must_use]
    pub fn within(&self) -> Option<f64> {
        let variances = self.runs.iter().map(|run| Some(run.within?.powi(2)));
        let variances: Vec<f64> = variances.collect::<Option<_>>()?;
        Some(crate::analysis::statistics::mean(&variances)?.sqrt())
    }

    /// Findings supported in more than half of its runs, most frequent first, then by rank.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for run in &self.runs {
            for (rank, id) in run.findings.iter().enumerate() {
                let entry = seen.entry(id).or_default();
                *entry = (entry.0 + 1, entry.1 + rank);
            }
        }
        let mut most: Vec<(&str, (usize, usize))> = seen.into_iter().collect();
        most.retain(|(_, (count, _))| 2 * count > self.runs.len());
        most.sort_by_key(|(_, (count, ranks))| (std::cmp::Reverse(*count), *ranks));
        most.into_iter().map(|(id, _)| id.to_owned()).collect()
    }

    /// Mean of a figure over the runs that have it.
    #[must_use]
    pub fn mean(&self, pick: impl Fn(&RunFacts) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.runs.iter().filter_map(pick).collect();
        crate::analysis::statistics::mean(&values)
    }

    /// Names in a map of any run.
    pub fn names<K: Clone + Ord, V>(&self, pick: impl Fn(&RunFacts) -> &BTreeMap<K, V>) -> Vec<K> {
        let mut names: Vec<K> = self
            .runs
            .iter()
            .flat_map(|run| pick(run).keys().cloned())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}
