//! Traces that are damaged, cut, or none.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vpnbench_tests::timeline::Timeline;

use crate::recorder::{Place, problems, report};

/// A trace with many blocks, made from a timeline.
fn trace() -> Result<Vec<u8>> {
    let text = include_str!("../../golden/tun-queue-overflow.txt");
    let (input, _) = text.split_once("======== report").context("a timeline")?;
    let timeline = Timeline::parse(input).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    timeline
        .trace()
        .map_err(|error| anyhow::anyhow!("{error:?}"))
}

pub(crate) fn damaged() -> Result<()> {
    let place = Place::new()?;
    let whole = trace()?;
    std::fs::write(place.trace(), &whole)?;
    ensure!(place.report()?["capture"]["complete"] == true);
    // Every place is either stated in a report or refused with the file's name.
    let mut stated = 0;
    let step = (whole.len() / 40).max(1);
    for at in (0..whole.len()).step_by(step) {
        let mut bytes = whole.clone();
        let end = (at + 8).min(bytes.len());
        bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(place.trace(), bytes)?;
        let ended = place.run("report --format json TRACE")?;
        if ended.status.success() {
            let report = serde_json::from_str(&ended.stdout)?;
            ensure!(
                !problems(&report).is_empty(),
                "nothing is stated about byte {at}"
            );
            stated += 1;
        } else {
            let name = place.trace().display().to_string();
            ended.expect(1, &["vpnbench: error: ", &name])?;
        }
    }
    ensure!(stated > 0, "no damage leaves anything readable");
    let cut = &whole[..whole.len() - 200];
    std::fs::write(place.trace(), cut)?;
    let report = place.report()?;
    ensure!(report["capture"]["complete"] == false);
    ensure!(problems(&report).contains("did not end in order"));
    Ok(())
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus/trace_reader")
        .join(name)
}

pub(crate) fn unreadable() -> Result<()> {
    let place = Place::new()?;
    // Each names the file and the next step.
    for (name, texts) in [
        ("empty", ["before its start frame", "record again"]),
        (
            "truncated-start.vbt",
            ["before its start frame", "record again"],
        ),
        ("not-a-trace", ["not a vpnbench trace", "vpnbench analyze"]),
        ("newer-version.vbt", ["format 2", "upgrade vpnbench"]),
    ] {
        let path = corpus(name).display().to_string();
        let ended = place.run(&format!("report {path}"))?;
        ended.expect(1, &[&path, texts[0], texts[1]])?;
        ensure!(ended.stdout.is_empty(), "{}", ended.stdout);
    }
    for name in ["truncated.vbt", "bit-flipped.vbt"] {
        let report = report(&corpus(name))?;
        ensure!(report["capture"]["complete"] == false, "{name}");
        ensure!(!problems(&report).is_empty(), "{name}");
    }
    for name in ["valid.vbt", "valid-plain.vbt"] {
        report(&corpus(name))?;
    }
    Ok(())
}
