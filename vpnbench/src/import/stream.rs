//! The packets of one file in the order of time, with their headers read.

use std::collections::VecDeque;
use std::hash::Hasher as _;
use std::net::IpAddr;

use rustc_hash::FxHasher;
use vpnbench_common::event::{self, packet_flags};

use super::decapsulate::{self, Encapsulation, Inner};
use super::error::ImportError;
use super::file::CaptureFile;
use super::filter::Filter;
use super::headers::{Options, headers};
use super::link::{self, Frame};
use super::segments::Segments;
use crate::trace::{Code, Problem, Severity};

/// Packets that are held back to put them in order: several queues of a device are drained one after
/// another, and their time stamps interleave.
const REORDER: usize = 64;
/// A clock that goes back further than this was set; what goes back less was written out of order.
const STEP_NS: u64 = 100_000_000;
/// A packet that is further ahead of the one before is behind a step of the clock, or its time is damaged.
const LEAP_NS: u64 = 2 * 86_400 * 1_000_000_000;
/// Packets in a row that must agree that the clock was set.
const STEPS_AGREE: u32 = 3;

/// A packet with its headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    /// Unix time in ns, with the steps of the clock taken out.
    pub(super) time_ns: u64,
    /// Device in the file: interface of the file, index on the machine, whether it has hardware.
    pub(super) device: DeviceKey,
    pub(super) packet: event::Packet,
    pub(super) options: Options,
    pub(super) partial: bool,
    pub(super) outgoing: Option<bool>,
    /// Hash of the payload's beginning, where one file may hold a packet several times; else 0.
    pub(super) look: u32,
    /// Number of the packet that it carries as it is, among those that wait; 0 if it carries none.
    pub(super) carries: u64,
}

impl Default for Item {
    #[inline]
    fn default() -> Item {
        Item {
            time_ns: 0,
            device: DeviceKey::default(),
            packet: bytemuck::Zeroable::zeroed(),
            options: Options::default(),
            partial: false,
            outgoing: None,
            look: 0,
            carries: 0,
        }
    }
}

impl Item {
    /// As a new one, field by field: what is put together elsewhere first would be copied.
    #[inline]
    fn clear(&mut self) {
        self.packet = bytemuck::Zeroable::zeroed();
        self.options.clear();
        (self.time_ns, self.carries) = (0, 0);
        (self.partial, self.outgoing, self.look) = (false, None, 0);
    }
}

/// What tells the devices of a file apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DeviceKey {
    /// Interface in the file.
    pub(super) interface: u32,
    /// Index on the machine, 0 if the file does not have it.
    pub(super) ifindex: u32,
    /// Whether packets come without a link layer.
    pub(super) bare: bool,
    /// Whether it is the loopback device.
    pub(super) loopback: bool,
    /// No device of the file: the tunnel whose packets were found inside of others.
    pub(super) inside: Option<Encapsulation>,
}

/// What of a file was not used, or used with a reservation.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    packets: u64,
    filtered: u64,
    unknown_link: u64,
    not_ip: u64,
    unreadable: u64,
    cut: u64,
    steps: u64,
    stepped_ns: i64,
    odd: u64,
    late: u64,
    carried: u64,
}

/// One file.
pub(super) struct Stream {
    file: CaptureFile,
    filter: Option<Filter>,
    segments: Segments,
    waiting: VecDeque<Box<Item>>,
    /// Room of packets that were handed out, to be used again where it is: nothing is moved.
    #[expect(
        clippy::vec_box,
        reason = "items wait in a queue of boxes and come back as they are"
    )]
    free: Vec<Box<Item>>,
    /// Packets inside of those that wait, with the numbers these have for them.
    inner: VecDeque<(u64, Box<Item>)>,
    counts: Counts,
    /// Added to times, for clocks that were set back.
    shift_ns: i64,
    /// Packets in a row whose times are far off.
    odd: u32,
    newest_ns: u64,
    delivered_ns: u64,
    ended: bool,
    unknown: Option<u32>,
    first_step: Option<u64>,
    snap_length: u32,
}

