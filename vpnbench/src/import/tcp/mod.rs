//! TCP as the hosts of the captures saw it: what reaches a socket and what a sender sends again, as the
//! events that the kernel's probes would have made. Fields of a socket's state that no packet tells are
//! 0; the trace says of each namespace that it was captured, and analyses leave such fields alone.

mod sender;

use bytemuck::Zeroable as _;
use vpnbench_common::catalog::{Kind, ProbeId};
use vpnbench_common::event::{self, packet_flags};
use vpnbench_common::header::Header;

use super::headers::Options;
use crate::rows::Rows;
use crate::trace::Event;
use sender::{Cause, Conclusion, RECOVERY, Sender};

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 0x10;
/// `TCP_ESTABLISHED`, `TCP_SYN_SENT`
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
/// `ICSK_TIME_RETRANS`
const PENDING_RETRANS: u8 = 1;
/// Sockets that are followed at a time.
const SOCKETS_MAX: usize = 8192;
/// Where there is no room, sockets of which nothing was seen for so long are taken to be closed, ns
/// (`TCP_TIMEWAIT_LEN`).
const IDLE_NS: u64 = 60_000_000_000;
/// The same for sockets of which both ends have sent their last byte.
const CLOSED_NS: u64 = 1_000_000_000;
/// How often room is looked for, ns.
const LOOK_NS: u64 = 100_000_000;
/// Congestion window of a socket whose window is not known: none that would hold it back.
const WINDOW: u32 = 1 << 20;
/// Segment size without a handshake or a full segment.
const SEGMENT: u32 = 1448;

/// A socket: one end of a connection on one host. Addresses as numbers, which are hashed and compared quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    local: u128,
    remote: u128,
    ports: (u16, u16),
    netns: u32,
    version: u8,
}

impl Key {
    #[inline]
    fn new(packet: &event::Packet, local: ([u8; 16], u16), remote: ([u8; 16], u16)) -> Key {
        Key {
            local: u128::from_ne_bytes(local.0),
            remote: u128::from_ne_bytes(remote.0),
            ports: (local.1, remote.1),
            netns: packet.netns,
            version: packet.ip_version,
        }
    }

    fn hint(&self) -> u32 {
        u32::from(self.ports.0) ^ u32::from(self.ports.1) << 3
    }
}

#[derive(Debug, Default)]
struct Socket {
    number: u64,
    sender: Sender,
    /// Unwraps what this end sends.
    places: Places,
    /// Sequence number expected next from the other end.
    expects: Option<u32>,
    syn: Option<u32>,
    syn_answer: Option<u32>,
    /// Segment size that the other end announced.
    mss: Option<u16>,
    /// Bytes of options in segments with data.
    options: u32,
    largest: u32,
    /// Last segment, ns.
    last_ns: u64,
    /// Whether this end and the other one have sent a FIN.
    finished: [bool; 2],
}

/// Sequence numbers as a running count, from the first one seen.
#[derive(Debug, Default)]
struct Places {
    base: Option<(u32, u64)>,
}

impl Places {
    fn of(&mut self, number: u32) -> u64 {
        // Room below the first number for what is older; the lower half is the number itself.
        let first = (number, 1 << 32 | u64::from(number));
        let (last, place) = *self.base.get_or_insert(first);
        let distance = number.wrapping_sub(last) as i32;
        let found = place.saturating_add_signed(distance.into());
        if distance > 0 {
            self.base = Some((number, found));
        }
        found
    }
}

/// How sure the causes are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sureness {
    /// Retransmissions.
    pub(super) all: u64,
    /// Those of which timing alone told the cause.
    pub(super) close: u64,
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Tcp {
    sockets: Rows<Key, Box<Socket>>,
    numbers: u64,
    pub(super) sureness: Sureness,
    pub(super) unfollowed: u64,
    /// When room was last looked for, ns.
    looked_ns: u64,
}

