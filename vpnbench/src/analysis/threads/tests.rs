//! Threads of an imagined daemon, event by event.

use std::collections::BTreeMap;

use bytemuck::Zeroable;
use vpnbench_common::catalog::{Kind, ProbeId, Tap};
use vpnbench_common::event;
use vpnbench_common::header::Header;

use super::*;
use crate::trace::model::{Daemon, End, OuterSocket, Symbols, Thread as Snapshot, Tunnel};

const DAEMON: u32 = 100;
const NETNS: u32 = 7;
const TUN: u32 = 3;
const WIRE: u32 = 4;
const PORT: u16 = 51820;
const MS: u64 = 1_000_000;
const READ: u32 = 0;
const SENDTO: u32 = 44;
const RECVFROM: u32 = 45;
const FUTEX: u32 = 202;

/// A recording of one second.
struct Run {
    threads: Threads,
    start: Start,
    end: End,
}

impl Run {
    fn new() -> Run {
        let mut start = Start::default();
        start.host.machine = "x86_64".to_owned();
        start.host.cpus = 2;
        start.tunnels = vec![Tunnel {
            netns: NETNS,
            ifindex: TUN,
            daemon: Some(Daemon {
                pid: DAEMON,
                ..Daemon::default()
            }),
            sockets: vec![OuterSocket {
                ip_proto: 17,
                local: [10, 0, 0, 1].into(),
                local_port: PORT,
                remote: None,
                netns: NETNS,
                inode: 1,
                listening: false,
            }],
            ..Tunnel::default()
        }];
        start.environment.threads = (0..6).map(|n| snapshot(DAEMON + n, 0)).collect();
        let mut end = End::default();
        end.clock.monotonic_ns = 1000 * MS;
        Run {
            threads: Threads::of(&start),
            start,
            end,
        }
    }

    fn on(&mut self, ms: f64, tid: u32) {
        let mut switch = switch(ms);
        (switch.next_tid, switch.next_tgid, switch.watched) = (tid, DAEMON, 2);
        self.threads.observe(&Event::Switch(&switch));
    }

    /// Off the CPU in a call; runtime as the scheduler would count it is up to the test.
    fn off(&mut self, ms: f64, tid: u32, call: u32, runtime_ms: f64) {
        let mut switch = switch(ms);
        (switch.prev_tid, switch.prev_tgid, switch.watched) = (tid, DAEMON, 1);
        (switch.prev_state, switch.prev_syscall) = (1, call as i32);
        switch.prev_runtime_ns = ns(runtime_ms);
        self.threads.observe(&Event::Switch(&switch));
    }

    fn wake(&mut self, ms: f64, waker: u32, woken: u32) {
        let mut wakeup = event::Wakeup::zeroed();
        wakeup.header = header(ms, waker, Kind::Wakeup, ProbeId::SchedWaking);
        (wakeup.woken_tid, wakeup.woken_tgid) = (woken, DAEMON);
        self.threads.observe(&Event::Wakeup(&wakeup));
    }

    fn packet(&mut self, ms: f64, tid: u32, tap: Tap, skb: u64) {
        let mut packet = event::Packet::zeroed();
        packet.header = header(ms, tid, Kind::Packet, ProbeId::NetDevStartXmit);
        (packet.tap, packet.netns, packet.skb) = (tap as u8, NETNS, skb);
        packet.ifindex = if tap == Tap::TunTx || tap == Tap::TunWrite {
            TUN
        } else {
            WIRE
        };
        (packet.ip_proto, packet.dport) = (17, PORT);
        (packet.len, packet.payload_len) = (1000, 900);
        self.threads.observe(&Event::Packet(&packet));
    }

    fn taken(&mut self, ms: f64, tid: u32, tap: Tap, skb: u64) {
        let mut taken = event::Taken::zeroed();
        taken.header = header(ms, tid, Kind::Taken, ProbeId::ConsumeSkb);
        (taken.tap, taken.netns, taken.skb) = (tap as u8, NETNS, skb);
        (taken.len, taken.port, taken.ifindex) = (1000, PORT, TUN);
        self.threads.observe(&Event::Taken(&taken));
    }

    fn call(&mut self, ms: f64, tid: u32, nr: u32, fd: i32, ret: i64, took_ms: f64) {
        let mut call = event::Syscall::zeroed();
        call.header = header(ms, tid, Kind::Syscall, ProbeId::SysExit);
        (call.tgid, call.nr, call.fd, call.ret) = (DAEMON, nr, fd, ret);
        call.duration_ns = ns(took_ms);
        self.threads.observe(&Event::Syscall(&call));
    }

