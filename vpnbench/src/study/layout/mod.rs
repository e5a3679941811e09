//! How a tree of results is laid out: which file belongs to which test. A new layout is a file
//! here and a line in [`LAYOUTS`].

mod files;
mod lab;
mod loose;
mod rig;

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::model::Study;
pub use files::LARGEST;

/// Why a tree could not be read at all.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The folder cannot be listed.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Nothing in it looks like results.
    #[error(
        "no benchmark results in {}: it has neither SYSTEM/PROFILE/N_HOST/*.json, nor runs of \
         `vpnbench lab`, nor JSON of iperf3, hyperfine or flent, nor output of ping",
        path.display()
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

/// A way to lay out results.
struct Layout {
    name: &'static str,
    /// Whether a folder is laid out so.
    is: fn(&Path) -> bool,
    /// Reads it.
    read: fn(&Path) -> Study,
}

/// All layouts, the most specific first.
const LAYOUTS: &[Layout] = &[
    Layout {
        name: "rig",
        is: rig::is,
        read: rig::read,
    },
    Layout {
        name: "lab",
        is: lab::is,
        read: lab::read,
    },
    Layout {
        name: "loose",
        is: |_| true,
        read: loose::read,
    },
];

/// Reads a tree of results.
///
/// # Errors
/// When the folder cannot be listed or nothing in it looks like results. Single files that cannot
/// be read or make no sense are problems in the study, not errors.
pub fn read(root: &Path) -> Result<Study, LayoutError> {
    std::fs::read_dir(root).map_err(|source| LayoutError::Unreadable {
        path: root.to_owned(),
        source,
    })?;
    for layout in LAYOUTS {
        if !(layout.is)(root) {
            continue;
        }
        let mut study = (layout.read)(root);
        study.root = root.display().to_string();
        study.layout = layout.name.to_owned();
        study.sort();
        if study.tests.is_empty() {
            continue;
        }
        return Ok(study);
    }
    Err(LayoutError::Empty {
        path: root.to_owned(),
    })
}
