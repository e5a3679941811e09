//! A capture as a sequence of packets, whatever its format; what is damaged is skipped and stated.

use std::io::Read;
use std::path::Path;

use super::error::ImportError;
use super::input;
use super::pcap::Pcap;
use super::pcapng::PcapNg;
use super::record::{Head, Interface, Step};
use super::window::Window;
use crate::trace::{self, Code, Problem, Problems};

/// Bytes searched at a time for the place where records begin again.
const SEARCH: usize = 1 << 16;

/// One packet of a file.
#[derive(Debug)]
pub(super) struct Captured<'a> {
    /// Unix time in ns; that of the packet before where the file has none.
    pub(super) time_ns: u64,
    /// Which of [`CaptureFile::interfaces`].
    pub(super) interface: u32,
    /// `LINKTYPE_*` of the interface.
    pub(super) link: u32,
    /// Bytes kept per packet there, 0 for no limit.
    pub(super) snap_length: u32,
    /// Bytes on the wire.
    pub(super) original: u32,
    /// Whether the host sent it, where the file tells.
    pub(super) outgoing: Option<bool>,
    /// Place of its record in the unpacked file.
    pub(super) offset: u64,
    /// What was kept of it.
    pub(super) data: &'a [u8],
}

enum Format {
    Pcap(Pcap, Interface),
    PcapNg(PcapNg),
}

/// A capture that is being read.
pub(super) struct CaptureFile {
    window: Window<Box<dyn Read + Send>>,
    format: Format,
    name: String,
    problems: Problems,
    last_ns: u64,
    untimed: u64,
    ended: bool,
}

impl CaptureFile {
    /// Opens a file, or standard input for `-`, and reads its header.
    pub(super) fn open(path: &Path) -> Result<CaptureFile, ImportError> {
        CaptureFile::new(input::open(path)?, &trace::Input::name(path))
    }

    /// Reads a capture, packed or not, from elsewhere.
    pub(super) fn of(input: Box<dyn Read + Send>, name: &str) -> Result<CaptureFile, ImportError> {
        let unpacked = input::unpacked(input).map_err(|source| ImportError::Read {
            path: name.to_owned(),
            offset: 0,
            source,
        })?;
        CaptureFile::new(unpacked, name)
    }

    /// Reads the header of a capture.
    pub(super) fn new(input: Box<dyn Read + Send>, name: &str) -> Result<CaptureFile, ImportError> {
        let mut window = Window::new(input);
        let first = window.ahead(24);
        let (format, header) = if let Some((pcap, interface, size)) = Pcap::begin(first) {
            (Format::Pcap(pcap, interface), size)
        } else if let Some(file) = PcapNg::begin(first) {
            (Format::PcapNg(file), 0)
        } else {
            let found = hex(first);
            if let Some(source) = window.failure() {
                return Err(ImportError::Read {
                    path: name.to_owned(),
                    offset: window.offset(),
                    source,
                });
            }
            return Err(ImportError::NotACapture {
                path: name.to_owned(),
                found,
            });
        };
        window.skip(header);
        Ok(CaptureFile {
            window,
            format,
            name: name.to_owned(),
            problems: Problems::default(),
            last_ns: 0,
            untimed: 0,
            ended: false,
        })
    }

    /// Name for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Interfaces found so far; more may follow.
    pub(super) fn interface(&self, number: u32) -> Option<&Interface> {
        match &self.format {
            Format::Pcap(_, interface) => (number == 0).then_some(interface),
            Format::PcapNg(file) => file.interfaces.get(number as usize),
        }
    }

    /// Packets that the capturing program says it lost.
    pub(super) fn dropped(&self) -> u64 {
        match &self.format {
            Format::Pcap(..) => 0,
            Format::PcapNg(file) => file.dropped.iter().sum(),
        }
    }

    /// Bytes of the unpacked file that were read.
    pub(super) fn bytes(&self) -> u64 {
        self.window.offset()
    }

