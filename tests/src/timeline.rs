//! Timelines a person can read: a few lines of text become the events and metadata of a trace.
//!
//! One line per fact, words separated by spaces, `#` begins a comment:
//!
//! ```text
//! tunnel tun0 daemon=boringtun/4121
//! link tun0 tx_packets=3                 increase of interface counters
//! counter TcpRetransSegs 1               increase of a protocol counter
//! 0.010 packet tap=tun.tx dev=tun0 flow=10.2.0.1:40000>10.2.0.2:5201 len=1500 payload=1448 skb=1
//! 0.011 taken tap=tun.read dev=tun0 len=1500 skb=1 at=tun_do_read
//! outer veth1 host=right                 a device of the second host
//! lost 3                                 events the recorder could not store
//! ```
//!
//! A packet may also have `tid= seq= ack= id= ts= gso= marker= frag= l2=`.
//!
//! Functions are named; the parser gives them addresses and the matching symbols.

mod events;
mod tcp;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, anyhow, bail};
use vpnbench::analysis::{Analyses, Context};
use vpnbench::report::{self, Recording, Report};
use vpnbench::trace::model::{
    Clock, CommandStatus, Daemon, End, Environment, Link, Namespace, ProbeStatus, Start, Symbols,
    Thread, Tunnel, UnrecordedCount, WatchedDevice,
};
use vpnbench::trace::{Event, Reader, Writer};
use vpnbench_common::catalog::{Attach, PROBES, ProbeId, Tap};
use vpnbench_common::header::Header;

/// Namespace of all timelines.
const NETNS: u32 = 4_026_531_840;
/// Namespace of the second host.
const NETNS_RIGHT: u32 = NETNS + 1;
/// `CLOCK_MONOTONIC` at the start.
const START_NS: u64 = 1_000_000_000;

/// A parsed timeline.
#[derive(Default)]
pub struct Timeline {
    start: Start,
    end: End,
    symbols: Symbols,
    lost: BTreeMap<u8, u64>,
    events: Vec<Vec<u64>>,
}

/// `key=value` words of a line.
struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn parse(words: impl Iterator<Item = &'a str>) -> Words<'a> {
        Words(
            words
                .map(|word| word.split_once('=').unwrap_or((word, "")))
                .collect(),
        )
    }

    fn number<N: std::str::FromStr + Default>(&self, key: &str) -> anyhow::Result<N> {
        match self.0.get(key) {
            None => Ok(N::default()),
            Some(text) => text
                .parse()
                .map_err(|_| anyhow!("{key}={text} is not a number")),
        }
    }

    fn text(&self, key: &str) -> anyhow::Result<&'a str> {
        self.0
            .get(key)
            .copied()
            .with_context(|| format!("{key}= is missing"))
    }

    fn ends(&self) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let flow = self.text("flow")?;
        let (from, to) = flow.split_once('>').context("a flow is FROM>TO")?;
        Ok((from.parse()?, to.parse()?))
    }
}