    fn finish(self) -> Output {
        let (symbols, lost) = (Symbols::default(), BTreeMap::new());
        let context = Context::new(&self.start, Some(&self.end), &[], &symbols, &lost);
        let (output, problems) = self.threads.finish(&context, Span::default());
        assert_eq!(problems, []);
        output
    }
}

fn ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

fn header(ms: f64, tid: u32, kind: Kind, probe: ProbeId) -> Header {
    Header {
        time_ns: ns(ms),
        tid,
        cpu: 0,
        kind: kind as u8,
        probe: probe as u8,
    }
}

fn switch(ms: f64) -> event::Switch {
    let mut switch = event::Switch::zeroed();
    switch.header = header(ms, 0, Kind::Switch, ProbeId::SchedSwitch);
    switch
}

fn snapshot(tid: u32, runtime_ns: u64) -> Snapshot {
    Snapshot {
        tgid: DAEMON,
        tid,
        comm: format!("thread-{tid}"),
        role: "daemon".to_owned(),
        runtime_ns,
        ..Snapshot::default()
    }
}

fn thread(output: &Output, tid: u32) -> &ThreadTime {
    let found = output.threads.iter().find(|one| one.tid == tid);
    found.expect("the thread is there")
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-6
}

/// Packets come every 10 ms; the thread needs 9 ms for each, and sleeps when there is none.
fn one_thread(spinning: bool) -> Output {
    let mut run = Run::new();
    run.on(0.0, DAEMON);
    let mut runtime = 0.0;
    for n in 0..100 {
        let at = 10.0 * f64::from(n);
        if !spinning && n > 0 {
            run.wake(at, 900, DAEMON);
            run.on(at, DAEMON);
        }
        run.packet(at, 900, Tap::TunTx, 1);
        let cost = if spinning { 1.0 } else { 9.0 };
        run.taken(at + 0.2, DAEMON, Tap::TunRead, 1);
        run.call(at + 0.2, DAEMON, READ, 5, 1000, 0.1);
        run.packet(at + cost, DAEMON, Tap::OuterQueue, 2);
        run.call(at + cost, DAEMON, SENDTO, 6, 900, 0.5);
        if spinning {
            for poll in 2..9 {
                run.call(at + f64::from(poll), DAEMON, READ, 5, -11, 0.1);
            }
        } else {
            runtime += cost;
            run.off(at + cost, DAEMON, READ, runtime);
        }
    }
    run.end.environment.threads = vec![snapshot(
        DAEMON,
        if spinning { 1000 * MS } else { 900 * MS },
    )];
    run.finish()
}

#[test]
fn stages_add_up_to_what_the_scheduler_charged() {
    let mut run = Run::new();
    // Each time the scheduler charges 0.2 ms less than the switches are apart: it searched for the next.
    for round in 0..5 {
        let (at, charged) = (f64::from(round) * 100.0, f64::from(round) * 10.6);
        run.on(at, DAEMON);
        run.taken(at + 1.0, DAEMON, Tap::TunRead, 1);
        run.call(at + 2.0, DAEMON, READ, 3, 1000, 2.0);
        run.off(at + 10.0, DAEMON, READ, charged + 9.8);
        run.on(at + 50.0, DAEMON);
        run.call(at + 50.5, DAEMON, READ, 3, -11, 42.5);
        run.off(at + 51.0, DAEMON, READ, charged + 10.6);
    }
    let output = run.finish();
    let thread = &output.threads[0];
    let stages: f64 = thread.stages.iter().map(|stage| stage.cpu_s).sum();
    assert!(
        (stages - thread.cpu_s).abs() < 1e-6,
        "{stages} of {}",
        thread.cpu_s
    );
}

#[test]
fn a_maker_of_processes_is_called_as_its_child_at_first() {
    let mut run = Run::new();
    let (maker, child) = (900, 901);
    let mut fork = event::Task::zeroed();
    fork.header = header(1.0, maker, Kind::Task, ProbeId::SchedProcessFork);
    (fork.what, fork.tgid) = (event::task_what::FORK, 800);
    (fork.target_tid, fork.child_tgid) = (child, child);
    fork.comm[..4].copy_from_slice(b"test");
    run.threads.observe(&Event::Task(&fork));
    let mut exec = fork;
    (exec.what, exec.tgid) = (event::task_what::EXEC, child);
    exec.header.tid = child;
    exec.comm[..4].copy_from_slice(b"tool");
    run.threads.observe(&Event::Task(&exec));
    let output = run.finish();
    let named = |tid| {
        let row = thread(&output, tid);
        (row.pid, row.comm.as_str())
    };
    assert_eq!(named(maker), (800, "test"));
    assert_eq!(named(child), (child, "tool"));
}

