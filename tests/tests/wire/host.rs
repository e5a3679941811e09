//! The embedded wire with the impairment in the sending host: the same counts, and TCP knows what waits.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use libtest_mimic::Failed;
use nix::sys::socket::{setsockopt, sockopt};
use vpnbench::lab::wire::Backend;
use vpnbench::lab::{Run, Topology};

use super::embedded::truth_log;
use super::probe::{self, inside};
use super::profiles::counts;
use crate::{Case, Outcome, check};

/// Name and body of each case.
pub(crate) const CASES: &[Case] = &[
    ("medium_comes_out_as_predicted_in_the_host", || {
        counts("medium", Backend::Embedded, "host")
    }),
    ("the_truth_log_of_a_host_is_what_happened", || {
        truth_log("host")
    }),
    ("tcp_knows_what_waits_in_its_host", books_of_tcp),
];

const PORT: u16 = 7002;
const BYTES: usize = 2 << 20;

/// With reordering alone on the way TCP believes in losses. In the host it sees originals still queued
/// and does not send them again; behind a device that has taken them it cannot know.
fn books_of_tcp() -> Outcome {
    let mut found = Vec::new();
    for place in ["host", "egress"] {
        let delays = "[forward]\ndelay = '4ms'\njitter = '7ms'";
        let wire = format!("backend = 'embedded'\nplace = '{place}'\n{delays}");
        let run = probe::start(&wire, Topology::default())?;
        transfer(&run)?;
        let held_back = counter(&run, "TcpExt:", "TCPSpuriousRtxHostQueues")?;
        found.push((held_back, counter(&run, "Tcp:", "RetransSegs")?));
        let account = run.wire.account()?;
        let egress = account.hosts[0].embedded.as_ref().ok_or("no account")?;
        check(
            egress.unexplained().units == 0 && egress.reordered > 10,
            format!("{place}: {egress:?}"),
        )?;
        run.finish()?;
    }
    let [host, egress] = found[..] else {
        return Err("two places".into());
    };
    check(
        host.0 > 10 && host.1 < egress.1 && egress.0 == 0,
        format!("held back and sent again: in the host {host:?}, on its egress {egress:?}"),
    )
}

/// Sends [`BYTES`] from a to b with cubic, and waits until all have arrived.
fn transfer(run: &Run) -> Outcome {
    let (a, b) = (&run.hosts.a, &run.hosts.b);
    let listener = inside(&b.netns, || TcpListener::bind((b.ipv4, PORT)))?;
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.read_to_end(&mut Vec::new())
        });
        let sent = inside(&a.netns, || {
            let mut stream = TcpStream::connect((b.ipv4, PORT))?;
            setsockopt(&stream, sockopt::TcpCongestion, &"cubic".into())?;
            stream.write_all(&vec![0; BYTES])
        });
        let received = receiver
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent?;
        let received = received?;
        check(received == BYTES, format!("{received} bytes arrived"))
    })
}

/// A counter of host a, from /proc/net/netstat or /proc/net/snmp.
fn counter(run: &Run, section: &str, name: &str) -> Result<u64, Failed> {
    let file = match section {
        "Tcp:" => "/proc/thread-self/net/snmp",
        _ => "/proc/thread-self/net/netstat",
    };
    let text = inside(&run.hosts.a.netns, || std::fs::read_to_string(file))?;
    let mut lines = text.lines().filter(|line| line.starts_with(section));
    let (names, values) = (lines.next(), lines.next());
    let names = names.unwrap_or_default().split_whitespace();
    let mut pairs = names.zip(values.unwrap_or_default().split_whitespace());
    let value = pairs.find(|pair| pair.0 == name).map(|pair| pair.1);
    let value = value.ok_or_else(|| format!("no {name} in {file}"))?;
    Ok(value.parse()?)
}
