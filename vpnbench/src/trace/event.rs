//! One record, typed.

use vpnbench_common::catalog::Kind;
use vpnbench_common::event;
use vpnbench_common::header::Header;

macro_rules! events {
    ($($name:ident),* $(,)?) => {
        /// A record of the trace, borrowed and typed by its kind.
        #[derive(Debug, Clone, Copy)]
        #[expect(missing_docs, reason = "each variant is the event of that name")]
        pub enum Event<'a> { $( $name(&'a event::$name), )* }

        impl<'a> Event<'a> {
            /// The event in a record, if its kind is known and the size fits.
            #[must_use]
            pub fn from_record(record: &'a [u64]) -> Option<Event<'a>> {
                let bytes: &[u8] = bytemuck::cast_slice(record);
                let kind = *bytes.get(core::mem::offset_of!(Header, kind))?;
                $( if kind == Kind::$name as u8 {
                    return bytemuck::try_from_bytes(bytes).ok().map(Event::$name);
                } )*
                None
            }

            /// Time, CPU, thread and probe.
            #[must_use]
            pub fn header(&self) -> &'a Header {
                match self { $( Event::$name(event) => &event.header, )* }
            }
        }
    };
}

events!(
    Packet,
    Taken,
    Drop,
    SockDrop,
    TcpProbe,
    Retransmit,
    SynAckRetransmit,
    CongState,
    SockState,
    LostMark,
    Syscall,
    IoUring,
    Switch,
    Wakeup,
    Softirq,
    Task,
    Sample,
    Payload,
);
