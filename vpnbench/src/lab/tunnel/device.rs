//! The tunnel device, with and without super-packets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use tun_rs::{DeviceBuilder, ExpandBuffer, GROTable, SyncDevice, VIRTIO_NET_HDR_LEN, VirtioNetHdr};

use super::account::{Cause, Histogram, ThreadRecord};
use super::context::Side;
use super::lane::{Input, Output};
use super::packet::{HEADER, Packet, TAG};
use super::settings::Settings;
use crate::lab::error::{LabError, Result};

mod ioctl {
    // include/uapi/linux/if_tun.h
    nix::ioctl_write_int_bad!(
        set_offload,
        nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>())
    );
}

/// Most packets one super-packet can hold: 64 KiB of the least TCP segments Linux makes (48 bytes).
const SEGMENTS: usize = 1366;
/// For large MTUs, where so many buffers would be too much memory.
const SEGMENTS_JUMBO: usize = 256;
const JUMBO: u32 = 4096;
/// Protocol number of UDP.
const UDP: u8 = 17;
/// Most segments of a UDP super-packet that every kernel takes.
const UDP_SEGMENTS: usize = 64;

/// One queue of the device.
pub(super) struct Tun {
    device: SyncDevice,
    /// Reads and writes carry a virtio-net header.
    vnet: bool,
    gro: bool,
    mtu: u32,
}

/// Creates the device in the namespace of this process, down and without addresses.
pub(super) fn open(name: &str, settings: &Settings) -> Result<Vec<Arc<Tun>>> {
    let failed = || LabError::failed::<io::Error>("creating tunnel device", name);
    let vnet = settings.tun_gso || settings.tun_gro;
    let builder = DeviceBuilder::new()
        .name(name)
        .mtu(u16::try_from(settings.mtu).unwrap_or(u16::MAX))
        .enable(false)
        .offload(vnet)
        .multi_queue(settings.tun_queues > 1);
    let first = builder.build_sync().map_err(failed())?;
    if let Some(length) = settings.txqueuelen {
        first.set_tx_queue_len(length).map_err(failed())?;
    }
    let mut queues = vec![first];
    while queues.len() < settings.tun_queues {
        queues.push(queues[0].try_clone().map_err(failed())?);
    }
    if vnet && !settings.tun_gso {
        no_super_packets(&queues[0]).map_err(failed())?;
    }
    let tun = |device: SyncDevice| {
        device.set_nonblocking(true)?;
        Ok(Arc::new(Tun {
            device,
            vnet,
            gro: settings.tun_gro,
            mtu: settings.mtu,
        }))
    };
    queues
        .into_iter()
        .map(tun)
        .collect::<io::Result<_>>()
        .map_err(failed())
}

/// The device takes super-packets when written, but hands out none.
fn no_super_packets(device: &SyncDevice) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer and follows no pointer.
    unsafe { ioctl::set_offload(device.as_raw_fd(), 0) }?;
    Ok(())
}

/// Reads packets from a queue.
pub(super) struct TunInput {
    tun: Arc<Tun>,
    side: Side,
    /// A super-packet with its header, as read.
    raw: Vec<u8>,
    buffers: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    batches: Arc<Histogram>,
}

impl TunInput {
    pub(super) fn new(tun: &Arc<Tun>, side: Side) -> TunInput {
        let count = match tun.vnet {
            false => 1,
            true if tun.mtu > JUMBO => SEGMENTS_JUMBO,
            true => SEGMENTS,
        };
        TunInput {
            tun: Arc::clone(tun),
            side,
            raw: vec![
                0;
                if tun.vnet {
                    VIRTIO_NET_HDR_LEN + 65_535
                } else {
                    0
                }
            ],
            buffers: vec![Vec::new(); count],
            sizes: vec![0; count],
            batches: Histogram::detached(),
        }
    }

    /// Gives every slot a buffer again.
    fn refill(&mut self) {
        let size = HEADER + self.tun.mtu as usize + TAG;
        let empty = self
            .buffers
            .iter()
            .take_while(|buffer| buffer.is_empty())
            .count();
        let mut fresh = Vec::with_capacity(empty);
        self.side.shared.pool.take(empty, size, &mut fresh);
        for (slot, buffer) in self.buffers.iter_mut().zip(fresh) {
            *slot = buffer;
        }
    }
}

impl Input for TunInput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.batches = thread.histogram("tun_read");
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tun.device.as_fd())
    }

    fn read(&mut self, now: u64, out: &mut Vec<Packet>) -> Result<()> {
        while out.len() < self.side.settings().read_batch {
            self.refill();
            let device = &self.tun.device;
            let read =
                device.recv_multiple(&mut self.raw, &mut self.buffers, &mut self.sizes, HEADER);
            let count = match read {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error().is_some() => {
                    return Err(LabError::failed("reading", "the tunnel device")(error));
                }
                Err(error) => {
                    // A super-packet that tun-rs cannot cut.
                    log::warn!("a packet from the tunnel device: {error}");
                    self.side.counters().read.add(0);
                    self.side.counters().lost(Cause::Malformed).add(0);
                    continue;
                }
            };
            let bytes = match self.tun.vnet {
                true => ip_length(&self.raw[VIRTIO_NET_HDR_LEN..]),
                false => self.sizes[0],
            };
            self.side.counters().input.add(1, bytes, count);
            self.batches.add(count);
            for (buffer, size) in self.buffers.iter_mut().zip(&self.sizes).take(count) {
                let mut data = std::mem::take(buffer);
                data.truncate(HEADER + size);
                out.push(Packet::new(data, *size, now));
            }
        }
        Ok(())
    }
}