#[test]
fn a_thread_with_work_is_saturated_and_its_ceiling_follows() {
    let output = one_thread(false);
    let thread = thread(&output, DAEMON);
    assert_eq!(thread.duties, [Duty::TunReader, Duty::OuterSender]);
    let share = thread.saturated_share.expect("known");
    // 99 intervals of 10 ms and the read of the last packet; 9 ms of each with work.
    assert!((share - 0.9).abs() < 0.01, "{share}");
    assert!((thread.ns_per_packet.expect("packets") - 9e6).abs() < 1e5);
    let limits = &output.limits[0];
    assert_eq!((limits.packets_out, limits.packets_in), (100, 0));
    let bottleneck = limits.bottleneck.as_ref().expect("it is saturated");
    assert_eq!(bottleneck.tid, Some(DAEMON));
    assert_eq!(bottleneck.stage.as_deref(), Some("daemon-send"));
    // 9 ms each: 111 packets a second if it never slept.
    let ceiling = bottleneck.ceiling_packets_per_s;
    assert!((ceiling - 1000.0 / 9.0).abs() < 2.0, "{ceiling}");
    assert!(near(thread.cpu_s, 0.9), "{}", thread.cpu_s);
    assert!(near(output.difference_ratio.expect("compared"), 0.0));
}

#[test]
fn a_thread_that_polls_without_work_is_not() {
    let output = one_thread(true);
    let thread = thread(&output, DAEMON);
    // It never leaves its core: no switch ends its time, the end of the recording does.
    assert!(near(thread.cpu_s, 1.0), "{}", thread.cpu_s);
    assert!(near(thread.schedstat_cpu_s.expect("in both"), 1.0));
    let share = thread.saturated_share.expect("known");
    // Of each 10 ms the 2 until the first read that finds nothing.
    assert!((share - 0.2).abs() < 0.01, "{share}");
    assert!(thread.idle_cpu_s.expect("known") > 0.79);
    assert_eq!(output.limits[0].bottleneck, None);
}

/// Two threads take packets in turn, each for 4 ms after 5 ms without a core: none of them is busy for most of the
/// time, the daemon is.
#[test]
fn threads_that_take_turns_are_one_pool() {
    let mut run = Run::new();
    let mut runtime = [0.0; 2];
    for tid in [DAEMON, DAEMON + 1] {
        run.on(0.0, tid);
        run.off(0.0, tid, READ, 0.0);
    }
    for n in 0..100_u32 {
        let (at, tid) = (10.0 * f64::from(n), DAEMON + n % 2);
        run.packet(at, 900, Tap::TunTx, 1);
        run.wake(at, 900, tid);
        run.on(at + 5.0, tid);
        run.taken(at + 5.2, tid, Tap::TunRead, 1);
        run.call(at + 5.2, tid, READ, 5, 1000, 0.1);
        run.packet(at + 9.0, tid, Tap::OuterQueue, 2);
        run.call(at + 9.0, tid, SENDTO, 6, 900, 0.5);
        let sum = &mut runtime[(n % 2) as usize];
        *sum += 4.0;
        let charged = *sum;
        run.off(at + 9.0, tid, READ, charged);
    }
    run.end.environment.threads = [DAEMON, DAEMON + 1]
        .map(|tid| snapshot(tid, 200 * MS))
        .to_vec();
    let output = run.finish();
    for tid in [DAEMON, DAEMON + 1] {
        let busy = thread(&output, tid).saturated_share.expect("followed");
        assert!((0.4..0.5).contains(&busy), "{busy}");
    }
    let daemon = &output.limits[0];
    assert!(daemon.pooled);
    assert!(
        (daemon.starved_share - 0.5).abs() < 0.01,
        "{}",
        daemon.starved_share
    );
    assert!(
        (daemon.attended_share - 0.9).abs() < 0.02,
        "{}",
        daemon.attended_share
    );
}

