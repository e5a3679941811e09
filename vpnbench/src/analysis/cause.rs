//! Why TCP retransmitted: the kernel stack decides, the sender's state corroborates.
//!
//! `tcp_retransmit_skb` fires inside `__tcp_retransmit_skb` (net/ipv4/tcp_output.c); the first
//! frame above it that decides is the cause. Acknowledgement-clocked retransmissions share one
//! stack; what marked their segments lost is taken from the last entry into Recovery
//! (`tcp_cong_state_set`), which fires right after marking with the deciding inputs unchanged.

use serde::{Deserialize, Serialize};

/// `TCP_SYN_SENT` (include/net/tcp_states.h).
const SYN_SENT: u8 = 2;
/// `TCP_CA_Loss` (include/net/tcp.h).
pub(super) const CA_LOSS: u8 = 4;
/// `ICSK_TIME_LOSS_PROBE`.
const PENDING_LOSS_PROBE: u8 = 5;
/// `ICSK_TIME_REO_TIMEOUT`.
const PENDING_REORDER: u8 = 6;

/// What made TCP retransmit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// A SYN was not answered in time.
    Syn,
    /// The retransmission timer expired: the head of the queue.
    Rto,
    /// Clocked by acknowledgements while recovering from a timeout.
    AfterRto,
    /// Tail loss probe.
    Tlp,
    /// RACK's time test on an acknowledgement, including sends deferred by pacing or TSQ.
    Rack,
    /// Counting duplicate acknowledgements or SACKed segments: RACK's threshold, RFC 6675 or NewReno.
    Dupack,
    /// RACK's reordering timer expired.
    RackTimer,
    /// The path MTU shrank or an MTU probe was lost.
    Pmtu,
    /// None of these could be recognised.
    Other,
}

impl Cause {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Syn => "syn",
            Cause::Rto => "rto",
            Cause::AfterRto => "after_rto",
            Cause::Tlp => "tlp",
            Cause::Rack => "rack",
            Cause::Dupack => "dupack",
            Cause::RackTimer => "rack_timer",
            Cause::Pmtu => "pmtu",
            Cause::Other => "other",
        }
    }
}

/// How an episode of Recovery began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// RACK's time test.
    Rack,
    /// A threshold of duplicate acknowledgements or SACKed segments.
    Dupack,
    /// RACK's reordering timer.
    RackTimer,
}

/// The sender's fields at a retransmission that corroborate the stack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fields {
    /// `sk_state`
    pub state: u8,
    /// `icsk_ca_state`
    pub ca_state: u8,
    /// `icsk_pending`
    pub pending: u8,
    /// Whether `icsk_retransmits` is not 0.
    pub timed_out: bool,
}

/// The sender's fields on entry into Recovery that tell the tests for loss apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryFields {
    /// `rx_opt.sack_ok` is not 0.
    pub sack: bool,
    /// `reord_seen` is not 0.
    pub reordering_seen: bool,
    /// `sacked_out >= reordering`.
    pub threshold_reached: bool,
}

/// What decides about loss on this host: `net.ipv4.tcp_recovery` and whether the kernel still has
/// RFC 6675 marking (removed in 6.17, commit 1c120191dcec).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// `net.ipv4.tcp_recovery`, 1 if unknown (the kernel's default).
    pub tcp_recovery: u32,
    /// Whether bit 0 of `tcp_recovery` being clear selects RFC 6675.
    pub has_rfc6675: bool,
}

impl Detection {
    /// From the sysctl and the kernel's release.
    #[must_use]
    pub fn new(tcp_recovery: Option<&str>, kernel_release: &str) -> Detection {
        let mut numbers = kernel_release.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
        let version = number().zip(number());
        Detection {
            tcp_recovery: tcp_recovery
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(1),
            has_rfc6675: version.is_some_and(|version| version < (6, 17)),
        }
    }
}

/// Which test marked the segments lost on entry into Recovery. `frames` are source names of
/// functions, innermost first.
#[must_use]
pub fn entry(frames: &[&str], fields: EntryFields, detection: Detection) -> Entry {
    if frames.contains(&"tcp_rack_reo_timeout") {
        return Entry::RackTimer;
    }
    let rfc6675 = detection.has_rfc6675 && detection.tcp_recovery & 1 == 0;
    let rack_threshold =
        !fields.reordering_seen && fields.threshold_reached && detection.tcp_recovery & 4 == 0;
    if !fields.sack || rfc6675 || rack_threshold {
        Entry::Dupack
    } else {
        Entry::Rack
    }
}

/// The cause of a retransmission. `frames` are source names of functions, innermost first; empty
/// without a stack, when the sender's fields alone must do.
#[must_use]
pub fn cause(frames: &[&str], fields: Fields, entry: Option<Entry>) -> Cause {
    for frame in frames {
        match *frame {
            "tcp_retransmit_timer" if fields.state == SYN_SENT => return Cause::Syn,
            "tcp_retransmit_timer" => return Cause::Rto,
            "tcp_send_loss_probe" => return Cause::Tlp,
            "tcp_rack_reo_timeout" => return Cause::RackTimer,
            "tcp_simple_retransmit" | "tcp_v4_mtu_reduced" | "tcp_v6_mtu_reduced" => {
                return Cause::Pmtu;
            }
            "tcp_ack" | "tcp_tsq_write" | "tcp_tsq_handler" | "tcp_pace_kick"
            | "tcp_release_cb" => return clocked(fields, entry),
            _ => {}
        }
    }
    if frames.contains(&"tcp_xmit_retransmit_queue") {
        return clocked(fields, entry);
    }
    if frames.is_empty() {
        by_fields(fields, entry)
    } else {
        Cause::Other
    }
}

