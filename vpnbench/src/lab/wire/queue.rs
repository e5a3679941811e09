//! One host's egress as `netem_enqueue` and `netem_dequeue` of Linux 6.12 (net/sched/sch_netem.c)
//! treat it. Knows no clock: the caller says what time it is.

use std::collections::{BTreeMap, VecDeque};

use super::delay::Delay;
use super::impairment::Impairment;
use super::random::{Chance, Prandom};
use super::spec::Model;

/// What waits in a queue.
#[derive(Debug, Clone)]
pub(super) struct Waiting<T> {
    /// The unit.
    pub(super) unit: T,
    /// When it came, in nanoseconds of the caller's clock.
    pub(super) arrived: i64,
    /// Its number among all that came; a copy has its original's.
    pub(super) number: u64,
    /// Whether it is the second of two.
    pub(super) is_copy: bool,
    /// Whether it goes past those that wait.
    pub(super) jumps: bool,
    /// When it is to leave; may be past already when it came.
    pub(super) time_to_send: i64,
}

/// What became of a unit that was offered, or of its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits for its time.
    Waits,
    /// It goes next, past those that wait.
    Jumps,
    /// Lost on purpose.
    Lost,
    /// No room.
    OverLimit,
}

/// The answer to an offer.
#[derive(Debug)]
pub(super) struct Answer<T> {
    /// What became of the unit.
    pub(super) fate: Fate,
    /// What became of its copy, if there is one.
    pub(super) copy: Option<Fate>,
    /// The unit, if it was not kept.
    pub(super) refused: Option<T>,
    /// The copy, if it was not kept.
    pub(super) refused_copy: Option<T>,
}

/// The qdisc.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limit: usize,
    gap: u32,
    counter: u32,
    bytes_per_second: u64,
    duplicate: Chance,
    loss: Chance,
    reorder: Chance,
    delay: Delay,
    random: Prandom,
    /// `sch->q`: reordered units, the latest in front.
    head: VecDeque<Waiting<T>>,
    /// `t_head`..`t_tail`: units that came in order of their times.
    list: VecDeque<Waiting<T>>,
    /// `t_root`: the others, by time and then by arrival.
    tree: BTreeMap<(i64, u64), Waiting<T>>,
    inserted: u64,
    offered: u64,
}

impl<T: Clone> Queue<T> {
    /// An empty queue. Equal seeds give equal draws; without correlation they are those of a
    /// kernel netem given the same seed (`TCA_NETEM_PRNG_SEED`).
    pub(super) fn new(impairment: &Impairment, model: Model, seed: u64) -> Queue<T> {
        // netem starts each correlated generator with a random number; from the same seed here.
        let mut starts = Prandom::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
        let mut chance = |share, correlation| match model {
            Model::Netem => Chance::netem(share, correlation, starts.draw()),
            Model::Exact => Chance::exact(share, correlation),
        };
        Queue {
            limit: impairment.limit as usize,
            gap: impairment.gap,
            counter: 0,
            bytes_per_second: impairment.rate_bps / 8,
            duplicate: chance(impairment.duplicate, impairment.duplicate_correlation),
            loss: chance(impairment.loss, impairment.loss_correlation),
            reorder: chance(impairment.reorder, impairment.reorder_correlation),
            delay: Delay::new(impairment, model, starts.draw()),
            random: Prandom::new(seed),
            head: VecDeque::new(),
            list: VecDeque::new(),
            tree: BTreeMap::new(),
            inserted: 0,
            offered: 0,
        }
    }