impl Stream {
    /// The packets of a file that match a filter.
    pub(super) fn new(file: CaptureFile, filter: Option<&str>) -> Result<Stream, ImportError> {
        let filter = filter.map(|text| Filter::new(text, file.name()));
        Ok(Stream {
            file,
            filter: filter.transpose()?,
            segments: Segments::default(),
            waiting: VecDeque::new(),
            free: Vec::new(),
            inner: VecDeque::new(),
            counts: Counts::default(),
            shift_ns: 0,
            odd: 0,
            newest_ns: 0,
            delivered_ns: 0,
            ended: false,
            unknown: None,
            first_step: None,
            snap_length: 0,
        })
    }

    /// The file.
    pub(super) fn file(&self) -> &CaptureFile {
        &self.file
    }

    /// Packets that were read and not handed out.
    pub(super) fn waiting(&self) -> &VecDeque<Box<Item>> {
        &self.waiting
    }

    /// Addresses of its devices, where the file states them.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let all = (0..).map_while(|number| self.file.interface(number));
        all.flat_map(|one| one.addresses.iter().copied()).collect()
    }

    /// Packets at the front, as many as asked for unless the file ends before.
    pub(super) fn ahead(&mut self, packets: usize) -> Result<&VecDeque<Box<Item>>, ImportError> {
        while self.waiting.len() < packets && !self.ended {
            self.read()?;
        }
        Ok(&self.waiting)
    }

    /// When the next packet was seen.
    pub(super) fn next_ns(&mut self) -> Result<Option<u64>, ImportError> {
        self.ahead(REORDER)?;
        Ok(self.waiting.front().map(|item| item.time_ns))
    }

    /// Devices of the packets that were read and not handed out.
    pub(super) fn devices(&self) -> Vec<DeviceKey> {
        let inner = self.inner.iter().map(|(_, item)| item.device);
        let all = self.waiting.iter().map(|item| item.device).chain(inner);
        let all: std::collections::BTreeSet<DeviceKey> = all.collect();
        all.into_iter().collect()
    }

    /// The packet that [`Stream::next_ns`] spoke of, and the one that it carries. [`Stream::put_back`] wants its
    /// room.
    pub(super) fn next(&mut self) -> Option<(Box<Item>, Option<Box<Item>>)> {
        let item = self.waiting.pop_front()?;
        let mut carried = None;
        if item.carries != 0 {
            // Few were put in another order, so it is one of the first.
            let place = self
                .inner
                .iter()
                .position(|(number, _)| *number == item.carries);
            let found = place.and_then(|place| self.inner.remove(place));
            carried = found.map(|(_, mut inner)| {
                (inner.time_ns, inner.packet.header.time_ns) = (item.time_ns, item.time_ns);
                inner
            });
        }
        self.counts.late += u64::from(item.time_ns < self.delivered_ns);
        self.delivered_ns = self.delivered_ns.max(item.time_ns);
        Some((item, carried))
    }

    /// Takes back the room of a packet that was handed out.
    pub(super) fn put_back(&mut self, room: Box<Item>) {
        self.free.push(room);
    }

    #[inline]
    fn read(&mut self) -> Result<(), ImportError> {
        let Some(captured) = self.file.next() else {
            self.ended = true;
            return Ok(());
        };
        let counts = &mut self.counts;
        counts.packets += 1;
        if let Some(filter) = &mut self.filter
            && !filter.passes(captured.link, captured.data)?
        {
            counts.filtered += 1;
            return Ok(());
        }
        let Some(frame) = link::frame(captured.link, captured.data) else {
            if link::is_known(captured.link) {
                counts.unreadable += 1;
            } else {
                counts.unknown_link += 1;
                self.unknown = Some(captured.link);
            }
            return Ok(());
        };
        let mut room = self.free.pop().unwrap_or_default();
        let item = &mut *room;
        item.clear();
        let original = captured.original;
        let rest = headers(&frame, original, &mut item.packet, &mut item.options);
        let Some(rest) = rest else {
            counts.not_ip += 1;
            self.free.push(room);
            return Ok(());
        };
        let kept = captured.data.len() as u32;
        if kept < original {
            counts.cut += 1;
            self.snap_length = captured.snap_length.max(kept);
        }
        counts.unreadable += u64::from(item.packet.flags & packet_flags::TRUNCATED != 0);
        if let Some(inside) = decapsulate::inner(&item.packet, rest.payload) {
            let inner = inner(&inside, captured.time_ns, &mut self.segments);
            if let Some(mut inner) = inner {
                counts.carried += 1;
                item.carries = counts.carried;
                (inner.device.interface, inner.device.ifindex) =
                    (captured.interface, frame.ifindex);
                decapsulate::share_segments(&mut item.packet, &inner.packet);
                self.inner.push_back((item.carries, Box::new(inner)));
            }
        }
        if item.packet.gso_segs <= 1 {
            let mss = item.options.mss.unwrap_or(0);
            self.segments
                .of(&mut item.packet, mss, rest.payload, frame.segment);
        }
        item.device = device(captured.link, captured.interface, &frame);
        item.partial = rest.partial;
        item.outgoing = captured.outgoing.or(frame.outgoing);
        item.look = frame.hardware.map_or(0, |_| look(rest.payload));
        let (time_ns, offset) = (captured.time_ns, captured.offset);
        let time_ns = time_ns.saturating_add_signed(self.shift_ns);
        let time_ns = self.step(time_ns, offset);
        (room.time_ns, room.packet.header.time_ns) = (time_ns, time_ns);
        if time_ns >= self.newest_ns {
            self.newest_ns = time_ns;
            self.waiting.push_back(room);
        } else {
            let later = self.waiting.iter().rev();
            let later = later.take_while(|one| one.time_ns > time_ns).count();
            self.waiting.insert(self.waiting.len() - later, room);
        }
        Ok(())
    }

    /// Takes steps of the clock out. A single time that is far off is damage; where several packets in a row
    /// agree, the clock was set.
    #[inline]
    fn step(&mut self, time_ns: u64, offset: u64) -> u64 {
        let newest = self.newest_ns;
        let ahead = time_ns.saturating_sub(newest);
        let behind = newest.saturating_sub(time_ns);
        if newest == 0 || (ahead < LEAP_NS && behind < STEP_NS) {
            self.odd = 0;
            return time_ns;
        }
        self.odd += 1;
        self.counts.odd += 1;
        if self.odd < STEPS_AGREE {
            return newest;
        }
        self.counts.odd -= u64::from(STEPS_AGREE);
        self.odd = 0;
        let back = i128::from(newest) - i128::from(time_ns);
        let back = i64::try_from(back).unwrap_or(i64::MAX);
        self.counts.steps += 1;
        self.counts.stepped_ns = self.counts.stepped_ns.saturating_add(back);
        self.first_step.get_or_insert(offset);
        self.shift_ns = self.shift_ns.saturating_add(back);
        newest
    }

    /// Bytes of the unpacked file.
    pub(super) fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// Packets that the capturing program says it lost.
    pub(super) fn dropped(&self) -> u64 {
        self.file.dropped()
    }

    /// Why nothing could be used, as the end of a sentence.
    pub(super) fn nothing(&self) -> String {
        let counts = &self.counts;
        let link = self.unknown.map(|link| {
            format!("; its link type {link} is not read: Ethernet, raw IP, Linux cooked, loopback and TUN are")
        });
        link.unwrap_or_else(|| match counts.packets {
            0 => String::new(),
            all if counts.filtered == all => "; the filter matches none of its packets".to_owned(),
            all => format!(
                ": of {all} packets {} are not IP, {} cannot be read",
                counts.not_ip, counts.unreadable
            ),
        })
    }

    /// What is to be said about the file.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        let mut list = self.file.problems();
        let name = self.file.name().to_owned();
        let mut say = |severity: Severity, code: Code, count: u64, text: String| {
            if count > 0 {
                list.push(Problem {
                    severity,
                    code,
                    message: format!("{name}: {text}"),
                });
            }
        };
        let counts = self.counts;
        let dropped = self.file.dropped();
        say(
            Severity::DataLoss,
            Code::EventsLost,
            dropped,
            format!(
                "the capturing program lost {dropped} packets: what is missing here may have been there"
            ),
        );
        let step = self.first_step.unwrap_or(0);
        say(
            Severity::DataLoss,
            Code::ClockStep,
            counts.steps,
            format!(
                "the clock was set {} times, back by {:.1} s in all, first at byte {step}: what follows is moved to where the packets before end; times across a step are not to be believed",
                counts.steps,
                counts.stepped_ns as f64 / 1e9
            ),
        );
        say(
            Severity::DataLoss,
            Code::ClockStep,
            counts.odd,
            format!(
                "the times of {} packets are far from those around them: they take that of the packet before",
                counts.odd
            ),
        );
        say(
            Severity::Info,
            Code::Late,
            counts.late,
            format!(
                "{} packets stand more than {REORDER} places too late in the file",
                counts.late
            ),
        );
        say(
            Severity::Info,
            Code::Shortened,
            counts.cut,
            format!(
                "{} of {} packets are cut to {} bytes: headers are used, lengths are those on the wire",
                counts.cut, counts.packets, self.snap_length
            ),
        );
        say(
            Severity::DataLoss,
            Code::Unreadable,
            counts.unreadable,
            format!(
                "the headers of {} packets are cut off or malformed",
                counts.unreadable
            ),
        );
        say(
            Severity::DataLoss,
            Code::Unreadable,
            counts.unknown_link,
            format!(
                "{} packets have link type {}, which is not read",
                counts.unknown_link,
                self.unknown.unwrap_or(0)
            ),
        );
        say(
            Severity::Info,
            Code::Inside,
            counts.carried,
            format!(
                "{} packets carry another one as it is: it is taken to pass the tunnel device at the same moment, unless that device was captured itself",
                counts.carried
            ),
        );
        say(
            Severity::Info,
            Code::LeftOut,
            counts.not_ip,
            format!("{} packets are not IP and are left out", counts.not_ip),
        );
        say(
            Severity::Info,
            Code::LeftOut,
            counts.filtered,
            format!("{} packets are left out by the filter", counts.filtered),
        );
        let segments = &self.segments;
        say(
            Severity::Info,
            Code::SuperPackets,
            segments.units,
            format!(
                "{} units are larger than a packet on the wire: captured before the device splits them or after they were merged. Segments are counted by {}",
                segments.units,
                match segments.assumed {
                    0 => "the segment size of the handshake or the units themselves".to_owned(),
                    assumed => format!(
                        "the handshake's segment size, for {assumed} of them by the largest packet of their flow"
                    ),
                }
            ),
        );
        say(
            Severity::DataLoss,
            Code::SuperPackets,
            segments.unknown,
            format!(
                "{} units are larger than a packet, and of how many datagrams they consist is not known: counted as one each",
                segments.unknown
            ),
        );
        list
    }
}

