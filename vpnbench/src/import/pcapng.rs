//! pcapng (draft-ietf-opsawg-pcapng): blocks whose length stands at both ends, by which they are found
//! again behind damage. Sections may differ in byte order; each has its own interfaces.

use pcap_parser::pcapng::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, InterfaceStatisticsBlock,
};
use pcap_parser::{Block, OptionCode, PcapNGOption, parse_block_be, parse_block_le};

use super::record::{Head, Interface, Step};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// The packet block of old files.
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// Byte-order magic of a section.
const ORDER: u32 = 0x1a2b_3c4d;
/// A longer block is taken for damage.
const BLOCK_MAX: u32 = 16 << 20;
/// Interfaces of a file beyond which packets are not told apart.
const INTERFACES_MAX: usize = 1 << 16;
/// More lost packets than this are damage; sums over interfaces and files must fit.
const DROPPED_MAX: u64 = 1 << 40;

/// State of a pcapng file.
#[derive(Debug, Default)]
pub(super) struct PcapNg {
    big_endian: bool,
    /// Number of the section's first interface among all of the file.
    base: usize,
    /// All interfaces of the file, in order.
    pub(super) interfaces: Vec<Interface>,
    /// Packets that the capturing program says it lost, per interface.
    pub(super) dropped: Vec<u64>,
}

impl PcapNg {
    /// Whether a file begins like this.
    pub(super) fn begin(bytes: &[u8]) -> Option<PcapNg> {
        let file = PcapNg::default();
        (file.word(bytes, 0)? == SECTION && order(bytes).is_some()).then_some(file)
    }

    /// Bytes to look at for a whole block, as far as its header tells.
    pub(super) fn needed(&self, bytes: &[u8]) -> usize {
        match self.length(bytes) {
            Some(length) if length <= BLOCK_MAX => length.max(12) as usize,
            _ => 12,
        }
    }

    fn word(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn length(&self, bytes: &[u8]) -> Option<u32> {
        if self.word(bytes, 0)? == SECTION {
            let big_endian = order(bytes)?;
            return PcapNg {
                big_endian,
                ..PcapNg::default()
            }
            .word(bytes, 4);
        }
        self.word(bytes, 4)
    }

    /// The block at the beginning of `bytes`, which are all there is if they are fewer than
    /// [`PcapNg::needed`].
    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        if bytes.is_empty() {
            return Step::End;
        }
        if bytes.len() < 12 {
            return Step::Cut;
        }
        if self.word(bytes, 0) == Some(SECTION) {
            match order(bytes) {
                Some(big_endian) => self.big_endian = big_endian,
                None => return Step::Damaged("a section has no byte order"),
            }
        }
        let Some(length) = self.word(bytes, 4) else {
            return Step::Cut;
        };
        if !(12..=BLOCK_MAX).contains(&length) || !length.is_multiple_of(4) {
            return Step::Damaged("a block's length makes no sense");
        }
        let size = length as usize;
        if bytes.len() < size {
            return Step::Cut;
        }
        if self.word(bytes, size - 4) != Some(length) {
            return Step::Damaged("the lengths at both ends of a block differ");
        }
        self.block(&bytes[..size])
    }

    fn block(&mut self, bytes: &[u8]) -> Step {
        let size = bytes.len();
        if self.word(bytes, 0) == Some(OLD_PACKET) {
            return self.old_packet(bytes);
        }
        let parsed = if self.big_endian {
            parse_block_be(bytes)
        } else {
            parse_block_le(bytes)
        };
        let Ok((_, block)) = parsed else {
            return Step::Unreadable(size, "a block contradicts its own length");
        };
        match block {
            Block::EnhancedPacket(packet) => return self.packet(&packet, size),
            Block::SimplePacket(packet) => {
                let first = self.interfaces.get(self.base);
                let snap = first.map_or(0, |one| one.snap_length);
                let limit = if snap == 0 { u32::MAX } else { snap };
                let captured = packet.origlen.min(limit).min(size as u32 - 16);
                return Step::Packet(Head {
                    time_ns: None,
                    interface: self.base as u32,
                    original: packet.origlen,
                    data: 12..12 + captured as usize,
                    size,
                    outgoing: None,
                });
            }
            Block::SectionHeader(_) => self.base = self.interfaces.len(),
            Block::InterfaceDescription(one) if self.interfaces.len() < INTERFACES_MAX => {
                self.interfaces.push(interface(&one, self.big_endian));
                self.dropped.push(0);
            }
            Block::InterfaceStatistics(one) => self.statistics(&one),
            _ => {}
        }
        Step::Other(size)
    }