#[test]
fn cpu_time_goes_to_calls_and_to_the_code_between() {
    let output = one_thread(false);
    let thread = thread(&output, DAEMON);
    let cost = |name: &str| {
        let stage = thread.stages.iter().find(|stage| stage.stage == name);
        stage.cloned().unwrap_or_default()
    };
    let sum: f64 = thread.stages.iter().map(|stage| stage.cpu_s).sum();
    assert!(near(sum, thread.cpu_s), "{:?}", thread.stages);
    let (read, send) = (cost("tun-read"), cost("outer-send"));
    assert!(near(read.cpu_s, 0.01), "{read:?}");
    assert!(near(send.cpu_s, 0.05), "{send:?}");
    assert!(near(cost("daemon-send").cpu_s, 0.83), "{:?}", thread.stages);
    assert_eq!(
        (read.calls, read.packets, read.batch_p50),
        (Some(100), Some(100), Some(1.0))
    );
    assert_eq!(send.bytes, Some(90_000));
    assert!(near(send.calls_per_packet.expect("packets"), 1.0));
}

/// It reads all there is, then works on it; when that is sent it asks again and again.
#[test]
fn work_on_a_batch_comes_after_the_read_that_finds_no_more() {
    const AGAIN: i64 = -11;
    let mut run = Run::new();
    run.on(0.0, DAEMON);
    for n in 0..100_u32 {
        let at = 10.0 * f64::from(n);
        for skb in 1..=2 {
            run.packet(at, 900, Tap::TunTx, skb);
            run.taken(at + 0.1, DAEMON, Tap::TunRead, skb);
            run.call(at + 0.1, DAEMON, READ, 5, 1000, 0.0);
        }
        run.call(at + 0.1, DAEMON, READ, 5, AGAIN, 0.0);
        run.call(at + 0.1, DAEMON, RECVFROM, 6, AGAIN, 0.0);
        for (skb, sent) in [(3, at + 2.1), (4, at + 4.1)] {
            run.packet(sent, DAEMON, Tap::OuterQueue, skb);
            run.call(sent, DAEMON, SENDTO, 6, 900, 0.0);
        }
        run.call(at + 4.1, DAEMON, READ, 5, AGAIN, 0.0);
        run.call(at + 6.1, DAEMON, READ, 5, AGAIN, 0.0);
    }
    let output = run.finish();
    let stages = &thread(&output, DAEMON).stages;
    let cpu = |name: &str| {
        let stage = stages.iter().find(|stage| stage.stage == name);
        stage.map_or(0.0, |stage| stage.cpu_s)
    };
    assert!(near(cpu("daemon-send"), 0.4), "{stages:?}");
    // All else up to the last call.
    assert!(near(cpu("other"), 0.5961), "{stages:?}");
}

#[test]
fn sleep_is_told_apart_by_call_and_descriptor() {
    let mut run = Run::new();
    run.on(0.0, DAEMON);
    // It learns that 5 is the device and 6 the socket.
    run.packet(0.5, 900, Tap::TunTx, 1);
    run.taken(1.0, DAEMON, Tap::TunRead, 1);
    run.call(1.0, DAEMON, READ, 5, 1000, 0.1);
    run.packet(1.5, 900, Tap::OuterRx, 2);
    run.taken(2.0, DAEMON, Tap::OuterRecv, 2);
    run.call(2.0, DAEMON, RECVFROM, 6, 900, 0.1);
    for (n, (call, fd)) in [(READ, 5), (RECVFROM, 6), (READ, 9), (FUTEX, 0)]
        .into_iter()
        .enumerate()
    {
        let at = 100.0 * (n + 1) as f64;
        run.off(at, DAEMON, call, 1.0);
        run.wake(at + 40.0, 900, DAEMON);
        run.on(at + 40.0, DAEMON);
        if call != FUTEX {
            run.call(at + 41.0, DAEMON, call, fd, -4, 41.5);
        }
    }
    run.off(900.0, DAEMON, FUTEX, 1.0);
    let output = run.finish();
    let blocked = thread(&output, DAEMON).blocked_s;
    assert!(near(blocked.tun_read, 0.04), "{blocked:?}");
    assert!(near(blocked.socket, 0.04), "{blocked:?}");
    assert!(near(blocked.read, 0.12), "{blocked:?}");
    assert!(near(blocked.futex, 0.04), "{blocked:?}");
    assert!(near(blocked.total(), 0.16), "{blocked:?}");
}

