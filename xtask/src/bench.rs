//! `cargo xtask bench`: what watching costs, as CPU time for fixed work, paired with tcpdump; how
//! fast captures are analysed beside tshark and tcptrace; and how fast the analyses are and how much memory they
//! take. At the end a table of the figures that have a reach.
//!
//! Parts by name: `capture`, `captures`, `analyses`; all without one.

use anyhow::{Context, Result, bail};

use crate::{run, setup};

/// Events of which the rate of the analyses is measured, from memory and through a trace, whose reading then counts,
/// too.
const EVENTS: &str = "20000000";
/// Events of the trace for their memory, which takes about 200 MiB of the target directory for a while.
const MANY_EVENTS: &str = "100000000";
/// What the benchmarks print behind a figure that has a reach.
const REACH: &str = "(reach: ";
const PARTS: [&str; 4] = ["capture", "switches", "captures", "analyses"];

/// Sets up and runs the benchmarks against the optimised program. Those of tests/benches/
/// only send packets, write a file and read clocks, so they need no optimised build of all that the tests
/// depend on.
pub(crate) fn run(wanted: &[String]) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| !PARTS.contains(&name.as_str())) {
        bail!("there is no part \"{unknown}\": {}", PARTS.join(", "));
    }
    setup::run(false)?;
    let whole = ["build", "--release", "--workspace", "--bin", "vpnbench"];
    let mut build = run::cargo(&whole)?;
    run::visibly(build.args(["--example", "analysis_speed"]))?;
    let mut rows = Vec::new();
    for part in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == part) {
            continue;
        }
        let lines = match part {
            "analyses" => analyses()?,
            name => bench(name)?,
        };
        rows.extend(lines.into_iter().map(|line| (part, line)));
    }
    println!("\nfigures with a reach");
    for (part, line) in rows {
        println!("  {part:<10} {}", line.trim());
    }
    Ok(())
}

/// One of tests/benches/.
fn bench(name: &str) -> Result<Vec<String>> {
    let arguments = ["bench", "--profile", "dev", "--workspace", "--bench", name];
    let mut bench = run::cargo(&arguments)?;
    bench.env("VPNBENCH", run::target_dir()?.join("release/vpnbench"));
    run::visibly_keeping(&mut bench, is_figure)
}

/// vpnbench/examples/analysis_speed.rs: events from memory, then traces through writer and reader.
fn analyses() -> Result<Vec<String>> {
    let target = run::target_dir()?;
    let example = target.join("release/examples/analysis_speed");
    let measure = |events: &str, trace: Option<&std::path::Path>| {
        let mut command = std::process::Command::new(&example);
        command.arg(events).args(trace);
        run::visibly_keeping(&mut command, is_figure)
    };
    let mut rows = measure(EVENTS, None)?;
    let trace = target.join("analysis_speed.vbt");
    for events in [EVENTS, MANY_EVENTS] {
        let measured = measure(events, Some(&trace));
        let removed = std::fs::remove_file(&trace).context("removing the trace");
        rows.extend(measured?);
        removed?;
    }
    Ok(rows)
}

fn is_figure(line: &str) -> bool {
    line.contains(REACH)
}
