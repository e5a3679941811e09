//! Verdicts on random paths whose truth is known: losses, delays, copies, and events that were not
//! recorded.

use proptest::prelude::*;

use super::spurious::{Arrival, Sent, Spurious};

const MS: u64 = 1_000_000;
const LENGTH: u64 = 100;

/// One copy of a segment: how long after the copy before it is sent, and when it arrives.
#[derive(Debug, Clone)]
struct Copy {
    after_ms: u64,
    delay_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Send { segment: u64, copy: usize, key: u32 },
    Arrive { segment: u64, tsval: u32 },
}

fn copies() -> impl Strategy<Value = Vec<Vec<Copy>>> {
    let copy = (1..40u64, prop::option::weighted(0.7, 1..60u64));
    let copy = copy.prop_map(|(after_ms, delay_ms)| Copy { after_ms, delay_ms });
    prop::collection::vec(prop::collection::vec(copy, 1..4), 1..30)
}

/// What happens, in order of time, and whether each retransmission was spurious.
fn timeline(segments: &[Vec<Copy>]) -> (Vec<(u64, Step)>, Vec<bool>) {
    let (mut steps, mut truth) = (Vec::new(), Vec::new());
    for (number, all) in segments.iter().enumerate() {
        let segment = number as u64;
        let mut sent = segment;
        let mut arrived = false;
        for (copy, one) in all.iter().enumerate() {
            if copy > 0 {
                sent += one.after_ms;
                let key = u32::try_from(truth.len()).expect("few");
                steps.push((sent, Step::Send { segment, copy, key }));
                truth.push(arrived);
            }
            let tsval = u32::try_from(sent).expect("short");
            if let Some(delay) = one.delay_ms {
                steps.push((sent + delay, Step::Arrive { segment, tsval }));
            }
            arrived |= one.delay_ms.is_some();
        }
    }
    steps.sort_unstable();
    (steps, truth)
}

fn verdicts(steps: &[(u64, Step)], skip: &[bool], keys: usize) -> Vec<(u64, u64)> {
    let mut flow = Spurious::default();
    // The receiver is seen from the start: a segment before all others.
    flow.arrived(Arrival {
        start: 900,
        end: 1000,
        tsval: None,
        rcv_nxt: 900,
        time: 0,
        discarded: false,
    });
    for (index, (time, step)) in steps.iter().enumerate() {
        if skip.get(index).copied().unwrap_or(false) {
            continue;
        }
        let time_ns = time * MS;
        match *step {
            Step::Send { segment, key, .. } => {
                let start = 1000 + segment * LENGTH;
                let tsval = u32::try_from(*time).expect("short");
                flow.repeated_at_device(start, start + LENGTH, tsval);
                flow.resent(Sent {
                    offset: 0,
                    time: time_ns,
                    start,
                    end: start + LENGTH,
                    segments: 1,
                    key,
                    episode: 0,
                });
            }
            Step::Arrive { segment, tsval } => {
                let start = 1000 + segment * LENGTH;
                flow.arrived(Arrival {
                    start,
                    end: start + LENGTH,
                    tsval: Some(tsval),
                    rcv_nxt: 0,
                    time: time_ns,
                    discarded: false,
                });
            }
        }
    }
    let found = flow.finish();
    let of = |key: usize| {
        let tally = found.get(&u32::try_from(key).expect("few"));
        tally.map_or((0, 0), |one| (one.spurious, one.certain))
    };
    (0..keys).map(of).collect()
}

proptest! {
    #[test]
    fn with_everything_recorded_the_verdict_is_the_truth(segments in copies()) {
        let (steps, truth) = timeline(&segments);
        let found = verdicts(&steps, &[], truth.len());
        for (key, (verdict, truth)) in found.iter().zip(&truth).enumerate() {
            prop_assert_eq!(verdict.0 == 1, *truth, "retransmission {}", key);
        }
    }

    #[test]
    fn what_was_not_recorded_makes_no_verdict_wrong(
        segments in copies(),
        skip in prop::collection::vec(any::<bool>(), 200),
    ) {
        let (steps, truth) = timeline(&segments);
        let found = verdicts(&steps, &skip, truth.len());
        for (key, (verdict, truth)) in found.iter().zip(&truth).enumerate() {
            prop_assert!(verdict.1 == 0 || *truth, "retransmission {}", key);
        }
    }
}
