//! Finds the frames in a stream of bytes, and the next intact one behind damage.

use std::io::{self, Read};
use std::ops::Range;

use super::format::{FRAME_HEADER, FRAME_MAGIC, FrameHeader, is_checksum};
use super::problem::{Code, Problem, Problems};

/// Bytes asked of the input at once.
const CHUNK: usize = 256 << 10;

/// An intact frame; its payload is in the buffer until the next one is asked for.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: FrameHeader,
    /// Byte in the file.
    pub(super) offset: u64,
    payload: Range<usize>,
}

/// Reads frames one behind the other, from files as well as pipes.
pub(super) struct Frames<R> {
    input: R,
    buffer: Vec<u8>,
    /// Unread bytes of the buffer.
    unread: Range<usize>,
    /// Byte of the file at which the unread bytes begin.
    offset: u64,
    ended: bool,
    /// Number of the next frame.
    expected: u32,
    /// Frames that are missing, judged by their numbers.
    pub(super) missing: u64,
    /// Whether the file ended inside of a frame.
    pub(super) truncated: bool,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Frames {
            input,
            buffer: vec![0; CHUNK],
            unread: 0..0,
            offset: 0,
            ended: false,
            expected: 0,
            missing: 0,
            truncated: false,
        }
    }

    /// Byte of the file at which reading goes on.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The unread bytes: `count` of them, fewer at the end of the input.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.unread.len() < count && !self.ended {
            self.fill()?;
        }
        let end = self.unread.start + count.min(self.unread.len());
        Ok(&self.buffer[self.unread.start..end])
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.unread.start > self.buffer.len() / 2 || self.unread.is_empty() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.buffer.len() == self.unread.end {
            self.buffer.resize(self.unread.end + CHUNK, 0);
        }
        match self.input.read(&mut self.buffer[self.unread.end..]) {
            Ok(0) => self.ended = true,
            Ok(count) => self.unread.end += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, count: usize) {
        let count = count.min(self.unread.len());
        self.unread.start += count;
        self.offset += count as u64;
    }

    pub(super) fn payload(&self, frame: &Frame) -> &[u8] {
        self.buffer.get(frame.payload.clone()).unwrap_or_default()
    }

    /// The next intact frame, `None` at the end. Damage on the way becomes problems.
    pub(super) fn next(&mut self, problems: &mut Problems) -> io::Result<Option<Frame>> {
        let begin = self.offset;
        // Why the bytes at `begin` are not a frame, if they are not.
        let mut damage: Option<&str> = None;
        loop {
            match self.frame_here()? {
                Here::Frame(header) => {
                    if let Some(what) = damage {
                        let bytes = self.offset - begin;
                        let message = format!(
                            "{bytes} bytes at byte {begin} are damaged ({what}) and were skipped"
                        );
                        problems.push(Problem::data_loss(Code::DamagedFrame, message));
                    }
                    return Ok(Some(self.take(header, problems)));
                }
                Here::End => {
                    self.report_tail(begin, damage, problems);
                    return Ok(None);
                }
                Here::Damage(what) => {
                    damage.get_or_insert(what);
                    self.skip(1);
                    self.skip_to_magic()?;
                }
            }
        }
    }

    fn report_tail(&mut self, begin: u64, damage: Option<&str>, problems: &mut Problems) {
        let bytes = self.offset - begin;
        let Some(what) = damage else { return };
        self.truncated = true;
        let message = format!(
            "the file ends inside of a frame: its last {bytes} bytes, from byte {begin} on, are lost ({what})"
        );
        problems.push(Problem::data_loss(Code::Truncated, message));
    }

    fn frame_here(&mut self) -> io::Result<Here> {
        let bytes = self.peek(FRAME_HEADER)?;
        if bytes.is_empty() {
            return Ok(Here::End);
        }
        if bytes.len() < FRAME_HEADER {
            return Ok(Here::Damage("incomplete frame header"));
        }
        let Some(header) = FrameHeader::decode(bytes) else {
            return Ok(Here::Damage("no valid frame header"));
        };
        let whole = self.peek(FRAME_HEADER + header.padded())?;
        if whole.len() < FRAME_HEADER + header.padded() {
            return Ok(Here::Damage("incomplete frame"));
        }
        let payload = &whole[FRAME_HEADER..FRAME_HEADER + header.payload as usize];
        if !is_checksum(payload, header.payload_crc) {
            return Ok(Here::Damage("wrong checksum"));
        }
        Ok(Here::Frame(header))
    }

    fn take(&mut self, header: FrameHeader, problems: &mut Problems) -> Frame {
        let offset = self.offset;
        let start = self.unread.start + FRAME_HEADER;
        self.skip(FRAME_HEADER + header.padded());
        // A number below the expected one belongs to a file that was put together from parts.
        let gap = header.number.wrapping_sub(self.expected);
        if gap > 0 && gap < u32::MAX / 2 {
            self.missing += u64::from(gap);
            let message = format!("{gap} frames are missing before byte {offset}");
            problems.push(Problem::data_loss(Code::MissingFrames, message));
        }
        self.expected = header.number.wrapping_add(1);
        Frame {
            header,
            offset,
            payload: start..start + header.payload as usize,
        }
    }

    /// Skips to the next bytes that could begin a frame, or to the end.
    fn skip_to_magic(&mut self) -> io::Result<()> {
        loop {
            self.peek(FRAME_MAGIC.len())?;
            let unread = &self.buffer[self.unread.clone()];
            let found = unread
                .windows(FRAME_MAGIC.len())
                .position(|window| window == FRAME_MAGIC);
            if let Some(position) = found {
                self.skip(position);
                return Ok(());
            }
            if self.ended {
                self.skip(self.unread.len());
                return Ok(());
            }
            // The last bytes may be the first ones of the magic.
            self.skip((self.unread.len() + 1).saturating_sub(FRAME_MAGIC.len()));
        }
    }
}

/// What is at the reading position.
enum Here {
    Frame(FrameHeader),
    Damage(&'static str),
    End,
}