/// Length of an IP packet by its header.
fn ip_length(packet: &[u8]) -> usize {
    let field = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet[0] >> 4 {
        4 => field(2),
        _ => 40 + field(4),
    }
}

/// Writes packets to a queue.
pub(super) struct TunOutput {
    tun: Arc<Tun>,
    side: Side,
    gro: GROTable,
    buffers: Vec<Growing>,
    batches: Arc<Histogram>,
}

/// Where the virtio-net header starts: right before the packet.
const VNET: usize = HEADER - VIRTIO_NET_HDR_LEN;
/// No valid header: what is still there after coalescing was merged into another packet.
const MERGED: [u8; VIRTIO_NET_HDR_LEN] = [0xee; VIRTIO_NET_HDR_LEN];

/// A buffer that may grow to a super-packet. tun-rs merges only into what has the room already.
struct Growing {
    data: Vec<u8>,
    largest: usize,
}

impl Growing {
    /// Room for 64 KiB of IP packet; tun-rs wants the header's room twice.
    const LARGEST: usize = 2 * HEADER + 65_535;

    /// The kernel takes UDP super-packets of so many segments only (UDP_MAX_SEGMENTS; 128 from
    /// Linux 6.9 on), and tun-rs does not count them.
    fn new(data: Vec<u8>) -> Growing {
        let packet = &data[HEADER..];
        let at = |index: usize| packet.get(index).copied().unwrap_or(0);
        let headers = match at(0) >> 4 {
            4 if at(9) == UDP => Some(usize::from(at(0) & 15) * 4 + 8),
            6 if at(6) == UDP => Some(40 + 8),
            _ => None,
        };
        let largest = headers.map_or(Self::LARGEST, |headers| {
            let payload = packet.len().saturating_sub(headers);
            (2 * HEADER + headers + UDP_SEGMENTS * payload).min(Self::LARGEST)
        });
        Growing { data, largest }
    }
}

impl AsRef<[u8]> for Growing {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl AsMut<[u8]> for Growing {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }
}

impl ExpandBuffer for Growing {
    fn buf_capacity(&self) -> usize {
        self.largest
    }

    fn buf_resize(&mut self, length: usize, value: u8) {
        self.data.resize(length, value);
    }

    fn buf_extend_from_slice(&mut self, more: &[u8]) {
        if self.data.capacity() < self.data.len() + more.len() {
            // Once to the full size instead of again and again.
            self.data.reserve(self.largest.max(more.len()));
        }
        self.data.extend_from_slice(more);
    }
}

impl TunOutput {
    pub(super) fn new(tun: &Arc<Tun>, side: Side) -> TunOutput {
        TunOutput {
            tun: Arc::clone(tun),
            side,
            gro: GROTable::new(),
            buffers: Vec::new(),
            batches: Histogram::detached(),
        }
    }

    /// Coalesces, then writes each unit; says per packet whether the device took it.
    fn write_coalesced(&mut self, packets: &mut [Packet]) -> Result<Vec<bool>> {
        self.buffers.clear();
        for packet in &mut *packets {
            packet.data[VNET..HEADER].copy_from_slice(&MERGED);
            self.buffers
                .push(Growing::new(std::mem::take(&mut packet.data)));
        }
        let udp = self.tun.device.udp_gso();
        let coalesced = self.gro.apply_gro(&mut self.buffers, HEADER, udp);
        coalesced.map_err(LabError::failed(
            "coalescing packets for",
            "the tunnel device",
        ))?;
        let merged = |buffer: &Growing| buffer.data[VNET..HEADER] == MERGED;
        let mut taken = vec![true; packets.len()];
        for (index, buffer) in self.buffers.iter().enumerate() {
            if merged(buffer) {
                continue;
            }
            let count = segments(&buffer.data);
            if self.write(&buffer.data[VNET..], buffer.data.len() - HEADER, count) {
                continue;
            }
            taken[index] = false;
            let others = (index + 1..taken.len()).filter(|other| merged(&self.buffers[*other]));
            for other in others.take(count - 1).collect::<Vec<_>>() {
                taken[other] = false;
            }
        }
        for (packet, buffer) in packets.iter_mut().zip(self.buffers.drain(..)) {
            packet.data = buffer.data;
        }
        Ok(taken)
    }

    fn write(&self, bytes: &[u8], length: usize, count: usize) -> bool {
        match self.tun.device.send(bytes) {
            Ok(_) => {
                self.side.counters().output.add(1, length, count);
                self.batches.add(count);
                true
            }
            Err(error) => {
                log::debug!("writing to the tunnel device: {error}");
                false
            }
        }
    }
}

/// Packets in a unit with a virtio-net header before it.
fn segments(buffer: &[u8]) -> usize {
    match VirtioNetHdr::decode(&buffer[VNET..HEADER]) {
        Ok(header) if header.gso_size > 0 => {
            let payload = buffer.len() - HEADER - usize::from(header.hdr_len);
            payload.div_ceil(usize::from(header.gso_size)).max(1)
        }
        _ => 1,
    }
}

impl Output for TunOutput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.batches = thread.histogram("tun_write");
    }

    fn put(&mut self, packets: &mut Vec<Packet>) -> Result<()> {
        let taken = if self.tun.gro {
            self.write_coalesced(packets)?
        } else {
            let start = if self.tun.vnet { VNET } else { HEADER };
            packets
                .iter_mut()
                .map(|packet| {
                    packet.data[start..HEADER].fill(0);
                    self.write(&packet.data[start..], packet.length as usize, 1)
                })
                .collect()
        };
        for (packet, taken) in packets.drain(..).zip(taken) {
            match taken {
                true => self.side.carried(packet),
                false => self.side.lost(packet, Cause::WriteError),
            }
        }
        Ok(())
    }
}
