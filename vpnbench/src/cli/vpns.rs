//! `vpnbench lab vpn`: which VPNs the lab can run here.

use clap::{Args, Subcommand};

use super::args::Format;
use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::lab::vpn::listing::{self, Listed};
use crate::report::table::{Align, Table, wrap};

/// `vpnbench lab vpn`
#[derive(Debug, Clone, Args)]
pub struct VpnArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VpnCommand,
}

/// Commands about VPNs.
#[derive(Debug, Clone, Subcommand)]
pub enum VpnCommand {
    /// Show each VPN: found or not, version, path, or how to get it
    List {
        /// Form of the list
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Format,
    },
}

/// Runs a command about VPNs.
pub(super) fn run(args: &VpnArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let VpnCommand::List { format } = args.command;
    let listing = listing::list();
    output.to(&Destination::Stdout, |out, screen| match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &listing)?;
            writeln!(out)
        }
        Format::Text => {
            let table = table(&listing.vpns);
            table.write("VPNS", screen, out)?;
            writeln!(out)?;
            for vpn in listing.vpns.iter().filter(|vpn| !vpn.missing.is_empty()) {
                let text = format!("{}: {}", vpn.name, vpn.ways.join("; "));
                writeln!(out, " {}", wrap(&text, screen.width.saturating_sub(1), 3))?;
            }
            writeln!(
                out,
                "cargo xtask vpns installs what registries offer; docs/lab-vpns.md has the settings"
            )
        }
    })?;
    Ok(ExitStatus::Done)
}

fn table(vpns: &[Listed]) -> Table {
    let mut table = Table::new(&[
        ("vpn", Align::Name),
        ("study", Align::Name),
        ("state", Align::Name),
        ("version", Align::Name),
        ("where, or how to get it", Align::Text),
    ]);
    for vpn in vpns {
        for (at, cells) in lines(vpn).into_iter().enumerate() {
            let first = |text: &str| {
                if at == 0 {
                    text.to_owned()
                } else {
                    String::new()
                }
            };
            let study = vpn.study.as_deref().unwrap_or_default();
            table.row([vec![first(&vpn.name), first(study)], cells.to_vec()].concat());
        }
    }
    table
}

/// State, version and place: a line per build of the daemon, or per way to get what is missing.
fn lines(vpn: &Listed) -> Vec<[String; 3]> {
    let unknown = || "unknown".to_owned();
    if !vpn.missing.is_empty() {
        let state = format!("{} not found", vpn.missing.join(", "));
        let line = |way: &String| [String::new(), String::new(), way.clone()];
        let mut lines: Vec<_> = vpn.ways.iter().map(line).collect();
        if let Some(first) = lines.first_mut() {
            first[0] = state;
        }
        return lines;
    }
    let Some(daemon) = vpn.found.first().map(|found| found.program.clone()) else {
        return vec![["found".to_owned(), String::new(), "built in".to_owned()]];
    };
    let builds = vpn.found.iter().filter(|found| found.program == daemon);
    let line = |found: &listing::Found| {
        let state = if found.preferred { "found" } else { "also" };
        let version = found.version.clone().unwrap_or_else(unknown);
        [state.to_owned(), version, found.path.display().to_string()]
    };
    builds.map(line).collect()
}
