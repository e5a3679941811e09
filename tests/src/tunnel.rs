//! The lab's reference tunnel between two namespaces, with everything that tests hold it against.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use vpnbench::lab::tunnel::account::{Account, Direction};
use vpnbench::lab::tunnel::relay::{RelayAccount, RelaySettings};
use vpnbench::lab::tunnel::truth::{self, Line};
use vpnbench::lab::tunnel::{PartSettings, Settings};
use vpnbench::probe::netns::{Netns, NetnsSpec};

use crate::binary;
use crate::netns::{Namespace, connect, wait_for};

/// Port of the outer sockets.
pub const OUTER_PORT: u16 = 7000;
/// Port of test traffic.
pub const PORT: u16 = 4747;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both ends.
pub struct Rig {
    /// Sends.
    pub a: End,
    /// Receives.
    pub b: End,
    relay: Option<Relay>,
    folder: tempfile::TempDir,
}

struct Relay {
    child: Child,
    account: PathBuf,
}

/// One end.
pub struct End {
    /// Where it runs.
    pub namespace: Namespace,
    /// The same, to work in.
    pub netns: Netns,
    number: u8,
    child: Option<Child>,
}

/// Packets and bytes of an interface's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Out of the stack.
    pub tx: (u64, u64),
    /// Into the stack.
    pub rx: (u64, u64),
}

/// What both ends and their devices say while nothing moves.
#[derive(Debug)]
pub struct Books {
    /// Of end a.
    pub a: Account,
    /// Of end b.
    pub b: Account,
    /// Device of a.
    pub link_a: Link,
    /// Device of b.
    pub link_b: Link,
    /// Datagrams that found the outer socket's buffer full (UdpRcvbufErrors), at a and b.
    pub overflows: [u64; 2],
}

impl Rig {
    /// A tunnel with the same settings at both ends.
    pub fn new(settings: &Settings) -> Result<Rig> {
        Rig::with(settings, settings)
    }

    /// A tunnel with settings for each end. Both get a truth log and a device queue that a busy
    /// machine does not overflow.
    pub fn with(a: &Settings, b: &Settings) -> Result<Rig> {
        let rig = Rig::prepare()?;
        let peers = [rig.b.outer(), rig.a.outer()];
        rig.start(a, b, peers)
    }

    /// A tunnel whose ends only know the address of a relay, which is on b's host.
    pub fn with_relay(settings: &Settings) -> Result<Rig> {
        let mut rig = Rig::prepare()?;
        let address = SocketAddr::from(([10, 99, 0, 3], OUTER_PORT));
        rig.b.namespace.ip("addr add 10.99.0.3/24 dev vd0")?;
        let account = rig.folder.path().join("relay.account");
        let ends = [rig.a.outer(), rig.b.outer()];
        let part = RelaySettings {
            local: address,
            ends,
            account: Some(account.clone()),
        };
        let json = serde_json::to_string(&part)?;
        let child = rig
            .b
            .part_command("relay", &json)
            .stderr(Stdio::null())
            .spawn()?;
        rig.relay = Some(Relay { child, account });
        rig.start(settings, settings, [address, address])
    }

    /// Ends the relay and returns its account.
    pub fn end_relay(&self) -> Result<RelayAccount> {
        let relay = self.relay.as_ref().context("there is no relay")?;
        kill(
            Pid::from_raw(i32::try_from(relay.child.id())?),
            Signal::SIGTERM,
        )?;
        let mut account = None;
        let written = || {
            let text = std::fs::read(&relay.account).unwrap_or_default();
            account = serde_json::from_slice(&text).ok();
            account.is_some()
        };
        ensure!(wait_for(PATIENCE, written), "the relay wrote no account");
        account.context("it was there a moment ago")
    }

    fn prepare() -> Result<Rig> {
        let (a, b) = (End::new(1)?, End::new(2)?);
        connect(&a.namespace, &b.namespace)?;
        Ok(Rig {
            a,
            b,
            relay: None,
            folder: tempfile::tempdir()?,
        })
    }

    fn start(mut self, a: &Settings, b: &Settings, peers: [SocketAddr; 2]) -> Result<Rig> {
        let parts = [self.part(1, peers[0], a), self.part(2, peers[1], b)];
        let logs = [self.file(1, "log"), self.file(2, "log")];
        self.b.start(&parts[1], &logs[1])?;
        self.a.start(&parts[0], &logs[0])?;
        for log in &logs {
            let carries =
                || std::fs::read_to_string(log).is_ok_and(|text| text.contains("carries packets"));
            let text = || std::fs::read_to_string(log).unwrap_or_default();
            ensure!(
                wait_for(PATIENCE, carries),
                "an end does not come up: {}",
                text()
            );
        }
        Ok(self)
    }

