//! The path as it was, or without reordering, or without loss.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::fate::Fate;

/// Segments among which answers are put in order.
const WINDOW: usize = 1024;

/// What the path does to the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// As it was.
    AsItWas,
    /// The same answers at the same times, in the order of the segments.
    InOrder,
    /// What was lost is answered as the segment before it.
    Lossless,
}

/// Changes the fates of successive segments.
#[derive(Debug, Clone)]
pub struct Changer {
    path: Path,
    window: VecDeque<Fate>,
    times: BinaryHeap<Reverse<u64>>,
    delay: u64,
}

impl Changer {
    /// A path.
    #[must_use]
    pub fn new(path: Path) -> Changer {
        Changer {
            path,
            window: VecDeque::new(),
            times: BinaryHeap::new(),
            delay: 0,
        }
    }

    /// Takes the next fate and gives one, maybe an earlier one, once it is sure.
    pub fn next(&mut self, fate: Fate) -> Option<Fate> {
        match self.path {
            Path::AsItWas => Some(fate),
            Path::Lossless => Some(self.lossless(fate)),
            Path::InOrder => {
                self.times.extend(fate.original.map(Reverse));
                self.window.push_back(fate);
                if self.window.len() < WINDOW {
                    return None;
                }
                self.first()
            }
        }
    }

    /// What is left.
    pub fn rest(&mut self) -> Option<Fate> {
        self.first()
    }

    fn first(&mut self) -> Option<Fate> {
        let fate = self.window.pop_front()?;
        let time = fate.original.and_then(|_| self.times.pop());
        Some(Fate {
            original: time.map(|one| one.0.max(fate.sent)),
            ..fate
        })
    }

    fn lossless(&mut self, fate: Fate) -> Fate {
        match fate.original {
            Some(time) => {
                self.delay = time.saturating_sub(fate.sent);
                fate
            }
            None => {
                let delay = if self.delay > 0 {
                    self.delay
                } else {
                    fate.delay
                };
                Fate {
                    original: Some(fate.sent + delay),
                    ..fate
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fate::Measured;
    use super::*;

    fn fate(sent: u64, original: Option<u64>) -> Fate {
        Fate {
            start: sent,
            end: sent + 1,
            sent,
            original,
            delay: 10,
            copies: 0,
            disordered: true,
            measured: Measured::default(),
        }
    }

    #[test]
    fn answers_come_in_order_and_none_is_added() {
        let mut path = Changer::new(Path::InOrder);
        for one in [fate(1, Some(30)), fate(2, None), fate(3, Some(20))] {
            assert_eq!(path.next(one), None);
        }
        let times: Vec<Option<u64>> = std::iter::from_fn(|| path.rest())
            .map(|one| one.original)
            .collect();
        assert_eq!(times, [Some(20), None, Some(30)]);
    }

    #[test]
    fn without_loss_everything_is_answered() {
        let mut path = Changer::new(Path::Lossless);
        path.next(fate(1, Some(8)));
        let lost = path.next(fate(2, None));
        assert_eq!(lost.and_then(|one| one.original), Some(9));
    }
}
