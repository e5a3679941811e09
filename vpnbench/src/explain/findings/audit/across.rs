//! Audits that need more than one run: `vpnbench compare` judges them; a single run cannot.

use crate::explain::facts::Facts;
use crate::explain::rule::{Judgement, Rule};

fn alone(_: &Facts<'_>) -> Judgement {
    Judgement::inapplicable("it takes two runs: vpnbench compare A B")
}

pub(in crate::explain::findings) const CONDITIONS: Rule = Rule {
    id: "audit-unequal-conditions",
    claim: "the runs compared differ in time limits, durations, stream counts, versions, transports, routes or settings",
    judged: "by `vpnbench compare`: sysctls, offloads, queueing disciplines, MTU, congestion control, duration, versions, kernel",
    needs: &[],
    remedy: "make the conditions equal and measure again, or compare only what does not depend on them",
    refuted_by: "the conditions are equal",
    consequence_of: &[],
    lower_bound: false,
    judge: alone,
};

pub(in crate::explain::findings) const NORMALISED: Rule = Rule {
    id: "audit-not-normalised",
    claim: "counts are compared across different durations, segment sizes or volumes",
    judged: "by `vpnbench compare`: retransmissions and lost datagrams are also divided by what was sent; where the volumes account for more than half of the (logarithmic) difference, that is said",
    needs: &[],
    remedy: "compare ratios: retransmissions for each segment sent, drops for each packet",
    refuted_by: "the difference stays when counts are divided by what was sent",
    consequence_of: &[],
    lower_bound: false,
    judge: alone,
};

pub(in crate::explain::findings) const DIRECTIONS: Rule = Rule {
    id: "audit-direction-mix",
    claim: "forward is compared with reverse, a sender with the receiver of another flow, or data with acknowledgements",
    judged: "by `vpnbench compare`: kind of benchmark and direction of the load of each run",
    needs: &[],
    remedy: "compare the same direction of the same kind of test",
    refuted_by: "both sides measure the same direction",
    consequence_of: &[],
    lower_bound: false,
    judge: alone,
};

pub(in crate::explain::findings) const RUNS: Rule = Rule {
    id: "audit-too-few-runs",
    claim: "a difference lies within the spread of the replicates",
    judged: "by `vpnbench compare`: Welch's interval and Hedges' g over the repetitions of each side; with single runs how much two seconds of them differ, below which no difference is shown",
    needs: &[],
    remedy: "repeat both sides, in random order, until the interval excludes zero or is small enough to say that there is no difference",
    refuted_by: "the interval of the difference excludes zero",
    consequence_of: &[],
    lower_bound: false,
    judge: alone,
};
