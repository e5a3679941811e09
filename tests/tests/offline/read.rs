//! The library's own way from bytes to a report.

use std::io::Cursor;

use anyhow::Result;
use vpnbench::analysis::{Analyses, Context};
use vpnbench::import::Import;
use vpnbench::import::plan::File;
use vpnbench::report::{self, Recording, Report};
use vpnbench::trace::Problem;

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
    read_beside(bytes, Vec::new())
}

/// Analyses one file of which nothing is known, with files of other tools beside it.
pub(crate) fn read_beside(bytes: Vec<u8>, beside: Vec<File>) -> Result<Read> {
    let import = Import::of_unknown(Cursor::new(bytes), beside)?;
    let mut analyses = Analyses::new(import.start());
    let mut packets = 0;
    let summary = import.for_each(|event| {
        packets += u64::from(matches!(event, vpnbench::trace::Event::Packet(_)));
        analyses.observe(&event);
    })?;
    let context = Context::of(&summary);
    let (outputs, found) = analyses.finish(&context);
    let report = report::build(&context, outputs, found, Recording::default());
    Ok(Read {
        report,
        problems: summary.problems,
        packets,
    })
}
