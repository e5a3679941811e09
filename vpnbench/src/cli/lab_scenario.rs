//! `vpnbench lab scenario`: what the program carries.

use clap::Subcommand;

use super::lab::scenario_failure;
use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::lab::scenario::{EMBEDDED, Scenario, Source};
use crate::report::table::{Align, Table};

/// Commands about scenarios.
#[derive(Debug, Clone, Subcommand)]
pub enum ScenarioCommand {
    /// Names, titles and expected findings
    List,
    /// Print one as it is in the source, or with every default filled in
    Show {
        /// Name or file
        #[arg(value_name = "SCENARIO")]
        name: std::path::PathBuf,
        /// Fill in all defaults
        #[arg(long)]
        complete: bool,
    },
}

/// Runs a command about scenarios.
pub(super) fn run(command: &ScenarioCommand, output: &mut Output) -> Result<ExitStatus, Failure> {
    match command {
        ScenarioCommand::List => list(output)?,
        ScenarioCommand::Show { name, complete } => {
            let source = Source::open(name).map_err(scenario_failure)?;
            let scenario = Scenario::parse(&source, &[]).map_err(scenario_failure)?;
            let text = match complete {
                true => scenario.to_toml().map_err(anyhow::Error::from)?,
                false => source.text().to_owned(),
            };
            output.to(&Destination::Stdout, |out, _| {
                out.write_all(text.as_bytes())
            })?;
        }
    }
    Ok(ExitStatus::Done)
}

fn list(output: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("name", Align::Text),
        ("vpn", Align::Text),
        ("benchmark", Align::Text),
        ("title", Align::Text),
    ]);
    for embedded in EMBEDDED {
        let source = Source::new(embedded.name, embedded.text);
        let scenario = Scenario::parse(&source, &[]).map_err(scenario_failure)?;
        table.row(vec![
            scenario.name,
            scenario.vpn.name.name().to_owned(),
            scenario.benchmark.bench().name().to_owned(),
            scenario.title,
        ]);
    }
    output.to(&Destination::Stdout, |out, screen| {
        table.write("SCENARIOS", screen, out)
    })
}
