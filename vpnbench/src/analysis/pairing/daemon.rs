//! Through the daemon: which packet that went in is which packet that came out.
//!
//! The payload is encrypted, so nothing in the packets says it. Three observations do:
//!
//! * **Thread.** A daemon that sends a packet from the thread that read it, before it reads on, pairs
//!   each send with its own last burst of reads. What of that burst is left when the thread reads again
//!   was not sent.
//! * **Order.** Otherwise (delays, worker threads, queues in the daemon) packets are taken to leave in the order
//!   they came, which all WireGuard implementations ensure per peer.
//! * **Size.** Encapsulation adds a nearly constant number of bytes. The range is learned from the first
//!   packets; a packet of another size is another packet. This skips what was lost and what the daemon
//!   made itself.
//!
//! Both are tried on every packet. The wrong one leaves packets over on both sides: lost, and made by the
//! daemon. Where both ends of a tunnel are seen, the far end says how many pairs of each were right. Order cannot
//! tell packets of one size apart: after a loss inside the counts stay right and the pairs shift until it runs empty.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::amount::Amount;
use super::transit::inside_limit;
use super::units::Shape;
use crate::analysis::stages::Backlog;

/// Packets kept inside one daemon and direction.
const PENDING_MAX: usize = 1 << 17;
/// A packet that has not left after this long will not.
const PATIENCE_NS: u64 = 8_000_000_000;
/// Waiting packets looked at for one that fits.
const WINDOW: usize = 512;
/// Of a daemon whose packets do pair, waiting packets looked at beyond those.
const FAR: usize = 1 << 14;
/// Segments that went past a waiting packet before it counts as lost.
const PASSED_MAX: u64 = 2048;
/// Sizes may differ by this much until the overhead is learned.
const DIFFERENCE_MAX: i64 = 256;
/// Pairs from which the overhead is learned.
const LEARNED_FROM: u32 = 64;
/// Room beside the learned range: padding to 16 bytes.
const PADDING: i64 = 16;
/// Packets the far end must have checked before its word decides between the rules.
const CHECKED_LEAST: u64 = 64;
/// Threads remembered.
const THREADS_MAX: usize = 4096;

/// A packet inside the daemon.
#[derive(Debug, Clone, Copy)]
struct Pending {
    time_ns: u64,
    unit: u64,
    /// What of it is inside: segments of full size, and of the last one's size. A unit may hold packets of several
    /// flows (receive offload joins what one sender sent), of which the last may leave first.
    left: [u32; 2],
    /// Both sizes.
    sizes: [u32; 2],
    /// Segments that will have left when it is its turn.
    turn: u64,
}

/// What of a packet that came out is which one that went in.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The unit that went in.
    pub unit: u64,
    /// When, ns.
    pub entered_ns: u64,
    /// Segments.
    pub segments: u32,
}

/// Differences between the sizes outside and inside that were usual while packets were alone.
#[derive(Debug, Clone, Copy)]
struct Usual {
    least: i64,
    most: i64,
}

/// How well a size fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// By a usual difference.
    Usual,
    /// It cannot be ruled out.
    Possible,
    Not,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    /// Numbers of the current burst of reads.
    burst: VecDeque<u64>,
    sent: bool,
}

/// How packets are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// With the last burst of reads of the same thread.
    #[default]
    Thread = 0,
    /// In the order they came.
    Order = 1,
}

/// Both rules.
pub const RULES: [Rule; 2] = [Rule::Thread, Rule::Order];

/// One daemon in one direction, under both rules.
#[derive(Debug, Clone)]
pub struct Daemon {
    books: [Book; 2],
}

impl Default for Daemon {
    fn default() -> Self {
        let book = |rule| Book {
            rule,
            ..Book::default()
        };
        Daemon {
            books: RULES.map(book),
        }
    }
}

impl Daemon {
    /// A packet goes in.
    pub fn enter(&mut self, now_ns: u64, tid: u32, unit: u64, shape: Shape) {
        for book in &mut self.books {
            book.enter(now_ns, tid, unit, shape);
        }
    }