/// Whether the segment went out through `tcp_xmit_retransmit_queue`, which is what
/// TCPFastRetrans and TCPSlowStartRetrans count.
#[must_use]
pub fn through_queue(frames: &[&str]) -> bool {
    frames.contains(&"tcp_xmit_retransmit_queue")
}

fn clocked(fields: Fields, entry: Option<Entry>) -> Cause {
    match (fields.ca_state, entry) {
        (CA_LOSS, _) => Cause::AfterRto,
        (_, Some(Entry::Dupack)) => Cause::Dupack,
        _ => Cause::Rack,
    }
}

fn by_fields(fields: Fields, entry: Option<Entry>) -> Cause {
    match fields {
        Fields {
            state: SYN_SENT, ..
        } => Cause::Syn,
        Fields {
            pending: 0,
            ca_state: CA_LOSS,
            timed_out: true,
            ..
        } => Cause::Rto,
        Fields {
            pending: PENDING_LOSS_PROBE,
            ca_state: 0..=2,
            ..
        } => Cause::Tlp,
        Fields {
            pending: PENDING_REORDER,
            ca_state: 3 | CA_LOSS,
            ..
        } => Cause::RackTimer,
        Fields {
            ca_state: 3 | CA_LOSS,
            ..
        } => clocked(fields, entry),
        _ => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: [&str; 3] = [
        "__tcp_retransmit_skb",
        "tcp_retransmit_skb",
        "tcp_xmit_retransmit_queue",
    ];

    fn of(above: &[&str], ca_state: u8) -> Cause {
        let frames: Vec<&str> = QUEUE.iter().chain(above).copied().collect();
        cause(
            &frames,
            Fields {
                state: 1,
                ca_state,
                ..Fields::default()
            },
            Some(Entry::Rack),
        )
    }

    #[test]
    fn the_first_deciding_frame_wins() {
        assert_eq!(of(&["tcp_ack", "tcp_rcv_established"], 3), Cause::Rack);
        assert_eq!(of(&["tcp_ack"], 4), Cause::AfterRto);
        assert_eq!(
            of(&["tcp_rack_reo_timeout", "tcp_write_timer_handler"], 3),
            Cause::RackTimer
        );
        assert_eq!(of(&["tcp_simple_retransmit", "tcp_ack"], 4), Cause::Pmtu);
        assert_eq!(of(&["tcp_tsq_write"], 3), Cause::Rack);
        // A softirq that ran on top of another socket's timer.
        assert_eq!(
            of(&["tcp_ack", "tcp_v4_rcv", "tcp_retransmit_timer"], 3),
            Cause::Rack
        );
    }

    #[test]
    fn timers_are_told_apart() {
        let timer = [
            "__tcp_retransmit_skb",
            "tcp_retransmit_skb",
            "tcp_retransmit_timer",
        ];
        let syn = Fields {
            state: SYN_SENT,
            ca_state: 4,
            ..Fields::default()
        };
        assert_eq!(cause(&timer, syn, None), Cause::Syn);
        assert_eq!(cause(&timer, Fields { state: 1, ..syn }, None), Cause::Rto);
        let probe = ["__tcp_retransmit_skb", "tcp_send_loss_probe"];
        assert_eq!(
            cause(
                &probe,
                Fields {
                    state: 1,
                    ca_state: 3,
                    ..syn
                },
                None
            ),
            Cause::Tlp
        );
    }

    #[test]
    fn the_episode_decides_between_rack_and_dupack() {
        let fields = EntryFields {
            sack: true,
            reordering_seen: false,
            threshold_reached: true,
        };
        let default = Detection::new(None, "6.18.15");
        assert_eq!(entry(&["tcp_ack"], fields, default), Entry::Dupack);
        assert_eq!(
            entry(&["tcp_rack_reo_timeout"], fields, default),
            Entry::RackTimer
        );
        let seen = EntryFields {
            reordering_seen: true,
            ..fields
        };
        assert_eq!(entry(&["tcp_ack"], seen, default), Entry::Rack);
        let no_threshold = Detection::new(Some("5"), "6.18.15");
        assert_eq!(entry(&["tcp_ack"], fields, no_threshold), Entry::Rack);
    }

    #[test]
    fn bit_0_means_nothing_after_6_17() {
        let fields = EntryFields {
            sack: true,
            reordering_seen: true,
            threshold_reached: false,
        };
        assert_eq!(
            entry(&[], fields, Detection::new(Some("0"), "6.12.117+deb13")),
            Entry::Dupack
        );
        assert_eq!(
            entry(&[], fields, Detection::new(Some("0"), "6.18.15-amd64")),
            Entry::Rack
        );
    }

    #[test]
    fn without_a_stack_the_fields_must_do() {
        let rto = Fields {
            state: 1,
            ca_state: 4,
            pending: 0,
            timed_out: true,
        };
        assert_eq!(cause(&[], rto, None), Cause::Rto);
        assert_eq!(
            cause(
                &[],
                Fields {
                    ca_state: 1,
                    pending: 5,
                    ..rto
                },
                None
            ),
            Cause::Tlp
        );
        assert_eq!(
            cause(
                &[],
                Fields {
                    ca_state: 0,
                    pending: 1,
                    ..rto
                },
                None
            ),
            Cause::Other
        );
    }
}
