//! What was wrong with a trace that could be read nevertheless.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad a [`Problem`] is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; no figure suffers.
    Info,
    /// Events are missing: figures may be too low.
    DataLoss,
    /// The file contradicts itself.
    Error,
}

/// What a [`Problem`] is about; stable names for scripts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The file ends inside of a frame.
    Truncated,
    /// There is no end frame: the recorder was killed or the disk was full.
    NoEnd,
    /// The file header is damaged.
    DamagedHeader,
    /// Bytes that are no frame, or a frame whose checksum is wrong.
    DamagedFrame,
    /// Frame numbers show that frames are missing.
    MissingFrames,
    /// A block whose checksum is right and whose content does not add up.
    BadBlock,
    /// A metadata frame that cannot be read.
    BadMetadata,
    /// The start frame describes a record layout that cannot be.
    BadLayout,
    /// Records were carried over from another layout.
    LayoutMapped,
    /// Records of kinds that this version does not know.
    UnknownKind,
    /// Frames of types that this version does not know.
    UnknownFrame,
    /// The recorder could not store events.
    EventsLost,
    /// Events came later than the order of time allows.
    Late,
    /// The file needs more memory to be put in order than is allowed.
    MemoryLimit,
    /// The device or pipe failed while reading.
    ReadFailed,
    /// A capture kept only the beginning of packets.
    Shortened,
    /// Packets of a capture whose headers cannot be read.
    Unreadable,
    /// Packets of a capture that are not used.
    LeftOut,
    /// Units of a capture that hold several segments.
    SuperPackets,
    /// Packets of a capture that carry others as they are.
    Inside,
    /// The clock of a capture was set while capturing.
    ClockStep,
    /// The same packet stands in a capture more than once.
    Duplicates,
    /// On which side of a path packets of a capture were.
    Direction,
    /// Checksums that the device fills in behind the capture.
    Checksums,
    /// What is concluded from packets and was not observed.
    Inferred,
    /// More problems of the kinds above than are listed.
    More,
}

/// Something wrong with a trace that does not keep the rest from being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub code: Code,
    /// A sentence with the place in the file.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Problem {
    pub(crate) fn info(code: Code, message: impl Into<String>) -> Self {
        Problem {
            severity: Severity::Info,
            code,
            message: message.into(),
        }
    }

    pub(crate) fn data_loss(code: Code, message: impl Into<String>) -> Self {
        Problem {
            severity: Severity::DataLoss,
            code,
            message: message.into(),
        }
    }

    pub(crate) fn error(code: Code, message: impl Into<String>) -> Self {
        Problem {
            severity: Severity::Error,
            code,
            message: message.into(),
        }
    }
}

/// Problems in the order in which they were found. A file of noise has one at each byte, so the
/// list is cut and the rest counted.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    more: u64,
    worst_of_more: Option<Severity>,
}

impl Problems {
    const LISTED: usize = 200;

    pub(crate) fn push(&mut self, problem: Problem) {
        if self.list.len() < Self::LISTED {
            self.list.push(problem);
        } else {
            self.more += 1;
            self.worst_of_more = self.worst_of_more.max(Some(problem.severity));
        }
    }

    pub(crate) fn into_list(mut self) -> Vec<Problem> {
        if let Some(severity) = self.worst_of_more {
            let message = format!("{} more problems are not listed", self.more);
            self.list.push(Problem {
                severity,
                code: Code::More,
                message,
            });
        }
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let mut problems = Problems::default();
        (0..1000).for_each(|_| problems.push(Problem::error(Code::DamagedFrame, "x")));
        let list = problems.into_list();
        assert_eq!(list.len(), 201);
        assert_eq!(list[200].message, "800 more problems are not listed");
        let json = serde_json::to_string(&list[0]).expect("serializes");
        assert_eq!(
            json,
            r#"{"severity":"error","code":"damaged_frame","message":"x"}"#
        );
    }
}
