//! The histories of tests/golden in other orders, pieces and with holes: what does not matter changes
//! nothing, and what is missing makes a verdict unknown, never wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use proptest::prelude::*;
use vpnbench::report::Report;
use vpnbench_tests::timeline::Timeline;

/// The timelines of tests/golden whose events are in the order of time.
fn histories() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|one| one.unwrap().path())
        .collect();
    paths.sort();
    let inputs = paths.iter().map(|path| {
        let text = fs::read_to_string(path).unwrap();
        text.split_once("======== report\n").unwrap().0.to_owned()
    });
    let histories: Vec<String> = inputs
        .filter(|text| {
            let timeline = Timeline::parse(text).unwrap();
            let times: Vec<u64> = (0..timeline.len())
                .map(|number| timeline.time(number))
                .collect();
            times.is_sorted() && !timeline.is_empty()
        })
        .collect();
    assert!(histories.len() >= 6, "{} histories", histories.len());
    histories
}

/// Reads in pieces of other sizes than it is asked for.
struct Pieces<'a> {
    rest: &'a [u8],
    sizes: Vec<usize>,
    next: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.next % self.sizes.len()];
        self.next += 1;
        let length = size.min(buffer.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = later;
        Ok(length)
    }
}

/// Nothing that is claimed with events missing may contradict the whole history.
fn consistent(whole: &Report, part: &Report) -> Result<(), TestCaseError> {
    let balanced = part.ledger.as_ref().and_then(|ledger| ledger.balanced);
    prop_assert_eq!(balanced, None, "balanced with events missing");
    let (all, found) = (&whole.retransmits, &part.retransmits);
    if let Some(found) = &found.spurious {
        let all = all.spurious.as_ref();
        let most = all.map_or(0, |all| all.count);
        prop_assert!(found.count <= most, "{} spurious of {most}", found.count);
        if let Some(ratio) = found.ratio {
            prop_assert_eq!(Some(ratio), all.and_then(|all| all.ratio));
        }
    }
    for loss in &part.losses {
        if loss.method == "kernel-reason" {
            let told = whole.losses.iter().filter(|one| one.reason == loss.reason);
            let told: u64 = told.map(|one| one.packets).sum();
            prop_assert!(loss.packets <= told, "{loss:?} of {told}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Rings of processors, rounds of draining, and the sizes in which the file is read.
    #[test]
    fn order_across_processors_and_pieces_change_nothing(
        pick in 0usize..100,
        rings in proptest::collection::vec(0u16..4, 16),
        cuts in proptest::collection::vec(0usize..64, 0..6),
        sizes in proptest::collection::vec(1usize..700, 1..8),
    ) {
        let histories = histories();
        let timeline = Timeline::parse(&histories[pick % histories.len()]).unwrap();
        let direct = timeline.report().unwrap();
        // What happens at one moment happens on one processor.
        let ring = |number: usize| rings[(timeline.time(number) / 1000 % 16) as usize];
        let mut boundaries: Vec<usize> = cuts.iter().map(|cut| cut % timeline.len()).collect();
        boundaries.sort_unstable();
        let trace = timeline.scattered(ring, &boundaries).unwrap();
        let pieces = Pieces { rest: &trace, sizes, next: 0 };
        let read = Timeline::report_of(pieces).unwrap();
        prop_assert_eq!(&read, &direct);
        let again = Timeline::report_of(trace.as_slice()).unwrap();
        prop_assert_eq!(&again, &direct);
    }

    #[test]
    fn what_is_missing_makes_a_verdict_unknown_and_never_wrong(
        pick in 0usize..100,
        missing in proptest::collection::btree_set(0usize..64, 1..8),
    ) {
        let histories = histories();
        let text = &histories[pick % histories.len()];
        let timeline = Timeline::parse(text).unwrap();
        let whole = timeline.report().unwrap();
        let missing: BTreeSet<usize> = missing.iter().map(|one| one % timeline.len()).collect();
        let part = timeline.without(&missing).report().unwrap();
        consistent(&whole, &part)?;
    }
}
