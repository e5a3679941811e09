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
            /// The event at the front of records one behind another, and what follows it; `None` if its kind is
            /// unknown or there is less of it than its kind has.
            #[inline]
            pub(crate) fn split_first(records: &'a [u64]) -> Option<(Self, &'a [u64])> {
                match (*records.get(1)? >> 48) as u8 {
                    $( kind if kind == Kind::$name as u8 => {
                        let (record, rest) = records.split_at_checked(size_of::<event::$name>() / 8)?;
                        let event = bytemuck::from_bytes(bytemuck::cast_slice(record));
                        Some((Event::$name(event), rest))
                    } )*
                    _ => None,
                }
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
    /// The event in a record; `None` if the kind is unknown or the size is not that of the kind.
    #[must_use]
    pub fn from_record(record: &'a [u64]) -> Option<Self> {
        let (event, rest) = Event::split_first(record)?;
        rest.is_empty().then_some(event)
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
