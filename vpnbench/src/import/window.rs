//! A window on a stream of bytes: the reader looks ahead as far as it needs and knows where it is.

use std::io::{self, Read};

/// Bytes asked for at a time: what fits a core's own cache with what is made of it.
const CHUNK: usize = 1 << 17;

/// A stream with look-ahead.
pub(super) struct Window<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    ended: bool,
    failed: Option<io::Error>,
}

impl<R: Read> Window<R> {
    pub(super) fn new(input: R) -> Self {
        Window {
            input,
            buffer: vec![0; 2 * CHUNK],
            start: 0,
            end: 0,
            offset: 0,
            ended: false,
            failed: None,
        }
    }

    /// The bytes from here on: at least `least` of them unless the stream ends before.
    #[inline(always)]
    pub(super) fn ahead(&mut self, least: usize) -> &[u8] {
        if self.end - self.start < least {
            self.fill(least);
        }
        &self.buffer[self.start..self.end]
    }

    /// Moves on over bytes that were shown, and gives them out.
    #[inline(always)]
    pub(super) fn take(&mut self, bytes: usize) -> &[u8] {
        let (from, until) = (self.start, self.end.min(self.start + bytes));
        self.skip(bytes);
        &self.buffer[from..until]
    }

    #[cold]
    #[inline(never)]
    fn fill(&mut self, least: usize) {
        if self.buffer.len() - self.start < least {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let needed = least.next_multiple_of(CHUNK) + CHUNK;
            if self.buffer.len() < needed {
                self.buffer.resize(needed, 0);
            }
        }
        while self.end - self.start < least && !self.ended {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = Some(error);
                    self.ended = true;
                }
            }
        }
    }

    /// Moves on over bytes that were shown.
    #[inline]
    pub(super) fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Bytes of the unpacked stream before this place.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Why the stream ended early, if it failed.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_asked_for_across_refills() {
        let bytes: Vec<u8> = (0..5 * CHUNK).map(|at| (at % 251) as u8).collect();
        let mut window = Window::new(bytes.as_slice());
        for step in [3, CHUNK, 2 * CHUNK + 7, 12] {
            let from = window.offset() as usize;
            let shown = &window.ahead(step)[..step];
            assert_eq!(shown, &bytes[from..from + step]);
            window.skip(step);
        }
        assert!(window.ahead(4 * CHUNK).len() < 4 * CHUNK, "the rest");
        window.skip(usize::MAX);
        assert_eq!(window.offset(), bytes.len() as u64);
        assert!(window.ahead(1).is_empty() && window.failure().is_none());
    }
}
