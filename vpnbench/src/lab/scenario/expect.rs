//! `[expect]`: what the report of a scenario must say and must not say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Invalid;

/// The findings a report can hold, by stable id.
pub(super) const FINDINGS: [&str; 44] = [
    "healthy",
    "daemon-thread-saturated",
    "cpu-contention",
    "crypto-bound",
    "syscall-bound",
    "serialized-send-pipeline",
    "tunnel-bufferbloat",
    "tun-queue-overflow",
    "outer-receive-overflow",
    "outer-send-drop",
    "tunnel-loss",
    "path-loss",
    "tunnel-reordering",
    "path-reordering",
    "spurious-retransmits",
    "tail-loss-timeouts",
    "gro-masks-reordering",
    "gso-batch-impairment",
    "jumbo-overlay-amplification",
    "outer-fragmentation",
    "size-dependent-loss",
    "small-datagram-overhead",
    "no-udp-backpressure",
    "path-detour",
    "periodic-stall",
    "fixed-timer-wait",
    "tunnel-duplicates",
    "receiver-window-limited",
    "sender-buffer-limited",
    "application-limited",
    "congestion-window-limited",
    "ack-path-delay",
    "audit-unit",
    "audit-missing-samples",
    "audit-dead-flow",
    "audit-direction-mix",
    "audit-unequal-conditions",
    "audit-not-normalised",
    "audit-counter-artifact",
    "audit-tool-failure",
    "audit-too-few-runs",
    "audit-impairment-unit",
    "audit-impairment-void",
    "audit-offered-load",
];

/// Finding ids that the report must hold as supported, and those it must not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Expect {
    /// Must be supported.
    pub findings: Vec<String>,
    /// Must not be supported.
    pub absent: Vec<String>,
}

impl Expect {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let lists = [
            ("expect.findings", &self.findings),
            ("expect.absent", &self.absent),
        ];
        for (key, ids) in lists {
            if let Some(id) = ids.iter().find(|id| !FINDINGS.contains(&id.as_str())) {
                return Err(Invalid::new(key, format!("there is no finding \"{id}\"")));
            }
        }
        match self.findings.iter().find(|id| self.absent.contains(id)) {
            Some(id) => {
                let message = format!("\"{id}\" is expected and must be absent");
                Err(Invalid::new("expect.absent", message))
            }
            None => Ok(()),
        }
    }
}
