//! Which segments TCP discards before it looks at what they acknowledge: `tcp_validate_incoming`
//! (net/ipv4/tcp_input.c). `tcp_probe` fires before that, so the rules are applied here too.
//!
//! * Protection against wrapped sequence numbers (RFC 7323, section 5): the timestamp is older than the
//!   last one in sequence (`tcp_disordered_ack`, `tcp_replace_ts_recent`).
//! * The segment ends before what was last acknowledged (`tcp_sequence`, `rcv_wup`).
//! * RST and SYN, and what has no ACK.

use vpnbench_common::event::TcpProbe;

use super::{ACK, FIN, SYN};

/// `TCP_PAWS_WINDOW`: how much older is tolerated, in timestamp ticks.
const WINDOW: i32 = 1;
const RST: u16 = 4;
/// `TCP_MAX_WSCALE`.
const SCALE_MAX: u32 = 14;

/// What one socket has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Validation {
    /// `ts_recent`.
    recent: Option<u32>,
    /// `rcv_wup`: the last acknowledgement that left.
    acknowledged: Option<u32>,
    /// `snd_wl1`: sequence number of the segment that set the window.
    window_from: Option<u32>,
    /// Window field of the last segment that was not discarded, and whether it acknowledged anything.
    window: (u16, bool),
    /// `snd_wscale`.
    scale: Option<u32>,
}

impl Validation {
    /// The socket sends an acknowledgement.
    pub(super) fn sent(&mut self, ack: u32) {
        self.acknowledged = Some(ack);
    }

    /// Takes a segment; true if TCP discards it. `tick_ns`: nanoseconds of a jiffy.
    pub(super) fn discards(&mut self, probe: &TcpProbe, tick_ns: u64) -> bool {
        self.learn_scale(probe);
        let flags = probe.tcp_flags;
        let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let end = probe.seq.wrapping_add(probe.payload_len + control);
        let stale = self
            .acknowledged
            .is_some_and(|acknowledged| before(end, acknowledged));
        if self.is_old(probe, tick_ns) || stale || flags & (RST | SYN | ACK) != ACK {
            return true;
        }
        self.accept(probe);
        false
    }

    /// An acknowledgement of new data always sets the send window.
    fn learn_scale(&mut self, probe: &TcpProbe) {
        let (window, advanced) = self.window;
        let window = u32::from(window);
        if self.scale.is_some() || !advanced || window == 0 || !probe.snd_wnd.is_multiple_of(window)
        {
            return;
        }
        let factor = probe.snd_wnd / window;
        if factor.is_power_of_two() && factor.ilog2() <= SCALE_MAX {
            self.scale = Some(factor.ilog2());
        }
    }

    fn is_old(&self, probe: &TcpProbe, tick_ns: u64) -> bool {
        let Some(recent) = self.recent.filter(|_| probe.options & 1 != 0) else {
            return false;
        };
        let older = recent.wrapping_sub(probe.tsval) as i32;
        older > WINDOW && !self.disordered_ack(probe, older, tick_ns)
    }

    /// A duplicate acknowledgement that was overtaken, and carries nothing new.
    fn disordered_ack(&self, probe: &TcpProbe, older: i32, tick_ns: u64) -> bool {
        // `tcp_tsval_replay`: 1.2 RTO in ticks of the timestamp, which are milliseconds.
        let replay = u64::from(probe.rto_jiffies) * tick_ns * 12 / 10_000_000;
        probe.payload_len == 0
            && probe.seq == probe.rcv_nxt
            && probe.ack == probe.snd_una
            && !self.updates_window(probe)
            && i64::from(older) <= i64::try_from(replay).unwrap_or(i64::MAX)
    }

    /// `tcp_may_update_window`.
    fn updates_window(&self, probe: &TcpProbe) -> bool {
        let wider = match self.scale {
            Some(scale) => u32::from(probe.window) << scale > probe.snd_wnd,
            None => probe.window > self.window.0,
        };
        let newer = |from: u32| before(from, probe.seq);
        before(probe.snd_una, probe.ack)
            || self.window_from.is_some_and(newer)
            || wider
            || probe.window == 0
    }

    fn accept(&mut self, probe: &TcpProbe) {
        if self.updates_window(probe) {
            self.window_from = Some(probe.seq);
        }
        self.window = (probe.window, before(probe.snd_una, probe.ack));
        let edge = self.acknowledged.unwrap_or(probe.rcv_nxt);
        let in_sequence = !before(edge, probe.seq);
        let timely = self
            .recent
            .is_none_or(|recent| !before(probe.tsval, recent));
        if probe.options & 1 != 0 && in_sequence && timely && !before(probe.ack, probe.snd_una) {
            self.recent = Some(probe.tsval);
        }
    }
}

/// In serial number arithmetic (RFC 1982), as the kernel's `before`.
fn before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    const TICK_NS: u64 = 4_000_000;

    fn segment(tsval: u32, payload_len: u32, ack: u32) -> TcpProbe {
        let mut probe = TcpProbe::zeroed();
        (probe.options, probe.tsval, probe.window) = (1, tsval, 10);
        (probe.payload_len, probe.ack, probe.snd_una) = (payload_len, ack, 100);
        (probe.tcp_flags, probe.rto_jiffies, probe.snd_wnd) = (ACK, 50, 10);
        probe
    }

    #[test]
    fn older_segments_are_discarded_but_for_duplicate_acknowledgements() {
        let mut seen = Validation::default();
        let mut discards = |one: &TcpProbe| seen.discards(one, TICK_NS);
        assert!(!discards(&segment(1050, 0, 100)));
        assert!(!discards(&segment(1049, 100, 100)), "one tick is tolerated");
        assert!(discards(&segment(1040, 100, 100)));
        assert!(!discards(&segment(1040, 0, 100)), "a duplicate");
        assert!(discards(&segment(1040, 0, 90)), "an old acknowledgement");
        assert!(discards(&segment(809, 0, 100)), "older than 1.2 x 200 ms");
    }

    #[test]
    fn an_old_acknowledgement_that_widens_the_window_is_no_duplicate() {
        let mut seen = Validation::default();
        seen.discards(&segment(50, 0, 200), TICK_NS);
        let narrow = TcpProbe {
            snd_wnd: 40,
            ..segment(40, 0, 100)
        };
        assert!(!seen.discards(&narrow, TICK_NS));
        assert_eq!(seen.scale, Some(2));
        let wide = TcpProbe {
            window: 11,
            ..narrow
        };
        assert!(seen.discards(&wide, TICK_NS));
    }

    #[test]
    fn resets_and_what_was_acknowledged_long_ago_are_discarded() {
        let mut seen = Validation::default();
        let mut reset = segment(50, 0, 100);
        reset.tcp_flags |= RST;
        assert!(seen.discards(&reset, TICK_NS));
        seen.sent(1000);
        let mut old = segment(50, 100, 100);
        (old.seq, old.rcv_nxt) = (899, 1000);
        assert!(seen.discards(&old, TICK_NS));
        old.seq = 900;
        assert!(
            !seen.discards(&old, TICK_NS),
            "it ends where the window begins"
        );
    }
}