/// Two workers take turns under a lock: one sends, the other waits in a futex for it.
#[test]
fn a_lock_between_workers_is_serialisation_and_not_saturation() {
    let mut run = Run::new();
    let (reader, workers) = (DAEMON, [DAEMON + 1, DAEMON + 2]);
    for n in 0..100_u32 {
        let at = 10.0 * f64::from(n);
        let (holder, waiter) = match n % 2 {
            0 => (workers[0], workers[1]),
            _ => (workers[1], workers[0]),
        };
        for skb in 1..=2 {
            run.packet(at, 900, Tap::TunTx, skb);
        }
        run.on(at, reader);
        for skb in 1..=2 {
            run.taken(at + 0.1, reader, Tap::TunRead, skb);
            run.call(at + 0.1, reader, READ, 5, 1000, 0.05);
        }
        run.off(at + 0.2, reader, READ, f64::from(n) * 0.2);
        for worker in [holder, waiter] {
            if n > 0 {
                run.wake(at + 0.2, reader, worker);
            }
        }
        run.on(at + 0.3, holder);
        run.on(at + 0.3, waiter);
        run.off(at + 0.4, waiter, FUTEX, f64::from(n) * 0.4);
        run.off(at + 0.5, holder, 35, f64::from(n) * 0.4);
        run.wake(at + 8.0, 0, holder);
        run.on(at + 8.0, holder);
        run.packet(at + 8.1, holder, Tap::OuterQueue, 3);
        run.call(at + 8.2, holder, SENDTO, 6, 900, 0.1);
        run.wake(at + 8.3, holder, waiter);
        run.off(at + 8.4, holder, FUTEX, f64::from(n) * 0.4);
        run.on(at + 8.4, waiter);
        run.packet(at + 8.5, waiter, Tap::OuterQueue, 4);
        run.call(at + 8.6, waiter, SENDTO, 6, 900, 0.1);
        run.off(at + 8.7, waiter, FUTEX, f64::from(n) * 0.4);
    }
    let output = run.finish();
    let limits = &output.limits[0];
    assert_eq!(limits.bottleneck, None, "{:?}", limits.ceilings);
    let found = limits
        .serialisation
        .as_ref()
        .expect("they wait for each other");
    assert_eq!(found.threads, workers);
    assert_eq!(found.waits, 100);
    assert!(found.wait_share > 0.35, "{found:?}");
    assert_eq!(found.send_overlap_share, Some(0.0));
    assert!(found.send_alternation > Some(0.5), "{found:?}");
    assert_eq!(thread(&output, reader).duties, [Duty::TunReader]);
}

/// A worker between reader and sender has no packets of its own: its wake-ups tell which way it works.
#[test]
fn a_worker_is_known_by_what_it_does() {
    let mut run = Run::new();
    let (reader, worker, sender) = (DAEMON, DAEMON + 1, DAEMON + 2);
    for n in 0..50_u32 {
        let at = 20.0 * f64::from(n);
        run.packet(at, 900, Tap::TunTx, 1);
        run.on(at, reader);
        run.taken(at + 0.1, reader, Tap::TunRead, 1);
        run.call(at + 0.1, reader, READ, 5, 1000, 0.05);
        run.wake(at + 0.2, reader, worker);
        run.off(at + 0.3, reader, READ, f64::from(n) * 0.3);
        run.on(at + 0.3, worker);
        run.wake(at + 18.9, worker, sender);
        run.off(at + 19.0, worker, FUTEX, f64::from(n) * 18.7);
        run.on(at + 19.0, sender);
        run.packet(at + 19.1, sender, Tap::OuterQueue, 3);
        run.call(at + 19.2, sender, SENDTO, 6, 900, 0.15);
        run.off(at + 19.3, sender, FUTEX, f64::from(n) * 0.3);
    }
    let output = run.finish();
    assert_eq!(thread(&output, worker).duties, [Duty::CryptoWorker]);
    assert_eq!(thread(&output, sender).duties, [Duty::OuterSender]);
    let bottleneck = output.limits[0]
        .bottleneck
        .as_ref()
        .expect("the worker is saturated");
    assert_eq!(bottleneck.tid, Some(worker));
    assert_eq!(bottleneck.stage.as_deref(), Some("daemon-send"));
    let wakings = output
        .wakings
        .iter()
        .find(|one| one.woken_tid == sender && one.waker_tid == worker);
    assert_eq!(wakings.map(|one| one.count), Some(49));
}
