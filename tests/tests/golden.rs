//! Timelines and the reports they must give, side by side in tests/golden/*.txt.
//! `UPDATE_GOLDEN=1 cargo test -p vpnbench-tests --test golden` rewrites the expected halves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Trial};
use vpnbench::report::table::Screen;
use vpnbench::report::{Report, terminal};
use vpnbench_tests::timeline::Timeline;

/// Separates the timeline from the report.
const BORDER: &str = "======== report\n";

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::from_args();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&directory).context("tests/golden")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    let trials = paths.into_iter().map(|path| {
        let name = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Trial::test(name, move || {
            check(path).map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit()
}

fn check(path: PathBuf) -> anyhow::Result<()> {
    let text = fs::read_to_string(&path)?;
    let (input, expected) = text.split_once(BORDER).unwrap_or((&text, ""));
    let report = Timeline::parse(input)?.report()?;
    let json = serde_json::to_value(&report)?;
    let back: Report = serde_json::from_value(json.clone())?;
    anyhow::ensure!(back == report, "the JSON report does not read back");
    let schema = jsonschema::validator_for(&vpnbench::report::json::schema())?;
    if let Err(error) = schema.validate(&json) {
        anyhow::bail!(
            "the JSON report does not fit its schema at {}: {error}",
            error.instance_path
        );
    }
    let mut out = Vec::new();
    terminal::write(
        &report,
        Screen {
            width: 100,
            colour: false,
        },
        &mut out,
    )?;
    let found = String::from_utf8(out)?;
    if found == expected {
        return Ok(());
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, format!("{input}{BORDER}{found}"))?;
        return Ok(());
    }
    anyhow::bail!("expected:\n{expected}\nfound:\n{found}")
}
