//! Lines that are events.

use std::net::{IpAddr, SocketAddr};

use anyhow::bail;
use bytemuck::Zeroable;
use vpnbench_common::catalog::{ProbeId, Tap};
use vpnbench_common::event;
use vpnbench_common::header::Header;
use vpnbench_common::settings::role;

use super::{NETNS, Timeline, Words, tap};

impl Timeline {
    pub(super) fn event(&mut self, time: u64, kind: &str, words: &Words<'_>) -> anyhow::Result<()> {
        match kind {
            "packet" => self.packet(time, words),
            "taken" => self.taken(time, words),
            "drop" => self.dropped(time, words),
            "retransmit" => self.retransmit(time, words),
            "recovery" => self.recovery(time, words),
            "ack" => self.ack(time, words),
            "data" => self.data(time, words),
            "state" => self.state(time, words),
            "closes" => self.closes(time, words),
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

    pub(super) fn push<E: bytemuck::Pod>(&mut self, event: &E) {
        let mut record = vec![0u64; size_of::<E>() / 8];
        bytemuck::cast_slice_mut(&mut record).copy_from_slice(bytemuck::bytes_of(event));
        self.events.push(record);
    }

    fn packet(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Packet::zeroed();
        event.header = header::<event::Packet>(time, ProbeId::NetDevStartXmit);
        event.tap = tap(words.text("tap")?)? as u8;
        event.netns = self.place(words);
        event.ifindex = self.ifindex(words.text("dev")?);
        event.header.tid = words.number("tid")?;
        event.len = words.number("len")?;
        event.payload_len = words.number("payload")?;
        event.gso_segs = words.number("segs")?;
        event.gso_size = words.number("gso")?;
        event.skb = words.number("skb")?;
        event.l2_len = words.number("l2")?;
        (event.seq, event.ack) = (words.number("seq")?, words.number("ack")?);
        (event.ip_id, event.frag) = (words.number("id")?, words.number("frag")?);
        if words.0.contains_key("ts") {
            event.flags |= event::packet_flags::TIMESTAMPS;
            event.tsval = words.number("ts")?;
        }
        if words.0.contains_key("marker") {
            event.flags |= event::packet_flags::WIREGUARD;
            event.marker = words.number("marker")?;
        }
        event.tcp_flags = if words.0.contains_key("syn") { 2 } else { 0x10 };
        let (from, to) = words.ends()?;
        event.ip_version = if from.is_ipv4() { 4 } else { 6 };
        event.ip_proto = if words.0.contains_key("udp") { 17 } else { 6 };
        (event.saddr, event.sport) = address(from);
        (event.daddr, event.dport) = address(to);
        self.push(&event);
        Ok(())
    }

    /// The socket of an end leaves ESTABLISHED for `new`.
    fn closes(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::SockState::zeroed();
        event.header = header::<event::SockState>(time, ProbeId::InetSockSetState);
        event.netns = self.place(words);
        (event.old, event.new, event.ip_proto) = (1, words.number("new")?, 6);
        let (local, remote) = words.ends()?;
        event.ip_version = if local.is_ipv4() { 4 } else { 6 };
        (event.laddr, event.lport) = address(local);
        (event.raddr, event.rport) = address(remote);
        self.push(&event);
        Ok(())
    }

    fn taken(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Taken::zeroed();
        event.header = header::<event::Taken>(time, ProbeId::ConsumeSkb);
        event.tap = tap(words.text("tap")?)? as u8;
        event.netns = self.place(words);
        event.header.tid = words.number("tid")?;
        event.gso_segs = words.number("segs")?;
        event.ip_proto = if event.tap == Tap::OuterRecv as u8 {
            17
        } else {
            0
        };
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
        event.netns = self.place(words);
        event.ifindex = self.ifindex(words.text("dev")?);
        if words.0.contains_key("flow") {
            let (from, to) = words.ends()?;
            (event.saddr, event.sport) = address(from);
            (event.daddr, event.dport) = address(to);
            event.ip_version = if from.is_ipv4() { 4 } else { 6 };
            event.ip_proto = if words.0.contains_key("udp") { 17 } else { 6 };
        }
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

    pub(super) fn stack(&mut self, functions: &str) -> ([u64; event::STACK_DEPTH], u32) {
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
}

pub(super) fn header<E: vpnbench_common::layout::Event>(time: u64, probe: ProbeId) -> Header {
    Header {
        time_ns: time,
        tid: 0,
        cpu: 0,
        kind: E::KIND as u8,
        probe: probe as u8,
    }
}

pub(super) fn address(end: SocketAddr) -> ([u8; 16], u16) {
    let mut bytes = [0; 16];
    match end.ip() {
        IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    (bytes, end.port())
}
