//! Tunnels whose outer transport is a stream: bytes beside what the daemons logged.

use anyhow::{Context, Result, ensure};
use vpnbench::analysis::ledger::DaemonSums;
use vpnbench::lab::tunnel::truth::{Fate, Way};

use crate::run::{End, Run};

/// What the tunnel adds to a packet on a stream: its length, its header, the tag (docs/lab-tunnel.md).
const ADDED: u64 = 4 + 16 + 16;

fn run(transport: &str) -> Result<Run> {
    Run::of(&format!(
        "name = \"books\"\n[wire]\nbackend = \"embedded\"\nunit = \"packet\"\ndelay = \"2ms\"\n\
         loss = \"1%\"\ntruth = \"wire.truth\"\n[vpn]\nname = \"reference\"\n[vpn.settings]\ntruth_log = true\n\
         transport = \"{transport}\"\n[benchmark]\nname = \"tcp\"\nduration = \"1s\"\n"
    ))
}

fn book<'a>(run: &'a Run, stage: &str, from: End) -> Result<&'a DaemonSums> {
    let ledger = run.report.ledger.as_ref().context("no ledger")?;
    let mut books = ledger.sums.iter();
    let found = books.find(|one| one.stage == stage && crate::run::begins(&one.direction, from));
    found.with_context(|| format!("no {stage} among {:?}", ledger.sums))
}

/// Packets and bytes of inner packets that an end took from its device or gave to it.
fn inner(run: &Run, end: End, way: Way) -> Result<(u64, u64)> {
    let mut lines = run.truth(end, way)?;
    lines.retain(|line| line.fate == Fate::Carried);
    let bytes = lines.iter().map(|line| u64::from(line.length)).sum();
    Ok((lines.len() as u64, bytes))
}

pub(crate) fn tcp() -> Result<()> {
    let run = run("tcp")?;
    let mut repeated = 0;
    for (end, other) in [(End::A, End::B), (End::B, End::A)] {
        let send = book(&run, "daemon-send", end)?;
        let (packets, bytes) = inner(&run, end, Way::Transmit)?;
        run.equal("inner segments sent", send.inner_segments, packets)?;
        let again = send
            .repeated_bytes
            .context("nothing is known of what was sent again")?;
        let fresh = send.outer_bytes.context("no outer packet")? - again;
        run.bytes("inner bytes sent", send.inner_bytes, bytes)?;
        run.bytes("bytes put into the stream", fresh, bytes + packets * ADDED)?;
        let receive = book(&run, "daemon-receive", end)?;
        let (packets, bytes) = inner(&run, other, Way::Receive)?;
        run.equal("inner segments received", receive.inner_segments, packets)?;
        run.bytes("inner bytes received", receive.inner_bytes, bytes)?;
        let again_received = receive
            .repeated_bytes
            .context("not known behind the wire")?;
        let fresh = receive.outer_bytes.context("no outer packet")? - again_received;
        run.bytes(
            "bytes got out of the stream",
            fresh,
            bytes + packets * ADDED,
        )?;
        repeated += again;
    }
    ensure!(
        run.hidden > 0 || repeated > 0,
        "the wire lost, and nothing was sent again"
    );
    Ok(())
}

/// A stream of QUIC: what went in and came out at both ends, what went over the wire, and no word about
/// single packets inside the daemons.
pub(crate) fn quic() -> Result<()> {
    let run = run("quic")?;
    let ledger = run.report.ledger.as_ref().context("no ledger")?;
    for (end, other) in [(End::A, End::B), (End::B, End::A)] {
        let send = book(&run, "daemon-send", end)?;
        let (packets, bytes) = inner(&run, end, Way::Transmit)?;
        run.equal("inner segments sent", send.inner_segments, packets)?;
        run.bytes("inner bytes sent", send.inner_bytes, bytes)?;
        let receive = book(&run, "daemon-receive", end)?;
        let (packets, bytes) = inner(&run, other, Way::Receive)?;
        run.equal("inner segments received", receive.inner_segments, packets)?;
        run.bytes("inner bytes received", receive.inner_bytes, bytes)?;
        // Of QUIC's packets nothing says which bytes were sent before.
        ensure!(
            send.repeated_bytes.is_none() && send.overhead_ratio.is_none(),
            "{send:?}"
        );
        let carried = send.outer_bytes.context("no outer packet")?;
        ensure!(carried > send.inner_bytes, "{send:?}");
        let daemon = ledger.stages.iter().find(|stage| {
            stage.name.starts_with("daemon") && crate::run::begins(&stage.direction, end)
        });
        ensure!(daemon.is_none(), "a book of packets in QUIC: {daemon:?}");
    }
    crate::path::beside_wire(&run)
}
