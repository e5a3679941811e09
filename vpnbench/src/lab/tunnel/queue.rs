//! Bounded queues between the threads of a pipeline.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::packet::{Packet, lock};
use super::settings::QueueFull;

/// How long a waiting thread sleeps before it looks whether the tunnel is being stopped.
const PATIENCE: Duration = Duration::from_millis(50);

/// A queue with room for a number of packets.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    depth: usize,
    full: QueueFull,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Packet>,
    deepest: usize,
    closed: bool,
}

impl Queue {
    /// For `depth` packets.
    pub(super) fn new(depth: usize, full: QueueFull) -> Queue {
        Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            depth,
            full,
        }
    }

    /// Appends a packet, or returns it if the queue is full (policy drop) or closed. The second
    /// value says whether it had to wait.
    pub(super) fn push(&self, packet: Packet) -> (Option<Packet>, bool) {
        let mut state = lock(&self.state);
        let mut waited = false;
        while state.packets.len() >= self.depth && !state.closed {
            if self.full == QueueFull::Drop {
                return (Some(packet), false);
            }
            waited = true;
            let woken = self.emptied.wait_timeout(state, PATIENCE);
            state = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        if state.closed {
            return (Some(packet), waited);
        }
        self.append(&mut state, packet);
        (None, waited)
    }

    /// Appends a packet that must not be lost: the note that another one was.
    pub(super) fn push_beyond(&self, packet: Packet) {
        self.append(&mut lock(&self.state), packet);
    }

    fn append(&self, state: &mut State, packet: Packet) {
        state.packets.push_back(packet);
        state.deepest = state.deepest.max(state.packets.len());
        self.filled.notify_one();
    }

    /// Takes up to `most` packets; waits up to `limit` for the first.
    pub(super) fn pop(&self, most: usize, limit: Duration, into: &mut Vec<Packet>) {
        let mut state = lock(&self.state);
        if state.packets.is_empty() && !limit.is_zero() && !state.closed {
            let woken = self.filled.wait_timeout(state, limit);
            state = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        let count = state.packets.len().min(most);
        into.extend(state.packets.drain(..count));
        if count > 0 {
            self.emptied.notify_all();
        }
    }

    /// Nothing can be appended any more; who waits stops waiting.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Most packets that were in it at once.
    pub(super) fn deepest(&self) -> u64 {
        lock(&self.state).deepest as u64
    }

    /// What is left at the end.
    pub(super) fn drain(&self) -> Vec<Packet> {
        lock(&self.state).packets.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        Packet::new(Vec::new(), 0, 0)
    }

    #[test]
    fn a_full_queue_gives_the_packet_back() {
        let queue = Queue::new(2, QueueFull::Drop);
        assert!(queue.push(packet()).0.is_none());
        assert!(queue.push(packet()).0.is_none());
        assert!(queue.push(packet()).0.is_some());
        queue.push_beyond(packet());
        let mut out = Vec::new();
        queue.pop(10, Duration::ZERO, &mut out);
        assert_eq!((out.len(), queue.deepest()), (3, 3));
    }

    #[test]
    fn a_blocked_thread_goes_on_when_there_is_room_or_the_end() {
        let queue = Queue::new(1, QueueFull::Block);
        assert!(queue.push(packet()).0.is_none());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| queue.push(packet()));
            let mut out = Vec::new();
            while out.len() < 2 {
                queue.pop(1, Duration::from_millis(10), &mut out);
            }
            assert!(second.join().is_ok_and(|(back, _)| back.is_none()));
            assert!(queue.push(packet()).0.is_none());
            let third = scope.spawn(|| queue.push(packet()));
            queue.close();
            assert!(third.join().is_ok_and(|(back, _)| back.is_some()));
        });
        assert_eq!(queue.drain().len(), 1);
    }
}