impl Tcp {
    fn socket(&mut self, key: Key, now: u64) -> Option<&mut Socket> {
        let row = match self.sockets.find(&key, key.hint()) {
            Some(row) => row,
            None => {
                if self.sockets.len() >= SOCKETS_MAX && !self.make_room(now) {
                    self.unfollowed += 1;
                    return None;
                }
                self.numbers += 1;
                let fresh = Socket {
                    number: self.numbers,
                    ..Socket::default()
                };
                self.sockets.add(key, Box::new(fresh))
            }
        };
        let socket = self.sockets.at(row)?;
        socket.last_ns = now;
        Some(socket)
    }

    /// Forgets sockets that are closed, as far as packets tell; whether there were any.
    fn make_room(&mut self, now: u64) -> bool {
        if self.looked_ns != 0 && now < self.looked_ns + LOOK_NS {
            return false;
        }
        self.looked_ns = now;
        let over = |one: &Socket| {
            let silent = now.saturating_sub(one.last_ns);
            silent >= IDLE_NS || silent >= CLOSED_NS && one.finished == [true; 2]
        };
        let all = self.sockets.iter();
        let over: Vec<Key> = all
            .filter(|(_, one)| over(one))
            .map(|(key, _)| *key)
            .collect();
        for key in &over {
            self.sockets.remove(key);
        }
        !over.is_empty()
    }

    /// A segment leaves its host: events that come before it.
    pub(super) fn leaves(
        &mut self,
        packet: &event::Packet,
        options: &Options,
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        let (from, to) = ends(packet);
        let key = Key::new(packet, from, to);
        if packet.tcp_flags & (SYN | ACK) == SYN {
            // The same number behind data is another connection all the same.
            let known = self.sockets.get(&key, key.hint());
            let known = known.filter(|one| one.sender.nxt == 0);
            let again = known.is_some_and(|one| one.syn == Some(packet.seq));
            if !again {
                self.sockets.remove(&key);
            }
        }
        let mut sureness = self.sureness;
        if let Some(socket) = self.socket(key, packet.header.time_ns) {
            socket.finished[0] |= packet.tcp_flags & FIN != 0;
            socket.leaves(packet, options, &mut sureness, &key, deliver);
        }
        self.sureness = sureness;
        if packet.tcp_flags & RST != 0 {
            self.sockets.remove(&key);
        }
    }

    /// A segment reaches its host: events that come behind it.
    pub(super) fn arrives(
        &mut self,
        packet: &event::Packet,
        options: &Options,
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        let (from, to) = ends(packet);
        let key = Key::new(packet, to, from);
        if packet.tcp_flags & (SYN | ACK) == SYN {
            let same = self.sockets.get(&key, key.hint());
            let same = same.and_then(|one| one.expects);
            if same != Some(packet.seq.wrapping_add(1)) {
                self.sockets.remove(&key);
            }
        }
        if let Some(socket) = self.socket(key, packet.header.time_ns) {
            socket.finished[1] |= packet.tcp_flags & FIN != 0;
            socket.arrives(packet, options, &key, deliver);
        }
    }
}

/// Addresses and ports of source and destination.
fn ends(packet: &event::Packet) -> (([u8; 16], u16), ([u8; 16], u16)) {
    ((packet.saddr, packet.sport), (packet.daddr, packet.dport))
}

fn header(packet: &event::Packet, kind: Kind, probe: ProbeId) -> Header {
    Header {
        time_ns: packet.header.time_ns,
        tid: 0,
        cpu: 0,
        kind: kind as u8,
        probe: probe as u8,
    }
}

/// Fields of the socket's state that packets tell.
macro_rules! state {
    ($event:ident, $socket:ident, $key:ident) => {
        ($event.sk, $event.netns) = ($socket.number, $key.netns);
        ($event.laddr, $event.raddr) = ($key.local.to_ne_bytes(), $key.remote.to_ne_bytes());
        ($event.lport, $event.rport) = $key.ports;
        $event.ip_version = $key.version;
        $event.state = ESTABLISHED;
        $event.ca_state = $socket.sender.ca_state;
        $event.snd_una = $socket.sender.una as u32;
        $event.snd_nxt = $socket.sender.nxt as u32;
        // More is written than was sent, and no window holds it: what limits is not told.
        $event.write_seq = ($socket.sender.nxt as u32).wrapping_add(1);
        $event.snd_cwnd = WINDOW;
        $event.chrono_type = u8::from($socket.sender.nxt > $socket.sender.una);
        $event.rcv_nxt = $socket.expects.unwrap_or(0);
        $event.mss = $socket.segment();
        $event.srtt_8us = $socket.sender.srtt_8us();
        $event.min_rtt_us = ($socket.sender.recent_rtt() / 1000).min(u32::MAX.into()) as u32;
        $event.sacked_out = $socket.sender.sacked_out();
        $event.packets_out = $socket
            .sender
            .segments($socket.sender.nxt.saturating_sub($socket.sender.una));
        $event.reordering = Sender::threshold();
        $event.reord_seen = $socket.sender.reordered;
        $event.high_seq = $socket.sender.high as u32;
        $event.total_retrans = $socket.sender.resent_segments;
        $event.sack_ok = u8::from($socket.sender.sacks);
    };
}

