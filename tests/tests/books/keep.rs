//! What the runs of a case leave, under the target directory until the case has passed: who looks for
//! the cause of a failure has the trace and the logs.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};

/// The folder of the case at hand, and how many runs it has made.
static CASE: Mutex<Option<(PathBuf, u32)>> = Mutex::new(None);

/// Runs a case. The runs of one that fails stay until the same case runs again.
pub(crate) fn case(name: &str, body: fn() -> Result<()>) -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join("books")
        .join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    *lock() = Some((folder.clone(), 0));
    body().with_context(|| format!("the runs are kept in {}", folder.display()))?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// A folder for one more run of the case.
pub(crate) fn folder() -> Result<PathBuf> {
    let mut case = lock();
    let (folder, runs) = case.as_mut().context("no case has begun")?;
    *runs += 1;
    let path = folder.join(runs.to_string());
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn lock() -> std::sync::MutexGuard<'static, Option<(PathBuf, u32)>> {
    CASE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