    /// A packet comes out; what went in for it goes to `pairs`, by rule. Returns the segments that
    /// nothing went in for, even if only the order counts.
    pub fn leave(
        &mut self,
        now_ns: u64,
        tid: u32,
        shape: Shape,
        pairs: &mut [Vec<Pair>; 2],
    ) -> u32 {
        let mut rest = 0;
        for (book, pairs) in self.books.iter_mut().zip(pairs) {
            pairs.clear();
            rest = book.leave(now_ns, tid, shape, pairs);
        }
        rest
    }

    /// A packet that the daemon made itself comes out.
    pub fn leave_own(&mut self, segments: u32, bytes: u32) {
        for book in &mut self.books {
            book.originated.add(segments, bytes);
        }
    }

    /// The book of a rule.
    #[must_use]
    pub fn book(&self, rule: Rule) -> &Book {
        &self.books[rule as usize]
    }

    /// The book that counts, to close it.
    #[must_use]
    pub fn into_book_of_counts(self) -> Book {
        let rule = self.complete();
        let [thread, order] = self.books;
        if rule == Rule::Thread { thread } else { order }
    }

    /// The rule for times. `confirmed` has how many of `checked` pairs the far end confirmed, by rule; if
    /// that does not decide, the rule for counts.
    #[must_use]
    pub fn better(&self, confirmed: [u64; 2], checked: u64) -> Rule {
        let [by_thread, by_order] = confirmed;
        if checked >= CHECKED_LEAST && by_thread.abs_diff(by_order) * 50 > checked {
            return if by_thread > by_order {
                Rule::Thread
            } else {
                Rule::Order
            };
        }
        self.complete()
    }

    /// The rule for counts: the one that leaves fewer packets over on both sides, the thread if both do
    /// equally.
    #[must_use]
    pub fn complete(&self) -> Rule {
        let [thread, order] = &self.books;
        if thread.over() <= order.over() {
            Rule::Thread
        } else {
            Rule::Order
        }
    }
}

/// The book of one daemon in one direction under one rule.
#[derive(Debug, Clone, Default)]
pub struct Book {
    rule: Rule,
    pending: VecDeque<Pending>,
    base: u64,
    lanes: FxHashMap<u32, Lane>,
    differences: FxHashMap<i64, u32>,
    /// The most frequent difference so far, until `learned` is known.
    likely: Option<i64>,
    learned: Option<Usual>,
    matched: u32,
    left_so_far: u64,
    slowest_ns: u64,
    /// Went in.
    pub entered: Amount,
    /// Came out and paired with what went in.
    pub left: Amount,
    /// Went in and did not come out.
    pub lost: Amount,
    /// Came out without having gone in: made by the daemon, or sent twice.
    pub originated: Amount,
    /// Given up for lack of room.
    pub evicted: Amount,
    /// Packets and bytes inside.
    pub backlog: Backlog,
}

impl Book {
    /// Segments without a partner on either side.
    #[must_use]
    pub fn over(&self) -> u64 {
        self.entered.segments.saturating_sub(self.left.segments) + self.originated.segments
    }

    fn enter(&mut self, now_ns: u64, tid: u32, unit: u64, shape: Shape) {
        let bytes = shape.bytes();
        self.entered.add(shape.segments, bytes);
        self.backlog.come(now_ns, shape.segments, bytes);
        let number = self.base + self.pending.len() as u64;
        if self.lanes.len() >= THREADS_MAX {
            self.lanes.clear();
        }
        let lane = self.lanes.entry(tid).or_default();
        if std::mem::take(&mut lane.sent) {
            let burst = std::mem::take(&mut lane.burst);
            if self.rule == Rule::Thread {
                for number in burst {
                    self.lose(number);
                }
            }
        }
        let lane = self.lanes.entry(tid).or_default();
        lane.burst.push_back(number);
        if lane.burst.len() > WINDOW {
            lane.burst.pop_front();
        }
        let turn = self.left_so_far + self.backlog.packets;
        self.pending
            .push_back(Pending::new(now_ns, unit, turn, shape));
        self.expire(now_ns);
    }

