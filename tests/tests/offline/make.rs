//! Captures made by hand: a short TCP connection of which everything is known, in any file format
//! and behind any link layer.

use std::io::Write as _;

use anyhow::Result;
use etherparse::{PacketBuilder, TcpOptionElement};

/// The client, where the capture is taken.
pub(crate) const CLIENT: [u8; 4] = [10, 0, 0, 1];
/// The server.
pub(crate) const SERVER: [u8; 4] = [10, 0, 0, 2];
/// Segments of data.
pub(crate) const SEGMENTS: u32 = 100;
/// The segment that is lost.
const LOST: u32 = 50;
const MSS: u32 = 1000;
const MS: u64 = 1_000_000;
const ROUND_TRIP: u64 = 20 * MS;
/// Unix time of the first packet, ns.
pub(crate) const BEGAN: u64 = 1_700_000_000_000_000_000;

/// One IP packet and when it passed.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) time_ns: u64,
    pub(crate) bytes: Vec<u8>,
    /// Whether the client sent it.
    pub(crate) outgoing: bool,
}

/// One segment of the connection.
struct Segment<'a> {
    time: u64,
    outgoing: bool,
    syn: bool,
    seq: u32,
    ack: Option<u32>,
    options: &'a [TcpOptionElement],
    payload: usize,
}

fn packet(number: usize, segment: &Segment<'_>) -> Result<Packet> {
    let (from, to, ports) = match segment.outgoing {
        true => (CLIENT, SERVER, (40_000, 5201)),
        false => (SERVER, CLIENT, (5201, 40_000)),
    };
    let mut header = etherparse::Ipv4Header::new(0, 64, etherparse::ip_number::TCP, from, to)?;
    header.identification = number as u16 + 1;
    header.dont_fragment = true;
    let ip = etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default());
    let mut builder = PacketBuilder::ip(ip).tcp(ports.0, ports.1, segment.seq, 60_000);
    if segment.syn {
        builder = builder.syn();
    }
    if let Some(ack) = segment.ack {
        builder = builder.ack(ack);
    }
    let builder = builder.options(segment.options)?;
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0x5a; segment.payload])?;
    Ok(Packet {
        time_ns: BEGAN + segment.time,
        bytes,
        outgoing: segment.outgoing,
    })
}

/// A connection of a client that sends [`SEGMENTS`] segments a ms apart over a round trip of 20 ms; one
/// is lost and sent again when three acknowledgements had reported a gap.
pub(crate) fn connection() -> Result<Vec<Packet>> {
    let mss = [
        TcpOptionElement::MaximumSegmentSize(MSS as u16),
        TcpOptionElement::SelectiveAcknowledgementPermitted,
    ];
    let base = Segment {
        time: 0,
        outgoing: true,
        syn: false,
        seq: 0,
        ack: Some(5001),
        options: &[],
        payload: 0,
    };
    let place = |number: u32| 1001 + number * MSS;
    let mut list = vec![
        packet(
            0,
            &Segment {
                syn: true,
                seq: 1000,
                ack: None,
                options: &mss,
                ..base
            },
        )?,
        packet(
            1,
            &Segment {
                time: ROUND_TRIP,
                outgoing: false,
                syn: true,
                seq: 5000,
                ack: Some(1001),
                options: &mss,
                ..base
            },
        )?,
        packet(
            2,
            &Segment {
                time: ROUND_TRIP + 30_000,
                seq: 1001,
                ..base
            },
        )?,
    ];
    let begins = ROUND_TRIP + MS;
    for number in 0..SEGMENTS {
        let time = begins + u64::from(number) * MS;
        let payload = MSS as usize;
        let data = Segment {
            time,
            seq: place(number),
            payload,
            ..base
        };
        list.push(packet(10 + number as usize, &data)?);
        // The segment sent again is acknowledged a round trip later.
        let gap = (LOST..LOST + 24).contains(&number);
        let acked = match number {
            LOST => continue,
            _ if gap => LOST,
            _ => number + 1,
        };
        let block = TcpOptionElement::SelectiveAcknowledgement(
            (place(LOST + 1), place(number + 1)),
            [None; 3],
        );
        let ack = Segment {
            time: time + ROUND_TRIP,
            outgoing: false,
            seq: 5001,
            ack: Some(place(acked)),
            options: if gap {
                std::slice::from_ref(&block)
            } else {
                &[]
            },
            ..base
        };
        list.push(packet(1000 + number as usize, &ack)?);
    }
    // The third acknowledgement that reports the gap is that of the third segment behind it.
    let again = Segment {
        time: begins + u64::from(LOST + 3) * MS + ROUND_TRIP + 40_000,
        seq: place(LOST),
        payload: MSS as usize,
        ..base
    };
    list.push(packet(2000, &again)?);
    list.sort_by_key(|one| one.time_ns);
    Ok(list)
}

