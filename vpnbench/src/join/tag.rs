//! Numbers of several machines in one recording: namespaces, processes, addresses of kernel memory and cores of
//! different machines may be equal. All but the first machine's get a tag, which [`plain`] takes off again.

use std::collections::BTreeSet;

use vpnbench_common::catalog::KINDS;

/// Machines that can be told apart.
pub(super) const MACHINES_MAX: usize = 64;
/// Process and thread numbers are below 2^22 (`PID_MAX_LIMIT`, include/linux/threads.h).
const PROCESS_BIT: u32 = 24;
/// Kernel addresses have all bits from 47 on set; the tag flips some.
const ADDRESS_BIT: u32 = 48;
/// Cores of a machine.
const CORES: u16 = 512;

/// Process or thread number without the tag.
#[must_use]
pub fn plain(number: u32) -> u32 {
    number & ((1 << PROCESS_BIT) - 1)
}

/// What a field holds that may be equal on two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Namespace,
    Process,
    Address,
}

/// Which fields of a record are numbers of the machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    by_kind: Vec<Vec<(Class, usize)>>,
}

impl Fields {
    pub(super) fn new() -> Fields {
        let mut by_kind = vec![Vec::new(); 256];
        for row in KINDS {
            let list = &mut by_kind[row.kind as usize];
            for field in row.fields {
                let class = match field.name {
                    "netns" => Class::Namespace,
                    name if name.ends_with("tid") || name.ends_with("tgid") => Class::Process,
                    "skb" | "sk" | "request" | "location" | "stack" | "kernel" => Class::Address,
                    _ => continue,
                };
                let step = if class == Class::Address { 8 } else { 4 };
                let places = (field.offset..field.offset + field.size).step_by(step);
                list.extend(places.map(|place| (class, place)));
            }
        }
        Fields { by_kind }
    }
}

/// One machine's tag.
#[derive(Debug, Clone, Default)]
pub(super) struct Tag {
    number: u32,
    /// Added to numbers of namespaces.
    netns: u32,
}

impl Tag {
    /// The tag of a machine whose namespaces must not be among those taken.
    pub(super) fn new(number: usize, own: &BTreeSet<u32>, taken: &BTreeSet<u32>) -> Tag {
        let number = number as u32;
        let mut netns = 0u32;
        while own
            .iter()
            .any(|one| taken.contains(&one.wrapping_add(netns)))
        {
            netns = netns.wrapping_add(0x0010_0000);
        }
        Tag { number, netns }
    }

    pub(super) fn netns(&self, netns: u32) -> u32 {
        match netns {
            0 => 0,
            netns => netns.wrapping_add(self.netns),
        }
    }

    pub(super) fn process(&self, number: u32) -> u32 {
        match number {
            0 => 0,
            number => number | self.number << PROCESS_BIT,
        }
    }

    pub(super) fn address(&self, address: u64) -> u64 {
        match address {
            0 => 0,
            address => address ^ u64::from(self.number) << ADDRESS_BIT,
        }
    }

    pub(super) fn core(&self, core: u32) -> u32 {
        core + self.number * u32::from(CORES)
    }

    /// Puts the tag on a record.
    pub(super) fn record(&self, fields: &Fields, record: &mut [u64]) {
        if self.number == 0 && self.netns == 0 {
            return;
        }
        let kind = record.get(1).map_or(0, |word| (*word >> 48) as u8);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(record);
        for &(class, place) in &fields.by_kind[usize::from(kind)] {
            match class {
                Class::Address => {
                    if let Some(slot) = bytes.get_mut(place..place + 8) {
                        let value = u64::from_le_bytes(slot.try_into().unwrap_or_default());
                        slot.copy_from_slice(&self.address(value).to_le_bytes());
                    }
                }
                Class::Namespace | Class::Process => {
                    if let Some(slot) = bytes.get_mut(place..place + 4) {
                        let value = u32::from_le_bytes(slot.try_into().unwrap_or_default());
                        let value = match class {
                            Class::Namespace => self.netns(value),
                            _ => self.process(value),
                        };
                        slot.copy_from_slice(&value.to_le_bytes());
                    }
                }
            }
        }
        if let Some(slot) = bytes.get_mut(12..14) {
            let core = u16::from_le_bytes([slot[0], slot[1]]);
            let core = core.wrapping_add(self.number as u16 * CORES);
            slot.copy_from_slice(&core.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use vpnbench_common::catalog::Kind;
    use vpnbench_common::event;

    #[test]
    fn every_number_of_the_machine_gets_the_tag() {
        let own = BTreeSet::from([4_026_531_840]);
        let tag = Tag::new(2, &own, &own);
        let mut event = event::Retransmit::zeroed();
        (event.header.kind, event.header.tid, event.header.cpu) = (Kind::Retransmit as u8, 7, 1);
        (event.netns, event.sk, event.stack[11]) = (4_026_531_840, 0xffff_8880_0000_1000, 9);
        let bytes: &mut [u8] = bytemuck::bytes_of_mut(&mut event);
        let words: &mut [u64] = bytemuck::cast_slice_mut(bytes);
        tag.record(&Fields::new(), words);
        assert_ne!(event.netns, 4_026_531_840);
        assert_eq!(event.netns, tag.netns(4_026_531_840));
        assert_eq!((plain(event.header.tid), event.header.cpu), (7, 1025));
        assert_ne!(event.header.tid, 7);
        assert_ne!(event.sk, 0xffff_8880_0000_1000);
        assert_eq!((event.stack[11], event.stack[10]), (tag.address(9), 0));
        let first = Tag::new(0, &own, &BTreeSet::new());
        assert_eq!(
            (first.netns(5), first.process(5), first.address(5)),
            (5, 5, 5)
        );
    }
}
