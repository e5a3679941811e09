//! Reading files of a tree, with everything that can be wrong with them.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::study::model::Problem;

/// Largest file that is read, in bytes: far above any result file, far below the memory.
pub const LARGEST: u64 = 64 << 20;

/// A path relative to the tree, with `/`.
pub(super) fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .replace('\\', "/")
}

/// The text of a file.
pub(super) fn text(root: &Path, path: &Path) -> Result<String, Problem> {
    let problem = |message: String| Problem {
        path: relative(root, path),
        pointer: String::new(),
        message,
    };
    let file = File::open(path).map_err(|error| problem(format!("cannot be opened: {error}")))?;
    let meta = file
        .metadata()
        .map_err(|error| problem(format!("cannot be examined: {error}")))?;
    if !meta.is_file() {
        return Err(problem("is not a regular file".to_owned()));
    }
    if meta.len() > LARGEST {
        return Err(problem(format!(
            "has {} bytes; more than {LARGEST} are not read",
            meta.len()
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    let read = file.take(LARGEST).read_to_end(&mut bytes);
    read.map_err(|error| problem(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| problem(format!("is not text: {error}")))
}

/// The JSON document in a file.
pub(super) fn json(root: &Path, path: &Path) -> Result<Value, Problem> {
    let text = text(root, path)?;
    serde_json::from_str(&text).map_err(|error| Problem {
        path: relative(root, path),
        pointer: String::new(),
        message: format!("is damaged JSON: {error}"),
    })
}

/// Folders in a folder, by name.
pub(super) fn folders(path: &Path) -> Vec<PathBuf> {
    entries(path)
        .into_iter()
        .filter(|entry| entry.is_dir())
        .collect()
}

/// Entries of a folder, by name.
pub(super) fn entries(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
