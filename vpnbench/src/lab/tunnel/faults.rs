//! What can be planted in a tunnel, per direction: `transmit` is from the tunnel device to the
//! outer socket, `receive` the other way. Entry is before encryption (decryption), exit after it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span::Span;

/// Faults of both directions of one end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Faults {
    /// From the tunnel device to the outer socket.
    pub transmit: DirectionFaults,
    /// From the outer socket to the tunnel device.
    pub receive: DirectionFaults,
}

/// Faults of one direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct DirectionFaults {
    /// CPU time burnt for each packet by the thread that reads the device or the socket.
    pub burn_entry: Span,
    /// CPU time burnt for each packet where it is encrypted or decrypted.
    pub burn_crypto: Span,
    /// Only this worker of a pipeline (counted from 0) burns `burn_crypto`; without it all do.
    pub burn_crypto_worker: Option<usize>,
    /// CPU time burnt for each packet by the thread that sends it or writes it to the device.
    pub burn_exit: Span,
    /// Packets lost before encryption (decryption).
    pub drop_entry: Option<Select>,
    /// Packets lost after it.
    pub drop_exit: Option<Select>,
    /// Inner packets larger than this many bytes are lost without a word: a PMTU black hole.
    pub size_limit: Option<u32>,
    /// Nothing is carried until this long after the start.
    pub start_delay: Option<Span>,
    /// What happens to packets that come during `start_delay`.
    pub start_policy: StartPolicy,
    /// Packets that leave twice, one right after the other.
    pub duplicate: Option<Select>,
    /// Packets that leave a second time after a while, as by a retry mechanism inside the tunnel.
    pub retransmit: Option<Retransmit>,
    /// Packets that are overtaken by those behind them.
    pub reorder: Option<Reorder>,
    /// Time that each packet waits inside, in order.
    pub delay: Option<Span>,
    /// Small TCP packets without payload wait longer than the others.
    pub ack_delay: Option<AckDelay>,
    /// The thread at the exit stops now and then.
    pub stall: Option<Stall>,
    /// Sleep for each packet while its peer's lock is held; needs `peer_lock`.
    pub sleep_in_lock: Option<Span>,
}

/// Which packets a fault hits: exactly one of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Select {
    /// Each packet with this probability, 0 to 1.
    pub probability: Option<f64>,
    /// Each packet whose number is a multiple of this; the first packet is number 1.
    pub every: Option<u64>,
}

/// What happens to packets that come too early.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartPolicy {
    /// They are lost.
    #[default]
    Drop,
    /// They stay in the device's queue or the socket's buffer.
    Wait,
}

/// A retry mechanism that sends what had arrived already.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Retransmit {
    /// Which packets.
    pub select: Select,
    /// How long after the first time.
    pub after: Span,
}

/// Each `every`th packet leaves after `by` packets that came later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Reorder {
    /// Which packets: those whose number is a multiple of this.
    pub every: u64,
    /// Later packets that leave first: the reordering extent of RFC 4737 section 4.2.3.
    pub by: u64,
    /// With too little traffic behind it, it leaves after this time all the same.
    #[serde(default = "reorder_limit")]
    pub at_most: Span,
}

/// Delay of acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct AckDelay {
    /// For how long.
    pub delay: Span,
    /// TCP packets without payload of up to this many bytes.
    #[serde(default = "ack_size")]
    pub max_bytes: u32,
}

/// A pause at a fixed period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Stall {
    /// From the start of one pause to that of the next; the first is one period after the start.
    pub period: Span,
    /// Length of each.
    pub length: Span,
}

fn reorder_limit() -> Span {
    Span::from_millis(50)
}

/// An IPv6 TCP header with all its options.
fn ack_size() -> u32 {
    100
}

impl Faults {
    /// Says which value makes no sense, by its key.
    pub(super) fn check(&self) -> Result<(), String> {
        self.transmit.check("faults.transmit")?;
        self.receive.check("faults.receive")
    }
}

impl DirectionFaults {
    fn check(&self, prefix: &str) -> Result<(), String> {
        let selections = [
            ("drop_entry", self.drop_entry),
            ("drop_exit", self.drop_exit),
            ("duplicate", self.duplicate),
            (
                "retransmit.select",
                self.retransmit.map(|retransmit| retransmit.select),
            ),
        ];
        for (key, select) in selections {
            if let Some(select) = select {
                select
                    .check()
                    .map_err(|why| format!("{prefix}.{key}: {why}"))?;
            }
        }
        if self
            .reorder
            .is_some_and(|reorder| reorder.every == 0 || reorder.by == 0)
        {
            return Err(format!("{prefix}.reorder: every and by start at 1"));
        }
        match self.stall {
            Some(stall) if stall.length >= stall.period => {
                Err(format!("{prefix}.stall: length must be below period"))
            }
            _ => Ok(()),
        }
    }
}

impl Select {
    /// Each `number`th packet.
    #[must_use]
    pub fn every(number: u64) -> Select {
        Select {
            every: Some(number),
            probability: None,
        }
    }

    /// Each packet with this probability.
    #[must_use]
    pub fn probability(probability: f64) -> Select {
        Select {
            every: None,
            probability: Some(probability),
        }
    }

    fn check(&self) -> Result<(), String> {
        match (self.probability, self.every) {
            (Some(probability), None) if !(0.0..=1.0).contains(&probability) => {
                Err(format!("probability {probability} is not between 0 and 1"))
            }
            (None, Some(0)) => Err("every starts at 1".to_owned()),
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("give either probability or every".to_owned()),
        }
    }
}
