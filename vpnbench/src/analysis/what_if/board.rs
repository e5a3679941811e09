//! The sender's scoreboard: which segments are on their way, SACKed, given up or sent again, as
//! `tcp_sacktag_write_queue` and `tcp_clean_rtx_queue` (net/ipv4/tcp_input.c) keep it.
//!
//! Units are single segments; super-packets are cut at their segment size, as the kernel cuts them
//! where a SACK block ends inside.

use std::collections::VecDeque;

/// Segments on their way that are remembered: a window of 64 MiB of full segments.
const SEGMENTS_MAX: usize = 1 << 16;

/// (S)ACKed out of order.
pub const SACKED: u8 = 1;
/// Given up.
pub const LOST: u8 = 2;
/// Sent again, and that copy is on its way (`TCPCB_SACKED_RETRANS`).
pub const RETRANS: u8 = 4;
/// Ever sent again (`TCPCB_RETRANS`).
pub const EVER: u8 = 8;

/// One segment on its way.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Place of the first byte.
    pub start: u64,
    /// Place after the last byte.
    pub end: u64,
    /// First transmission, ns.
    pub first_sent: u64,
    /// Last transmission, ns.
    pub sent: u64,
    /// [`SACKED`], [`LOST`], [`RETRANS`], [`EVER`].
    pub flags: u8,
    /// Times it was sent again.
    pub resent: u8,
    /// When the sender learnt of its arrival, ns; 0 before.
    pub delivered: u64,
    /// Delivered while something above it was SACKed, or SACKed itself: not simply in order.
    pub disordered: bool,
}

impl Segment {
    /// Whether a flag is set.
    #[must_use]
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A segment or super-packet that leaves.
#[derive(Debug, Clone, Copy)]
pub struct Transmission {
    /// ns.
    pub time: u64,
    /// Place of the first byte.
    pub start: u64,
    /// Place after the last byte.
    pub end: u64,
    /// Bytes of a segment.
    pub segment: u32,
}

/// What an acknowledgement delivered.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// The segment as it was before.
    pub segment: Segment,
    /// By SACK, above the left edge.
    pub by_sack: bool,
}

/// Segments on their way.
#[derive(Debug, Clone, Default)]
pub struct Board {
    segments: VecDeque<Segment>,
    /// SACKed ranges above the left edge, apart from each other and in order.
    sacked: Vec<(u64, u64)>,
    /// Left edge: everything below is acknowledged.
    pub una: u64,
    /// Segments SACKed and not yet acknowledged.
    pub sacked_out: u32,
    /// Segments given up.
    pub lost_out: u32,
    /// Segments of which a copy is on its way.
    pub retrans_out: u32,
    /// Start of the highest SACKed segment; 0 if none.
    pub highest_sacked: u64,
    delivered: Vec<Delivery>,
    gone: Vec<Segment>,
    /// When the newest segment that the acknowledgement at hand delivers was sent, of those sent once; ns.
    newest: Option<u64>,
    /// Round trips are all that is asked for: no lists are made.
    pub times_only: bool,
    /// Segments that were forgotten because there were too many.
    pub forgotten: u64,
}

impl Board {
    /// New data leaves.
    pub fn transmitted(&mut self, unit: &Transmission) {
        let length = u64::from(unit.segment.max(1));
        let mut start = unit.start;
        while start < unit.end {
            let end = (start + length).min(unit.end);
            if self.segments.len() == SEGMENTS_MAX {
                self.segments.pop_front();
                self.forgotten += 1;
            }
            self.segments.push_back(Segment {
                start,
                end,
                first_sent: unit.time,
                sent: unit.time,
                flags: 0,
                resent: 0,
                delivered: 0,
                disordered: false,
            });
            start = end;
        }
    }

    /// Index of the first segment that ends after a place.
    fn index(&self, place: u64) -> usize {
        self.segments.partition_point(|one| one.end <= place)
    }

    /// Segments that overlap a range.
    pub fn range_mut(&mut self, start: u64, end: u64) -> impl Iterator<Item = &mut Segment> {
        let first = self.index(start);
        self.segments
            .range_mut(first..)
            .take_while(move |one| one.start < end)
    }

