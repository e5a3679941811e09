//! One host's end of the embedded wire: its TAP device, its egress queue and its account.

use std::os::fd::{AsFd, BorrowedFd};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::super::super::error::{LabError, Result};
use super::super::super::netns;
use super::super::account::{EgressAccount, Spread};
use super::super::queue::{Fate, Queue, Waiting};
use super::super::spec::{Model, Unit as UnitKind};
use super::super::truth::{
    self, FATE_JUMPED, FATE_LOST, FATE_OVER_LIMIT, FATE_SENT, FATE_UNDELIVERABLE, FATE_WAITING,
    TruthLog, TruthRecord,
};
use super::PortSettings;
use super::frame::{self, Frame, Size, VNET_HEADER};
use super::held;

/// Buffers kept to be used again.
const POOL: usize = 256;
/// Longest time the histograms tell apart; longer ones count as this.
const LONGEST_NS: u64 = 120_000_000_000;
/// A frame up to this size is copied to a buffer of its own size, so that a thousand small packets
/// that wait do not hold a thousand large buffers.
const SMALL: usize = 4096;

/// A frame with its size on the wire.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// Of a packet that waits in its host, its headers.
    pub(super) frame: Frame,
    pub(super) size: Size,
    /// Bytes of the frame.
    length: u32,
    /// The kernel's number for a packet that waits in its host.
    pub(super) held: Option<u32>,
}

impl From<Frame> for Unit {
    fn from(frame: Frame) -> Unit {
        Unit {
            size: frame.size(),
            length: frame.ethernet().len() as u32,
            frame,
            held: None,
        }
    }
}

/// Buffers for the largest frames.
#[derive(Debug, Default)]
pub(super) struct Pool {
    buffers: Vec<Vec<u8>>,
}

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        self.buffers
            .pop()
            .unwrap_or_else(|| vec![0; frame::LONGEST])
    }

    /// Takes a frame's buffer back if it is one of the large ones.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        if buffer.len() == frame::LONGEST && self.buffers.len() < POOL {
            self.buffers.push(buffer);
        }
    }
}

/// A host's end.
pub(super) struct Port {
    pub(super) label: String,
    number: u8,
    device: SyncDevice,
    name: String,
    has_header: bool,
    unit: UnitKind,
    queue: Queue<Unit>,
    /// Longest IP packet that gets through.
    longest: u32,
    /// What the host sends waits there, with the impairment in the host.
    host: Option<held::Queue>,
    account: EgressAccount,
    delay: Times,
    lateness: Times,
    /// Highest number that has left.
    newest: Option<u64>,
}

struct Times {
    histogram: Histogram<u64>,
    sum_ns: f64,
}

impl Times {
    fn new() -> Result<Times> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3)
            .map_err(LabError::failed("making", "a histogram"))?;
        Ok(Times {
            histogram,
            sum_ns: 0.0,
        })
    }

    fn record(&mut self, nanos: i64) {
        let nanos = u64::try_from(nanos).unwrap_or(0);
        self.histogram.saturating_record(nanos);
        self.sum_ns += nanos as f64;
    }

    fn spread(&self) -> Option<Spread> {
        Spread::of(&self.histogram, self.sum_ns)
    }
}

impl Port {
    /// Creates the TAP device in its namespace. It goes with this process.
    pub(super) fn open(
        settings: &PortSettings,
        unit: UnitKind,
        model: Model,
        offload: bool,
    ) -> Result<Port> {
        let device = netns::run_in(&settings.netns, || {
            let builder = DeviceBuilder::new()
                .name(&settings.device)
                .layer(Layer::L2)
                .offload(offload)
                .enable(false);
            let device = builder
                .build_sync()
                .map_err(LabError::failed("creating TAP device", &settings.device))?;
            device
                .set_nonblocking(true)
                .map_err(LabError::failed("preparing TAP device", &settings.device))?;
            Ok(device)
        })?;
        let host = match settings.in_the_host {
            true => Some(held::Queue::open(&settings.netns, &settings.device, unit)?),
            false => None,
        };
        Ok(Port {
            label: settings.label.clone(),
            number: settings.number,
            device,
            name: settings.device.clone(),
            has_header: offload,
            unit,
            queue: Queue::new(&settings.impairment, model, settings.seed),
            longest: match settings.impairment.size_limit {
                0 => u32::MAX,
                bytes => bytes,
            },
            host,
            account: EgressAccount::default(),
            delay: Times::new()?,
            lateness: Times::new()?,
            newest: None,
        })
    }