/// The packet that another one carries; its device is still to be told.
#[inline(never)]
fn inner(inside: &Inner<'_>, time_ns: u64, segments: &mut Segments) -> Option<Item> {
    let mut item = Item {
        time_ns,
        ..Item::default()
    };
    let rest = headers(
        &inside.frame,
        inside.original,
        &mut item.packet,
        &mut item.options,
    )?;
    let mss = item.options.mss.unwrap_or(0);
    segments.of(&mut item.packet, mss, rest.payload, 0);
    item.partial = rest.partial;
    item.device = DeviceKey {
        bare: true,
        inside: Some(inside.encapsulation),
        ..DeviceKey::default()
    };
    Some(item)
}

/// Hash of the beginning of a payload.
fn look(payload: &[u8]) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write(&payload[..payload.len().min(64)]);
    (hasher.finish() >> 32) as u32
}

#[inline]
fn device(link: u32, interface: u32, frame: &Frame<'_>) -> DeviceKey {
    let bare = match frame.hardware {
        Some(hardware) => hardware == link::NO_HARDWARE,
        None => link::is_bare(link),
    };
    DeviceKey {
        interface,
        ifindex: frame.ifindex,
        bare,
        loopback: link::is_loopback(link, frame.hardware),
        inside: None,
    }
}