    /// What was wrong with the file.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        if self.untimed > 0 {
            let message = format!(
                "{}: {} packets have no time of their own and take that of the one before",
                self.name, self.untimed
            );
            self.problems
                .push(Problem::data_loss(Code::ClockStep, message));
        }
        std::mem::take(&mut self.problems).into_list()
    }

    /// The next packet; `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Captured<'_>> {
        let head = self.find()?;
        let offset = self.window.offset();
        let time_ns = match head.time_ns {
            Some(time) => time,
            None => {
                self.untimed += 1;
                self.last_ns
            }
        };
        self.last_ns = time_ns;
        let interface = self.interface(head.interface);
        let (link, snap_length) =
            interface.map_or((u32::MAX, 0), |one| (one.link, one.snap_length));
        // The record stays in the window's buffer until the next call fills it.
        let data = self
            .window
            .take(head.size)
            .get(head.data)
            .unwrap_or_default();
        Some(Captured {
            time_ns,
            interface: head.interface,
            link,
            snap_length,
            original: head.original,
            outgoing: head.outgoing,
            offset,
            data,
        })
    }

    #[inline]
    fn find(&mut self) -> Option<Head> {
        while !self.ended {
            let step = match &mut self.format {
                Format::Pcap(pcap, _) => {
                    let (fields, needed) = pcap.needed(self.window.ahead(24));
                    pcap.step(fields, self.window.ahead(needed))
                }
                Format::PcapNg(file) => {
                    let needed = file.needed(self.window.ahead(12));
                    file.step(self.window.ahead(needed))
                }
            };
            match step {
                Step::Packet(head) => return Some(head),
                step => self.no_packet(&step),
            }
        }
        self.end();
        None
    }

    /// Moves on over what is no packet.
    #[cold]
    #[inline(never)]
    fn no_packet(&mut self, step: &Step) {
        match step {
            Step::Packet(head) => self.window.skip(head.size),
            Step::Other(size) => self.window.skip(*size),
            Step::Unreadable(size, why) => {
                let message = format!(
                    "{}: {why}: the {size} bytes at byte {} are left out",
                    self.name,
                    self.window.offset()
                );
                self.problems
                    .push(Problem::data_loss(Code::BadBlock, message));
                self.window.skip(*size);
            }
            Step::Damaged(why) => self.resume(why),
            Step::Cut => {
                let message = format!(
                    "{}: the file ends inside of a record that begins at byte {}: it was cut, or is still being written",
                    self.name,
                    self.window.offset()
                );
                self.problems.push(Problem::info(Code::Truncated, message));
                self.ended = true;
            }
            Step::End => self.ended = true,
        }
    }

    /// Says so where the file ended because it could not be read.
    #[inline(never)]
    fn end(&mut self) {
        if let Some(error) = self.window.failure() {
            let message = format!(
                "{}: reading failed at byte {}: {error}; the rest is missing",
                self.name,
                self.window.offset()
            );
            self.problems
                .push(Problem::data_loss(Code::ReadFailed, message));
        }
    }

    /// Searches the next place where records begin again.
    fn resume(&mut self, why: &str) {
        let from = self.window.offset();
        self.window.skip(1);
        loop {
            let whole = match &self.format {
                Format::Pcap(pcap, _) => pcap.resume_window(),
                Format::PcapNg(_) => 12,
            };
            let shown = self.window.ahead(SEARCH + whole);
            let more = shown.len() >= SEARCH + whole;
            let places = if more { SEARCH } else { shown.len() };
            let mut found = None;
            let mut longer = None;
            for at in 0..places {
                let rest = &shown[at..];
                let verdict = match &self.format {
                    Format::Pcap(pcap, _) => pcap.resumes(rest),
                    Format::PcapNg(file) => file.resumes(rest),
                };
                match (verdict, &self.format) {
                    (Some(true), _) => {
                        found = Some(at);
                        break;
                    }
                    (None, Format::PcapNg(file)) if more => {
                        longer = Some((at, file.needed(rest)));
                        break;
                    }
                    _ => {}
                }
            }
            if let Some((at, needed)) = longer {
                self.window.skip(at);
                let shown = self.window.ahead(needed);
                let fits = match &self.format {
                    Format::PcapNg(file) => file.resumes(shown) == Some(true),
                    Format::Pcap(..) => false,
                };
                if fits {
                    found = Some(0);
                } else {
                    self.window.skip(1);
                    continue;
                }
            }
            self.window.skip(found.unwrap_or(places));
            if found.is_none() && more {
                continue;
            }
            self.ended = found.is_none();
            let message = format!(
                "{}: {why} at byte {from}; {} bytes are left out, up to byte {}",
                self.name,
                self.window.offset() - from,
                self.window.offset()
            );
            self.problems
                .push(Problem::data_loss(Code::DamagedFrame, message));
            return;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let first: Vec<String> = bytes
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if first.is_empty() {
        "nothing".to_owned()
    } else {
        first.join(" ")
    }
}