    fn leave(&mut self, now_ns: u64, tid: u32, shape: Shape, pairs: &mut Vec<Pair>) -> u32 {
        let mut done = 0;
        let mut parts = shape.parts();
        while let Some((size, wanted)) = parts.iter_mut().find(|part| part.1 > 0) {
            let size = *size;
            let found = match self.rule {
                Rule::Thread => self.in_burst(tid, size),
                Rule::Order => self.in_order(size),
            };
            let Some(found) = found else {
                *wanted = 0;
                continue;
            };
            if done == 0 && self.is_all_inside(found.0, shape.segments) {
                // A unit as it came: its last segment goes with it, whatever a capture makes of its size.
                done = self.pair(now_ns, found, [shape.segments; 2], size, pairs);
                break;
            }
            let mut most = [0; 2];
            most[found.1] = *wanted;
            let taken = self.pair(now_ns, found, most, size, pairs);
            *wanted -= taken;
            done += taken;
        }
        if let Some(lane) = self.lanes.get_mut(&tid) {
            lane.sent = true;
        }
        self.left_so_far += u64::from(done);
        let rest = shape.segments - done;
        let bytes = shape.bytes();
        if done > 0 {
            let share = u64::from(bytes) * u64::from(done) / u64::from(shape.segments.max(1));
            self.left.add_parts(1, done, share);
        }
        if rest > 0 {
            let share = u64::from(bytes) * u64::from(rest) / u64::from(shape.segments.max(1));
            self.originated.add_parts(u64::from(done == 0), rest, share);
        }
        self.pop_done();
        rest
    }

    /// Whether a waiting unit has as many segments as another, and none of them left.
    fn is_all_inside(&self, at: usize, segments: u32) -> bool {
        let waiting = self.pending.get(at);
        segments > 1 && waiting.is_some_and(|one| one.inside().0 == segments)
    }

    /// Takes at most so many segments of each part of a waiting unit; `size` came out and fits its `part`.
    fn pair(
        &mut self,
        now_ns: u64,
        (at, part): (usize, usize),
        wanted: [u32; 2],
        size: u32,
        pairs: &mut Vec<Pair>,
    ) -> u32 {
        let few = self.pending.len() <= 2;
        let Some(one) = self.pending.get_mut(at) else {
            return 0;
        };
        let entered = one.sizes[part];
        let taken = [0, 1].map(|part| wanted[part].min(one.left[part]));
        let bytes = one.sizes[0].saturating_mul(taken[0]) + one.sizes[1] * taken[1];
        for (left, taken) in one.left.iter_mut().zip(taken) {
            *left -= taken;
        }
        let taken = taken[0] + taken[1];
        let pair = Pair {
            unit: one.unit,
            entered_ns: one.time_ns,
            segments: taken,
        };
        pairs.push(pair);
        self.slowest_ns = self.slowest_ns.max(now_ns.saturating_sub(pair.entered_ns));
        self.backlog.go(taken, bytes);
        if few && self.learned.is_none() {
            self.learn(i64::from(size) - i64::from(entered));
        }
        taken
    }

    fn learn(&mut self, difference: i64) {
        let count = self.differences.entry(difference).or_default();
        *count += 1;
        let count = *count;
        let most = self.likely.and_then(|one| self.differences.get(&one));
        if most.is_none_or(|most| count >= *most) {
            self.likely = Some(difference);
        }
        self.matched += 1;
        if self.matched < LEARNED_FROM {
            return;
        }
        let usual = || {
            self.differences
                .iter()
                .filter(|(_, count)| **count * 50 >= self.matched)
                .map(|(d, _)| *d)
        };
        if let (Some(least), Some(most)) = (usual().min(), usual().max()) {
            self.learned = Some(Usual { least, most });
        }
        self.differences.clear();
    }

