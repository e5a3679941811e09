//! Every switch of the reference tunnel. The defaults are the fastest configuration;
//! [`Settings::plain`] is what a simple daemon of the kind tinc or VpnCloud does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::packet::OVERHEAD;

/// Largest payload of one UDP datagram over IPv4 (65535 less 20 and 8 bytes of headers).
const UDP_LARGEST: u32 = 65_507;
/// Least MTU at which IPv6 works on a device (RFC 8200 section 5).
const MTU_LEAST: u32 = 1280;
/// Least outer MTU (RFC 791: every host takes 576 bytes).
const OUTER_MTU_LEAST: u32 = 576;

/// What the tunnel does, and what goes wrong in it. Both ends get the same unless the lab's
/// scenario gives one of them other values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Settings {
    /// Read TCP and UDP super-packets from the tunnel device (IFF_VNET_HDR with TUN_F_TSO4, TSO6,
    /// and USO4, USO6 from Linux 6.2 on) and cut them into packets. Off: the kernel hands over
    /// single packets.
    pub tun_gso: bool,
    /// Coalesce packets of one flow into super-packets before they are written to the device. Off:
    /// one write per packet.
    pub tun_gro: bool,
    /// Queues of the tunnel device (IFF_MULTI_QUEUE), each read by a thread of its own; more than 1
    /// needs `threads = "per_direction"`. The kernel puts each flow into one queue.
    pub tun_queues: usize,
    /// Length of the device's transmit queue in skb units; without it the kernel's 500.
    pub txqueuelen: Option<u32>,
    /// MTU of the tunnel device in bytes, 1280 to 65535.
    pub mtu: u32,
    /// Most packets taken from the device before they are passed on.
    pub read_batch: usize,
    /// Send runs of equally long datagrams as one UDP_SEGMENT message.
    pub outer_gso: bool,
    /// Let the kernel coalesce received datagrams (UDP_GRO).
    pub outer_gro: bool,
    /// Most datagrams handed to one sendmmsg (or one UDP_SEGMENT message, at most 64).
    pub send_batch: usize,
    /// Most messages taken by one recvmmsg, 1 to 32.
    pub receive_batch: usize,
    /// SO_SNDBUF of the outer socket in bytes (the kernel doubles it); without it the kernel's
    /// default. Beyond the kernel's maximum as root.
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF of the outer socket, likewise.
    pub receive_buffer: Option<usize>,
    /// How the work is spread over threads.
    pub threads: Threads,
    /// Workers that encrypt, and as many that decrypt, with `threads = "pipeline"`.
    pub workers: usize,
    /// Whether packets leave a pipeline in the order in which they came.
    pub order: Order,
    /// Packets in a row that one worker of a pipeline gets.
    pub worker_run: usize,
    /// One lock per peer, held from encryption to the end of the send: threads wait for each other
    /// and packets leave one at a time.
    pub peer_lock: PeerLock,
    /// Packets that fit into each queue between the threads of a pipeline.
    pub queue_depth: usize,
    /// What happens to a packet that finds such a queue full.
    pub queue_full: QueueFull,
    /// What happens to packets that are larger than `outer_mtu` allows.
    pub fragmentation: Fragmentation,
    /// Largest outer IP packet in bytes that `fragmentation = "own"` makes.
    pub outer_mtu: u32,
    /// What carries the packets between the ends.
    pub transport: Transport,
    /// Most outer bits a second (UDP payload); sends wait for their time. Without it none waits.
    pub pacing: Option<u64>,
    /// Threads look for work without pause instead of sleeping until there is some.
    pub busy_poll: bool,
    /// Encrypt and authenticate packets. Off: they are as long and nothing is hidden or checked, which shows what the rest
    /// costs.
    pub encrypt: bool,
    /// Start of all random choices; the same seed and traffic make the same choices.
    pub seed: u64,
    /// Write each packet's fate to a file beside the account.
    pub truth_log: bool,
    /// What goes wrong, per direction.
    pub faults: Faults,
}

/// How the work is spread over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Threads {
    /// One thread does everything, both ways.
    Single,
    /// One thread from the device to the socket, one from the socket to the device.
    PerDirection,
    /// In each direction a thread that reads, `workers` that encrypt or decrypt, one that writes.
    Pipeline,
}

/// Whether parallel workers may overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The last stage restores the order of the first.
    Ordered,
    /// Packets leave as they are ready: the tunnel reorders.
    Unordered,
}

/// Who holds the peer's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerLock {
    /// There is none.
    None,
    /// Encryption and send.
    Transmit,
    /// Encryption and send, decryption and write, under the same lock.
    Both,
}

/// What a full internal queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueFull {
    /// The packet is lost.
    Drop,
    /// The stage before waits, and the device's queue fills.
    Block,
}

/// What happens to packets that are too large for one outer packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fragmentation {
    /// The tunnel cuts them into datagrams that fit `outer_mtu`; one lost datagram loses all.
    Own,
    /// One datagram; the kernel makes IP fragments (IP_PMTUDISC_DONT).
    Kernel,
    /// One datagram with DF set; the send fails and the packet is lost (IP_PMTUDISC_PROBE).
    Forbid,
}

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A datagram for each packet.
    Udp,
    /// One TCP connection.
    Tcp,
    /// One stream of a QUIC connection.
    Quic,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            tun_gso: true,
            tun_gro: true,
            tun_queues: 1,
            txqueuelen: None,
            mtu: 1420,
            read_batch: 128,
            outer_gso: true,
            outer_gro: true,
            send_batch: 64,
            receive_batch: 32,
            send_buffer: Some(7 << 20),
            receive_buffer: Some(7 << 20),
            threads: Threads::PerDirection,
            workers: 2,
            order: Order::Ordered,
            worker_run: 1,
            peer_lock: PeerLock::None,
            queue_depth: 1024,
            queue_full: QueueFull::Block,
            fragmentation: Fragmentation::Own,
            outer_mtu: 1500,
            transport: Transport::Udp,
            pacing: None,
            busy_poll: false,
            encrypt: true,
            seed: 1,
            truth_log: false,
            faults: Faults::default(),
        }
    }
}

