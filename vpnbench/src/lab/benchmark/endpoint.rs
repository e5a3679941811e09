//! What the lab's own clients and servers share: how they run, end and report.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

pub(super) use crate::record::clock::monotonic_ns;

use crate::analysis::benchmark::Benchmark;
use crate::analysis::benchmark::own::Document;
use crate::lab::error::{LabError, Result};
use crate::lab::{part, signals};

/// How often a task looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// An operation of an endpoint that did not succeed.
#[derive(Debug)]
pub(super) struct Failure(String);

impl Failure {
    /// For `map_err`: what was tried, and why it failed.
    pub(super) fn of<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Failure {
        let what = what.to_string();
        move |error| Failure(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// The command line of a client that is one of the lab's parts.
pub(super) fn command(name: &str, settings: &impl Serialize) -> Result<Vec<String>> {
    let mut command = vec![part::program()?.to_string_lossy().into_owned()];
    command.extend(part::arguments(name, settings)?);
    Ok(command)
}

/// Runs an endpoint on a runtime of its own.
pub(super) fn run(
    name: &'static str,
    work: impl Future<Output = std::result::Result<(), Failure>>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::failed("starting", name))?;
    runtime
        .block_on(work)
        .map_err(|failure| LabError::failed("running", name)(failure.0))
}

/// Whether a signal asked this process to end.
pub(super) fn is_terminated() -> bool {
    signals::received() > 0
}

/// Comes back when a signal asked this process to end.
pub(super) async fn terminated() {
    while !is_terminated() {
        tokio::time::sleep(LOOK).await;
    }
}

/// A result with the tool's name and version.
pub(super) fn own() -> Benchmark {
    Benchmark {
        tool: "vpnbench".to_owned(),
        version: Some(concat!("vpnbench ", env!("CARGO_PKG_VERSION")).to_owned()),
        ..Benchmark::default()
    }
}

/// Writes a client's result to standard output, as one line.
pub(super) fn emit(result: &Benchmark) -> std::result::Result<(), Failure> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &Document::new(result.clone()))
        .map_err(Failure::of("writing the result"))?;
    out.write_all(b"\n")
        .and_then(|()| out.flush())
        .map_err(Failure::of("writing the result"))
}

/// The port of an address that a socket may not have.
pub(super) fn local_port(address: io::Result<SocketAddr>) -> Option<u16> {
    address.ok().map(|address| address.port())
}