    fn packet(&self, packet: &EnhancedPacketBlock<'_>, size: usize) -> Step {
        let number = self.base + packet.if_id as usize;
        let Some(interface) = self.interfaces.get(number) else {
            return Step::Unreadable(size, "a packet of an interface that is not described");
        };
        if packet.caplen as usize > packet.data.len() {
            return Step::Unreadable(size, "a packet is longer than its block");
        }
        let flags = packet
            .options
            .iter()
            .find(|option| option.code == OptionCode(2))
            .and_then(|option| self.word(option.value(), 0));
        Step::Packet(Head {
            time_ns: time(interface, packet.ts_high, packet.ts_low),
            interface: number as u32,
            original: packet.origlen.max(packet.caplen),
            data: 28..28 + packet.caplen as usize,
            size,
            // epb_flags, bits 0 and 1: 1 inbound, 2 outbound.
            outgoing: match flags.map(|flags| flags & 3) {
                Some(1) => Some(false),
                Some(2) => Some(true),
                _ => None,
            },
        })
    }

    /// The obsolete packet block (appendix A of the draft).
    fn old_packet(&self, bytes: &[u8]) -> Step {
        let size = bytes.len();
        let word = |at| self.word(bytes, at);
        let (Some(first), Some(high), Some(low), Some(captured), Some(original)) =
            (word(8), word(12), word(16), word(20), word(24))
        else {
            return Step::Unreadable(size, "a packet block is too short");
        };
        let id = if self.big_endian {
            first >> 16
        } else {
            first & 0xffff
        };
        let number = self.base + id as usize;
        let Some(interface) = self.interfaces.get(number) else {
            return Step::Unreadable(size, "a packet of an interface that is not described");
        };
        if captured as usize > size.saturating_sub(32) {
            return Step::Unreadable(size, "a packet is longer than its block");
        }
        Step::Packet(Head {
            time_ns: time(interface, high, low),
            interface: number as u32,
            original: original.max(captured),
            data: 28..28 + captured as usize,
            size,
            outgoing: None,
        })
    }

    fn statistics(&mut self, block: &InterfaceStatisticsBlock<'_>) {
        let count = |code: u16| {
            let mut options = block.options.iter();
            self.long(options.find(|option| option.code == OptionCode(code))?)
        };
        // isb_ifdrop and isb_osdrop.
        let dropped = count(5).unwrap_or(0).saturating_add(count(7).unwrap_or(0));
        let dropped = dropped.min(DROPPED_MAX);
        if let Some(sum) = self.dropped.get_mut(self.base + block.if_id as usize) {
            *sum = (*sum).max(dropped);
        }
    }

    fn long(&self, option: &PcapNGOption<'_>) -> Option<u64> {
        let bytes = option.value().get(..8)?.try_into().ok()?;
        let value = if self.big_endian {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        };
        // All bits set means unknown.
        (value != u64::MAX).then_some(value)
    }

    /// Whether blocks may begin again here. `None` if more bytes are needed to tell.
    pub(super) fn resumes(&self, bytes: &[u8]) -> Option<bool> {
        const KNOWN: [u32; 6] = [
            SECTION,
            INTERFACE,
            OLD_PACKET,
            SIMPLE_PACKET,
            STATISTICS,
            PACKET,
        ];
        let kind = self.word(bytes, 0).unwrap_or(0);
        if !KNOWN.contains(&kind) || (kind == SECTION && order(bytes).is_none()) {
            return Some(false);
        }
        let length = self.length(bytes).unwrap_or(0);
        if !(12..=BLOCK_MAX).contains(&length) || !length.is_multiple_of(4) {
            return Some(false);
        }
        if bytes.len() < length as usize {
            return None;
        }
        let end = length as usize - 4;
        Some(bytes[4..8] == bytes[end..end + 4])
    }
}