impl Socket {
    /// Bytes per segment: what the other end announced less the options, or the largest seen.
    fn segment(&self) -> u32 {
        let announced = self
            .mss
            .map(|mss| u32::from(mss).saturating_sub(self.options));
        match announced.unwrap_or(0).max(self.largest) {
            0 => SEGMENT,
            size => size,
        }
    }

    fn leaves(
        &mut self,
        packet: &event::Packet,
        options: &Options,
        sureness: &mut Sureness,
        key: &Key,
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        if packet.tcp_flags & ACK != 0 {
            // What is acknowledged has arrived.
            let ahead = |expects: u32| packet.ack.wrapping_sub(expects) as i32 > 0;
            if self.expects.is_none_or(ahead) {
                self.expects = Some(packet.ack);
            }
        }
        if packet.tcp_flags & SYN != 0 {
            self.sender.sacks |= options.sack_permitted;
            return self.opens(packet, key, deliver);
        }
        let fin = u32::from(packet.tcp_flags & FIN != 0);
        let length = packet.payload_len + fin;
        if length == 0 {
            return;
        }
        let now = packet.header.time_ns;
        if packet.gso_segs <= 1 {
            self.largest = self.largest.max(packet.payload_len);
        } else {
            self.largest = self.largest.max(packet.gso_size.into());
        }
        self.options = u32::from(packet.l4_len).saturating_sub(20);
        self.sender.segment = self.segment();
        let start = self.places.of(packet.seq);
        let end = start + u64::from(length);
        let known = self.sender.nxt;
        if known == 0 || start >= known {
            self.places.of(packet.seq.wrapping_add(length));
            return self.sender.sends(now, start, end);
        }
        // Keep-alives and window probes repeat the last byte or less.
        if packet.payload_len <= 1 && fin == 0 && end <= self.sender.una {
            return;
        }
        let again = end.min(known);
        sureness.all += 1;
        let conclusion = self.sender.resends(now, start, again);
        sureness.close += u64::from(conclusion.close);
        if conclusion.enters.is_some() {
            self.entered(packet, &conclusion, key, deliver);
        }
        self.resent(packet, &conclusion, (start, again), key, deliver);
        if end > known {
            self.places.of(packet.seq.wrapping_add(length));
            self.sender.sends(now, known, end);
        }
    }

