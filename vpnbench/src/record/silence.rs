//! Silence around a command: a packet between the reading of the counters and the beginning or end of
//! watching would be in the counters alone.

use std::time::{Duration, Instant};

use super::environment;
use crate::probe::discover::Plan;

/// Counters that stay the same for this long say that nothing is on its way.
const QUIET: Duration = Duration::from_millis(20);
/// How long that is waited for; a namespace with other traffic is never quiet.
const PATIENCE: Duration = Duration::from_millis(500);

/// Waits until the counters of the watched namespaces stand still.
pub(super) fn wait(plan: &Plan) {
    let deadline = Instant::now() + PATIENCE;
    let counters = || environment::snapshot(&plan.netns, &[]).namespaces;
    let mut before = counters();
    while Instant::now() < deadline {
        std::thread::sleep(QUIET);
        let after = counters();
        if after == before {
            return;
        }
        before = after;
    }
}
