//! What the benchmark's command wrote to its standard output, with the moments at which it came.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes kept from the beginning.
const HEAD_BYTES: usize = 2 << 20;
/// Bytes kept from the end, where tools put their summary.
const TAIL_BYTES: usize = 64 << 10;
/// What arrives within this time of the chunk's first byte belongs to it, ns.
const CHUNK_NS: u64 = 1_000_000;

/// A command's standard output, as far as it is kept: the first 2 MiB and, if there is more, the
/// last 64 KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CommandOutput {
    /// In order of arrival.
    pub chunks: Vec<OutputChunk>,
    /// Bytes between head and tail that are not kept.
    pub omitted_bytes: u64,
    /// Whether the command's output was a terminal of vpnbench's making (else a pipe).
    pub terminal: bool,
    /// Index of the first chunk behind the omitted bytes.
    pub tail: Option<usize>,
    #[serde(skip)]
    head_bytes: usize,
    #[serde(skip)]
    tail_bytes: usize,
    /// Bytes of a character that is not complete yet.
    #[serde(skip)]
    partial: Vec<u8>,
}

/// Bytes that arrived together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputChunk {
    /// Arrival of the first of them, `CLOCK_MONOTONIC` ns.
    pub time_ns: u64,
    /// As UTF-8; what is none is replaced.
    pub text: String,
}

impl CommandOutput {
    /// Nothing yet, from a terminal or a pipe.
    #[must_use]
    pub fn new(terminal: bool) -> CommandOutput {
        CommandOutput {
            terminal,
            ..CommandOutput::default()
        }
    }

    /// Adds bytes that arrived at a moment.
    pub fn push(&mut self, time_ns: u64, bytes: &[u8]) {
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(bytes);
        let complete = match std::str::from_utf8(&whole) {
            // A character may be cut by the read; at most three bytes of it wait.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => whole.len(),
        };
        self.partial = whole.split_off(complete);
        self.append(time_ns, &String::from_utf8_lossy(&whole));
    }

    fn append(&mut self, time_ns: u64, text: &str) {
        let mut room = HEAD_BYTES - self.head_bytes.min(HEAD_BYTES);
        while !text.is_char_boundary(room.min(text.len())) {
            room -= 1;
        }
        let (head, rest) = text.split_at(room.min(text.len()));
        if self.tail.is_none() {
            self.head_bytes += head.len();
            self.add(time_ns, head, 0);
            if rest.is_empty() {
                return;
            }
            self.tail = Some(self.chunks.len());
            self.head_bytes = HEAD_BYTES;
            self.add_tail(time_ns, rest);
        } else {
            self.add_tail(time_ns, text);
        }
    }

    fn add_tail(&mut self, time_ns: u64, text: &str) {
        let tail = self.tail.unwrap_or(self.chunks.len());
        self.tail_bytes += text.len();
        self.add(time_ns, text, tail);
        while self.tail_bytes > TAIL_BYTES && self.chunks.len() > tail + 1 {
            let dropped = self.chunks.remove(tail).text.len();
            self.tail_bytes -= dropped;
            self.omitted_bytes += dropped as u64;
        }
    }

    /// Appends to the last chunk if that is at or behind `first` and as good as now.
    fn add(&mut self, time_ns: u64, text: &str, first: usize) {
        if text.is_empty() {
            return;
        }
        let joins = self.chunks.len() > first;
        let last = self.chunks.last_mut().filter(|last| {
            joins
                && time_ns.saturating_sub(last.time_ns) <= CHUNK_NS
                && last.text.len() < TAIL_BYTES
        });
        match last {
            Some(last) => last.text.push_str(text),
            None => self.chunks.push(OutputChunk {
                time_ns,
                text: text.to_owned(),
            }),
        }
    }

    /// All that is kept.
    #[must_use]
    pub fn text(&self) -> String {
        self.chunks
            .iter()
            .map(|chunk| chunk.text.as_str())
            .collect()
    }

    /// Its lines, each with the arrival of its last byte. A line that has no end yet is left out
    /// unless it is the last.
    #[must_use]
    pub fn lines(&self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        let mut line = String::new();
        let mut time_ns = 0;
        for chunk in &self.chunks {
            time_ns = chunk.time_ns;
            for part in chunk.text.split_inclusive('\n') {
                line.push_str(part);
                if part.ends_with('\n') {
                    let text = line.trim_end_matches(['\n', '\r']).to_owned();
                    lines.push((time_ns, text));
                    line.clear();
                }
            }
        }
        if !line.is_empty() {
            lines.push((time_ns, line));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_the_moment_of_their_end() {
        let mut output = CommandOutput::new(false);
        output.push(1, b"a\nb");
        output.push(5_000_000, b"c\r\nd");
        output.push(5_500_000, b"e\n");
        let lines = [(1, "a"), (5_000_000, "bc"), (5_000_000, "de")];
        let lines: Vec<(u64, String)> = lines.map(|(ns, text)| (ns, text.to_owned())).to_vec();
        assert_eq!(output.lines(), lines);
        assert_eq!(output.chunks.len(), 2);
        assert_eq!(output.text(), "a\nbc\r\nde\n");
    }

    #[test]
    fn characters_cut_by_a_read_are_joined() {
        let mut output = CommandOutput::new(false);
        for byte in "ü€\n".bytes() {
            output.push(0, &[byte]);
        }
        output.push(0, b"\xff\n");
        assert_eq!(output.text(), "ü€\n\u{fffd}\n");
    }

    #[test]
    fn head_and_tail_of_a_flood_are_kept() {
        let mut output = CommandOutput::new(false);
        let line = [b"x".repeat(999), vec![b'\n']].concat();
        for number in 0..10_000_u64 {
            output.push(number * 2_000_000, &line);
        }
        output.push(u64::MAX, b"the end\n");
        let kept = output.text();
        assert!(kept.len() <= HEAD_BYTES + TAIL_BYTES && kept.len() > HEAD_BYTES);
        assert!(kept.ends_with("the end\n"));
        assert_eq!(kept.len() as u64 + output.omitted_bytes, 10_000_008);
        let json = serde_json::to_string(&output).unwrap_or_default();
        let read: Result<CommandOutput, _> = serde_json::from_str(&json);
        assert_eq!(read.map(|read| read.text()).ok(), Some(kept));
    }
}
