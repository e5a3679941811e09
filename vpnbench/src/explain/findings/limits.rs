//! What the sender's TCP waited for: four claims of one shape.

use vpnbench_common::catalog::ProbeId;

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Need, Rule};
use crate::explain::tcp::Senders;
use crate::explain::{bounds, confidence, units};

const NEEDS: &[Need] = &[Need::Tcp, Need::Probe(ProbeId::TcpProbe), Need::SocketState];
/// `limits` attributes busy time to one of five states.
const STATES: f64 = 5.0;

pub(super) const RECEIVER: Rule = Rule {
    id: "receiver-window-limited",
    claim: "the sender's TCP waits for the receiver's window",
    judged: "share of the busy time in which the receive window stopped the sender (`TCP_CHRONO_RWND_LIMITED`, net/ipv4/tcp_output.c): more than any other state would have by chance (1/5), or the largest and material",
    needs: NEEDS,
    remedy: "raise the receiver's limit: sysctl net.ipv4.tcp_rmem='4096 131072 33554432' (the product of bandwidth and round trip must fit), and do not set SO_RCVBUF in the application",
    refuted_by: "the share of busy time limited by the receive window falls below that of another state",
    consequence_of: &["ack-path-delay"],
    lower_bound: false,
    judge: |facts| judge(facts, "the receive window", |tcp| tcp.rwnd),
};

pub(super) const SEND_BUFFER: Rule = Rule {
    id: "sender-buffer-limited",
    claim: "the sender's TCP waits for its send buffer",
    judged: "share of the busy time in which the send buffer kept the application from writing (`TCP_CHRONO_SNDBUF_LIMITED`, net/ipv4/tcp.c), judged as receiver-window-limited",
    needs: NEEDS,
    remedy: "raise the sender's limit: sysctl net.ipv4.tcp_wmem='4096 131072 33554432', and do not set SO_SNDBUF in the application",
    refuted_by: "the share of busy time limited by the send buffer falls below that of another state",
    consequence_of: &[],
    lower_bound: false,
    judge: |facts| judge(facts, "its send buffer", |tcp| tcp.sndbuf),
};

pub(super) const APPLICATION: Rule = Rule {
    id: "application-limited",
    claim: "the sender's application has nothing to send",
    judged: "share of the busy time in which everything written had been sent, judged as receiver-window-limited",
    needs: NEEDS,
    remedy: "the benchmark does not load the path: raise its rate (iperf3 without -b), more streams, a faster disk or client; nothing on the path explains the figure",
    refuted_by: "unsent data waits in the sender's socket most of the time",
    consequence_of: &[],
    lower_bound: false,
    judge: |facts| {
        if ["http", "ping", "connect"].contains(&facts.benchmark()) {
            return Judgement::inapplicable("the benchmark waits for answers by design");
        }
        judge(facts, "the application", |tcp| tcp.app)
    },
};

pub(super) const CONGESTION: Rule = Rule {
    id: "congestion-window-limited",
    claim: "the sender's TCP waits for its congestion window",
    judged: "share of the busy time in which the congestion window was full, judged as receiver-window-limited. What keeps it small is its cause and ranks above",
    needs: NEEDS,
    remedy: "find out what keeps the window small: the findings above it; with none of them the path is simply long: more streams, or a congestion control that grows faster (sysctl net.ipv4.tcp_congestion_control=bbr)",
    refuted_by: "the window is not full most of the time",
    consequence_of: &[
        "path-loss",
        "path-reordering",
        "tunnel-loss",
        "tunnel-reordering",
        "tun-queue-overflow",
        "outer-receive-overflow",
        "outer-send-drop",
        "outer-fragmentation",
        "jumbo-overlay-amplification",
        "spurious-retransmits",
        "size-dependent-loss",
        "gso-batch-impairment",
        "tail-loss-timeouts",
        "tunnel-bufferbloat",
        "tunnel-duplicates",
        "ack-path-delay",
        "periodic-stall",
        "cpu-contention",
        "daemon-thread-saturated",
        "serialized-send-pipeline",
        "crypto-bound",
        "syscall-bound",
    ],
    lower_bound: false,
    judge: |facts| judge(facts, "its congestion window", |tcp| tcp.cwnd),
};

fn judge(facts: &Facts<'_>, what: &str, pick: fn(&Senders) -> f64) -> Judgement {
    let Some(tcp) = &facts.tcp else {
        return Judgement::inapplicable("no TCP sender carried the load");
    };
    let share = pick(tcp);
    // Senders wait independently of each other; each has one state for about a round trip.
    let least = 1.0 / STATES;
    let probability = confidence::time_above(share, tcp.busy_s, tcp.grain_s(), least);
    let other =
        |name: &str, value: f64| Evidence::new(name, value, "of the busy time", "tcp_flows");
    Known {
        probability,
        share: Some(share),
        summary: format!(
            "the sender waited for {what} {} of its {} busy",
            units::percent(share),
            units::duration(tcp.busy_s)
        ),
        evidence: vec![
            other(&format!("waiting for {what}"), share)
                .expected(format!("below {}", units::percent(bounds::MATERIAL))),
            other("congestion window", tcp.cwnd),
            other("receive window", tcp.rwnd),
            other("send buffer", tcp.sndbuf),
            other("application", tcp.app),
            other("pacing and queues of the host", tcp.other),
        ],
        remedy: None,
    }
    .into()
}
