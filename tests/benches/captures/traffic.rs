//! A capture of TCP downloads at their sender, made from nothing but a seed: connections in
//! parallel with handshakes, delayed acknowledgements, losses, overtaken segments, SACK and fast
//! retransmissions, cut to the length of headers as `tcpdump -s 96` does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{self, Write};

/// Bytes kept of each packet.
const SNAP: u32 = 96;
/// Bytes of a segment.
const SEGMENT: u32 = 1448;
/// Segments in flight per connection.
const WINDOW: u32 = 48;
/// From the sender to the receiver and back, ns.
const ONE_WAY_NS: u64 = 4_000_000;
/// Distance of two segments of a connection, ns.
const GAP_NS: u64 = 12_000;
/// Segments per lost one, and per one that is overtaken.
const LOST: u64 = 500;
const OVERTAKEN: u64 = 900;
/// Segments of one connection; then the next one begins.
const SEGMENTS: u32 = 40_000;
/// Retransmission timeout, ns.
const TIMEOUT_NS: u64 = 220_000_000;
/// Duplicate acknowledgements that start a retransmission.
const THRESHOLD: u32 = 3;

/// What a capture holds, as its maker knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Truth {
    /// Packets.
    pub(super) packets: u64,
    /// Bytes on the wire, Ethernet header included.
    pub(super) bytes: u64,
    /// Segments sent again.
    pub(super) retransmitted: u64,
    /// Acknowledgements.
    pub(super) acks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The sender opens a connection, the receiver answers, the sender completes the handshake.
    Open(u8),
    /// The sender may send its next segment.
    Send,
    /// A segment reaches the receiver.
    Arrive(u32),
    /// An acknowledgement reaches the sender: the next segment expected, and the first and last SACKed.
    Ack(u32, u32, u32),
    /// The retransmission timer runs out if this is still the first segment that is not acknowledged.
    Timeout(u32),
}

/// One connection; segments are numbered from 0.
struct Flow {
    port: u16,
    sending: bool,
    next: u32,
    una: u32,
    expected: u32,
    arrived: BTreeMap<u32, ()>,
    unacknowledged: u32,
    duplicates: u32,
    recovered_until: u32,
    base: u32,
}

impl Flow {
    fn new(number: u32) -> Flow {
        Flow {
            sending: false,
            port: 10_000 + (number % 50_000) as u16,
            next: 0,
            una: 0,
            expected: 0,
            arrived: BTreeMap::new(),
            unacknowledged: 0,
            duplicates: 0,
            recovered_until: 0,
            base: number.wrapping_mul(2_654_435_761),
        }
    }
}

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn one_in(&mut self, many: u64) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).is_multiple_of(many)
    }
}

/// Writes packets.
struct File<'a, W> {
    out: &'a mut W,
    truth: Truth,
    time_ns: u64,
    identification: u16,
}

struct Segment {
    port: u16,
    from_client: bool,
    seq: u32,
    ack: u32,
    flags: u8,
    length: u32,
    sack: Option<(u32, u32)>,
    stamp: u32,
    echo: u32,
}