/// The connection as both hosts see it.
pub(crate) struct Both {
    pub(crate) client: Vec<Packet>,
    pub(crate) server: Vec<Packet>,
    /// Time from one host to the other, us.
    pub(crate) one_way_us: f64,
}

/// The connection of [`connection`] in several rounds at both ends, half a round trip apart. The lost
/// segment is not seen by the server.
pub(crate) fn connection_at_both() -> Result<Both> {
    let mut both = Both {
        client: Vec::new(),
        server: Vec::new(),
        one_way_us: ROUND_TRIP as f64 / 2000.0,
    };
    let rounds = 40;
    for round in 0..rounds {
        let later = round * 500 * MS;
        let mut data = 0;
        for (number, mut packet) in connection()?.into_iter().enumerate() {
            packet.time_ns += later;
            // Another connection: its own ports and identifications.
            packet.bytes[if packet.outgoing { 20 } else { 22 }] += round as u8;
            packet.bytes[4..6].copy_from_slice(&(round as u16 * 256 + number as u16).to_be_bytes());
            let is_data = packet.outgoing && packet.bytes.len() > 200;
            data += u32::from(is_data);
            let mut there = packet.clone();
            there.outgoing = !packet.outgoing;
            there.time_ns = if packet.outgoing {
                packet.time_ns + ROUND_TRIP / 2
            } else {
                packet.time_ns - ROUND_TRIP / 2
            };
            both.client.push(packet);
            if !(is_data && data == LOST + 1) {
                both.server.push(there);
            }
        }
    }
    both.client.sort_by_key(|one| one.time_ns);
    both.server.sort_by_key(|one| one.time_ns);
    Ok(both)
}

/// A link layer in front of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Ethernet,
    Vlan,
    Raw,
    Cooked,
    Cooked2,
    Null,
    Loop,
    VirtioTun,
}

impl Link {
    pub(crate) const ALL: [Link; 8] = [
        Link::Ethernet,
        Link::Vlan,
        Link::Raw,
        Link::Cooked,
        Link::Cooked2,
        Link::Null,
        Link::Loop,
        Link::VirtioTun,
    ];

    fn number(self) -> u16 {
        match self {
            Link::Ethernet | Link::Vlan => 1,
            Link::Raw | Link::VirtioTun => 101,
            Link::Cooked => 113,
            Link::Cooked2 => 276,
            Link::Null => 0,
            Link::Loop => 108,
        }
    }

    fn frame(self, packet: &Packet) -> Vec<u8> {
        let kind = if packet.outgoing { 4 } else { 0 };
        let mut header = match self {
            Link::Ethernet => [&[2; 6][..], &[4; 6], &[8, 0]].concat(),
            Link::Vlan => [&[2; 6][..], &[4; 6], &[0x81, 0, 0, 9, 8, 0]].concat(),
            Link::Raw => Vec::new(),
            Link::Cooked => [&[0, kind, 0, 1, 0, 6][..], &[4; 8], &[8, 0]].concat(),
            Link::Cooked2 => [&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, kind, 6][..], &[4; 8]].concat(),
            Link::Null => vec![2, 0, 0, 0],
            Link::Loop => vec![0, 0, 0, 2],
            Link::VirtioTun => vec![0; 10],
        };
        header.extend(&packet.bytes);
        header
    }
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) ng: bool,
    pub(crate) big_endian: bool,
    pub(crate) nanoseconds: bool,
}