impl Settings {
    /// A simple daemon: one thread, one packet at a time, no offload, the kernel's buffers.
    #[must_use]
    pub fn plain() -> Settings {
        Settings {
            tun_gso: false,
            tun_gro: false,
            read_batch: 1,
            outer_gso: false,
            outer_gro: false,
            send_batch: 1,
            receive_batch: 1,
            send_buffer: None,
            receive_buffer: None,
            threads: Threads::Single,
            ..Settings::default()
        }
    }

    /// Reads a scenario's table. The error names the key.
    pub fn from_table(table: &toml::Table) -> Result<Settings, String> {
        let read: Result<Settings, toml::de::Error> = table.clone().try_into();
        let settings = read.map_err(|error| error.to_string().trim().replace('\n', " "))?;
        settings.check()?;
        Ok(settings)
    }

    /// Says which value makes no sense, by its key.
    pub fn check(&self) -> Result<(), String> {
        check_range("mtu", self.mtu, MTU_LEAST..=65_535)?;
        check_range("outer_mtu", self.outer_mtu, OUTER_MTU_LEAST..=65_535)?;
        check_range("tun_queues", self.tun_queues, 1..=16)?;
        check_range("read_batch", self.read_batch, 1..=4096)?;
        check_range("send_batch", self.send_batch, 1..=1024)?;
        check_range(
            "receive_batch",
            self.receive_batch,
            1..=quinn_udp::BATCH_SIZE,
        )?;
        check_range("workers", self.workers, 1..=64)?;
        check_range("worker_run", self.worker_run, 1..=4096)?;
        check_range("queue_depth", self.queue_depth, 1..=1 << 20)?;
        if self.pacing == Some(0) {
            return Err("pacing: 0 would send nothing".to_owned());
        }
        if self.tun_queues > 1 && self.threads != Threads::PerDirection {
            return Err("tun_queues: more than 1 needs threads = \"per_direction\"".to_owned());
        }
        if self.transport == Transport::Quic && self.threads == Threads::Single {
            return Err("threads: a QUIC stream needs per_direction or pipeline".to_owned());
        }
        if self.transport != Transport::Udp && self.tun_queues > 1 {
            return Err("tun_queues: several threads cannot share one stream".to_owned());
        }
        let one_datagram =
            self.transport == Transport::Udp && self.fragmentation != Fragmentation::Own;
        if one_datagram && self.mtu + OVERHEAD as u32 > UDP_LARGEST {
            return Err(format!(
                "mtu: one datagram holds at most {}; use fragmentation = \"own\"",
                UDP_LARGEST - OVERHEAD as u32
            ));
        }
        self.faults.check()
    }
}

fn check_range<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    allowed: std::ops::RangeInclusive<T>,
) -> Result<(), String> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = (allowed.start(), allowed.end());
    Err(format!("{key}: {value} is not between {least} and {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let table = text
            .parse::<toml::Table>()
            .map_err(|error| error.to_string())?;
        Settings::from_table(&table)
    }

    #[test]
    fn an_empty_table_is_the_default() {
        assert_eq!(read(""), Ok(Settings::default()));
        assert_eq!(Settings::plain().check(), Ok(()));
    }

    #[test]
    fn settings_survive_json_and_toml() {
        let settings = read(
            "threads = \"pipeline\"\norder = \"unordered\"\npacing = 1000000\n\
             [faults.transmit]\ndrop_exit = { every = 10 }\nburn_exit = \"3us\"\n",
        );
        let Ok(settings) = settings else {
            panic!("{settings:?}")
        };
        let json = serde_json::to_string(&settings).unwrap_or_default();
        assert_eq!(
            serde_json::from_str::<Settings>(&json).ok(),
            Some(settings.clone())
        );
        let table = toml::Table::try_from(&settings);
        assert_eq!(
            table.ok().map(|table| Settings::from_table(&table)),
            Some(Ok(settings))
        );
    }

    #[test]
    fn errors_name_the_key() {
        for (text, key) in [
            ("tun_grow = true", "tun_grow"),
            ("mtu = 70000", "mtu"),
            ("mtu = 600", "mtu"),
            ("receive_batch = 0", "receive_batch"),
            ("tun_queues = 2\nthreads = \"single\"", "tun_queues"),
            ("transport = \"quic\"\nthreads = \"single\"", "threads"),
            ("fragmentation = \"kernel\"\nmtu = 65535", "mtu"),
            ("pacing = 0", "pacing"),
            (
                "faults.transmit.drop_exit = {}",
                "faults.transmit.drop_exit",
            ),
            (
                "faults.receive.duplicate = { every = 0 }",
                "faults.receive.duplicate",
            ),
            ("faults.receive.burn_exit = \"5\"", "length of time"),
        ] {
            let outcome = read(text);
            assert!(
                outcome.as_ref().is_err_and(|error| error.contains(key)),
                "{text}: {outcome:?}"
            );
        }
    }
}