    /// For poll.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let host = self.host.as_ref().map(held::Queue::fd);
        host.into_iter().chain([self.device.as_fd()])
    }

    /// The next packet that begins to wait in the host; `None` when there is none now.
    pub(super) fn read_held(&mut self) -> Result<Option<Unit>> {
        let Some(host) = &mut self.host else {
            return Ok(None);
        };
        let held = host.read()?;
        Ok(held.map(|held| Unit {
            frame: held.frame,
            size: held.size,
            length: held.length,
            held: Some(held.id),
        }))
    }

    /// Lets a packet that waits in the host go on to its device, or drops it.
    pub(super) fn release(&self, id: u32, goes_on: bool) -> Result<()> {
        match &self.host {
            Some(host) => host.release(id, goes_on),
            None => Ok(()),
        }
    }

    /// Whether a frame from the device has waited in the host already.
    pub(super) fn has_waited(&mut self, frame: &Frame) -> bool {
        let Some(host) = self.host.as_mut().filter(|_| frame.is_ip()) else {
            return false;
        };
        host.learn(frame);
        true
    }

    /// Corrects the account: a packet that was let go did not arrive.
    pub(super) fn refused(&mut self, frame: &Frame) {
        let Size { segments, bytes } = frame.size();
        self.account.undeliverable.add(segments);
        self.account.sent.units = self.account.sent.units.saturating_sub(1);
        self.account.sent.segments = self.account.sent.segments.saturating_sub(segments.into());
        self.account.sent_bytes = self.account.sent_bytes.saturating_sub(bytes);
    }

    /// When the next unit is due.
    pub(super) fn next_time(&self) -> Option<i64> {
        self.queue.next_time()
    }

    /// Takes out a unit that is due.
    pub(super) fn take(&mut self, now: i64) -> Option<Waiting<Unit>> {
        self.queue.take(now)
    }

    /// Reads the next unit the host sends; `None` when there is none now.
    pub(super) fn read(&self, pool: &mut Pool) -> Result<Option<Frame>> {
        let start = if self.has_header { 0 } else { VNET_HEADER };
        loop {
            let mut buffer = pool.take();
            buffer[..start].fill(0);
            let length = match nix::unistd::read(&self.device, &mut buffer[start..]) {
                Ok(length) => start + length,
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    pool.give_back(buffer);
                    return Ok(None);
                }
                Err(error) => {
                    return Err(LabError::failed("reading from TAP device", &self.name)(
                        error,
                    ));
                }
            };
            let frame = if length <= SMALL {
                let small = buffer[..length].to_vec();
                pool.give_back(buffer);
                Frame::new(small, length)
            } else {
                Frame::new(buffer, length)
            };
            // Nothing shorter than an Ethernet header comes from the kernel; it would be no frame.
            if let Ok(frame) = frame {
                return Ok(Some(frame));
            }
        }
    }

    /// The packets a frame stands for, where the impairment acts on packets.
    pub(super) fn cut(&self, frame: &Frame) -> Option<Vec<Frame>> {
        match self.unit {
            UnitKind::Skb => None,
            UnitKind::Packet => frame.segments(),
        }
    }

    /// Queues a unit, unless it is lost or there is no room.
    pub(super) fn offer(
        &mut self,
        unit: Unit,
        pool: &mut Pool,
        log: &mut Option<TruthLog>,
    ) -> Result<()> {
        let now = now();
        let size = unit.size;
        let number = self.account.entered.units;
        self.account.entered.add(size.segments);
        self.account.entered_bytes += size.bytes;
        if unit.length.saturating_sub(frame::ETHERNET as u32) > self.longest {
            self.account.too_large.add(size.segments);
            return self.refuse(unit, (number, false), FATE_LOST, now, pool, log);
        }
        let answer = self.queue.offer(unit, size.bytes, now);
        let fates = [
            (Some(answer.fate), answer.refused),
            (answer.copy, answer.refused_copy),
        ];
        for (is_copy, (fate, refused)) in [false, true].into_iter().zip(fates) {
            let Some(fate) = fate else { continue };
            if is_copy {
                self.account.copies.add(size.segments);
            }
            let fate = match fate {
                Fate::Lost => {
                    self.account.lost.add(size.segments);
                    FATE_LOST
                }
                Fate::OverLimit => {
                    self.account.over_limit.add(size.segments);
                    FATE_OVER_LIMIT
                }
                Fate::Waits | Fate::Jumps => continue,
            };
            let Some(unit) = refused else { continue };
            self.refuse(unit, (number, is_copy), fate, now, pool, log)?;
        }
        let waiting = self.queue.len() as u64;
        self.account.backlog_max = self.account.backlog_max.max(waiting);
        Ok(())
    }

    /// Lets go of a unit that the queue did not take.
    fn refuse(
        &self,
        unit: Unit,
        (number, is_copy): (u64, bool),
        fate: u8,
        now: i64,
        pool: &mut Pool,
        log: &mut Option<TruthLog>,
    ) -> Result<()> {
        self.log(log, &unit, number, is_copy, fate, (now, now))?;
        if let Some(id) = unit.held {
            self.release(id, false)?;
        }
        pool.give_back(unit.frame.into_buffer());
        Ok(())
    }

    /// Writes a frame to this host. False when the device refuses it.
    pub(super) fn write(&self, frame: &Frame) -> bool {
        let bytes = if self.has_header {
            frame.bytes()
        } else {
            frame.ethernet()
        };
        loop {
            match nix::unistd::write(&self.device, bytes) {
                Err(Errno::EINTR) => {}
                other => return other.is_ok(),
            }
        }
    }

    /// Enters a unit that has left this host's queue.
    pub(super) fn left(
        &mut self,
        waiting: &Waiting<Unit>,
        now: i64,
        delivered: bool,
        log: &mut Option<TruthLog>,
    ) -> Result<()> {
        let Size { segments, bytes } = waiting.unit.size;
        if waiting.jumps {
            self.account.jumped.add(segments);
        }
        let fate = match (delivered, waiting.jumps) {
            (false, _) => FATE_UNDELIVERABLE,
            (true, true) => FATE_JUMPED,
            (true, false) => FATE_SENT,
        };
        let times = (waiting.arrived, now);
        self.log(
            log,
            &waiting.unit,
            waiting.number,
            waiting.is_copy,
            fate,
            times,
        )?;
        if !delivered {
            self.account.undeliverable.add(segments);
            return Ok(());
        }
        self.account.sent.add(segments);
        self.account.sent_bytes += bytes;
        self.delay.record(now - waiting.arrived);
        self.lateness
            .record(now - waiting.time_to_send.max(waiting.arrived));
        if !waiting.is_copy {
            if self.newest.is_some_and(|newest| waiting.number < newest) {
                self.account.reordered += 1;
            } else {
                self.newest = Some(waiting.number);
            }
            self.account.originals_sent += 1;
        }
        Ok(())
    }

    fn log(
        &self,
        log: &mut Option<TruthLog>,
        unit: &Unit,
        number: u64,
        is_copy: bool,
        fate: u8,
        (time_in_ns, time_out_ns): (i64, i64),
    ) -> Result<()> {
        let Some(log) = log else { return Ok(()) };
        let identity = unit.frame.identity();
        let record = TruthRecord {
            time_in_ns,
            time_out_ns,
            number,
            udp_payload: identity.udp_payload,
            addresses: truth::mapped(identity.addresses),
            length: unit.length,
            segments: unit.size.segments,
            ip_id: identity.ip_id,
            tcp_seq: identity.tcp_seq,
            tcp_ack: identity.tcp_ack,
            source_port: identity.source_port,
            destination_port: identity.destination_port,
            from: self.number,
            fate,
            is_copy: is_copy.into(),
            protocol: identity.protocol,
            tcp_flags: identity.tcp_flags,
            reserved: [0; 3],
        };
        log.add(&record)
            .map_err(LabError::failed("writing", "the wire's truth log"))
    }

    /// The account as of now.
    pub(super) fn account(&self) -> EgressAccount {
        let mut account = self.account.clone();
        for unit in self.queue.waiting() {
            account.waiting.add(unit.unit.size.segments);
        }
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        account.reordered_ratio = ratio(account.reordered, account.originals_sent);
        account.lost_ratio = ratio(
            account.lost.units,
            account.entered.units + account.copies.units,
        );
        account.delay = self.delay.spread();
        account.lateness = self.lateness.spread();
        account
    }

    /// Logs what still waits, at the end.
    pub(super) fn log_waiting(&self, log: &mut Option<TruthLog>) -> Result<()> {
        let now = now();
        for waiting in self.queue.waiting() {
            let times = (waiting.arrived, now);
            let (unit, number) = (&waiting.unit, waiting.number);
            self.log(log, unit, number, waiting.is_copy, FATE_WAITING, times)?;
        }
        Ok(())
    }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_ns`.
pub(super) fn now() -> i64 {
    use nix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    time.map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Opens the truth log, if one is asked for.
pub(super) fn open_log(path: Option<&std::path::Path>) -> Result<Option<TruthLog>> {
    path.map(|path| TruthLog::create(path).map_err(LabError::file("creating", path)))
        .transpose()
}
