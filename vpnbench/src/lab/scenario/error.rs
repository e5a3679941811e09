//! What can be wrong with a scenario, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A value that does not fit, named by its dotted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Dotted key, such as `wire.unit`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Invalid {
    /// A complaint about a key.
    #[must_use]
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Invalid {
        Invalid {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, counted from 1.
    File {
        /// As the user named it.
        name: String,
        /// Line and column; None where the file as a whole is meant.
        position: Option<(usize, usize)>,
    },
    /// On the command line: `KEY=VALUE`.
    Setting(String),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File {
                name,
                position: Some((line, column)),
            } => write!(formatter, "{name}:{line}:{column}"),
            Place::File { name, .. } => formatter.write_str(name),
            Place::Setting(setting) => write!(formatter, "--set {setting}"),
        }
    }
}

/// A scenario that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read scenario {}: {source}", path.display())]
    Unreadable {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither a file nor a scenario of the program's own.
    #[error("no file {name} and no scenario of that name; `vpnbench lab scenario list` names them")]
    Unknown {
        /// As the user named it.
        name: String,
    },
    /// A key, a value or their combination is wrong.
    #[error("{place}: {message}")]
    Invalid {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
}
