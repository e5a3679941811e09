//! TCP in timelines. `flow` is the socket's own end, then the other end.
//!
//! ```text
//! 0.020 ack flow=10.0.0.1:40000>10.0.0.2:5201 una=1000 ack=1200 sack=1300-1400 tsecr=7 cwnd=10
//! 0.021 data flow=10.0.0.2:5201>10.0.0.1:40000 seq=1000 len=100 rcv=1000 tsval=12
//! 0.022 retransmit flow=.. seq=1000 end=1100 segs=1 ca=3 stack=..
//! 0.023 state flow=.. new=0 undo=0 ..
//! ```
//!
//! `ack` and `data` are one `tcp_probe` each: a segment that reaches the socket, and the socket's
//! state before it.

use anyhow::Context as _;
use bytemuck::Zeroable;
use vpnbench_common::catalog::ProbeId;
use vpnbench_common::event;

use super::events::{address, header};
use super::{NETNS, Timeline, Words};

/// Fields of the socket's state that all three events have.
macro_rules! state {
    ($event:ident, $words:ident) => {
        $event.netns = NETNS;
        let (local, remote) = $words.ends()?;
        $event.ip_version = if local.is_ipv4() { 4 } else { 6 };
        ($event.laddr, $event.lport) = address(local);
        ($event.raddr, $event.rport) = address(remote);
        $event.sk = $words.number("sk")?;
        $event.state = 1;
        $event.ca_state = $words.number("ca")?;
        $event.pending = $words.number("pending")?;
        $event.snd_una = $words.number("una")?;
        $event.snd_nxt = $words.number("nxt")?;
        $event.write_seq = $words.number("written")?;
        $event.rcv_nxt = $words.number("rcv")?;
        $event.snd_cwnd = $words.number("cwnd")?;
        $event.prior_cwnd = $words.number("prior_cwnd")?;
        $event.ssthresh = $words.number("ssthresh")?;
        $event.mss = $words.number("mss")?;
        $event.srtt_8us = $words.number::<u32>("srtt_us")? * 8;
        $event.min_rtt_us = $words.number("min_rtt_us")?;
        $event.packets_out = $words.number("out")?;
        $event.sacked_out = $words.number("sacked")?;
        $event.lost_out = $words.number("lost_out")?;
        $event.lost = $words.number("lost")?;
        $event.retrans_out = $words.number("retrans_out")?;
        $event.reordering = $words.number("reordering")?;
        $event.reord_seen = $words.number("seen")?;
        $event.high_seq = $words.number("high")?;
        $event.undo_marker = $words.number("undo")?;
        $event.undo_retrans = $words.number("undo_retrans")?;
        $event.total_retrans = $words.number("total")?;
        $event.retrans_stamp = $words.number("stamp")?;
        $event.rcv_tsecr = $words.number("echo")?;
        // SAW_TSTAMP: the last segment had a timestamp.
        $event.bits = if $words.0.contains_key("echo") { 8 } else { 0 };
        $event.chrono_type = $words.number("chrono")?;
        $event.sack_ok = u8::from(!$words.0.contains_key("no_sack"));
    };
}

impl Timeline {
    /// A segment without data that reaches a socket.
    pub(super) fn ack(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::TcpProbe::zeroed();
        event.header = header::<event::TcpProbe>(time, ProbeId::TcpProbe);
        state!(event, words);
        event.ack = words.number("ack")?;
        event.tcp_flags = 0x10;
        if words.0.contains_key("tsecr") {
            event.options = 1;
            event.tsecr = words.number("tsecr")?;
        }
        for (index, block) in words
            .0
            .get("sack")
            .into_iter()
            .flat_map(|all| all.split(','))
            .enumerate()
        {
            let (start, end) = block.split_once('-').context("sack=START-END,..")?;
            event.sack[2 * index] = start.parse()?;
            event.sack[2 * index + 1] = end.parse()?;
            event.sack_count += 1;
        }
        self.push(&event);
        Ok(())
    }

    /// A segment with data that reaches a socket.
    pub(super) fn data(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::TcpProbe::zeroed();
        event.header = header::<event::TcpProbe>(time, ProbeId::TcpProbe);
        state!(event, words);
        event.seq = words.number("seq")?;
        event.ack = event.snd_una;
        event.payload_len = words.number("len")?;
        event.tcp_flags = 0x10;
        if words.0.contains_key("tsval") {
            event.options = 1;
            event.tsval = words.number("tsval")?;
        }
        self.push(&event);
        Ok(())
    }

    /// TCP sends a segment again.
    pub(super) fn retransmit(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::Retransmit::zeroed();
        event.header = header::<event::Retransmit>(time, ProbeId::TcpRetransmitSkb);
        state!(event, words);
        event.sk = words.number::<u64>("sk")?.max(1);
        event.seq = words.number("seq")?;
        event.segments = words.number("segs")?;
        event.end_seq = if words.0.contains_key("end") {
            words.number("end")?
        } else {
            event.seq.wrapping_add(u32::from(event.segments) * 1448)
        };
        event.error = words.number("error")?;
        (event.stack, event.depth) = self.stack(words.text("stack")?);
        self.push(&event);
        Ok(())
    }

    /// The congestion state changes to `new`.
    pub(super) fn state(&mut self, time: u64, words: &Words<'_>) -> anyhow::Result<()> {
        let mut event = event::CongState::zeroed();
        event.header = header::<event::CongState>(time, ProbeId::TcpCongStateSet);
        state!(event, words);
        event.sk = words.number::<u64>("sk")?.max(1);
        event.new = words.number("new")?;
        if let Some(functions) = words.0.get("stack") {
            (event.stack, event.depth) = self.stack(functions);
        }
        self.push(&event);
        Ok(())
    }
}
