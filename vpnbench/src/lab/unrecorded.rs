//! Runs a benchmark's client without recording it: only its own figures count, and nothing watches.

use std::io::{self, Read as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::error::{LabError, Result};
use super::{Run, wait};
use crate::record::clock::monotonic_ns;
use crate::trace::model::CommandOutput;

/// Whether the benchmark did what it should, and if not, why; and what it wrote.
pub(super) type Ended = (std::result::Result<(), String>, CommandOutput);

/// Starts the client, gives it what it asks for and waits until it has ended or its time is over.
pub(super) fn run(mut client: Command, run: &mut Run, limit: Duration) -> Result<Ended> {
    let name = client.get_program().to_string_lossy().into_owned();
    client.stdout(Stdio::piped());
    let mut child = client.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LabError::Skipped(format!("{name} not found")),
        _ => LabError::failed("starting", &name)(error),
    })?;
    let stdout = child.stdout.take();
    let (waited, attended, output) = thread::scope(|scope| {
        let reading = scope.spawn(|| read(stdout));
        let waiting = scope.spawn(|| wait_for(&mut child, &name, limit));
        let attended = run.attend(&|| waiting.is_finished());
        (waiting.join(), attended, reading.join())
    });
    let waited = waited.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let output = output.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let ended = match waited {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the benchmark failed: {status}")),
        Err(LabError::TimedOut { .. }) => Err(too_long(limit)),
        Err(error) => return Err(error),
    };
    attended?;
    Ok((ended, output))
}

/// Waits for the client's end; ends and reaps it when it does not come.
fn wait_for(child: &mut Child, name: &str, limit: Duration) -> Result<ExitStatus> {
    let waited = wait::until("the benchmark to end", limit, &[], || {
        child
            .try_wait()
            .map_err(LabError::failed("waiting for", name))
    });
    if waited.is_err() {
        let ended = child.kill().and_then(|()| child.wait());
        ended.map_err(LabError::failed("ending", name))?;
    }
    waited
}

/// All that it writes, with the moments of arrival.
fn read(stdout: Option<ChildStdout>) -> CommandOutput {
    let mut output = CommandOutput::new(false);
    let mut buffer = vec![0; 64 << 10];
    let Some(mut stdout) = stdout else {
        return output;
    };
    loop {
        match stdout.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nobody writes any more.
            Ok(0) | Err(_) => return output,
            Ok(length) => output.push(monotonic_ns(), &buffer[..length]),
        }
    }
}

/// Says that the benchmark's time was over.
pub(super) fn too_long(limit: Duration) -> String {
    format!(
        "the benchmark had not ended after {} s (run.limit)",
        limit.as_secs_f64()
    )
}