    /// A SYN, with or without ACK.
    fn opens(&mut self, packet: &event::Packet, key: &Key, deliver: &mut impl FnMut(Event<'_>)) {
        if packet.tcp_flags & ACK != 0 {
            if self.syn_answer == Some(packet.seq) {
                let mut again = event::SynAckRetransmit::zeroed();
                again.header = header(packet, Kind::SynAckRetransmit, ProbeId::TcpRetransmitSynack);
                (again.sk, again.request) = (self.number, self.number);
                (again.netns, again.ip_version) = (key.netns, key.version);
                (again.laddr, again.raddr) = (key.local.to_ne_bytes(), key.remote.to_ne_bytes());
                (again.lport, again.rport) = key.ports;
                again.timeouts = 255;
                deliver(Event::SynAckRetransmit(&again));
            }
            self.syn_answer = Some(packet.seq);
            return;
        }
        if self.syn == Some(packet.seq) {
            let mut again = event::Retransmit::zeroed();
            again.header = header(packet, Kind::Retransmit, ProbeId::TcpRetransmitSkb);
            let socket = &*self;
            state!(again, socket, key);
            (again.state, again.seq, again.end_seq) =
                (SYN_SENT, packet.seq, packet.seq.wrapping_add(1));
            (again.segments, again.tcp_flags) = (1, SYN as u8);
            deliver(Event::Retransmit(&again));
        }
        self.syn = Some(packet.seq);
    }

    fn entered(
        &self,
        packet: &event::Packet,
        conclusion: &Conclusion,
        key: &Key,
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        let mut change = event::CongState::zeroed();
        change.header = header(packet, Kind::CongState, ProbeId::TcpCongStateSet);
        state!(change, self, key);
        change.ca_state = 1;
        change.new = conclusion.enters.unwrap_or(RECOVERY).into();
        deliver(Event::CongState(&change));
    }

    fn resent(
        &self,
        packet: &event::Packet,
        conclusion: &Conclusion,
        (start, end): (u64, u64),
        key: &Key,
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        let mut again = event::Retransmit::zeroed();
        again.header = header(packet, Kind::Retransmit, ProbeId::TcpRetransmitSkb);
        state!(again, self, key);
        again.ca_state = conclusion.ca_state;
        (again.pending, again.retransmits) = match conclusion.cause {
            Cause::Rto => (0, 1),
            Cause::AfterRto | Cause::Clocked => (PENDING_RETRANS, 0),
            Cause::Probe | Cause::RackTimer => (conclusion.pending, 0),
        };
        again.skb = packet.skb;
        again.seq = packet.seq;
        again.end_seq = packet.seq.wrapping_add((end - start) as u32);
        again.len = (end - start) as u32;
        again.segments = self.sender.segments(end - start).clamp(1, u16::MAX.into()) as u16;
        deliver(Event::Retransmit(&again));
    }

    fn arrives(
        &mut self,
        packet: &event::Packet,
        options: &Options,
        key: &Key,
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        if packet.tcp_flags & SYN != 0 {
            self.expects = Some(packet.seq.wrapping_add(1));
            self.mss = options.mss.or(self.mss);
            self.sender.sacks &= options.sack_permitted;
            return;
        }
        if packet.tcp_flags & RST != 0 {
            return;
        }
        let mut probe = event::TcpProbe::zeroed();
        probe.header = header(packet, Kind::TcpProbe, ProbeId::TcpProbe);
        let socket = &*self;
        state!(probe, socket, key);
        probe.skb = packet.skb;
        (probe.seq, probe.ack) = (packet.seq, packet.ack);
        (probe.payload_len, probe.gso_segs) = (packet.payload_len, packet.gso_segs);
        (probe.window, probe.tcp_flags) = (packet.window, packet.tcp_flags);
        if packet.flags & packet_flags::TIMESTAMPS != 0 {
            probe.options = 1;
            (probe.tsval, probe.tsecr) = (packet.tsval, packet.tsecr);
        }
        (probe.sack, probe.sack_count) = (options.sack, options.sack_count);
        probe.dsfield = packet.tos.into();
        deliver(Event::TcpProbe(&probe));
        let length = packet.payload_len + u32::from(packet.tcp_flags & FIN != 0);
        let expected = *self.expects.get_or_insert(packet.seq);
        let end = packet.seq.wrapping_add(length);
        let starts = packet.seq.wrapping_sub(expected) as i32;
        if starts <= 0 && end.wrapping_sub(expected) as i32 > 0 {
            self.expects = Some(end);
        }
        if packet.tcp_flags & ACK == 0 || self.sender.nxt == 0 {
            return;
        }
        let ack = self.places.of(packet.ack);
        let mut blocks = [(0, 0); 4];
        let count = usize::from(options.sack_count.min(4));
        for (block, pair) in blocks
            .iter_mut()
            .zip(options.sack.chunks_exact(2))
            .take(count)
        {
            *block = (self.places.of(pair[0]), self.places.of(pair[1]));
        }
        let now = packet.header.time_ns;
        let pure = packet.payload_len == 0;
        let ended = self.sender.acknowledged(now, ack, &blocks[..count], pure);
        if ended {
            let mut change = event::CongState::zeroed();
            change.header = header(packet, Kind::CongState, ProbeId::TcpCongStateSet);
            let socket = &*self;
            state!(change, socket, key);
            change.ca_state = RECOVERY;
            deliver(Event::CongState(&change));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn segment(time_ns: u64, seq: u32, length: u32, ack: u32) -> event::Packet {
        let mut packet = event::Packet::zeroed();
        packet.header.time_ns = time_ns;
        (packet.ip_version, packet.ip_proto, packet.netns) = (4, 6, 1);
        (packet.seq, packet.payload_len, packet.ack) = (seq, length, ack);
        (packet.tcp_flags, packet.sport, packet.dport) = (ACK, 1, 2);
        packet
    }

    fn answer(time_ns: u64, ack: u32) -> event::Packet {
        let mut packet = segment(time_ns, 500, 0, ack);
        (packet.sport, packet.dport) = (2, 1);
        packet
    }

    /// Names and main fields of events.
    fn text(event: Event<'_>) -> String {
        match event {
            Event::Retransmit(one) => format!(
                "retransmit {}..{} ca {} pending {}",
                one.seq, one.end_seq, one.ca_state, one.pending
            ),
            Event::CongState(one) => format!("state {} sacked {}", one.new, one.sacked_out),
            Event::TcpProbe(one) => format!("ack {} una {}", one.ack, one.snd_una),
            other => format!("{:?}", other.kind()),
        }
    }

    #[test]
    fn a_loss_across_the_wrap_of_sequence_numbers() {
        let mut tcp = Tcp::default();
        let mut found = Vec::new();
        let base = u32::MAX - 1999;
        let none = Options::default();
        for number in 0..5 {
            let packet = segment(
                number * MS,
                base.wrapping_add(number as u32 * 1000),
                1000,
                500,
            );
            tcp.leaves(&packet, &none, &mut |event| found.push(text(event)));
        }
        assert!(found.is_empty());
        for number in 2..5u32 {
            let sack = Options {
                sack: [
                    base.wrapping_add(1000),
                    base.wrapping_add(number * 1000 + 1000),
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ],
                sack_count: 1,
                ..Options::default()
            };
            let packet = answer(20 * MS + u64::from(number), base);
            tcp.arrives(&packet, &sack, &mut |event| found.push(text(event)));
        }
        tcp.leaves(
            &segment(20 * MS + 9000, base, 1000, 500),
            &none,
            &mut |event| {
                found.push(text(event));
            },
        );
        tcp.arrives(
            &answer(40 * MS, base.wrapping_add(5000)),
            &none,
            &mut |event| {
                found.push(text(event));
            },
        );
        let una = base;
        assert_eq!(
            found[3..],
            [
                "state 3 sacked 4".to_owned(),
                format!(
                    "retransmit {base}..{} ca 3 pending 1",
                    base.wrapping_add(1000)
                ),
                format!("ack {} una {una}", base.wrapping_add(5000)),
                "state 0 sacked 0".to_owned(),
            ]
        );
    }

    #[test]
    fn repeated_handshakes_are_retransmissions_and_keep_alives_are_none() {
        let mut tcp = Tcp::default();
        let none = Options::default();
        let mut found = Vec::new();
        let mut syn = segment(0, 7, 0, 0);
        syn.tcp_flags = SYN;
        for time in [0, 1000] {
            syn.header.time_ns = time * MS;
            tcp.leaves(&syn, &none, &mut |event| found.push(text(event)));
        }
        assert_eq!(found, ["retransmit 7..8 ca 0 pending 0"]);
        found.clear();
        let mut both = answer(1001 * MS, 8);
        both.tcp_flags = SYN | ACK;
        tcp.arrives(&both, &none, &mut |event| found.push(text(event)));
        tcp.leaves(&segment(1001 * MS, 8, 100, 501), &none, &mut |event| {
            found.push(text(event));
        });
        tcp.arrives(&answer(1002 * MS, 108), &none, &mut |event| {
            found.push(text(event));
        });
        tcp.leaves(&segment(9000 * MS, 107, 1, 501), &none, &mut |event| {
            found.push(text(event));
        });
        assert_eq!(found, ["ack 108 una 8"], "no retransmission");
    }
}
