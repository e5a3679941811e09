//! The truth log: one JSON line per packet and fate, for tests that compare exactly.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::account::{Cause, Copied};
use super::inner::Inner;
use super::packet::{Packet, lock};
use crate::lab::error::{LabError, Result};

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// `transmit`: the socket took it. `receive`: the device took it.
    Carried,
    /// It was lost.
    Lost,
    /// It was still inside at the end.
    Inside,
}

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From the device to the socket.
    Transmit,
    /// From the socket to the device.
    Receive,
}

/// One line. Lines are in the order of their times only per thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When its fate was decided, CLOCK_MONOTONIC in ns.
    pub ns: u64,
    /// When it was read from the device or the socket.
    pub entered_ns: u64,
    /// Which way.
    pub direction: Way,
    /// What became of it.
    pub fate: Fate,
    /// Why it was lost.
    pub cause: Option<Cause>,
    /// Why this is an additional copy.
    pub copy: Option<Copied>,
    /// Whether the reorder fault held it back.
    pub held: bool,
    /// Outer sequence number, the same at both ends; none if it was lost before it got one.
    pub sequence: Option<u64>,
    /// Length of the inner packet in bytes.
    pub length: u32,
    /// What it was; none if it was lost before it could be decrypted.
    pub inner: Option<Inner>,
}

/// The log's file.
#[derive(Debug)]
pub(super) struct Truth {
    file: Mutex<BufWriter<File>>,
}

impl Truth {
    /// Creates the file.
    pub(super) fn create(path: &Path) -> Result<Truth> {
        let file = File::create(path).map_err(LabError::file("creating", path))?;
        Ok(Truth {
            file: Mutex::new(BufWriter::with_capacity(1 << 20, file)),
        })
    }

    /// Appends a line. A full disk is reported at the next [`Truth::flush`].
    pub(super) fn write(
        &self,
        direction: usize,
        packet: &Packet,
        fate: Fate,
        cause: Option<Cause>,
    ) {
        let line = Line {
            ns: super::clock::now(),
            entered_ns: packet.entered,
            direction: if direction == 0 {
                Way::Transmit
            } else {
                Way::Receive
            },
            fate,
            cause,
            copy: packet.copied,
            held: packet.held,
            sequence: (packet.sequence != super::NO_SEQUENCE).then_some(packet.sequence),
            length: packet.length,
            inner: packet.inner.as_deref().cloned(),
        };
        let mut file = lock(&self.file);
        let written = serde_json::to_writer(&mut *file, &line).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|()| file.write_all(b"\n")) {
            log::error!("writing the truth log: {error}");
        }
    }

    /// Writes what is buffered.
    pub(super) fn flush(&self) -> std::io::Result<()> {
        lock(&self.file).flush()
    }
}

/// Reads a truth log; an incomplete last line (of a process that was killed) is left out.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).map_err(LabError::file("reading", path))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .map(|line| serde_json::from_str(line).map_err(LabError::failed("reading", path.display())))
        .collect()
}
