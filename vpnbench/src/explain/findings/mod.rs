//! The list of claims. A claim is a file here and a line in [`RULES`].

mod ack_path_delay;
mod audit;
mod cpu;
mod cpu_contention;
mod crypto_bound;
mod daemon_thread_saturated;
mod fixed_timer_wait;
mod gro_masks_reordering;
mod gso_batch_impairment;
pub(super) mod healthy;
mod jumbo_overlay_amplification;
mod limits;
mod no_udp_backpressure;
mod outer_fragmentation;
mod outer_receive_overflow;
mod outer_send_drop;
mod path_detour;
mod path_loss;
mod path_reordering;
mod periodic_stall;
mod serialized_send_pipeline;
mod size_dependent_loss;
mod small_datagram_overhead;
mod spurious_retransmits;
mod syscall_bound;
mod tail_loss_timeouts;
mod tun_queue_overflow;
mod tunnel_bufferbloat;
mod tunnel_duplicates;
mod tunnel_loss;
mod tunnel_reordering;

use super::rule::Rule;

/// All claims but `healthy`, which is judged from them.
pub const RULES: &[&Rule] = &[
    &daemon_thread_saturated::RULE,
    &cpu_contention::RULE,
    &crypto_bound::RULE,
    &syscall_bound::RULE,
    &serialized_send_pipeline::RULE,
    &tunnel_bufferbloat::RULE,
    &tun_queue_overflow::RULE,
    &outer_receive_overflow::RULE,
    &outer_send_drop::RULE,
    &tunnel_loss::RULE,
    &path_loss::RULE,
    &tunnel_reordering::RULE,
    &path_reordering::RULE,
    &spurious_retransmits::RULE,
    &tail_loss_timeouts::RULE,
    &gro_masks_reordering::RULE,
    &gso_batch_impairment::RULE,
    &jumbo_overlay_amplification::RULE,
    &outer_fragmentation::RULE,
    &size_dependent_loss::RULE,
    &small_datagram_overhead::RULE,
    &no_udp_backpressure::RULE,
    &path_detour::RULE,
    &periodic_stall::RULE,
    &fixed_timer_wait::RULE,
    &tunnel_duplicates::RULE,
    &limits::RECEIVER,
    &limits::SEND_BUFFER,
    &limits::APPLICATION,
    &limits::CONGESTION,
    &ack_path_delay::RULE,
    &audit::unit::RULE,
    &audit::missing_samples::RULE,
    &audit::dead_flow::RULE,
    &audit::across::DIRECTIONS,
    &audit::across::CONDITIONS,
    &audit::across::NORMALISED,
    &audit::counter_artifact::RULE,
    &audit::tool_failure::RULE,
    &audit::across::RUNS,
    &audit::impairment_unit::RULE,
    &audit::impairment_void::RULE,
    &audit::offered_load::RULE,
];

/// The claim of an id, `healthy` included.
#[must_use]
pub fn rule(id: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.id == id)
}

/// All claims, `healthy` first.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    const HEALTHY: &Rule = &healthy::RULE;
    std::iter::once(HEALTHY).chain(RULES.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_links_lead_somewhere() {
        let ids: BTreeSet<&str> = all().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), all().count());
        for rule in all() {
            for cause in rule.consequence_of {
                assert!(ids.contains(cause), "{} follows from {cause}", rule.id);
                assert_ne!(*cause, rule.id);
            }
        }
    }

    #[test]
    fn no_claim_follows_from_itself() {
        fn reaches(from: &str, to: &str, depth: usize) -> bool {
            let causes = rule(from).map_or(&[][..], |rule| rule.consequence_of);
            depth > 0
                && causes
                    .iter()
                    .any(|cause| *cause == to || reaches(cause, to, depth - 1))
        }
        for rule in all() {
            assert!(
                !reaches(rule.id, rule.id, 12),
                "{} follows from itself",
                rule.id
            );
        }
    }
}
