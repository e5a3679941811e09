//! Claims about cores and threads: not judged before the analysis of threads tells what waited for whom.

use crate::explain::rule::{Judgement, Rule};

const WHY: &str = "this version does not follow which work waits for which thread";

fn later(_: &crate::explain::facts::Facts<'_>) -> Judgement {
    Judgement::unseen(WHY)
}

pub(super) const SATURATED: Rule = Rule {
    id: "daemon-thread-saturated",
    claim: "one daemon thread is on-CPU (nearly) all the time while work waits for it",
    judged: "share of the run in which the thread was running while packets waited in the queues that it drains",
    needs: &[],
    remedy: "spread its work: several queues (IFF_MULTI_QUEUE), a thread for each direction, offloads that make each packet cheaper (TUN GSO and GRO, UDP GSO and GRO), a faster cipher",
    refuted_by: "the thread sleeps while packets wait, or nothing waits",
    consequence_of: &["syscall-bound", "crypto-bound", "small-datagram-overhead"],
    lower_bound: false,
    judge: later,
};

pub(super) const CONTENTION: Rule = Rule {
    id: "cpu-contention",
    claim: "runnable threads of the path wait for a core (run-queue delay), including softirq pressure",
    judged: "share of the run in which a daemon's thread was runnable, not running, and packets waited for it",
    needs: &[],
    remedy: "give the path cores of its own: fewer workers than cores, taskset or cpusets for daemon and benchmark, nothing else on the machine, the two ends on two machines",
    refuted_by: "threads with work run at once",
    consequence_of: &[],
    lower_bound: false,
    judge: later,
};

pub(super) const CRYPTO: Rule = Rule {
    id: "crypto-bound",
    claim: "most on-CPU time of the bottleneck is cryptography",
    judged: "samples of the busiest daemon thread by function group (--stacks)",
    needs: &[],
    remedy: "a cipher the processor is built for (AES-GCM with AES-NI, ChaCha20 with AVX2), a build with assembly, more threads for encryption, larger packets only where the cost is per packet",
    refuted_by: "fewer than half of the samples of the bottleneck are in cryptography",
    consequence_of: &[],
    lower_bound: false,
    judge: later,
};

pub(super) const SYSCALL: Rule = Rule {
    id: "syscall-bound",
    claim: "most on-CPU time of the bottleneck is per-packet system calls and copies; batch sizes near 1",
    judged: "samples of the busiest daemon thread by function group (--stacks), and packets for each call",
    needs: &[],
    remedy: "move more with each call: sendmmsg and recvmmsg, UDP GSO and GRO, IFF_VNET_HDR with TSO on the TUN device, io_uring",
    refuted_by: "fewer than half of the samples of the bottleneck are in system calls and copies, or calls move several packets",
    consequence_of: &[],
    lower_bound: false,
    judge: later,
};

pub(super) const SERIALIZED: Rule = Rule {
    id: "serialized-send-pipeline",
    claim: "daemon threads block on each other (lock) and outer sends leave one at a time",
    judged: "share of the run in which workers of the daemon wait in futex while packets wait in the daemon, and units that leave one by one",
    needs: &[],
    remedy: "send without the lock that encryption holds: a lock for each peer and direction only around the counter, a queue in front of the socket, batches (sendmmsg)",
    refuted_by: "workers wait for work, not for each other",
    consequence_of: &[],
    lower_bound: false,
    judge: later,
};