    /// Units that wait.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.list.len() + self.tree.len()
    }

    /// All that waits, in no particular order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.head.iter().chain(&self.list).chain(self.tree.values())
    }

    /// Offers a unit of `bytes` on the wire.
    pub(super) fn offer(&mut self, unit: T, bytes: u64, now: i64) -> Answer<T> {
        let mut answer = Answer {
            fate: Fate::Lost,
            copy: None,
            refused: None,
            refused_copy: None,
        };
        let number = self.offered;
        self.offered += 1;
        let twice = self.duplicate.happens(&mut self.random);
        let lost = self.loss.happens(&mut self.random);
        if lost && !twice {
            answer.refused = Some(unit);
            return answer;
        }
        if self.len() >= self.limit {
            answer.fate = Fate::OverLimit;
            answer.refused = Some(unit);
            return answer;
        }
        let original = Waiting {
            unit,
            arrived: now,
            number,
            is_copy: false,
            jumps: false,
            time_to_send: now,
        };
        // A copy enters at the top again, with duplication off: it may be lost or find no room.
        // One that is both lost and duplicated leaves once.
        if twice && !lost {
            let copy = Waiting {
                is_copy: true,
                ..original.clone()
            };
            let fate = if self.loss.happens(&mut self.random) {
                Fate::Lost
            } else if self.len() >= self.limit {
                Fate::OverLimit
            } else {
                Fate::Waits
            };
            if fate == Fate::Waits {
                answer.copy = Some(self.keep(copy, bytes, now));
            } else {
                answer.copy = Some(fate);
                answer.refused_copy = Some(copy.unit);
            }
        }
        answer.fate = self.keep(original, bytes, now);
        answer
    }

    fn keep(&mut self, mut waiting: Waiting<T>, bytes: u64, now: i64) -> Fate {
        let stays = self.gap == 0 || self.counter < self.gap - 1 || !self.reorder_hits();
        if !stays {
            self.counter = 0;
            waiting.jumps = true;
            self.head.push_front(waiting);
            return Fate::Jumps;
        }
        let mut delay = self.delay.draw(&mut self.random);
        let mut from = now;
        if self.bytes_per_second > 0 {
            if let Some(last) = self.last_time() {
                // What is queued already takes its time first; the delay runs meanwhile.
                delay = (delay - (last - now)).max(0);
                from = last;
            }
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
            delay += i64::try_from(nanos).unwrap_or(i64::MAX / 2);
        }
        waiting.time_to_send = from + delay;
        self.counter = self.counter.wrapping_add(1);
        self.insert(waiting);
        Fate::Waits
    }

    /// netem compares `reorder < get_crandom()` for staying and draws even at share 0 when a gap
    /// is set; the settings do not allow that.
    fn reorder_hits(&mut self) -> bool {
        self.reorder.happens(&mut self.random)
    }

    /// `tfifo_enqueue`.
    fn insert(&mut self, waiting: Waiting<T>) {
        let tail = self.list.back().map(|tail| tail.time_to_send);
        if tail.is_none_or(|tail| waiting.time_to_send >= tail) {
            self.list.push_back(waiting);
            return;
        }
        self.inserted += 1;
        self.tree
            .insert((waiting.time_to_send, self.inserted), waiting);
    }

    /// The latest time of departure in the queue.
    fn last_time(&self) -> Option<i64> {
        let head = self.head.back().map(|waiting| waiting.time_to_send);
        let tree = self.tree.last_key_value().map(|((time, _), _)| *time);
        let list = self.list.back().map(|waiting| waiting.time_to_send);
        [head, tree, list].into_iter().flatten().max()
    }

    /// When the next unit is due.
    pub(super) fn next_time(&self) -> Option<i64> {
        if let Some(waiting) = self.head.front() {
            return Some(waiting.time_to_send);
        }
        let tree = self.tree.first_key_value().map(|((time, _), _)| *time);
        let list = self.list.front().map(|waiting| waiting.time_to_send);
        [tree, list].into_iter().flatten().min()
    }

    /// Takes out the next unit that is due.
    pub(super) fn take(&mut self, now: i64) -> Option<Waiting<T>> {
        if let Some(waiting) = self.head.pop_front() {
            return Some(waiting);
        }
        if self.next_time()? > now {
            return None;
        }
        let tree = self.tree.first_key_value().map(|((time, _), _)| *time);
        let list = self.list.front().map(|waiting| waiting.time_to_send);
        match (tree, list) {
            (Some(tree), Some(list)) if tree >= list => self.list.pop_front(),
            (Some(_), _) => self.tree.pop_first().map(|(_, waiting)| waiting),
            (None, _) => self.list.pop_front(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn impairment() -> Impairment {
        Impairment {
            limit: 100_000,
            ..Impairment::default()
        }
    }

    fn queue(impairment: &Impairment) -> Queue<u64> {
        Queue::new(impairment, Model::Netem, 42)
    }

    fn drain(queue: &mut Queue<u64>, now: i64) -> Vec<u64> {
        std::iter::from_fn(|| queue.take(now).map(|waiting| waiting.unit)).collect()
    }

    #[test]
    fn losses_are_those_the_kernels_draws_say() {
        let impairment = Impairment {
            loss: 0.01,
            ..impairment()
        };
        let mut queue = queue(&impairment);
        let mut random = Prandom::new(42);
        for unit in 0..20_000 {
            let lost = 42_949_673 >= random.draw();
            assert_eq!(queue.offer(unit, 100, 0).fate == Fate::Lost, lost, "{unit}");
        }
        assert!((150..250).contains(&(20_000 - queue.len())));
    }

    #[test]
    fn units_leave_in_order_of_their_times() {
        let impairment = Impairment {
            delay_ns: 10_000_000,
            jitter_ns: 3_000_000,
            ..impairment()
        };
        let mut queue = queue(&impairment);
        for unit in 0..1000 {
            queue.offer(unit, 100, unit.cast_signed() * 1000);
        }
        assert!(queue.take(6 * MS).is_none());
        let (mut left, mut last) = (0, i64::MIN);
        while let Some(time) = queue.next_time() {
            assert!(queue.take(time - 1).is_none(), "before its time");
            let waiting = queue.take(time).unwrap();
            assert!(waiting.time_to_send >= last && waiting.time_to_send == time);
            let delay = waiting.time_to_send - waiting.arrived;
            assert!((7 * MS..13 * MS).contains(&delay), "{delay}");
            (left, last) = (left + 1, time);
        }
        assert_eq!(left, 1000);
    }

    #[test]
    fn a_spread_beyond_the_mean_sends_at_once() {
        let impairment = Impairment {
            delay_ns: 4_000_000,
            jitter_ns: 7_000_000,
            ..impairment()
        };
        let mut queue = queue(&impairment);
        for unit in 0..10_000 {
            queue.offer(unit, 100, 50 * MS);
        }
        // P(4 ms + U[-7, 7) ms <= 0) = 3 / 14.
        let at_once = drain(&mut queue, 50 * MS).len();
        assert!((2000..2300).contains(&at_once), "{at_once}");
    }

    #[test]
    fn reordered_units_go_first_and_the_latest_of_them_before_all() {
        let impairment = Impairment {
            delay_ns: 10_000_000,
            reorder: 1.0,
            gap: 3,
            ..impairment()
        };
        let mut queue = queue(&impairment);
        let fates: Vec<Fate> = (0..9).map(|unit| queue.offer(unit, 100, 0).fate).collect();
        use Fate::{Jumps, Waits};
        assert_eq!(
            fates,
            [
                Waits, Waits, Jumps, Waits, Waits, Jumps, Waits, Waits, Jumps
            ]
        );
        assert_eq!(drain(&mut queue, 0), [8, 5, 2]);
        assert_eq!(drain(&mut queue, 10 * MS), [0, 1, 3, 4, 6, 7]);
    }

    #[test]
    fn the_limit_counts_units_that_wait() {
        let impairment = Impairment {
            delay_ns: 1_000_000,
            limit: 3,
            ..impairment()
        };
        let mut queue = queue(&impairment);
        let fates: Vec<Fate> = (0..5)
            .map(|unit| queue.offer(unit, 64_000, 0).fate)
            .collect();
        assert_eq!(fates[2..], [Fate::Waits, Fate::OverLimit, Fate::OverLimit]);
        assert_eq!(drain(&mut queue, MS), [0, 1, 2]);
        assert_eq!(queue.offer(9, 1, MS).fate, Fate::Waits);
    }

    #[test]
    fn copies_have_draws_of_their_own_and_are_never_copied() {
        let impairment = Impairment {
            duplicate: 1.0,
            loss: 0.5,
            ..impairment()
        };
        let mut queue = queue(&impairment);
        let (mut once, mut twice) = (0, 0);
        for unit in 0..10_000 {
            let answer = queue.offer(unit, 100, 0);
            assert_eq!(answer.fate, Fate::Waits, "lost and duplicated leaves once");
            match answer.copy {
                Some(Fate::Waits) => twice += 1,
                _ => once += 1,
            }
            assert_eq!(
                answer.refused_copy.is_some(),
                answer.copy == Some(Fate::Lost)
            );
        }
        // Half of the originals are spared a copy, half of the copies are lost.
        assert!((2300..2700).contains(&twice), "{twice}");
        assert_eq!(queue.len(), once + 2 * twice);
    }

    #[test]
    fn the_rate_spaces_units_and_the_delay_runs_meanwhile() {
        let impairment = Impairment {
            delay_ns: 5_000_000,
            rate_bps: 8_000_000,
            ..impairment()
        };
        let mut queue = queue(&impairment);
        for unit in 0..4 {
            queue.offer(unit, 1000, 0);
        }
        let times: Vec<i64> = std::iter::from_fn(|| queue.take(i64::MAX))
            .map(|waiting| waiting.time_to_send)
            .collect();
        // 1000 bytes at 1 MB/s take 1 ms; the first waits the delay as well.
        assert_eq!(times, [6 * MS, 7 * MS, 8 * MS, 9 * MS]);
    }

    #[test]
    fn equal_seeds_repeat_and_others_do_not() {
        let impairment = Impairment {
            loss: 0.1,
            loss_correlation: 0.5,
            ..impairment()
        };
        let fates = |seed| -> Vec<bool> {
            let mut queue = Queue::new(&impairment, Model::Exact, seed);
            (0..500)
                .map(|unit: u64| queue.offer(unit, 1, 0).fate == Fate::Lost)
                .collect()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }
}
