//! ping: latency without load. It has no server side.

use super::spec::Ping;
use super::{Ready, Setup, is_installed};
use crate::lab::error::{LabError, Result};

/// The client's command line. Time stamps (`-D`) put its replies on the clock of the events.
pub(super) fn prepare(spec: &Ping, setup: &Setup<'_>) -> Result<Ready> {
    if !is_installed("ping") {
        return Err(LabError::Skipped("ping not found".to_owned()));
    }
    let count = spec.count.to_string();
    let interval = format!("{}", spec.interval.as_s());
    let timeout = format!("{}", spec.timeout.as_s());
    let size = spec.size.to_string();
    let address = setup.server_address().to_string();
    let command = [
        "ping", "-n", "-D", "-c", &count, "-i", &interval, "-W", &timeout, "-s", &size, &address,
    ];
    let command = match spec.runs {
        1 => command.map(str::to_owned).to_vec(),
        runs => {
            // Numbers and an address need no quotes. Each run is a process of its own, as in the
            // study; a run that loses everything does not keep the next from starting.
            let one = command.join(" ");
            let all = vec![one; runs as usize].join("; ");
            ["sh", "-c", &all].map(str::to_owned).to_vec()
        }
    };
    Ok(Ready::of(Vec::new(), command))
}
