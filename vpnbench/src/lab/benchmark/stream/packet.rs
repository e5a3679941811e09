//! Packets of the embedded real-time stream. Little-endian; one magic byte, one for the kind.

/// Bytes in front of a data packet's payload.
pub(super) const DATA_HEADER: usize = 26;
const MAGIC: u8 = 0xb7;
/// Sequence numbers in one request: fits a packet of 1200 bytes.
pub(super) const REQUEST_MAX: usize = 128;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// Payload. `again` counts the copies sent before this one.
    Data {
        seq: u64,
        /// When it was due to be sent for the first time, ns of the sender's clock.
        due_ns: u64,
        again: u32,
        length: u32,
    },
    /// The receiver misses these.
    Request { seqs: Vec<u64> },
    /// Asks for an [`Packet::Echo`] with the same number.
    Probe { ns: u64 },
    /// Answer to a probe.
    Echo { ns: u64 },
    /// The sender has nothing more: packets it sent for the first time.
    End { sent: u64 },
    /// The receiver's account as JSON.
    Account { json: Vec<u8> },
}

impl Packet {
    /// Writes it; the payload of data is zeros.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(MAGIC);
        let mut put = |kind: u8, numbers: &[u64]| {
            out.push(kind);
            numbers
                .iter()
                .for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        };
        match self {
            Packet::Data {
                seq,
                due_ns,
                again,
                length,
            } => {
                put(
                    1,
                    &[*seq, *due_ns, u64::from(*again) << 32 | u64::from(*length)],
                );
                out.resize(DATA_HEADER + *length as usize, 0);
            }
            Packet::Request { seqs } => put(2, seqs),
            Packet::Probe { ns } => put(3, &[*ns]),
            Packet::Echo { ns } => put(4, &[*ns]),
            Packet::End { sent } => put(5, &[*sent]),
            Packet::Account { json } => {
                put(6, &[]);
                out.extend_from_slice(json);
            }
        }
    }

    /// Reads one; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Packet> {
        let [MAGIC, kind, rest @ ..] = bytes else {
            return None;
        };
        let number = |index: usize| {
            let bytes = rest.get(8 * index..8 * index + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(match kind {
            1 => Packet::Data {
                seq: number(0)?,
                due_ns: number(1)?,
                again: (number(2)? >> 32) as u32,
                length: (rest.len() - 24) as u32,
            },
            2 => Packet::Request {
                seqs: (0..rest.len() / 8).filter_map(number).collect(),
            },
            3 => Packet::Probe { ns: number(0)? },
            4 => Packet::Echo { ns: number(0)? },
            5 => Packet::End { sent: number(0)? },
            6 => Packet::Account {
                json: rest.to_vec(),
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_the_way() {
        let packets = [
            Packet::Data {
                seq: 7,
                due_ns: u64::MAX,
                again: 3,
                length: 1316,
            },
            Packet::Request {
                seqs: vec![1, 2, u64::MAX],
            },
            Packet::Probe { ns: 5 },
            Packet::Echo { ns: 6 },
            Packet::End { sent: 9 },
            Packet::Account {
                json: b"{}".to_vec(),
            },
        ];
        let mut bytes = Vec::new();
        for packet in packets {
            packet.encode(&mut bytes);
            assert_eq!(Packet::decode(&bytes), Some(packet.clone()));
            for end in 0..bytes.len().min(30) {
                let _never_panics = Packet::decode(&bytes[..end]);
            }
        }
        assert_eq!(Packet::decode(b"else"), None);
    }
}