    /// What an end is told.
    pub fn part(&self, number: u8, peer: SocketAddr, settings: &Settings) -> PartSettings {
        let settings = Settings {
            truth_log: true,
            ..settings.clone()
        };
        PartSettings {
            device: "tun".to_owned(),
            local: SocketAddr::from(([10, 99, 0, number], OUTER_PORT)),
            peer,
            listen: number == 2,
            key: "5a".repeat(32),
            account: Some(self.file(number, "account")),
            truth: Some(self.file(number, "truth")),
            settings: Settings {
                txqueuelen: settings.txqueuelen.or(Some(20_000)),
                ..settings
            },
        }
    }

    fn file(&self, number: u8, what: &str) -> PathBuf {
        self.folder.path().join(format!("{number}.{what}"))
    }

    /// Accounts and interface counters of a moment in which nothing moves and nothing is inside.
    pub fn settle(&self) -> Result<Books> {
        self.settle_after(0)
    }

    /// The same, once end a has read at least `least` packets from its device.
    fn settle_after(&self, least: u64) -> Result<Books> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None::<Books>;
        loop {
            let (link_a, link_b) = (self.a.link()?, self.b.link()?);
            let a = self.ask(&self.a)?;
            let b = self.ask(&self.b)?;
            let overflow = |end: &End| end.mib("Udp", "RcvbufErrors");
            let overflows = [overflow(&self.a)?, overflow(&self.b)?];
            let books = Books {
                a,
                b,
                link_a,
                link_b,
                overflows,
            };
            let all = books.a.transmit.read.packets >= least;
            if all && last.is_some_and(|last| last.stands_still(&books)) {
                return Ok(books);
            }
            ensure!(Instant::now() < deadline, "it never rests: {books:?}");
            last = Some(books);
            sleep(Duration::from_millis(60));
        }
    }

    fn ask(&self, end: &End) -> Result<Account> {
        let path = self.file(end.number, "account");
        let before = Account::read(&path).map_or(0, |account| account.written_ns);
        kill(end.pid()?, Signal::SIGUSR1)?;
        let mut account = None;
        let written = || {
            account = Account::read(&path)
                .ok()
                .filter(|new| new.written_ns > before);
            account.is_some()
        };
        ensure!(wait_for(PATIENCE, written), "no account after SIGUSR1");
        account.context("it was there a moment ago")
    }

    /// The truth log of an end, as of its last account.
    pub fn truth(&self, end: &End) -> Result<Vec<Line>> {
        Ok(truth::read(&self.file(end.number, "truth"))?)
    }

    /// Ends a process with a signal and returns its last account.
    pub fn end(&mut self, number: u8, signal: Signal) -> Result<(Duration, Account)> {
        let path = self.file(number, "account");
        let end = if number == 1 {
            &mut self.a
        } else {
            &mut self.b
        };
        let start = Instant::now();
        kill(end.pid()?, signal)?;
        end.child.take().context("it has ended")?.wait()?;
        Ok((start.elapsed(), Account::read(&path)?))
    }

    /// Sends `count` datagrams of `size` bytes from a to b through the tunnel; returns the numbers
    /// of those that arrived, in their order, and the books.
    pub fn datagrams(&self, ipv6: bool, count: u32, size: usize) -> Result<(Vec<u32>, Books)> {
        let (from, to) = (self.a.inner(ipv6), self.b.inner(ipv6));
        let before = self.settle()?.a.transmit.read.packets;
        let receiver = self.b.netns.run(move || receiver(to))?;
        let sender = self.a.netns.run(move || sender(from, to))?;
        for number in 0..count {
            let mut payload = vec![0_u8; size.max(4)];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            sender.send(&payload)?;
            if number % 16 == 15 {
                sleep(Duration::from_millis(1));
            }
        }
        let books = self.settle_after(before + u64::from(count))?;
        let mut numbers = Vec::new();
        let mut buffer = vec![0; 65_535];
        while let Ok(length) = receiver.recv(&mut buffer) {
            ensure!(
                length == size.max(4),
                "{length} bytes arrived instead of {size}"
            );
            numbers.push(u32::from_be_bytes([
                buffer[0], buffer[1], buffer[2], buffer[3],
            ]));
        }
        Ok((numbers, books))
    }
}

fn receiver(address: IpAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, PORT))?;
    socket.set_nonblocking(true)?;
    // Everything stays in it until the tunnel is quiet.
    setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20))?;
    Ok(socket)
}

fn sender(from: IpAddr, to: IpAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect((to, PORT))?;
    Ok(socket)
}

impl Books {
    fn stands_still(&self, next: &Books) -> bool {
        let same = |old: &Account, new: &Account| {
            old.transmit == new.transmit && old.receive == new.receive
        };
        let empty = |account: &Account| account.transmit.inside == 0 && account.receive.inside == 0;
        let links = (self.link_a, self.link_b) == (next.link_a, next.link_b);
        let empty = empty(&self.a) && empty(&self.b) && next.check_outer().is_ok();
        links && empty && same(&self.a, &next.a) && same(&self.b, &next.b)
    }

