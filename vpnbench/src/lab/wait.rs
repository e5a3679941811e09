//! Waiting for a real condition with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use super::error::{LabError, Result};
use super::process::Process;
use super::signals;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Looks at `condition` until it yields a value. Ends early when a signal arrives or one of the
/// programs that should bring the condition about is gone.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    programs: &[&Process],
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        signals::check()?;
        if let Some(program) = programs.iter().find(|program| program.has_ended()) {
            return Err(LabError::Ended {
                program: program.name().to_owned(),
                what: what.to_owned(),
                log: program.log_tail(),
            });
        }
        if Instant::now() >= deadline {
            let logs: Vec<String> = programs.iter().map(|program| program.log_tail()).collect();
            let hint = if logs.is_empty() {
                "gave up".to_owned()
            } else {
                logs.join("; ")
            };
            return Err(LabError::TimedOut {
                what: what.to_owned(),
                limit,
                hint,
            });
        }
        thread::sleep(INTERVAL);
    }
}
