//! Takes out of the outputs what no packet tells. The events of a foreign capture's sockets are concluded
//! from its packets and have 0 where only the socket itself knows: windows, buffers, what TCP believes.

use std::collections::BTreeSet;

use vpnbench_common::catalog::Tap;

use super::{Context, Outputs};

/// Namespaces that are known from captures only.
fn captured(context: &Context<'_>) -> BTreeSet<u32> {
    let namespaces = context.start.environment.namespaces.iter();
    let captured = namespaces.filter(|one| one.captured);
    captured.map(|one| one.netns).collect()
}

/// Leaves out what captured namespaces cannot show.
pub(super) fn leave_out(context: &Context<'_>, outputs: &mut Outputs) {
    let captured = captured(context);
    if captured.is_empty() {
        return;
    }
    let names: BTreeSet<String> = captured
        .iter()
        .map(|netns| context.namespace_name(*netns))
        .collect();
    let tcp = Tap::TcpRx.name();
    outputs
        .taps
        .retain(|row| row.tap != tcp || !captured.contains(&row.netns));
    outputs
        .coalescing
        .retain(|row| row.tap != tcp || !names.contains(&row.namespace));
    outputs
        .reordering
        .beliefs
        .retain(|row| !names.contains(&row.namespace));
    // The model of loss detection starts from the sender's own state.
    if outputs
        .tcp_flows
        .iter()
        .any(|flow| captured.contains(&flow.netns))
    {
        outputs.what_if.clear();
    }
    // Their books have no counters to be beside, unless those were given with the captures.
    let counted = |netns: &u32| {
        let (start, _) = context.namespace(*netns);
        start.is_some_and(|one| !one.counters.is_empty())
    };
    let names: BTreeSet<String> = captured
        .iter()
        .filter(|netns| !counted(netns))
        .map(|netns| context.namespace_name(*netns))
        .collect();
    for books in [&mut outputs.retransmits.books, &mut outputs.drops.books] {
        books.retain(|line| !names.contains(&line.place));
    }
    let flows = outputs.tcp_flows.iter_mut();
    for flow in flows.filter(|flow| captured.contains(&flow.netns)) {
        let limits = &mut flow.limits;
        (limits.limited_by, limits.chrono, limits.cwnd_mean) = (None, None, None);
        limits.series.clear();
    }
}

impl Context<'_> {
    /// Whether a namespace is known from foreign captures only.
    #[must_use]
    pub fn is_captured(&self, netns: u32) -> bool {
        let mut all = self.start.environment.namespaces.iter();
        all.any(|one| one.netns == netns && one.captured)
    }
}