    /// What one end sent, the other received or its socket dropped.
    fn check_outer(&self) -> Result<()> {
        for (from, to, dropped) in [
            (&self.a, &self.b, self.overflows[1]),
            (&self.b, &self.a, self.overflows[0]),
        ] {
            let (sent, received) = (from.transmit.output, to.receive.input);
            let same = sent.parts == received.parts + dropped;
            ensure!(same, "outer: {sent:?}, {received:?}, {dropped} dropped");
        }
        Ok(())
    }

    /// What must hold whatever was switched and planted.
    pub fn check(&self) -> Result<()> {
        for (name, account, link) in [("a", &self.a, self.link_a), ("b", &self.b, self.link_b)] {
            balance(name, "transmit", &account.transmit)?;
            balance(name, "receive", &account.receive)?;
            let (input, output) = (account.transmit.input, account.receive.output);
            ensure!(
                (input.units, input.bytes) == link.tx,
                "{name}: {input:?}, device {link:?}"
            );
            ensure!(
                (output.units, output.bytes) == link.rx,
                "{name}: {output:?}, device {link:?}"
            );
        }
        self.check_outer()
    }
}

fn balance(end: &str, direction: &str, account: &Direction) -> Result<()> {
    let lost: u64 = account.lost.values().map(|count| count.packets).sum();
    let sum = account.left.packets + lost;
    ensure!(
        account.read.packets == sum,
        "{end} {direction}: {account:?}"
    );
    Ok(())
}

impl End {
    fn new(number: u8) -> Result<End> {
        let namespace = Namespace::new()?;
        let netns = Netns::open(&NetnsSpec::Name(namespace.name.clone()))?;
        netns.run(|| {
            for scope in ["all", "default"] {
                for (key, value) in [("accept_dad", "0"), ("router_solicitations", "0")] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/{key}"), value)?;
                }
            }
            std::io::Result::Ok(())
        })?;
        Ok(End {
            namespace,
            netns,
            number,
            child: None,
        })
    }

    /// Address of its outer socket.
    pub fn outer(&self) -> SocketAddr {
        SocketAddr::from(([10, 99, 0, self.number], OUTER_PORT))
    }

    /// Its address inside the tunnel.
    pub fn inner(&self, ipv6: bool) -> IpAddr {
        if ipv6 {
            IpAddr::from([0xfd00, 0x98, 0, 0, 0, 0, 0, self.number.into()])
        } else {
            IpAddr::from([10, 98, 0, self.number])
        }
    }

    /// Process number of its daemon.
    pub fn pid(&self) -> Result<Pid> {
        let child = self.child.as_ref().context("it has ended")?;
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }

    fn part_command(&self, name: &str, json: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace.name])
            .arg(binary::path());
        command.args(["lab", "part", name, json]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn start(&mut self, part: &PartSettings, log: &PathBuf) -> Result<()> {
        let json = serde_json::to_string(part)?;
        let mut command = self.part_command("tunnel", &json);
        self.child = Some(command.stderr(File::create(log)?).spawn()?);
        let there = || self.namespace.ip("link show tun").is_ok();
        let text = || std::fs::read_to_string(log).unwrap_or_default();
        ensure!(wait_for(PATIENCE, there), "no device: {}", text());
        self.namespace
            .ip(&format!("addr add {}/24 dev tun", self.inner(false)))?;
        self.namespace
            .ip(&format!("addr add {}/64 dev tun", self.inner(true)))?;
        self.namespace.ip("link set tun up")?;
        Ok(())
    }

    /// Counters of its tunnel device.
    pub fn link(&self) -> Result<Link> {
        let text = self.namespace.ip("-s -j link show tun")?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let count =
            |way: &str, what: &str| json[0]["stats64"][way][what].as_u64().context("no count");
        Ok(Link {
            tx: (count("tx", "packets")?, count("tx", "bytes")?),
            rx: (count("rx", "packets")?, count("rx", "bytes")?),
        })
    }

    /// A counter of /proc/net/snmp in its namespace, e.g. `("Udp", "OutDatagrams")`.
    pub fn mib(&self, protocol: &'static str, name: &'static str) -> Result<u64> {
        let text = self
            .netns
            .run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let prefix = format!("{protocol}: ");
        let mut rows = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let (names, values) = (
            rows.next().context("no names")?,
            rows.next().context("no values")?,
        );
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        let (_, value) = pairs
            .find(|(found, _)| *found == name)
            .context("no such counter")?;
        Ok(value.parse()?)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Ended already where a test asked for its account.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
