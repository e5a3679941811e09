//! Protection against wrapped sequence numbers (RFC 7323, section 5): TCP discards a segment whose
//! timestamp is older than the last one in sequence. `tcp_probe` fires before that, so the rule is
//! applied here too: `tcp_validate_incoming`, `tcp_disordered_ack` and `tcp_replace_ts_recent`
//! (net/ipv4/tcp_input.c).

use vpnbench_common::event::TcpProbe;

/// `TCP_PAWS_WINDOW`: how much older is tolerated, in timestamp ticks.
const WINDOW: i32 = 1;

/// The timestamps one socket has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Paws {
    recent: Option<u32>,
    /// Window field of the last segment that was not discarded.
    window: u16,
}

impl Paws {
    /// Takes a segment; true if TCP discards it.
    pub(super) fn discards(&mut self, probe: &TcpProbe) -> bool {
        if probe.options & 1 == 0 {
            return false;
        }
        let in_sequence = probe.seq.wrapping_sub(probe.rcv_nxt) as i32 <= 0;
        let Some(recent) = self.recent else {
            // Only what is in sequence is remembered.
            self.recent = in_sequence.then_some(probe.tsval);
            self.window = probe.window;
            return false;
        };
        let older = recent.wrapping_sub(probe.tsval) as i32;
        if older > WINDOW && !self.disordered_ack(probe) {
            return true;
        }
        self.window = probe.window;
        if older < 0 && in_sequence {
            self.recent = Some(probe.tsval);
        }
        false
    }

    /// A duplicate acknowledgement that was overtaken, and carries nothing new.
    fn disordered_ack(self, probe: &TcpProbe) -> bool {
        probe.payload_len == 0
            && probe.seq == probe.rcv_nxt
            && probe.ack == probe.snd_una
            && probe.window <= self.window
            && probe.window != 0
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn segment(tsval: u32, payload_len: u32, ack: u32) -> TcpProbe {
        let mut probe = TcpProbe::zeroed();
        (probe.options, probe.tsval, probe.window) = (1, tsval, 10);
        (probe.payload_len, probe.ack, probe.snd_una) = (payload_len, ack, 100);
        probe
    }

    #[test]
    fn older_segments_are_discarded_but_for_duplicate_acknowledgements() {
        let mut paws = Paws::default();
        assert!(!paws.discards(&segment(50, 0, 100)));
        assert!(
            !paws.discards(&segment(49, 100, 100)),
            "one tick is tolerated"
        );
        assert!(paws.discards(&segment(40, 100, 100)));
        assert!(!paws.discards(&segment(40, 0, 100)), "a duplicate");
        assert!(paws.discards(&segment(40, 0, 90)), "an old acknowledgement");
    }
}