    fn fit(&self, entered: u32, left: u32) -> Fit {
        let difference = i64::from(left) - i64::from(entered);
        let within = |least: i64, most: i64| difference >= least && difference <= most;
        let (usual, possible) = match self.learned {
            Some(Usual { least, most }) => {
                (within(least, most), within(least - PADDING, most + PADDING))
            }
            None => (
                self.likely == Some(difference),
                within(-DIFFERENCE_MAX, DIFFERENCE_MAX),
            ),
        };
        match (usual, possible) {
            (true, _) => Fit::Usual,
            (false, true) => Fit::Possible,
            (false, false) => Fit::Not,
        }
    }

    /// Place and part of the first waiting packet that fits by a usual difference, else of the first that may
    /// fit. Packets of one batch may leave in another order than they came (a daemon merges those of one
    /// flow): taking the first that may fit would leave over two that do not fit each other.
    fn choose<'a>(
        &self,
        waiting: impl Iterator<Item = (usize, &'a Pending)>,
        size: u32,
    ) -> Option<(usize, usize)> {
        let mut possible = None;
        let unknown = self.learned.is_none() && self.likely.is_none();
        for (at, one) in waiting {
            for part in [0, 1] {
                if one.left[part] == 0 {
                    continue;
                }
                match self.fit(one.sizes[part], size) {
                    Fit::Usual => return Some((at, part)),
                    Fit::Possible if unknown => return Some((at, part)),
                    Fit::Possible if possible.is_none() => possible = Some((at, part)),
                    _ => {}
                }
            }
        }
        possible
    }

    fn in_burst(&self, tid: u32, size: u32) -> Option<(usize, usize)> {
        let lane = self.lanes.get(&tid)?;
        let waiting = lane.burst.iter().filter_map(|number| {
            let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
            let one = self.pending.get(at)?;
            one.is_inside().then_some((at, one))
        });
        self.choose(waiting, size)
    }

    fn in_order(&self, size: u32) -> Option<(usize, usize)> {
        let waiting = || {
            let all = self.pending.iter().enumerate();
            all.filter(|(_, one)| one.is_inside())
        };
        let found = self.choose(waiting().take(WINDOW), size);
        if found.is_some() || self.originated.segments * 20 > self.left.segments {
            return found;
        }
        // Behind many of another size that were lost inside. Where nothing fits anyway, as with a stream, it
        // is not looked for.
        self.choose(waiting().skip(WINDOW).take(FAR), size)
    }

    fn lose(&mut self, number: u64) {
        let Some(at) = number
            .checked_sub(self.base)
            .and_then(|at| usize::try_from(at).ok())
        else {
            return;
        };
        if let Some(one) = self.pending.get_mut(at).filter(|one| one.is_inside()) {
            let (left, bytes) = one.inside();
            one.left = [0; 2];
            self.lost.add(left, bytes);
            self.backlog.go(left, bytes);
        }
        self.pop_done();
    }

    fn pop_done(&mut self) {
        while self.pending.front().is_some_and(|one| !one.is_inside()) {
            self.pending.pop_front();
            self.base += 1;
        }
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(front) = self.pending.front() {
            let old = front.time_ns.saturating_add(PATIENCE_NS) <= now_ns;
            let passed = self.left_so_far > front.turn + PASSED_MAX;
            let full = self.pending.len() > PENDING_MAX;
            if front.is_inside() && !old && !passed && !full {
                break;
            }
            let one = *front;
            self.pending.pop_front();
            self.base += 1;
            if one.is_inside() {
                let (left, bytes) = one.inside();
                self.backlog.go(left, bytes);
                let sum = if full {
                    &mut self.evicted
                } else {
                    &mut self.lost
                };
                sum.add(left, bytes);
            }
        }
    }

