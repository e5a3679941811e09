//! Records one behind another in memory, to be handed from one thread to another.

use super::Event;

/// Records in the order in which they were added.
#[derive(Debug, Default)]
pub struct Batch {
    words: Vec<u64>,
}

impl Batch {
    /// Room for so many 8-byte words and a record more.
    #[must_use]
    pub fn with_room(words: usize) -> Batch {
        Batch {
            words: Vec::with_capacity(words + 128),
        }
    }

    /// Copies an event's record to the end; its words can be changed.
    #[inline]
    pub fn push(&mut self, event: &Event<'_>) -> &mut [u64] {
        let from = self.words.len();
        // Records begin with a 64-bit time and are multiples of it (`vpnbench_common::event`).
        self.words
            .extend_from_slice(bytemuck::cast_slice(event.bytes()));
        &mut self.words[from..]
    }

    /// Size in 8-byte words.
    #[must_use]
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Takes all records out and keeps the room.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    /// `CLOCK_MONOTONIC` in ns of the record at a word; `None` behind the last one.
    #[must_use]
    pub fn time_at(&self, word: usize) -> Option<u64> {
        self.words.get(word).copied()
    }

    /// The event at a word and where the next one is.
    #[inline]
    #[must_use]
    pub fn at(&self, word: usize) -> Option<(Event<'_>, usize)> {
        let (event, rest) = Event::split_first(self.words.get(word..)?)?;
        Some((event, self.words.len() - rest.len()))
    }

    /// All events.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        let mut rest = self.words.as_slice();
        std::iter::from_fn(move || {
            let event;
            (event, rest) = Event::split_first(rest)?;
            Some(event)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;
    use vpnbench_common::catalog::Kind;
    use vpnbench_common::event;

    #[test]
    fn events_come_out_as_they_went_in() {
        let mut packet = event::Packet::zeroed();
        packet.header.kind = Kind::Packet as u8;
        let mut probe = event::TcpProbe::zeroed();
        (probe.header.kind, probe.header.time_ns) = (Kind::TcpProbe as u8, 7);
        let mut batch = Batch::with_room(16);
        batch.push(&Event::Packet(&packet))[0] = 5;
        batch.push(&Event::TcpProbe(&probe));
        packet.header.time_ns = 5;
        let found: Vec<Event<'_>> = batch.events().collect();
        assert_eq!(found, [Event::Packet(&packet), Event::TcpProbe(&probe)]);
        assert_eq!(
            (batch.time_at(0), batch.time_at(batch.words())),
            (Some(5), None)
        );
    }
}