    /// Segments that are on their way and not SACKed, from the left edge up to a place.
    pub fn missing(&self, until: u64) -> impl Iterator<Item = &Segment> {
        let mut holes = Vec::with_capacity(self.sacked.len() + 1);
        let mut from = self.una;
        for &(start, end) in &self.sacked {
            if start >= until {
                break;
            }
            holes.push((from, start));
            from = end;
        }
        holes.push((from, until));
        holes.into_iter().flat_map(move |(from, to)| {
            let first = self.index(from);
            self.segments
                .range(first..)
                .take_while(move |one| one.start < to)
                .filter(|one| !one.is(SACKED))
        })
    }

    /// Sends a range again.
    pub fn resent(&mut self, time: u64, start: u64, end: u64) {
        let mut newly = 0;
        for segment in self.range_mut(start, end) {
            newly += u32::from(!segment.is(RETRANS));
            segment.sent = time;
            segment.flags |= RETRANS | EVER;
            segment.resent = segment.resent.saturating_add(1);
        }
        self.retrans_out += newly;
    }

    /// `tcp_packets_in_flight`.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let out = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        out.saturating_sub(self.sacked_out + self.lost_out)
            .saturating_add(self.retrans_out)
    }

    /// Gives a segment up.
    pub fn give_up(&mut self, start: u64, end: u64) {
        let (mut newly, mut copies) = (0, 0);
        for segment in self.range_mut(start, end) {
            newly += u32::from(!segment.is(LOST));
            copies += u32::from(segment.is(RETRANS));
            segment.flags = (segment.flags | LOST) & !RETRANS;
        }
        self.lost_out += newly;
        self.retrans_out = self.retrans_out.saturating_sub(copies);
    }

    /// Takes back everything that was given up and not sent again (`tcp_undo_cwnd_reduction`).
    pub fn nothing_lost(&mut self) {
        if self.lost_out == 0 {
            return;
        }
        for segment in &mut self.segments {
            segment.flags &= !LOST;
        }
        self.lost_out = 0;
    }

    /// An acknowledgement with its SACK blocks, DSACK left out. Returns the RTT of the newest
    /// segment it delivers that was sent only once, in ns.
    pub fn acknowledged(&mut self, now: u64, ack: u64, blocks: &[(u64, u64)]) -> Option<u64> {
        self.delivered.clear();
        self.gone.clear();
        self.newest = None;
        for &(start, end) in blocks {
            if start < end && start >= ack {
                self.sack(now, start, end);
            }
        }
        if ack > self.una {
            self.advance(now, ack);
        }
        self.newest.map(|sent| now.saturating_sub(sent))
    }

    /// What the last acknowledgement delivered, in the kernel's order: SACKed first.
    #[must_use]
    pub fn delivered(&self) -> &[Delivery] {
        &self.delivered
    }

    /// Segments that the last acknowledgement took off the board, in order.
    #[must_use]
    pub fn gone(&self) -> &[Segment] {
        &self.gone
    }

    /// Where the left edge would be if what is SACKed were acknowledged.
    #[must_use]
    pub fn edge(&self) -> u64 {
        match self.sacked.first() {
            Some(&(start, end)) if start <= self.una => end.max(self.una),
            _ => self.una,
        }
    }

    fn sack(&mut self, now: u64, start: u64, end: u64) {
        // The part of the block that is new.
        let mut at = start;
        while at < end {
            let next = self.sacked.partition_point(|one| one.1 <= at);
            match self.sacked.get(next) {
                Some(&(from, until)) if from <= at => at = until,
                found => {
                    let to = found.map_or(end, |one| one.0).min(end);
                    self.sack_new(now, at, to);
                    at = to;
                }
            }
        }
        self.remember(start, end);
    }

    fn sack_new(&mut self, now: u64, start: u64, end: u64) {
        let first = self.index(start);
        let mut highest = self.highest_sacked;
        let (mut count, mut lost, mut copies) = (0, 0, 0);
        for segment in self.segments.range_mut(first..) {
            if segment.end > end {
                break;
            }
            if segment.start < start || segment.is(SACKED) {
                continue;
            }
            if !segment.is(EVER) {
                self.newest = self.newest.max(Some(segment.first_sent));
            }
            if !self.times_only {
                self.delivered.push(Delivery {
                    segment: *segment,
                    by_sack: true,
                });
            }
            lost += u32::from(segment.is(LOST));
            copies += u32::from(segment.is(RETRANS));
            segment.flags = (segment.flags | SACKED) & !(LOST | RETRANS);
            segment.delivered = now;
            segment.disordered = true;
            highest = highest.max(segment.start);
            count += 1;
        }
        self.highest_sacked = highest;
        self.sacked_out += count;
        self.lost_out = self.lost_out.saturating_sub(lost);
        self.retrans_out = self.retrans_out.saturating_sub(copies);
    }

    /// Joins a block to the SACKed ranges.
    fn remember(&mut self, start: u64, end: u64) {
        let first = self.sacked.partition_point(|one| one.1 < start);
        let mut last = first;
        let (mut start, mut end) = (start, end);
        while let Some(&(from, until)) = self.sacked.get(last) {
            if from > end {
                break;
            }
            start = start.min(from);
            end = end.max(until);
            last += 1;
        }
        self.sacked.splice(first..last, [(start, end)]);
    }

    fn advance(&mut self, now: u64, ack: u64) {
        self.una = ack;
        let disordered = self.sacked_out > 0;
        while let Some(mut segment) = self.segments.pop_front_if(|one| one.end <= ack) {
            self.lost_out -= u32::from(segment.is(LOST)).min(self.lost_out);
            self.retrans_out -= u32::from(segment.is(RETRANS)).min(self.retrans_out);
            if segment.is(SACKED) {
                self.sacked_out = self.sacked_out.saturating_sub(1);
            } else {
                if !segment.is(EVER) {
                    self.newest = self.newest.max(Some(segment.first_sent));
                }
                if !self.times_only {
                    self.delivered.push(Delivery {
                        segment,
                        by_sack: false,
                    });
                }
                segment.delivered = now;
                segment.disordered = disordered;
            }
            if !self.times_only {
                self.gone.push(segment);
            }
        }
        let gone = self.sacked.partition_point(|one| one.1 <= ack);
        self.sacked.drain(..gone);
        if self.sacked.is_empty() {
            self.highest_sacked = 0;
        }
    }

    /// The receiver dropped what it had SACKed (reneging): `tcp_check_sack_reneging`.
    pub fn forget_sacks(&mut self) {
        for segment in &mut self.segments {
            segment.flags &= !SACKED;
        }
        self.sacked.clear();
        self.sacked_out = 0;
        self.highest_sacked = 0;
    }

    /// Segments on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// All segments on their way, in order.
    pub fn all(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// First segment on its way.
    #[must_use]
    pub fn first(&self) -> Option<&Segment> {
        self.segments.front()
    }

    /// Last segment on its way.
    #[must_use]
    pub fn last(&self) -> Option<&Segment> {
        self.segments.back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(segments: u64) -> Board {
        let mut board = Board {
            una: 1000,
            ..Board::default()
        };
        for number in 0..segments {
            board.transmitted(&Transmission {
                time: number,
                start: 1000 + number * 100,
                end: 1100 + number * 100,
                segment: 100,
            });
        }
        board
    }

    fn starts(board: &Board) -> Vec<u64> {
        board
            .delivered()
            .iter()
            .map(|one| one.segment.start)
            .collect()
    }

    #[test]
    fn a_block_delivers_only_what_is_new() {
        let mut board = board(6);
        assert_eq!(board.acknowledged(10, 1000, &[(1200, 1300)]), Some(8));
        assert_eq!(starts(&board), [1200]);
        board.acknowledged(11, 1000, &[(1400, 1600), (1200, 1300)]);
        assert_eq!(starts(&board), [1400, 1500]);
        board.acknowledged(12, 1000, &[(1200, 1600)]);
        assert_eq!(starts(&board), [1300]);
        let missing: Vec<u64> = board.missing(1600).map(|one| one.start).collect();
        assert_eq!(missing, [1000, 1100]);
        board.acknowledged(13, 1600, &[]);
        assert_eq!(starts(&board), [1000, 1100]);
        assert_eq!((board.sacked_out, board.len()), (0, 0));
    }

    #[test]
    fn counts_follow_the_flags() {
        let mut board = board(4);
        board.give_up(1000, 1200);
        assert_eq!(board.lost_out, 2);
        board.acknowledged(10, 1000, &[(1100, 1200)]);
        assert_eq!((board.lost_out, board.sacked_out), (1, 1));
        board.resent(11, 1000, 1100);
        assert_eq!(board.first().map(|one| one.resent), Some(1));
        assert_eq!(board.acknowledged(20, 1200, &[]), None, "Karn");
        assert_eq!((board.lost_out, board.sacked_out), (0, 0));
    }

    #[test]
    fn super_packets_are_cut() {
        let mut board = Board::default();
        board.transmitted(&Transmission {
            time: 0,
            start: 0,
            end: 250,
            segment: 100,
        });
        assert_eq!(board.len(), 3);
    }
}