impl<W: Write> File<'_, W> {
    fn write(&mut self, segment: &Segment) -> io::Result<()> {
        let syn = segment.flags & 2 != 0;
        let mut options: Vec<u8> = Vec::with_capacity(24);
        if syn {
            options.extend([2, 4, 5, 180, 4, 2, 8, 10]);
        } else {
            options.extend([1, 1, 8, 10]);
        }
        options.extend(segment.stamp.to_be_bytes());
        options.extend(segment.echo.to_be_bytes());
        if syn {
            options.extend([1, 3, 3, 7]);
        }
        if let Some((start, end)) = segment.sack {
            options.extend([1, 1, 5, 10]);
            options.extend(start.to_be_bytes());
            options.extend(end.to_be_bytes());
        }
        let ip = 20 + 20 + options.len() as u32 + segment.length;
        let original = 14 + ip;
        let kept = original.min(SNAP);
        let mut record = [0u8; 16 + SNAP as usize];
        let word = |at: usize, value: u32, record: &mut [u8]| {
            record[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        word(
            0,
            1_700_000_000 + (self.time_ns / 1_000_000_000) as u32,
            &mut record,
        );
        word(4, (self.time_ns % 1_000_000_000 / 1000) as u32, &mut record);
        word(8, kept, &mut record);
        word(12, original, &mut record);
        let packet = &mut record[16..];
        let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        packet[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2 - u8::from(!segment.from_client)]);
        packet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1 + u8::from(!segment.from_client)]);
        packet[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        packet[16..18].copy_from_slice(&(ip as u16).to_be_bytes());
        self.identification = self.identification.wrapping_add(1);
        packet[18..20].copy_from_slice(&self.identification.to_be_bytes());
        packet[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
        let (source, destination) = if segment.from_client {
            ((client, segment.port), (server, 5201))
        } else {
            ((server, 5201), (client, segment.port))
        };
        packet[26..30].copy_from_slice(&source.0);
        packet[30..34].copy_from_slice(&destination.0);
        let sum: u32 = packet[14..34]
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        let sum = !((sum >> 16) + (sum & 0xffff)) as u16;
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
        packet[34..36].copy_from_slice(&source.1.to_be_bytes());
        packet[36..38].copy_from_slice(&destination.1.to_be_bytes());
        packet[38..42].copy_from_slice(&segment.seq.to_be_bytes());
        packet[42..46].copy_from_slice(&segment.ack.to_be_bytes());
        packet[46] = ((20 + options.len() as u8) / 4) << 4;
        packet[47] = segment.flags;
        packet[48..50].copy_from_slice(&2000u16.to_be_bytes());
        packet[54..54 + options.len()].copy_from_slice(&options);
        self.out.write_all(&record[..16 + kept as usize])?;
        self.truth.packets += 1;
        self.truth.bytes += u64::from(original);
        Ok(())
    }
}

