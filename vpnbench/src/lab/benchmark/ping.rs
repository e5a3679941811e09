//! ping: latency without load. It has no server side.

use super::{Ready, Setup, is_installed};
use crate::lab::error::{LabError, Result};

/// Packets a second: the least interval an unprivileged ping may use.
const RATE: f64 = 5.0;

/// The client's command line.
pub(super) fn prepare(setup: &Setup<'_>) -> Result<Ready> {
    if !is_installed("ping") {
        return Err(LabError::Skipped("ping not found".to_owned()));
    }
    let count = (setup.duration.as_secs_f64() * RATE).ceil().max(1.0);
    let interval = 1.0 / RATE;
    let mut client_command = vec!["ping".to_owned(), "-n".to_owned()];
    client_command.extend(["-c".to_owned(), count.to_string()]);
    client_command.extend(["-i".to_owned(), interval.to_string()]);
    client_command.extend_from_slice(setup.extra);
    client_command.push(setup.tunnel.b.address().to_string());
    Ok(Ready {
        server: None,
        client_command,
    })
}
