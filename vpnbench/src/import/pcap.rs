//! The classic format (draft-ietf-opsawg-pcap): a header, then records one after another without
//! anything to find them by. Where one makes no sense, the next place is searched where a header is
//! plausible and the record behind it, too.

use pcap_parser::pcap::{PcapHeader, parse_pcap_header};

use super::record::{Head, Interface, Step};

/// Largest packet libpcap writes (`MAXIMUM_SNAPLEN`, pcap-int.h).
const PACKET_MAX: u32 = 262_144;
/// Bytes of the file header.
const HEADER: usize = 24;
/// How far the clock may be from the last record at a place where records begin again, in s.
const NEAR_S: u32 = 86_400;

/// State of a classic file.
#[derive(Debug)]
pub(super) struct Pcap {
    big_endian: bool,
    nanoseconds: bool,
    /// Bytes of a record header: 16, or 24 in Kuznetsov's variant.
    record_header: usize,
    /// Bytes of the largest packet that is plausible.
    largest: u32,
    last_s: Option<u32>,
}

/// Fields of a record header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    seconds: u32,
    fraction: u32,
    captured: u32,
    original: u32,
}

impl Pcap {
    /// Whether a file begins like this, and its one interface.
    pub(super) fn begin(bytes: &[u8]) -> Option<(Pcap, Interface, usize)> {
        let (_, header) = parse_pcap_header(bytes).ok()?;
        let pcap = Pcap {
            big_endian: header.is_bigendian(),
            nanoseconds: header.is_nanosecond_precision(),
            record_header: if header.is_modified_format() { 24 } else { 16 },
            largest: PACKET_MAX.max(header.snaplen.min(1 << 20)),
            last_s: None,
        };
        Some((pcap, interface(&header), HEADER))
    }

    /// The header of the record at the beginning of `bytes`, and the bytes to look at for all of it as far as that
    /// tells.
    #[inline]
    pub(super) fn needed(&self, bytes: &[u8]) -> (Option<Fields>, usize) {
        let fields = self.fields(bytes);
        let captured = fields.map_or(0, |fields| fields.captured);
        let whole = self.record_header + captured.min(self.largest) as usize;
        (fields, whole)
    }

    /// The record at the beginning of `bytes`, which are all there is if they are fewer than
    /// [`Pcap::needed`] says beside its header.
    #[inline]
    pub(super) fn step(&mut self, fields: Option<Fields>, bytes: &[u8]) -> Step {
        if bytes.is_empty() {
            return Step::End;
        }
        let Some(fields) = fields else {
            return Step::Cut;
        };
        if !self.plausible(&fields) {
            return Step::Damaged("a packet's header makes no sense");
        }
        let size = self.record_header + fields.captured as usize;
        if bytes.len() < size {
            return Step::Cut;
        }
        self.last_s = Some(fields.seconds);
        let scale = if self.nanoseconds { 1 } else { 1000 };
        Step::Packet(Head {
            time_ns: Some(
                u64::from(fields.seconds) * 1_000_000_000 + u64::from(fields.fraction) * scale,
            ),
            interface: 0,
            original: fields.original.max(fields.captured),
            data: self.record_header..size,
            size,
            outgoing: None,
        })
    }

    /// Whether records may begin again here: this header and the next one are plausible, and the
    /// clock is near. `None` if more bytes are needed to tell.
    pub(super) fn resumes(&self, bytes: &[u8]) -> Option<bool> {
        let mut at = 0;
        let mut last = self.last_s;
        for _ in 0..2 {
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
                return (at > bytes.len()).then_some(false).or(Some(at > 0));
            };
            let Some(fields) = self.fields(rest) else {
                return Some(false);
            };
            let near = last.is_none_or(|last| last.abs_diff(fields.seconds) < NEAR_S);
            let sensible = fields.original >= fields.captured && fields.captured >= 14;
            if !self.plausible(&fields) || !near || !sensible {
                return Some(false);
            }
            last = Some(fields.seconds);
            at += self.record_header + fields.captured as usize;
        }
        Some(true)
    }

    /// Bytes that [`Pcap::resumes`] may have to look at.
    pub(super) fn resume_window(&self) -> usize {
        2 * self.record_header + self.largest as usize
    }

    #[inline]
    fn fields(&self, bytes: &[u8]) -> Option<Fields> {
        // The longer header begins as the other one does.
        let header = bytes.get(..self.record_header)?.first_chunk::<16>()?;
        let (words, _) = header.as_chunks::<4>();
        let word = |at: usize| match self.big_endian {
            true => u32::from_be_bytes(words[at]),
            false => u32::from_le_bytes(words[at]),
        };
        Some(Fields {
            seconds: word(0),
            fraction: word(1),
            captured: word(2),
            original: word(3),
        })
    }

    #[inline]
    fn plausible(&self, fields: &Fields) -> bool {
        let fraction_max = if self.nanoseconds {
            1_000_000_000
        } else {
            1_000_000
        };
        fields.fraction < fraction_max
            && fields.captured <= self.largest
            && fields.original <= 1 << 24
    }
}

fn interface(header: &PcapHeader) -> Interface {
    Interface {
        // The upper bits tell the length of a frame check sequence.
        link: header.network.0 as u32 & 0xffff,
        snap_length: header.snaplen,
        ..Interface::default()
    }
}