/// Writes a capture of at least `packets` packets in which `parallel` connections transfer at a time.
///
/// # Errors
///
/// Those of writing.
pub(super) fn write(out: &mut impl Write, packets: u64, parallel: u32) -> io::Result<Truth> {
    out.write_all(&0xa1b2_c3d4u32.to_le_bytes())?;
    out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
    out.write_all(&SNAP.to_le_bytes())?;
    out.write_all(&1u32.to_le_bytes())?;
    let mut file = File {
        out,
        truth: Truth::default(),
        time_ns: 0,
        identification: 0,
    };
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut due: BinaryHeap<Reverse<(u64, usize, Due)>> = BinaryHeap::new();
    let mut flows: Vec<Flow> = Vec::new();
    for number in 0..parallel {
        due.push(Reverse((
            u64::from(number) * 1_700_003,
            number as usize,
            Due::Open(0),
        )));
        flows.push(Flow::new(number));
    }
    let mut next_number = parallel;
    let mut again: VecDeque<u32> = VecDeque::new();
    while let Some(Reverse((now, place, what))) = due.pop() {
        file.time_ns = now;
        let flow = &mut flows[place];
        let (stamp, base) = ((now / 1_000_000) as u32, flow.base);
        let byte = |segment: u32| {
            base.wrapping_add(1)
                .wrapping_add(segment.wrapping_mul(SEGMENT))
        };
        let data = |segment: u32| Segment {
            port: flow.port,
            from_client: true,
            seq: byte(segment),
            ack: 1001,
            flags: 0x10,
            length: SEGMENT,
            sack: None,
            stamp,
            echo: stamp.wrapping_sub(4),
        };
        match what {
            Due::Open(step) => {
                let bare = |from_client, seq, ack, flags| Segment {
                    from_client,
                    seq,
                    ack,
                    flags,
                    length: 0,
                    ..data(0)
                };
                file.write(&match step {
                    0 => bare(true, base, 0, 2),
                    1 => bare(false, 1000, base.wrapping_add(1), 0x12),
                    _ => bare(true, base.wrapping_add(1), 1001, 0x10),
                })?;
                let (wait, next) = match step {
                    0 => (2 * ONE_WAY_NS, Due::Open(1)),
                    1 => (10_000, Due::Open(2)),
                    _ => (GAP_NS, Due::Send),
                };
                due.push(Reverse((now + wait, place, next)));
                if step == 2 {
                    flow.sending = true;
                    due.push(Reverse((now + TIMEOUT_NS, place, Due::Timeout(0))));
                }
            }
            Due::Send => {
                flow.sending = flow.next < SEGMENTS && flow.next - flow.una < WINDOW;
                if !flow.sending {
                    continue;
                }
                let segment = data(flow.next);
                file.write(&segment)?;
                if !random.one_in(LOST) {
                    let late = if random.one_in(OVERTAKEN) {
                        5 * GAP_NS
                    } else {
                        0
                    };
                    due.push(Reverse((
                        now + ONE_WAY_NS + late,
                        place,
                        Due::Arrive(flow.next),
                    )));
                }
                flow.next += 1;
                due.push(Reverse((now + GAP_NS, place, Due::Send)));
            }
            Due::Arrive(segment) => {
                let behind = flow.expected;
                if segment == flow.expected {
                    flow.expected += 1;
                    while flow.arrived.remove(&flow.expected).is_some() {
                        flow.expected += 1;
                    }
                } else if segment > flow.expected {
                    flow.arrived.insert(segment, ());
                }
                flow.unacknowledged += 1;
                let in_order = flow.expected == behind + 1 && flow.arrived.is_empty();
                if in_order && flow.unacknowledged < 2 && flow.expected < SEGMENTS {
                    continue;
                }
                flow.unacknowledged = 0;
                // The block with the segment that came, or the first one there is.
                let within = if segment > flow.expected {
                    Some(segment)
                } else {
                    flow.arrived.keys().next().copied()
                };
                let (first, last) = within.map_or((0, 0), |within| {
                    let (mut first, mut last) = (within, within + 1);
                    while flow.arrived.contains_key(&(first - 1)) {
                        first -= 1;
                    }
                    while flow.arrived.contains_key(&last) {
                        last += 1;
                    }
                    (first, last)
                });
                due.push(Reverse((
                    now + ONE_WAY_NS,
                    place,
                    Due::Ack(flow.expected, first, last),
                )));
            }
            Due::Ack(expected, first, last) => {
                file.truth.acks += 1;
                file.write(&Segment {
                    from_client: false,
                    seq: 1001,
                    ack: byte(expected),
                    length: 0,
                    sack: (last > 0).then(|| (byte(first), byte(last))),
                    echo: stamp.wrapping_sub(8),
                    ..data(0)
                })?;
                if expected > flow.una {
                    flow.una = expected;
                    flow.duplicates = 0;
                    // A partial acknowledgement: the next hole.
                    if expected < flow.recovered_until && last > 0 {
                        again.push_back(expected);
                    }
                } else if last > 0 {
                    flow.duplicates += 1;
                    if flow.duplicates == THRESHOLD && flow.una >= flow.recovered_until {
                        again.push_back(flow.una);
                        flow.recovered_until = flow.next;
                    }
                }
                while let Some(segment) = again.pop_front() {
                    file.truth.retransmitted += 1;
                    file.write(&data(segment))?;
                    due.push(Reverse((now + ONE_WAY_NS, place, Due::Arrive(segment))));
                }
                if flow.una >= SEGMENTS {
                    if file.truth.packets < packets {
                        *flow = Flow::new(next_number);
                        next_number += 1;
                        due.push(Reverse((now + GAP_NS, place, Due::Open(0))));
                    }
                } else if !flow.sending && flow.next - flow.una < WINDOW {
                    flow.sending = true;
                    due.push(Reverse((now, place, Due::Send)));
                }
            }
            Due::Timeout(una) => {
                if flow.una >= SEGMENTS || flow.next == 0 {
                    continue;
                }
                if flow.una == una && flow.next > una {
                    file.truth.retransmitted += 1;
                    file.write(&data(una))?;
                    flow.recovered_until = flow.next;
                    due.push(Reverse((now + ONE_WAY_NS, place, Due::Arrive(una))));
                }
                due.push(Reverse((now + TIMEOUT_NS, place, Due::Timeout(flow.una))));
            }
        }
    }
    Ok(file.truth)
}
