//! Cryptography is what the bottleneck does.

use crate::explain::facts::Facts;
use crate::explain::rule::{Judgement, Need, Rule};

pub(super) const RULE: Rule = Rule {
    id: "crypto-bound",
    claim: "most on-CPU time of the bottleneck is cryptography",
    judged: "stack samples (--stacks) of the daemon whose thread had work for most of the time: more than half in cryptography, by Jeffreys' posterior of the counts. Without such a thread there is no bottleneck in the daemon, and the claim is refuted",
    needs: &[Need::Daemon],
    remedy: "a cipher the processor is built for (AES-GCM with AES-NI, ChaCha20 with AVX2), a build with assembly, more threads for encryption, larger packets only where the cost is per packet",
    refuted_by: "fewer than half of the samples of the bottleneck are in cryptography",
    consequence_of: &[],
    lower_bound: false,
    judge: |facts: &Facts<'_>| -> Judgement {
        super::cpu::sampled(facts, &["crypto"], "in cryptography")
    },
};