/// Byte order of a section: whether it is big-endian.
fn order(bytes: &[u8]) -> Option<bool> {
    let magic: [u8; 4] = bytes.get(8..12)?.try_into().ok()?;
    if magic == ORDER.to_le_bytes() {
        Some(false)
    } else {
        (magic == ORDER.to_be_bytes()).then_some(true)
    }
}

fn interface(block: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Interface {
    let name = block.if_name().and_then(Result::ok);
    let four = block.if_ipv4addr().and_then(Result::ok);
    let four = four
        .into_iter()
        .flatten()
        .map(|(address, _)| address.into());
    let six = block.options.iter().filter_map(|option| {
        let bytes: [u8; 16] = option.value().get(..16)?.try_into().ok()?;
        // if_IPv6addr; the library reads it under the code of IPv4.
        (option.code == OptionCode(5)).then(|| bytes.into())
    });
    Interface {
        link: block.linktype.0 as u32 & 0xffff,
        snap_length: block.snaplen,
        name: name.map(|name| name.trim_end_matches('\0').to_owned()),
        addresses: four.chain(six).collect(),
        ticks_per_s: ticks_per_s(block.if_tsresol),
        // The library reads it as little-endian in any section.
        offset_s: if big_endian {
            block.if_tsoffset.swap_bytes()
        } else {
            block.if_tsoffset
        },
    }
}

/// Unix time in ns.
fn time(interface: &Interface, high: u32, low: u32) -> Option<u64> {
    let ticks = u64::from(high) << 32 | u64::from(low);
    let ns = match interface.ticks_per_s {
        0 | 1_000_000 => ticks.checked_mul(1000)?,
        1_000_000_000 => ticks,
        rate => u64::try_from(u128::from(ticks) * 1_000_000_000 / u128::from(rate)).ok()?,
    };
    ns.checked_add_signed(interface.offset_s.checked_mul(1_000_000_000)?)
        .filter(|ns| i64::try_from(*ns).is_ok())
}

/// `if_tsresol`: 10^n, or 2^n with the highest bit set; 0 for what does not fit. The library's own
/// function knows no powers of two.
fn ticks_per_s(resolution: u8) -> u64 {
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(u32::from(resolution & 0x7f)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interface in a section of either byte order: 2^20 ticks per second, 5 s behind.
    fn described(big_endian: bool) -> Interface {
        let word = |value: u32| match big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let half = |value: u16| match big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let mut block = [word(INTERFACE), word(44)].concat();
        block.extend([half(1), half(0)].concat());
        block.extend(word(65_535));
        // if_tsresol and if_tsoffset.
        block.extend([half(9), half(1)].concat());
        block.extend([0x80 | 20, 0, 0, 0]);
        block.extend([half(14), half(8)].concat());
        let offset = 5u64;
        block.extend(match big_endian {
            true => offset.to_be_bytes(),
            false => offset.to_le_bytes(),
        });
        block.extend(word(0));
        block.extend(word(44));
        let parsed = match big_endian {
            true => parse_block_be(&block),
            false => parse_block_le(&block),
        };
        match parsed {
            Ok((_, Block::InterfaceDescription(one))) => interface(&one, big_endian),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clocks_tick_as_their_interface_says_in_either_byte_order() {
        for big_endian in [false, true] {
            let one = described(big_endian);
            assert_eq!((one.ticks_per_s, one.offset_s), (1 << 20, 5));
            assert_eq!(time(&one, 0, 3 << 19), Some(6_500_000_000));
        }
        assert_eq!(ticks_per_s(6), 1_000_000);
        assert_eq!(ticks_per_s(9), 1_000_000_000);
        assert_eq!([ticks_per_s(0xff), ticks_per_s(20)], [0, 0]);
    }

    #[test]
    fn times_that_no_clock_has_are_none() {
        let one = Interface {
            ticks_per_s: 1_000_000_000,
            offset_s: 0,
            ..described(false)
        };
        assert_eq!(time(&one, u32::MAX, u32::MAX), None);
    }
}
