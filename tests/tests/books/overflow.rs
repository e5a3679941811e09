//! Queues that overflow in the kernel, beside its own counters and what the tunnel read.

use anyhow::{Context, Result, ensure};
use vpnbench::lab::tunnel::truth::{Fate, Way};

use crate::run::{End, Run};

/// One packet per read, send and write, so that a slow stage is slow per packet.
const PLAIN: &str = "truth_log = true\ntun_gso = false\ntun_gro = false\nouter_gso = false\n\
                     outer_gro = false\nread_batch = 1\nsend_batch = 1\nreceive_batch = 1\n\
                     threads = \"single\"";

fn run(settings: &str) -> Result<Run> {
    of(&format!("{PLAIN}\n{settings}"))
}

fn of(settings: &str) -> Result<Run> {
    Run::of(&format!(
        "name = \"books\"\n[wire]\nbackend = \"none\"\n[vpn]\nname = \"reference\"\n\
         [vpn.settings]\n{settings}\n[benchmark]\nname = \"udp\"\nduration = \"1s\"\n\
         rate_bps = 200000000\n"
    ))
}

pub(crate) fn tun_queue() -> Result<()> {
    let run = run("txqueuelen = 32\n[vpn.settings.faults.transmit]\nburn_entry = \"100us\"")?;
    let stage = run.stage("tun-queue", End::A)?;
    let mut devices = run.report.interfaces.iter();
    let device = devices.find(|one| one.role == "tunnel" && one.namespace.ends_with("-a"));
    let counters = device.and_then(|one| one.counters).context("no counters")?;
    ensure!(
        counters.tx_dropped > 100,
        "the queue did not overflow: {counters:?}"
    );
    run.equal(
        "lost in the device's queue",
        stage.lost,
        counters.tx_dropped,
    )?;
    ensure!(stage.lost == stage.lost_by_kernel, "{stage:?}");
    let read = run.truth(End::A, Way::Transmit)?.len() as u64;
    run.equal("read from the device", stage.left, read)?;
    run.adds_up()
}

pub(crate) fn socket_buffer() -> Result<()> {
    let run = run("receive_buffer = 16384\n[vpn.settings.faults.receive]\nburn_entry = \"100us\"")?;
    let stage = run.stage("outer-socket", End::A)?;
    let mut lines = run.report.books.iter();
    let line = lines.find(|one| one.counter.contains("RcvbufErrors") && one.place.ends_with("-b"));
    let kernel = line
        .and_then(|line| line.kernel)
        .context("no RcvbufErrors")?;
    ensure!(kernel > 100, "the socket did not overflow");
    run.equal("lost at the socket", stage.lost, kernel)?;
    let sent = run.count(End::A, Way::Transmit, Fate::Carried)?;
    let read = run.truth(End::B, Way::Receive)?.len() as u64;
    run.lost("lost at the socket, by both daemons", stage, sent - read)?;
    run.adds_up()
}

/// A queue between the threads of a pipeline that drops what finds it full.
pub(crate) fn daemon_queue() -> Result<()> {
    let run = of(
        "truth_log = true\ntun_gso = false\nouter_gso = false\nthreads = \"pipeline\"\nworkers = 1\n\
         queue_depth = 16\nqueue_full = \"drop\"\n\
         [vpn.settings.faults.transmit]\nburn_crypto = \"100us\"",
    )?;
    let lines = run.truth(End::A, Way::Transmit)?;
    let lost = lines.iter().filter(|line| line.fate == Fate::Lost).count() as u64;
    ensure!(lost > 100, "the queue did not overflow: {lost}");
    let stage = run.stage("daemon-send", End::A)?;
    run.equal("read from the device", stage.entered, lines.len() as u64)?;
    run.lost("lost in the daemon's queue", stage, lost)?;
    ensure!(stage.lost_by_kernel == 0, "{stage:?}");
    run.adds_up()
}