impl Timeline {
    /// Parses the lines.
    ///
    /// # Errors
    /// With the line that cannot be understood.
    pub fn parse(text: &str) -> anyhow::Result<Timeline> {
        let mut timeline = Timeline::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("").trim();
            if !line.is_empty() {
                timeline
                    .line(line)
                    .with_context(|| format!("line: {line}"))?;
            }
        }
        Ok(timeline)
    }

    fn new() -> Timeline {
        let mut timeline = Timeline::default();
        let start = &mut timeline.start;
        start.run_id = "timeline".to_owned();
        start.started_at = "2026-01-01T00:00:00Z".to_owned();
        start.clock.monotonic_ns = START_NS;
        start.host.hostname = "host".to_owned();
        start.host.kernel_release = "6.12.1".to_owned();
        start.host.machine = "x86_64".to_owned();
        start.environment = environment();
        start.probes = PROBES
            .iter()
            .map(|probe| ProbeStatus {
                id: probe.id as u8,
                name: probe.name.to_owned(),
                kind: kind(probe.attach).to_owned(),
                attached: true,
                reason: None,
            })
            .collect();
        start.drop_reasons = BTreeMap::from([(2, "NOT_SPECIFIED".to_owned())]);
        timeline.end.clock = Clock {
            monotonic_ns: START_NS + 1_000_000_000,
            ..Clock::default()
        };
        timeline.end.reason = "command".to_owned();
        timeline.end.environment = environment();
        timeline
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        let mut words = line.split_whitespace();
        let first = words.next().context("an empty line")?;
        if let Ok(seconds) = first.parse::<f64>() {
            let kind = words.next().context("an event needs a kind")?;
            let time = START_NS + (seconds * 1e9).round() as u64;
            return self.event(time, kind, &Words::parse(words));
        }
        match first {
            "tunnel" | "outer" => {
                let name = words.next().context("a device needs a name")?;
                self.device(first, name, &Words::parse(words))
            }
            "link" => {
                let name = words.next().context("a link needs a name")?;
                self.link(name, &Words::parse(words))
            }
            "counter" => {
                let name = words.next().context("a counter needs a name")?;
                let increase = words
                    .next()
                    .context("a counter needs an increase")?
                    .parse()?;
                let [before, after] = [&mut self.start.environment, &mut self.end.environment];
                before.namespaces[0].counters.insert(name.to_owned(), 0);
                after.namespaces[0]
                    .counters
                    .insert(name.to_owned(), increase);
                Ok(())
            }
            "thread" => self.thread(&Words::parse(words)),
            "lost" => {
                let count = words.next().context("lost COUNT")?.parse()?;
                self.lost.insert(ProbeId::NetDevStartXmit as u8, count);
                Ok(())
            }
            "address" => {
                let (host, address) = words.next().zip(words.next()).context("HOST ADDRESS")?;
                let netns = self.netns(Some(&host));
                for environment in [&mut self.start.environment, &mut self.end.environment] {
                    let mut all = environment.namespaces.iter_mut();
                    let one = all.find(|one| one.netns == netns).context("no such host")?;
                    one.links.push(Link {
                        name: "lo".to_owned(),
                        addresses: vec![address.to_owned()],
                        ..Link::default()
                    });
                }
                Ok(())
            }
            "sysctl" => {
                let (name, value) = words.next().zip(words.next()).context("NAME VALUE")?;
                let namespace = &mut self.start.environment.namespaces[0];
                namespace.sysctls.insert(name.to_owned(), value.to_owned());
                Ok(())
            }
            "unrecorded" => self.unrecorded(&Words::parse(words)),
            "missing" => {
                let name = words.next().context("a probe needs a name")?;
                let status = self
                    .start
                    .probes
                    .iter_mut()
                    .find(|probe| probe.name == name);
                let status = status.context("no such probe")?;
                status.attached = false;
                status.reason = Some(words.collect::<Vec<_>>().join(" "));
                Ok(())
            }
            "command" => {
                self.start.command = words.map(str::to_owned).collect();
                self.end.command_status = Some(CommandStatus {
                    code: Some(0),
                    ..CommandStatus::default()
                });
                Ok(())
            }
            _ => bail!("\"{first}\" is no fact"),
        }
    }

    fn device(&mut self, role: &str, name: &str, words: &Words<'_>) -> anyhow::Result<()> {
        let ifindex = self.start.devices.len() as u32 + 1;
        let netns = self.netns(words.0.get("host"));
        self.start.devices.push(WatchedDevice {
            name: name.to_owned(),
            netns,
            ifindex,
            role: role.to_owned(),
            ..WatchedDevice::default()
        });
        if role == "tunnel" {
            let (comm, pid) = words
                .text("daemon")?
                .split_once('/')
                .context("daemon=NAME/PID")?;
            let daemon = Daemon {
                pid: pid.parse()?,
                comm: comm.to_owned(),
                threads: 1,
                ..Daemon::default()
            };
            self.start.tunnels.push(Tunnel {
                interface: name.to_owned(),
                ifindex,
                netns,
                mtu: 1420,
                daemon: Some(daemon),
                ..Tunnel::default()
            });
        }
        Ok(())
    }

    fn link(&mut self, name: &str, words: &Words<'_>) -> anyhow::Result<()> {
        let kind = words.0.get("kind").map(|kind| (*kind).to_owned());
        let link = Link {
            ifindex: self.ifindex(name),
            name: name.to_owned(),
            kind,
            ..Link::default()
        };
        self.start.environment.namespaces[0]
            .links
            .push(link.clone());
        let mut after = link;
        after.counters.tx_packets = words.number("tx_packets")?;
        after.counters.rx_packets = words.number("rx_packets")?;
        after.counters.tx_dropped = words.number("tx_dropped")?;
        self.end.environment.namespaces[0].links.push(after);
        Ok(())
    }

    fn thread(&mut self, words: &Words<'_>) -> anyhow::Result<()> {
        let before = Thread {
            tgid: words.number("pid")?,
            tid: words.number("tid")?,
            comm: words.text("comm")?.to_owned(),
            role: words.text("role")?.to_owned(),
            runtime_ns: words.number("before")?,
            ..Thread::default()
        };
        let after = Thread {
            runtime_ns: words.number("after")?,
            ..before.clone()
        };
        self.start.environment.threads.push(before);
        self.end.environment.threads.push(after);
        Ok(())
    }

    fn unrecorded(&mut self, words: &Words<'_>) -> anyhow::Result<()> {
        self.end.unrecorded.push(UnrecordedCount {
            device: words.text("dev")?.to_owned(),
            netns: NETNS,
            tap: tap(words.text("tap")?)? as u8,
            filtered_units: words.number("filtered")?,
            lost_units: words.number("lost")?,
            ..UnrecordedCount::default()
        });
        Ok(())
    }

    /// Namespace of a host by name; the second one comes into being when it is named.
    fn netns(&mut self, host: Option<&&str>) -> u32 {
        if host.is_none_or(|host| **host != *"right") {
            return NETNS;
        }
        for environment in [&mut self.start.environment, &mut self.end.environment] {
            if environment.namespaces.len() < 2 {
                environment.namespaces.push(Namespace {
                    netns: NETNS_RIGHT,
                    name: Some("right".to_owned()),
                    ..Namespace::default()
                });
            }
        }
        NETNS_RIGHT
    }

    /// Namespace of an event: that of its device, or of the host it names.
    fn place(&mut self, words: &Words<'_>) -> u32 {
        let device = words.0.get("dev").copied();
        let mut devices = self.start.devices.iter();
        let known = devices
            .find(|one| Some(one.name.as_str()) == device)
            .map(|one| one.netns);
        known.unwrap_or_else(|| self.netns(words.0.get("host")))
    }

    fn ifindex(&self, name: &str) -> u32 {
        self.start
            .devices
            .iter()
            .find(|device| device.name == name)
            .map_or(0, |device| device.ifindex)
    }

    /// Address of a named function.
    fn address(&mut self, function: &str) -> u64 {
        let symbol = format!("{function}+0x10");
        let known = self
            .symbols
            .kernel
            .iter()
            .find(|(_, name)| **name == symbol);
        if let Some((address, _)) = known {
            return *address;
        }
        let address = 0xffff_0000 + self.symbols.kernel.len() as u64;
        self.symbols.kernel.insert(address, symbol);
        address
    }

    /// The timeline as a trace file.
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub fn trace(&self) -> anyhow::Result<Vec<u8>> {
        let mut writer = Writer::create(Vec::new(), &self.start)?;
        for record in &self.events {
            writer.push(0, bytemuck::cast_slice(record))?;
        }
        let lost: Vec<(u8, u64)> = self
            .lost
            .iter()
            .map(|(probe, lost)| (*probe, *lost))
            .collect();
        writer.symbols(&self.symbols)?;
        writer.end_epoch(self.end.clock.monotonic_ns, &lost)?;
        Ok(writer.finish(&self.end)?.0)
    }

    /// The timeline as a trace whose events lie in rings of several processors: `ring` says in which
    /// each is; a round of draining ends before each of the `boundaries`. Within a ring events keep
    /// their order.
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub fn scattered(
        &self,
        ring: impl Fn(usize) -> u16,
        boundaries: &[usize],
    ) -> anyhow::Result<Vec<u8>> {
        let mut writer = Writer::create(Vec::new(), &self.start)?;
        let mut rest: Vec<usize> = (0..self.events.len()).collect();
        let ends = boundaries.iter().copied().chain([self.events.len()]);
        for end in ends {
            let (mut taken, later): (Vec<usize>, Vec<usize>) =
                rest.into_iter().partition(|number| *number < end);
            rest = later;
            // Ring by ring, as they are drained.
            taken.sort_by_key(|number| (ring(*number), *number));
            for number in taken {
                writer.push(ring(number), bytemuck::cast_slice(&self.events[number]))?;
            }
            let lost: Vec<(u8, u64)> = match rest.first() {
                Some(_) => Vec::new(),
                None => self
                    .lost
                    .iter()
                    .map(|(probe, lost)| (*probe, *lost))
                    .collect(),
            };
            let next = rest.first().map(|number| self.time(*number));
            writer.end_epoch(next.unwrap_or(self.end.clock.monotonic_ns), &lost)?;
        }
        writer.symbols(&self.symbols)?;
        Ok(writer.finish(&self.end)?.0)
    }

    /// Events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it has no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Time of an event in ns.
    #[must_use]
    pub fn time(&self, number: usize) -> u64 {
        self.events[number][0]
    }

    /// The same without some events, which the recorder says it lost.
    #[must_use]
    pub fn without(mut self, missing: &std::collections::BTreeSet<usize>) -> Timeline {
        for number in missing {
            let header: &Header = bytemuck::from_bytes(bytemuck::cast_slice(
                &self.events[*number][..size_of::<Header>() / 8],
            ));
            *self.lost.entry(header.probe).or_default() += 1;
        }
        let mut number = 0;
        self.events.retain(|_| {
            number += 1;
            !missing.contains(&(number - 1))
        });
        self
    }

    /// Analyses a trace as the program does.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn report_of(trace: impl std::io::Read) -> anyhow::Result<Report> {
        let reader = Reader::new(trace)?;
        let mut analyses = Analyses::new(reader.start());
        let summary = reader.for_each(|event| analyses.observe(&event))?;
        anyhow::ensure!(summary.problems.is_empty(), "{:?}", summary.problems);
        let context = Context::of(&summary);
        let (outputs, problems) = analyses.finish(&context);
        Ok(report::build(
            &context,
            outputs,
            problems,
            Recording::default(),
        ))
    }

    /// Analyses the timeline.
    ///
    /// # Errors
    /// When a record is not an event.
    pub fn report(&self) -> anyhow::Result<Report> {
        let mut analyses = Analyses::new(&self.start);
        for record in &self.events {
            analyses.observe(&Event::from_record(record).context("a record of unknown kind")?);
        }
        let context = Context::new(&self.start, Some(&self.end), &[], &self.symbols, &self.lost);
        let (outputs, problems) = analyses.finish(&context);
        Ok(report::build(
            &context,
            outputs,
            problems,
            Recording::default(),
        ))
    }
}

fn environment() -> Environment {
    Environment {
        namespaces: vec![Namespace {
            netns: NETNS,
            name: Some("left".to_owned()),
            ..Namespace::default()
        }],
        ..Environment::default()
    }
}

fn kind(attach: Attach) -> &'static str {
    match attach {
        Attach::TpBtf(_) => "tp_btf",
        Attach::Fentry(_) => "fentry",
        Attach::CpuClock => "cpu_clock",
    }
}

fn tap(name: &str) -> anyhow::Result<Tap> {
    Tap::ALL
        .into_iter()
        .find(|tap| tap.name() == name)
        .with_context(|| format!("no tap {name}"))
}
