//! The library's own way from bytes to a report.

use std::io::Cursor;

use anyhow::Result;
use vpnbench::analysis::{Analyses, Context};
use vpnbench::import::{Import, Place, Plan, Source};
use vpnbench::report::{self, Recording, Report};
use vpnbench::trace::Problem;

/// One file of a host.
pub(crate) struct File {
    pub(crate) host: &'static str,
    pub(crate) place: Place,
    pub(crate) bytes: Vec<u8>,
}

/// What a capture came to.
pub(crate) struct Read {
    pub(crate) report: Report,
    pub(crate) problems: Vec<Problem>,
    pub(crate) packets: u64,
}

impl Read {
    /// Whether a problem says this.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.problems.iter().any(|one| one.message.contains(text))
    }
}

/// Analyses one file of which nothing is known.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Read> {
    read_all(vec![File {
        host: "host",
        place: Place::Unknown,
        bytes,
    }])
}

/// Analyses files.
pub(crate) fn read_all(files: Vec<File>) -> Result<Read> {
    let mut plan = Plan::default();
    let mut inputs: Vec<Box<dyn std::io::Read + Send>> = Vec::new();
    for file in files {
        plan.sources.push(Source {
            host: file.host.to_owned(),
            place: file.place,
            path: "capture".into(),
        });
        inputs.push(Box::new(Cursor::new(file.bytes)));
    }
    let import = Import::of(&plan, inputs)?;
    let start = import.start().clone();
    let mut analyses = Analyses::new(&start);
    let mut packets = 0;
    let summary = import.for_each(|event| {
        packets += u64::from(matches!(event, vpnbench::trace::Event::Packet(_)));
        analyses.observe(&event);
    })?;
    let context = Context::new(
        &start,
        summary.end.as_ref(),
        &summary.changes,
        &summary.symbols,
        &summary.lost,
    );
    let (outputs, found) = analyses.finish(&context);
    let report = report::build(&context, outputs, found, Recording::default());
    Ok(Read {
        report,
        problems: summary.problems,
        packets,
    })
}
