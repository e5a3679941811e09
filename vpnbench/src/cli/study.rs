//! `vpnbench study`: audits a tree of benchmark results.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};

use super::output::Output;
use super::values::Destination;
use super::{ExitStatus, Failure};
use crate::study::{
    self, Findings, Study, claims, document, plots, printed, terminal, tidy_table, web,
};

/// `vpnbench study`
#[derive(Debug, Clone, Args)]
pub struct StudyArgs {
    /// Folder with results
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: StudyFormat,
    /// Write to this file; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: Destination,
    /// Claims to hold against the data (TOML; see docs/study.md)
    #[arg(long, value_name = "FILE")]
    pub claims: Option<PathBuf>,
    /// Printed tables to hold against the data (JSON: table, system, column, number)
    #[arg(long, value_name = "FILE")]
    pub printed: Option<PathBuf>,
    /// Print the tables too
    #[arg(long)]
    pub tables: bool,
    /// Print all evidence
    #[arg(long)]
    pub evidence: bool,
    /// Also write every measurement to this file (.csv or .parquet)
    #[arg(long, value_name = "FILE")]
    pub measurements: Option<PathBuf>,
}

/// Form of the output of `study`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StudyFormat {
    /// For people
    Text,
    /// One JSON object, vpnbench.study.v1
    Json,
    /// One self-contained page
    Html,
    /// A page for a repository
    Markdown,
}

/// Runs it.
pub(super) fn run(args: &StudyArgs, output: &mut Output) -> Result<ExitStatus, Failure> {
    let claims = args.claims.as_deref().map(read_claims).transpose()?;
    let printed = args.printed.as_deref().map(read_printed).transpose()?;
    let study = study::read(&args.directory)?;
    if let Some(path) = &args.measurements {
        write_measurements(&study, path)?;
    }
    let findings = study::examine(&study, claims.as_ref(), printed.as_ref());
    match args.format {
        StudyFormat::Text => {
            let details = terminal::Details {
                evidence: args.evidence,
                tables: args.tables,
            };
            output.to(&args.output, |out, screen| {
                terminal::write(&findings, details, screen, out)
            })?;
        }
        StudyFormat::Json => output.to(&args.output, |out, _| {
            serde_json::to_writer_pretty(&mut *out, &findings).map_err(io::Error::from)?;
            out.write_all(b"\n")
        })?,
        StudyFormat::Html => {
            let page = web::page(&findings, &plots::all(&study));
            output.to(&args.output, |out, _| out.write_all(page.as_bytes()))?;
        }
        StudyFormat::Markdown => {
            let page = markdown(&findings)?;
            output.to(&args.output, |out, _| out.write_all(page.as_bytes()))?;
        }
    }
    Ok(ExitStatus::Done)
}

fn markdown(findings: &Findings) -> Result<String, Failure> {
    Ok(document::markdown(findings)?)
}

fn read(path: &Path) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
}

fn read_claims(path: &Path) -> Result<claims::File, Failure> {
    claims::File::parse(&read(path)?).map_err(|error| {
        let hint = "docs/study.md describes the file";
        Failure::new(
            ExitStatus::Usage,
            anyhow!("{}: {error}", path.display()),
            hint,
        )
    })
}

fn read_printed(path: &Path) -> Result<printed::Tables, Failure> {
    serde_json::from_str(&read(path)?).map_err(|error| {
        let hint = "it maps table to system to column to number or null";
        Failure::new(
            ExitStatus::Usage,
            anyhow!("{}: {error}", path.display()),
            hint,
        )
    })
}

fn write_measurements(study: &Study, path: &Path) -> Result<(), Failure> {
    let end = path
        .extension()
        .and_then(|end| end.to_str())
        .unwrap_or_default();
    if !matches!(end, "csv" | "parquet") {
        let error = anyhow!(
            "{}: measurements are written as .csv or .parquet",
            path.display()
        );
        return Err(Failure::new(
            ExitStatus::Usage,
            error,
            "name the file accordingly",
        ));
    }
    let failed = || format!("cannot write {}", path.display());
    let mut file = io::BufWriter::new(std::fs::File::create(path).with_context(failed)?);
    if end == "csv" {
        tidy_table::csv(&study.rows, &mut file).with_context(failed)?;
    } else {
        tidy_table::parquet(&study.rows, &mut file).with_context(failed)?;
    }
    file.flush().with_context(failed)?;
    Ok(())
}
