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
//! ```
//!
//! Functions are named; the parser gives them addresses and the matching symbols.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use anyhow::{Context as _, anyhow, bail};
use bytemuck::Zeroable;
use vpnbench::analysis::{Analyses, Context};
use vpnbench::report::{self, Recording, Report};
use vpnbench::trace::model::{
    Clock, CommandStatus, Daemon, End, Environment, Link, Namespace, ProbeStatus, Start, Symbols,
    Thread, Tunnel, UnrecordedCount, WatchedDevice,
};
use vpnbench::trace::{Event, Writer};
use vpnbench_common::catalog::{Attach, PROBES, ProbeId, Tap};
use vpnbench_common::event;
use vpnbench_common::header::Header;
use vpnbench_common::settings::role;

/// Namespace of all timelines.
const NETNS: u32 = 4_026_531_840;
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

    fn ends(&self) -> anyhow::Result<(SocketAddrV4, SocketAddrV4)> {
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
        self.start.devices.push(WatchedDevice {
            name: name.to_owned(),
            netns: NETNS,
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
                netns: NETNS,
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

    fn event(&mut self, time: u64, kind: &str, words: &Words<'_>) -> anyhow::Result<()> {
        match kind {
            "packet" => self.packet(time, words),
            "taken" => self.taken(time, words),
            "drop" => self.dropped(time, words),
            "retransmit" => self.retransmit(time, words),
            "recovery" => self.recovery(time, words),
            "switch" => self.switch(time, words),
            "syscall" => self.syscall(time, words),
            "sockdrop" => {
                let mut event = event::SockDrop::zeroed();
                event.header = header::<event::SockDrop>(time, ProbeId::UdpFailQueueRcvSkb);
                (event.netns, event.ip_version, event.ip_proto, event.error) = (NETNS, 4, 17, -12);
                self.push(&event);
                Ok(())
            }
            _ => bail!("\"{kind}\" is no event"),
        }
    }

    fn push<E: bytemuck::Pod>(&mut self, event: &E) {
        let mut record = vec![0u64; size_of::<E>() / 8];
        bytemuck::cast_slice_mut(&mut record).copy_from_slice(bytemuck::bytes_of(event));
        self.events.push(record);
    }

    fn packet(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Packet::zeroed();
        event.header = header::<event::Packet>(time, ProbeId::NetDevStartXmit);
        event.tap = tap(words.text("tap")?)? as u8;
        event.netns = NETNS;
        event.ifindex = self.ifindex(words.text("dev")?);
        event.len = words.number("len")?;
        event.payload_len = words.number("payload")?;
        event.gso_segs = words.number("segs")?;
        event.skb = words.number("skb")?;
        let (from, to) = words.ends()?;
        event.ip_version = 4;
        event.ip_proto = if words.0.contains_key("udp") { 17 } else { 6 };
        (event.saddr, event.sport) = address(from);
        (event.daddr, event.dport) = address(to);
        self.push(&event);
        Ok(())
    }

    fn taken(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Taken::zeroed();
        event.header = header::<event::Taken>(time, ProbeId::ConsumeSkb);
        event.tap = tap(words.text("tap")?)? as u8;
        event.netns = NETNS;
        event.ifindex = words.0.get("dev").map_or(0, |name| self.ifindex(name));
        event.len = words.number("len")?;
        event.skb = words.number("skb")?;
        event.port = words.number("port")?;
        if let Some(function) = words.0.get("at") {
            event.location = self.address(function);
        }
        self.push(&event);
        Ok(())
    }

    fn dropped(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Drop::zeroed();
        event.header = header::<event::Drop>(time, ProbeId::KfreeSkb);
        let reason = words.text("reason")?;
        let known = self
            .start
            .drop_reasons
            .iter()
            .find(|(_, name)| *name == reason);
        let number = known.map(|(number, _)| *number);
        event.reason = number.unwrap_or(100 + self.start.drop_reasons.len() as u32);
        self.start
            .drop_reasons
            .insert(event.reason, reason.to_owned());
        event.netns = NETNS;
        event.ifindex = self.ifindex(words.text("dev")?);
        let watched = self
            .start
            .devices
            .iter()
            .find(|device| device.ifindex == event.ifindex);
        event.role = match watched.map(|device| device.role.as_str()) {
            Some("tunnel") => role::TUNNEL,
            Some("outer") => role::OUTER,
            _ => role::NONE,
        };
        event.location = self.address(words.text("at")?);
        event.len = words.number("len")?;
        event.gso_segs = words.number("segs")?;
        event.skb = words.number("skb")?;
        self.push(&event);
        Ok(())
    }

    fn retransmit(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Retransmit::zeroed();
        event.header = header::<event::Retransmit>(time, ProbeId::TcpRetransmitSkb);
        (event.netns, event.ip_version, event.sk, event.state) = (NETNS, 4, 1, 1);
        let (from, to) = words.ends()?;
        (event.laddr, event.lport) = address(from);
        (event.raddr, event.rport) = address(to);
        event.segments = words.number("segs")?;
        event.ca_state = words.number("ca")?;
        event.pending = words.number("pending")?;
        event.error = words.number("error")?;
        (event.stack, event.depth) = self.stack(words.text("stack")?);
        self.push(&event);
        Ok(())
    }

    fn recovery(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::CongState::zeroed();
        event.header = header::<event::CongState>(time, ProbeId::TcpCongStateSet);
        (event.netns, event.sk, event.new, event.sack_ok) = (NETNS, 1, 3, 1);
        event.sacked_out = words.number("sacked")?;
        event.reordering = words.number("reordering")?;
        event.reord_seen = words.number("seen")?;
        (event.stack, event.depth) = self.stack(words.text("stack")?);
        self.push(&event);
        Ok(())
    }

    fn stack(&mut self, functions: &str) -> ([u64; event::STACK_DEPTH], u32) {
        let mut stack = [0; event::STACK_DEPTH];
        let mut depth = 0;
        for (slot, function) in stack.iter_mut().zip(functions.split(',')) {
            *slot = self.address(function);
            depth += 1;
        }
        (stack, depth)
    }

    fn switch(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Switch::zeroed();
        event.header = header::<event::Switch>(time, ProbeId::SchedSwitch);
        if words.0.contains_key("out") {
            (event.prev_tid, event.prev_tgid) = (words.number("out")?, words.number("pid")?);
            event.prev_runtime_ns = words.number("runtime")?;
            event.prev_run_delay_ns = words.number("delay")?;
            event.prev_state = words.number("state")?;
            event.prev_syscall = words.number("in")?;
            event.watched |= 1;
        } else {
            (event.next_tid, event.next_tgid) = (words.number("on")?, words.number("pid")?);
            event.watched |= 2;
        }
        self.push(&event);
        Ok(())
    }

    fn syscall(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Syscall::zeroed();
        event.header = header::<event::Syscall>(time, ProbeId::SysExit);
        event.tgid = words.number("pid")?;
        event.nr = words.number("nr")?;
        event.ret = words.number("ret")?;
        event.duration_ns = words.number("ns")?;
        self.push(&event);
        Ok(())
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
        writer.symbols(&self.symbols)?;
        writer.end_epoch(self.end.clock.monotonic_ns, &[])?;
        Ok(writer.finish(&self.end)?.0)
    }

    /// Analyses the timeline.
    ///
    /// # Errors
    /// When a record is not an event.
    pub fn report(&self) -> anyhow::Result<Report> {
        let mut analyses = Analyses::default();
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

fn header<E: vpnbench_common::layout::Event>(time: u64, probe: ProbeId) -> Header {
    Header {
        time_ns: time,
        tid: 0,
        cpu: 0,
        kind: E::KIND as u8,
        probe: probe as u8,
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

fn address(end: SocketAddrV4) -> ([u8; 16], u16) {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&end.ip().octets());
    (bytes, end.port())
}
