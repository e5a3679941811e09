//! Campaigns with a runner that measures nothing: order, resuming, skipping.

use std::collections::BTreeSet;

use super::*;

fn campaign(variants: usize, repetitions: u32) -> Campaign {
    let variant = |number: usize| Variant {
        labels: vec![("number".to_owned(), number.to_string())],
        directory: PathBuf::from(format!("v{number}")),
        scenario: Scenario {
            name: format!("v{number}"),
            ..Scenario::default()
        },
    };
    Campaign {
        variants: (0..variants).map(variant).collect(),
        repetitions,
        warm_up: 1,
        order: Order::Random,
        seed: 5,
    }
}

fn plan() -> serde_json::Value {
    serde_json::json!({"plan": 1})
}

/// Runs until `stop_at` runs have been made, warm-up included; returns what was run where.
fn run(
    campaign: &Campaign,
    directory: &Path,
    stop_at: usize,
    status: impl Fn(&str) -> Status,
) -> (State, Vec<(String, Option<PathBuf>)>) {
    let mut state = State::open(directory, plan()).expect("a directory");
    let mut made = Vec::new();
    let mut runner = |scenario: &Scenario, repetition: u32, place: Option<&Path>| {
        if made.len() == stop_at {
            // What a run leaves that was interrupted.
            fs::write(place.expect("a place").join("half"), "").expect("written");
            return Err("interrupted");
        }
        made.push((scenario.name.clone(), place.map(Path::to_owned)));
        let mut outcome = RunOutcome::begun(scenario, repetition, String::new());
        outcome.status = status(&scenario.name);
        Ok(outcome)
    };
    let ended = campaign.run(directory, &mut state, &mut runner, &mut |_| {});
    assert_eq!(ended.is_err(), made.len() == stop_at);
    (state, made)
}

#[test]
fn every_repetition_has_every_variant_in_an_order_of_its_own() {
    let campaign = campaign(6, 4);
    let cells = campaign.cells();
    assert_eq!(cells, campaign.cells(), "the seed decides");
    let blocks: BTreeSet<Vec<usize>> = cells
        .chunks(6)
        .map(|block| block.iter().map(|cell| cell.variant).collect())
        .collect();
    assert_eq!(
        blocks.len(),
        4,
        "four repetitions in the same order are not random"
    );
    for block in blocks {
        let all: BTreeSet<usize> = block.into_iter().collect();
        assert_eq!(all.len(), 6);
    }
    let given = Campaign {
        order: Order::Given,
        ..campaign
    };
    assert!(
        given
            .cells()
            .is_sorted_by_key(|cell| (cell.repetition, cell.variant))
    );
}

#[test]
fn an_interrupted_campaign_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let campaign = campaign(3, 2);
    let (state, first) = run(&campaign, folder.path(), 4, |_| Status::Done);
    assert_eq!(state.finished_count(), 3);
    let (state, second) = run(&campaign, folder.path(), usize::MAX, |_| Status::Done);
    assert_eq!(state.finished_count(), 6);
    // A warm-up each time, and no run twice.
    assert_eq!((first.len(), second.len()), (4, 4));
    let places: BTreeSet<&PathBuf> = first
        .iter()
        .chain(&second)
        .filter_map(|(_, at)| at.as_ref())
        .collect();
    assert_eq!(places.len(), 6);
    for place in places {
        assert!(
            !place.join("half").exists(),
            "{} was not cleared",
            place.display()
        );
    }
    let (_, third) = run(&campaign, folder.path(), usize::MAX, |_| Status::Done);
    assert!(
        third.is_empty(),
        "nothing is left to do, not even to warm up"
    );
    let groups = by_variant(&state, 3);
    assert!(groups.iter().all(|group| group.len() == 2));
}

#[test]
fn what_was_skipped_is_tried_again_and_what_failed_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let campaign = campaign(3, 1);
    let status = |name: &str| match name {
        "v0" => Status::Skipped,
        "v1" => Status::Failed,
        _ => Status::Done,
    };
    run(&campaign, folder.path(), usize::MAX, status);
    let (state, again) = run(&campaign, folder.path(), usize::MAX, |_| Status::Done);
    let measured: Vec<&str> = again
        .iter()
        .filter(|(_, place)| place.is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(measured, ["v0"]);
    assert_eq!(state.finished_count(), 3);
}

#[test]
fn a_directory_of_another_plan_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    run(&campaign(1, 1), folder.path(), usize::MAX, |_| Status::Done);
    let other = State::open(folder.path(), serde_json::json!({"plan": 2}));
    assert!(matches!(other, Err(StateError::OtherPlan { .. })));
    fs::write(folder.path().join(state::FILE), "{").expect("written");
    let damaged = State::open(folder.path(), plan());
    assert!(matches!(damaged, Err(StateError::Damaged { .. })));
}
