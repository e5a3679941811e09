//! Records as typed events.

use vpnbench_common::catalog::Kind;
use vpnbench_common::event;
use vpnbench_common::header::Header;

macro_rules! events {
    ($($name:ident,)*) => {
        /// A record of a trace, one variant per kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Event<'a> {
            $( #[doc = concat!("A [`event::", stringify!($name), "`] record.")] $name(&'a event::$name), )*
        }

        impl<'a> Event<'a> {
            /// The event in a record; `None` if the kind is unknown or the size is not that of the kind.
            #[inline]
            #[must_use]
            pub fn from_record(record: &'a [u64]) -> Option<Self> {
                let kind = (*record.get(1)? >> 48) as u8;
                let bytes: &[u8] = bytemuck::cast_slice(record);
                $( if kind == Kind::$name as u8 {
                    return bytemuck::try_from_bytes(bytes).ok().map(Event::$name);
                } )*
                None
            }

            /// Size of our record of a kind in 8-byte words, 0 if the kind is unknown.
            #[inline]
            pub(super) fn words_of(kind: u8) -> usize {
                $( if kind == Kind::$name as u8 {
                    return size_of::<event::$name>() / 8;
                } )*
                0
            }

            /// Time, place and type.
            #[must_use]
            pub fn header(&self) -> &'a Header {
                match self { $( Event::$name(event) => &event.header, )* }
            }

            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $( Event::$name(_) => Kind::$name, )* }
            }

            /// The record as it came from the kernel.
            #[must_use]
            pub fn bytes(&self) -> &'a [u8] {
                match self { $( Event::$name(event) => bytemuck::bytes_of(*event), )* }
            }
        }
    };
}

events! {
    Packet, Taken, Drop, SockDrop, TcpProbe, Retransmit, SynAckRetransmit, CongState, SockState, LostMark,
    Syscall, IoUring, Switch, Wakeup, Softirq, Task, Sample, Payload,
}

impl<'a> Event<'a> {
    /// The event at the front of records one behind another; `None` if its kind is unknown.
    #[inline]
    pub(crate) fn first(records: &'a [u64]) -> Option<Self> {
        let size = Event::words_of((*records.get(1)? >> 48) as u8);
        Event::from_record(records.get(..size)?)
    }

    /// `CLOCK_MONOTONIC` in ns.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.header().time_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vpnbench_common::catalog::KINDS;

    #[test]
    fn every_kind_has_a_variant() {
        for row in KINDS {
            let mut record = vec![0u64; row.size / 8];
            record[0] = 17;
            record[1] = (row.kind as u64) << 48;
            let event = Event::from_record(&record).expect(row.name);
            assert_eq!((event.kind(), event.time_ns()), (row.kind, 17));
            assert_eq!(event.bytes(), bytemuck::cast_slice::<u64, u8>(&record));
            assert_eq!(Event::from_record(&record[1..]), None);
        }
        assert_eq!(Event::from_record(&[]), None);
        assert_eq!(Event::from_record(&[0, 255 << 48]), None);
    }
}
