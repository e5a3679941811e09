//! What `ss -ti` said of the sockets of captured hosts, beside the flows that their packets show: a window and
//! the kernel's own accounts are in no packet.
//!
//! Samples have no time, so what they say is their mean (the window) or the last of them (accounts, which only
//! grow). `busy` holds the other two (`tcp_get_info_chrono_stats`, net/ipv4/tcp.c).

use super::connections::TcpFlow;
use super::limits::Chrono;
use super::{Context, Problem};
use crate::trace::model::SocketSample;

/// `ss` prints milliseconds.
const RESOLUTION_S: f64 = 0.001;

/// Adds what is known to each flow; says which sockets have none.
pub(super) fn fill(context: &Context<'_>, flows: &mut [TcpFlow]) -> Vec<Problem> {
    let mut used = vec![false; context.sockets.len()];
    for flow in flows.iter_mut() {
        let same = |one: &SocketSample| {
            (one.netns, &one.local, &one.remote) == (flow.netns, &flow.local, &flow.remote)
        };
        let own = context.sockets.iter().enumerate();
        let own: Vec<usize> = own.filter(|(_, one)| same(one)).map(|(at, _)| at).collect();
        own.iter().for_each(|at| used[*at] = true);
        let Some(last) = own.last().map(|at| &context.sockets[*at]) else {
            continue;
        };
        let windows = own.iter().map(|at| f64::from(context.sockets[*at].cwnd));
        flow.limits.cwnd_mean = Some(windows.sum::<f64>() / own.len() as f64);
        flow.limits.chrono = Some(chrono(last));
    }
    let without = used.iter().filter(|used| !**used).count();
    if without == 0 {
        return Vec::new();
    }
    let message = format!(
        "{without} samples of `ss` are of sockets that no captured packet with data belongs to: they are not used"
    );
    vec![Problem::info("flows", message)]
}

fn chrono(sample: &SocketSample) -> Chrono {
    let seconds = |ms: Option<u64>| ms.unwrap_or(0) as f64 / 1000.0;
    let (rwnd_s, sndbuf_s) = (
        seconds(sample.rwnd_limited_ms),
        seconds(sample.sndbuf_limited_ms),
    );
    Chrono {
        resolution_s: RESOLUTION_S,
        busy_s: (seconds(sample.busy_ms) - rwnd_s - sndbuf_s).max(0.0),
        rwnd_s,
        sndbuf_s,
    }
}
