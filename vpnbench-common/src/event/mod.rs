//! One payload struct per file. Integers are in host byte order unless a name says otherwise;
//! there is no implicit padding; a value the kernel version does not offer is all ones of its
//! type where zero is a legal value, and 0 otherwise, as each field says.

mod cong;
mod drop;
mod packet;
mod payload;
mod retransmit;
mod sample;
mod sched;
mod sock;
mod syscall;
mod taken;
mod task;
mod tcp;

pub use cong::CongState;
pub use drop::{Drop, SockDrop};
pub use packet::{Packet, flags as packet_flags};
pub use payload::{PAYLOAD_MAX, Payload};
pub use retransmit::{Retransmit, STACK_DEPTH, SynAckRetransmit};
pub use sample::{SAMPLE_DEPTH, Sample};
pub use sched::{Softirq, Switch, Wakeup};
pub use sock::SockState;
pub use syscall::{IoUring, Syscall};
pub use taken::Taken;
pub use task::{Task, what as task_what};
pub use tcp::{LostMark, TcpProbe};