    /// What is inside at the end; what is older than anything that came out was lost. `arrived` says
    /// whether a unit is known to have come out (at the far end): then what is missing is another
    /// packet, and not a young one.
    pub fn finish(&mut self, now_ns: u64, arrived: impl Fn(u64) -> bool) -> Amount {
        let mut inside = Amount::default();
        let limit = inside_limit(self.slowest_ns);
        for one in self.pending.drain(..).filter(Pending::is_inside) {
            let young = now_ns.saturating_sub(one.time_ns) <= limit;
            let sum = if young && !arrived(one.unit) {
                &mut inside
            } else {
                &mut self.lost
            };
            let (left, bytes) = one.inside();
            sum.add(left, bytes);
        }
        inside
    }

    /// Whether packets go through one by one: most that came out had gone in.
    #[must_use]
    pub fn one_to_one(&self) -> bool {
        let out = self.left.segments + self.originated.segments;
        let paired_out = 2 * self.left.segments >= out;
        let paired_in = 2 * self.left.segments >= self.entered.segments;
        out == 0 || paired_out && (paired_in || self.lost.segments < self.entered.segments)
    }
}

impl Rule {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Thread => "thread",
            Rule::Order => "order-and-size",
        }
    }
}

impl Pending {
    fn new(time_ns: u64, unit: u64, turn: u64, shape: Shape) -> Pending {
        let [full, last] = shape.parts();
        Pending {
            time_ns,
            unit,
            left: [full.1, last.1],
            sizes: [full.0, last.0],
            turn,
        }
    }

    fn is_inside(&self) -> bool {
        self.left != [0; 2]
    }

    /// Segments and bytes inside.
    fn inside(&self) -> (u32, u32) {
        let [full, last] = self.left;
        let bytes = self.sizes[0].saturating_mul(full) + self.sizes[1] * last;
        (full + last, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit whose last segment, of another flow, leaves in front of the others, which are joined with those of
    /// the unit before.
    #[test]
    fn the_last_segment_of_a_unit_may_leave_first() {
        let mut daemon = Daemon::default();
        let mut pairs = [Vec::new(), Vec::new()];
        for at in 0..u64::from(LEARNED_FROM) {
            daemon.enter(2 * at, 1, at, Shape::one(1452));
            daemon.leave(2 * at + 1, 1, Shape::one(1420), &mut pairs);
        }
        daemon.enter(1000, 1, 100, Shape::cut(0, 2 * 1452, 1452, 2));
        daemon.enter(1000, 1, 101, Shape::cut(0, 2 * 1452 + 84, 1452, 3));
        for shape in [Shape::one(52), Shape::cut(52, 4 * 1368, 1368, 4)] {
            assert_eq!(daemon.leave(1001, 1, shape, &mut pairs), 0, "{shape:?}");
        }
        for rule in RULES {
            assert_eq!(daemon.book(rule).over(), 0);
            assert!(daemon.book(rule).pending.is_empty());
        }
    }

    /// One burst whose packets leave in another order, as a daemon that merges those of one flow writes
    /// them; their sizes differ by no more than padding might.
    #[test]
    fn packets_of_a_burst_may_leave_in_another_order() {
        let mut daemon = Daemon::default();
        let mut pairs = [Vec::new(), Vec::new()];
        for at in 0..u64::from(LEARNED_FROM) {
            daemon.enter(2 * at, 1, at, Shape::one(1000));
            daemon.leave(2 * at + 1, 1, Shape::one(1032), &mut pairs);
        }
        for (unit, size) in [(100, 64), (101, 80), (102, 96)] {
            daemon.enter(1000, 1, unit, Shape::one(size));
        }
        for (size, unit) in [(112, 101), (128, 102), (96, 100)] {
            let rest = daemon.leave(1001, 1, Shape::one(size), &mut pairs);
            assert_eq!(rest, 0, "{size} has no partner");
            for pairs in &pairs {
                assert_eq!(pairs.first().map(|pair| pair.unit), Some(unit));
            }
        }
        for rule in RULES {
            assert_eq!(daemon.book(rule).over(), 0);
        }
    }
}