impl Format {
    pub(crate) const PLAIN: Format = Format {
        ng: false,
        big_endian: false,
        nanoseconds: false,
    };

    pub(crate) fn all() -> impl Iterator<Item = Format> {
        (0..8).map(|number| Format {
            ng: number & 1 != 0,
            big_endian: number & 2 != 0,
            nanoseconds: number & 4 != 0,
        })
    }

    fn word(self, value: u32) -> [u8; 4] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn half(self, value: u16) -> [u8; 2] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    /// Packets as a file. `snap` is the number of bytes kept of each.
    pub(crate) fn file(self, link: Link, snap: usize, packets: &[Packet]) -> Vec<u8> {
        let mut file = if self.ng {
            self.section(link)
        } else {
            self.header(link, snap)
        };
        for packet in packets {
            let frame = link.frame(packet);
            let kept = &frame[..frame.len().min(snap)];
            if self.ng {
                file.extend(self.block(packet.time_ns, kept, frame.len()));
            } else {
                file.extend(self.record(packet.time_ns, kept, frame.len()));
            }
        }
        file
    }

    fn header(self, link: Link, snap: usize) -> Vec<u8> {
        let magic = if self.nanoseconds {
            0xa1b2_3c4d
        } else {
            0xa1b2_c3d4
        };
        let mut file = self.word(magic).to_vec();
        file.extend([self.half(2), self.half(4)].concat());
        file.extend([self.word(0), self.word(0)].concat());
        file.extend(self.word(snap as u32));
        file.extend(self.word(link.number().into()));
        file
    }

    fn record(self, time_ns: u64, kept: &[u8], length: usize) -> Vec<u8> {
        let fraction = (time_ns % 1_000_000_000) as u32;
        let fraction = if self.nanoseconds {
            fraction
        } else {
            fraction / 1000
        };
        let mut record = self.word((time_ns / 1_000_000_000) as u32).to_vec();
        record.extend(self.word(fraction));
        record.extend(self.word(kept.len() as u32));
        record.extend(self.word(length as u32));
        record.extend(kept);
        record
    }

    fn wrapped(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let length = self.word(body.len() as u32 + 12);
        [&self.word(kind)[..], &length, body, &length].concat()
    }

    /// A section with one interface.
    fn section(self, link: Link) -> Vec<u8> {
        let mut body = self.word(0x1a2b_3c4d).to_vec();
        body.extend([self.half(1), self.half(0)].concat());
        body.extend([0xff; 8]);
        let mut file = self.wrapped(0x0a0d_0d0a, &body);
        let mut body = [self.half(link.number()), self.half(0)].concat();
        body.extend(self.word(0));
        if self.nanoseconds {
            body.extend([self.half(9), self.half(1)].concat());
            body.extend([9, 0, 0, 0]);
            body.extend([0; 4]);
        }
        file.extend(self.wrapped(1, &body));
        file
    }

    fn block(self, time_ns: u64, kept: &[u8], length: usize) -> Vec<u8> {
        let ticks = if self.nanoseconds {
            time_ns
        } else {
            time_ns / 1000
        };
        let mut body = self.word(0).to_vec();
        body.extend(self.word((ticks >> 32) as u32));
        body.extend(self.word(ticks as u32));
        body.extend(self.word(kept.len() as u32));
        body.extend(self.word(length as u32));
        body.extend(kept);
        body.resize(body.len().next_multiple_of(4), 0);
        self.wrapped(6, &body)
    }
}

/// Packed by gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
