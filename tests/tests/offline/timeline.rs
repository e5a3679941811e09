//! Exports of a run with threads, system calls, stacks and TCP: decoded with the descriptors that Perfetto's own
//! package ships, and drawn as a flame graph.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bytemuck::Zeroable as _;
use tempfile::TempDir;
use vpnbench::trace::model::{Clock, End, Start};
use vpnbench::trace::{Existing, Writer};
use vpnbench_common::catalog::{Kind, ProbeId, Tap};
use vpnbench_common::event::{Packet, Retransmit, Sample, Switch, Syscall, TcpProbe};
use vpnbench_common::header::Header;
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::python::python;

const BEGAN: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
/// Rounds of what the run does.
const ROUNDS: u64 = 20;

fn header(time_ns: u64, kind: Kind, probe: ProbeId) -> Header {
    Header {
        time_ns,
        tid: 71,
        cpu: 1,
        kind: kind as u8,
        probe: probe as u8,
    }
}

/// A thread that runs for a ms of every five and makes one system call; a packet that waits in the queueing
/// discipline of the tunnel device; an acknowledgement; at last a retransmission and a sample.
fn trace() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.vbt");
    let clock = Clock {
        monotonic_ns: BEGAN,
        realtime_ns: 1_700_000_000 * 1_000_000_000,
        boottime_ns: BEGAN + 5_000,
    };
    let mut start = Start {
        clock,
        ..Start::default()
    };
    start.host.machine = "x86_64".to_owned();
    let mut writer = Writer::create_file(&path, Existing::Replace, &start)?;
    for round in 0..ROUNDS {
        let now = BEGAN + round * 5 * MS;
        let mut packet = Packet::zeroed();
        packet.header = header(now, Kind::Packet, ProbeId::NetDevQueue);
        (packet.netns, packet.ifindex, packet.skb, packet.len) = (1, 2, 4096 + round, 1420);
        (packet.ip_version, packet.ip_proto, packet.payload_len) = (4, 17, 1392);
        (packet.tap, packet.ip_id) = (Tap::TunQueue as u8, round as u32 + 1);
        writer.push(0, bytemuck::bytes_of(&packet))?;
        let mut switch = Switch::zeroed();
        switch.header = header(now + MS, Kind::Switch, ProbeId::SchedSwitch);
        (switch.next_tid, switch.next_tgid, switch.watched) = (71, 70, 2);
        writer.push(0, bytemuck::bytes_of(&switch))?;
        packet.header = header(now + MS + 10, Kind::Packet, ProbeId::NetDevStartXmit);
        packet.tap = Tap::TunTx as u8;
        writer.push(0, bytemuck::bytes_of(&packet))?;
        let mut call = Syscall::zeroed();
        call.header = header(now + MS + 900, Kind::Syscall, ProbeId::SysExit);
        (call.tgid, call.nr, call.ret, call.duration_ns) = (70, 0, 1420, 500);
        writer.push(0, bytemuck::bytes_of(&call))?;
        let mut switch = Switch::zeroed();
        switch.header = header(now + 2 * MS, Kind::Switch, ProbeId::SchedSwitch);
        (switch.prev_tid, switch.prev_tgid, switch.watched) = (71, 70, 1);
        writer.push(0, bytemuck::bytes_of(&switch))?;
        let mut probe = TcpProbe::zeroed();
        probe.header = header(now + 3 * MS, Kind::TcpProbe, ProbeId::TcpProbe);
        (probe.netns, probe.ip_version, probe.lport, probe.rport) = (1, 4, 40_000, 5201);
        (probe.snd_cwnd, probe.packets_out, probe.srtt_8us) = (10 + round as u32, 3, 8_000);
        writer.push(0, bytemuck::bytes_of(&probe))?;
    }
    let now = BEGAN + ROUNDS * 5 * MS;
    let mut again = Retransmit::zeroed();
    again.header = header(now, Kind::Retransmit, ProbeId::TcpRetransmitSkb);
    (again.netns, again.ip_version, again.lport, again.rport) = (1, 4, 40_000, 5201);
    (again.ca_state, again.len, again.segments) = (3, 1380, 1);
    writer.push(0, bytemuck::bytes_of(&again))?;
    for _ in 0..7 {
        let mut sample = Sample::zeroed();
        sample.header = header(now + MS, Kind::Sample, ProbeId::CpuClock);
        (sample.tgid, sample.user_depth) = (70, 2);
        (sample.user[0], sample.user[1]) = (0x40_1000, 0x40_2000);
        writer.push(0, bytemuck::bytes_of(&sample))?;
    }
    writer.end_epoch(now + 2 * MS, &[])?;
    writer.finish(&End {
        clock: Clock {
            monotonic_ns: now + 2 * MS,
            ..clock
        },
        ..End::default()
    })?;
    Ok((folder, path))
}

