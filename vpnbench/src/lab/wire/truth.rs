//! The wire's log of what became of each unit, for tests that compare their ledger with the truth.
//!
//! A file starts with [`MAGIC`] and the size of a record as a 32-bit number and four zero bytes;
//! then come records, all numbers in the machine's byte order. Off unless asked for.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use bytemuck::{Pod, Zeroable};

use super::super::error::{LabError, Result};

/// First bytes of a truth log.
const MAGIC: [u8; 8] = *b"VBWIRE1\n";

/// What became of one unit. With `unit = "packet"` each segment has a record of its own.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct TruthRecord {
    /// When the wire read it: CLOCK_MONOTONIC in nanoseconds, the clock of the traces.
    pub time_in_ns: i64,
    /// When its fate was settled: for a unit sent, when it was about to be written.
    pub time_out_ns: i64,
    /// Its number among all units that came from this host; a copy has its original's.
    pub number: u64,
    /// First 8 bytes of a UDP payload, big-endian; 0 for others.
    pub udp_payload: u64,
    /// Source and destination address; IPv4 in its IPv6-mapped form, zero for other packets.
    pub addresses: [[u8; 16]; 2],
    /// Bytes of the frame as it was read, headers of further segments not counted.
    pub length: u32,
    /// Packets it stands for.
    pub segments: u32,
    /// IPv4 identification or IPv6 flow label; of a super-packet, its first segment's.
    pub ip_id: u32,
    /// TCP sequence number of the first segment.
    pub tcp_seq: u32,
    /// TCP acknowledgement number.
    pub tcp_ack: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Number of the host it came from, 1 for the first.
    pub from: u8,
    /// One of the `FATE_` constants.
    pub fate: u8,
    /// 1 for the second of two.
    pub is_copy: u8,
    /// IP protocol.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// 0.
    pub reserved: [u8; 3],
}

/// Sent when its time had come.
pub const FATE_SENT: u8 = 1;
/// Sent at once, past others, by `reorder`.
pub const FATE_JUMPED: u8 = 2;
/// Lost by `loss`.
pub const FATE_LOST: u8 = 3;
/// Dropped because `limit` units were waiting.
pub const FATE_OVER_LIMIT: u8 = 4;
/// Refused by the receiving device.
pub const FATE_UNDELIVERABLE: u8 = 5;
/// Still waiting when the wire ended.
pub const FATE_WAITING: u8 = 6;

impl TruthRecord {
    /// Source and destination; `None` for what is not IP.
    #[must_use]
    pub fn ip_addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let [from, to] = self.addresses.map(Ipv6Addr::from);
        let canonical = (from.to_canonical(), to.to_canonical());
        (!to.is_unspecified()).then_some(canonical)
    }
}

/// The addresses as a record holds them.
pub(super) fn mapped(addresses: Option<(IpAddr, IpAddr)>) -> [[u8; 16]; 2] {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    addresses.map_or([[0; 16]; 2], |(from, to)| [octets(from), octets(to)])
}

/// Writes a log.
#[derive(Debug)]
pub(super) struct TruthLog {
    file: BufWriter<File>,
}

impl TruthLog {
    /// Starts a log.
    pub(super) fn create(path: &Path) -> io::Result<TruthLog> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&MAGIC)?;
        let size = size_of::<TruthRecord>() as u32;
        file.write_all(bytemuck::bytes_of(&[size, 0]))?;
        Ok(TruthLog { file })
    }

    /// Adds a record.
    pub(super) fn add(&mut self, record: &TruthRecord) -> io::Result<()> {
        self.file.write_all(bytemuck::bytes_of(record))
    }

    /// Writes out what is buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a log. One that was cut short, by `kill -9` for example, ends with its last whole record.
pub fn read_truth(path: &Path) -> Result<Vec<TruthRecord>> {
    let failed = || LabError::file("reading truth log", path);
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(failed())?;
    file.read_to_end(&mut bytes).map_err(failed())?;
    let size = size_of::<TruthRecord>();
    let head = bytes.get(..16).unwrap_or_default();
    if head.get(..8) != Some(&MAGIC[..]) || head[8..12] != (size as u32).to_ne_bytes() {
        let reason = "not a truth log of this version";
        return Err(failed()(io::Error::new(io::ErrorKind::InvalidData, reason)));
    }
    let records = bytes[16..].chunks_exact(size);
    Ok(records.map(bytemuck::pod_read_unaligned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_reads_back_up_to_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth");
        let mut log = TruthLog::create(&path).unwrap();
        let mut record = TruthRecord::zeroed();
        let addresses = ("10.99.0.1".parse().unwrap(), "10.99.0.2".parse().unwrap());
        record.addresses = mapped(Some(addresses));
        for number in 0..3 {
            record.number = number;
            log.add(&record).unwrap();
        }
        log.flush().unwrap();
        let read = read_truth(&path).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(read[2], record);
        assert_eq!(read[0].ip_addresses(), Some(addresses));
        let length = std::fs::metadata(&path).unwrap().len();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 1)
            .unwrap();
        assert_eq!(read_truth(&path).unwrap().len(), 2);
        std::fs::write(&path, "something else entirely").unwrap();
        assert!(read_truth(&path).is_err());
    }
}
