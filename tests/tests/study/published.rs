//! The published study's raw results, where they are at hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use vpnbench::study::{self, claims, printed};

use super::{Outcome, PUBLISHED, every_pointer_leads_to_its_value, ids};

pub(super) fn published_study() -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let status = Command::new("tar")
        .arg("-xf")
        .arg(root.join(PUBLISHED))
        .arg("-C")
        .arg(folder.path())
        .status()?;
    if !status.success() {
        return Err("tar cannot unpack the published results".into());
    }
    let tree: PathBuf = fs::read_dir(folder.path())?
        .next()
        .ok_or("an empty archive")??
        .path();
    let study = study::read(&tree)?;
    let tables: printed::Tables = serde_json::from_str(&fs::read_to_string(
        root.join("../../shared/study/tables.json"),
    )?)?;
    let file = claims::File::parse(&fs::read_to_string(root.join("../docs/study/claims.toml"))?)
        .map_err(Failed::from)?;
    let findings = study::examine(&study, Some(&file), Some(&tables));
    let printed = findings.printed.as_ref().ok_or("tables were given")?;
    assert_eq!(
        printed.reproduced + printed.different + printed.without_data,
        390
    );
    let different: Vec<&str> = printed
        .numbers
        .iter()
        .filter(|one| one.verdict == "different")
        .map(|one| one.cell.as_str())
        .collect();
    // 39.77 % is printed as 39.7: cut, not rounded.
    assert_eq!(different, ["tab:nix_cache / Hyprspace / Overhead_pct"]);
    let without: Vec<&str> = printed
        .numbers
        .iter()
        .filter(|one| one.verdict == "without-data")
        .map(|one| one.cell.as_str())
        .collect();
    assert!(
        without
            .iter()
            .all(|cell| cell.contains("Reorder-only") || cell.contains("Tailscale-style")),
        "{without:?}"
    );
    let classes: BTreeSet<&str> = findings
        .audit
        .iter()
        .map(|finding| finding.class.as_str())
        .collect();
    assert_eq!(classes.len(), 12, "{classes:?}");
    assert!(every_pointer_leads_to_its_value(&tree, &findings) > 300);
    // Every finding that a claim cites is there.
    let known = ids(&findings);
    for claim in &file.claims {
        for id in claim
            .undone_by
            .iter()
            .chain(&claim.see)
            .chain(&claim.answered_by)
        {
            assert!(
                known.contains(id),
                "claim {} cites {id}, which was not found",
                claim.id
            );
        }
    }
    Ok(())
}