fn export(trace: &Path, to: &str, output: &Path) -> Result<()> {
    let run = vpnbench()
        .arg("export")
        .arg(trace)
        .args(["--to", to, "-o"])
        .arg(output)
        .output()?;
    ensure!(
        run.status.success(),
        "{to}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
    Ok(())
}

/// Decodes a file with the package's descriptors and prints each track with what is on it. Fields that the descriptors do not
/// know, slices that do not end, times that run backwards within a slice, and events of tracks
/// that are not described are errors.
const DECODE: &str = r#"
import sys
from perfetto.protos.perfetto.trace import perfetto_trace_pb2
data = open(sys.argv[1], 'rb').read()
trace = perfetto_trace_pb2.Trace.FromString(data)
assert trace.ByteSize() == len(data), 'not all bytes are accounted for'
def known(message):
    try:
        from google.protobuf import unknown_fields
        assert len(unknown_fields.UnknownFieldSet(message)) == 0, message
    except ImportError:
        pass
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in (value if hasattr(value, 'append') or hasattr(value, 'add') else [value]):
                known(one)
known(trace)
tracks, open_, counts = {}, {}, {}
for packet in trace.packet:
    assert packet.trusted_packet_sequence_id == 1
    if packet.HasField('track_descriptor'):
        d = packet.track_descriptor
        assert d.uuid not in tracks and (not d.parent_uuid or d.parent_uuid in tracks), d
        name = d.name or d.thread.thread_name or d.process.process_name
        tracks[d.uuid] = name
    elif packet.HasField('track_event'):
        e = packet.track_event
        assert e.track_uuid in tracks, e
        row = counts.setdefault(tracks[e.track_uuid], [0, 0, 0])
        if e.type == 1:
            assert e.track_uuid not in open_, e
            open_[e.track_uuid] = packet.timestamp
        elif e.type == 2:
            begin = open_.pop(e.track_uuid)
            assert begin <= packet.timestamp, e
            row[0] += 1
        elif e.type == 3:
            row[1] += 1
        else:
            assert e.type == 4 and e.HasField('counter_value'), e
            row[2] += 1
    else:
        assert packet.HasField('clock_snapshot') and len(packet.clock_snapshot.clocks) == 3
assert not open_, open_
for name in sorted(set(tracks.values())):
    print(name, *counts.get(name, [0, 0, 0]), sep='|')
"#;

/// Every track, slice, instant and value of the run is in the file, and nothing else.
pub(crate) fn perfetto() -> Result<()> {
    let (folder, trace) = trace()?;
    let path = folder.path().join("run.pftrace");
    export(&trace, "perfetto", &path)?;
    let output = python().args(["-c", DECODE]).arg(&path).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    let found = String::from_utf8(output.stdout)?;
    let sender = "0.0.0.0:40000 > 0.0.0.0:5201";
    let expected = [
        format!("congestion window of {sender}|0|0|{ROUNDS}"),
        "netns 1|0|0|0".to_owned(),
        format!("{sender}|0|1|0"),
        format!("segments in flight of {sender}|0|0|1"),
        format!("smoothed round trip of {sender}|0|0|1"),
        "thread 70|0|0|0".to_owned(),
        format!("thread 71|{ROUNDS}|0|0"),
        format!("thread 71 system calls|{ROUNDS}|0|0"),
        format!("TUN queueing discipline|{ROUNDS}|0|0"),
        format!("tun.queue if2|0|{ROUNDS}|0"),
        format!("tun.tx if2|0|{ROUNDS}|0"),
    ];
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let mut lines: Vec<&str> = found.lines().collect();
    expected.sort_unstable();
    lines.sort_unstable();
    ensure!(lines == expected, "{lines:#?} instead of {expected:#?}");
    Ok(())
}

/// All samples are in the folded stacks, and a flame graph can be drawn of them.
pub(crate) fn folded() -> Result<()> {
    let (folder, trace) = trace()?;
    let path = folder.path().join("run.folded");
    export(&trace, "folded", &path)?;
    let text = std::fs::read_to_string(&path)?;
    let samples = text.lines().map(|line| {
        let (stack, count) = line.rsplit_once(' ').context("a count")?;
        ensure!(!stack.is_empty(), "{line}");
        Ok(count.parse::<u64>()?)
    });
    let samples: Result<Vec<u64>> = samples.collect();
    ensure!(samples? == [7], "{text}");
    let mut drawn = Vec::new();
    let mut options = inferno::flamegraph::Options::default();
    let lines = text.lines();
    inferno::flamegraph::from_lines(&mut options, lines, &mut drawn)?;
    let drawn = String::from_utf8(drawn)?;
    ensure!(drawn.contains("(7 samples, 100%"), "{drawn:.2000}");
    Ok(())
}
