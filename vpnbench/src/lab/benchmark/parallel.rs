//! Several iperf3 tests at once: around the ring of three hosts as in the study, both ways between
//! two. One process in a starts all clients, each in its own host, and puts the results together.

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::endpoint::{self, Failure, monotonic_ns};
use super::spec::Parallel;
use super::{Ready, Setup, iperf3};
use crate::analysis::benchmark::{self, Benchmark};
use crate::lab::error::{LabError, Result};
use crate::lab::{netns, part};

/// How often it looks whether all tests are done.
const LOOK: Duration = Duration::from_millis(50);

/// One test.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Link {
    /// `a to b`.
    name: String,
    netns: PathBuf,
    command: Vec<String>,
    /// Where the client's own JSON goes.
    output: PathBuf,
}

/// Starts a server on each link's far end and waits until all listen.
pub(super) fn prepare(spec: &Parallel, setup: Setup<'_>) -> Result<Ready> {
    let addresses = setup.addresses();
    let mut links = setup.hosts.links();
    if let [(a, b)] = links[..] {
        links.push((b, a));
    }
    let (mut servers, mut tests) = (Vec::new(), Vec::new());
    for (number, (from, to)) in (0..).zip(links) {
        let address: Option<&IpAddr> = addresses
            .iter()
            .find(|(label, _)| *label == to.label)
            .map(|(_, address)| address);
        let address = *address.ok_or_else(|| {
            LabError::failed("starting a server on", &to.label)("the tunnel has no end there")
        })?;
        let port = iperf3::PORT + number;
        servers.push(iperf3::server(
            setup.undo, &to.netns, address, port, setup.logs,
        )?);
        let mut command = iperf3::client(address, port, spec.duration.as_s());
        command.extend(iperf3::congestion(&spec.congestion)?);
        if spec.bidir {
            command.push("--bidir".to_owned());
        }
        tests.push(Link {
            name: format!("{} to {}", from.label, to.label),
            netns: from.netns.clone(),
            command,
            output: setup.logs.join(format!("iperf3-client-{port}.json")),
        });
    }
    let command = endpoint::command("parallel-tcp", &tests)?;
    Ok(Ready::of(servers, command))
}

/// The part `parallel-tcp`.
pub(in crate::lab) fn run(settings: &str) -> Result<()> {
    let links: Vec<Link> = part::settings("parallel-tcp", settings)?;
    let started_ns = monotonic_ns();
    let clients = Clients::default();
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = links
            .iter()
            .map(|link| scope.spawn(|| test(link, &clients)))
            .collect();
        // Asked to end, it ends those that are not done, and reports those that are.
        while !threads.iter().all(ScopedJoinHandle::is_finished) {
            if endpoint::is_terminated() {
                clients.end();
            }
            std::thread::sleep(LOOK);
        }
        let results = threads.into_iter().zip(&links).map(|(thread, link)| {
            let panicked = |_| Err(Failure::of("the client's thread")("it panicked"));
            let result = thread.join().unwrap_or_else(panicked);
            result.unwrap_or_else(|failure| Benchmark {
                tool: "iperf3".to_owned(),
                link: Some(link.name.clone()),
                error: Some(failure.to_string()),
                ..Benchmark::default()
            })
        });
        results.collect::<Vec<Benchmark>>()
    });
    let result = together(parts, started_ns);
    endpoint::emit(&result).map_err(LabError::failed("running", "parallel-tcp"))?;
    match result.error {
        Some(error) => Err(LabError::failed("running", "parallel-tcp")(error)),
        None => Ok(()),
    }
}

/// The iperf3 clients that run.
#[derive(Default)]
struct Clients {
    running: Mutex<Vec<Pid>>,
}

impl Clients {
    fn running(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None of them has been waited for, so that a number is nobody else's.
    fn end(&self) {
        for pid in self.running().drain(..) {
            let _gone = kill(pid, Signal::SIGTERM);
        }
    }
}

fn test(link: &Link, clients: &Clients) -> std::result::Result<Benchmark, Failure> {
    let (program, arguments) = link
        .command
        .split_first()
        .ok_or_else(|| Failure::of("starting")("an empty command"))?;
    let mut command = netns::command(&link.netns, program).map_err(Failure::of(&link.name))?;
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(Failure::of("starting iperf3"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    clients.running().push(pid);
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout
            .read_to_string(&mut text)
            .map_err(Failure::of("reading iperf3's output"))?;
    }
    clients.running().retain(|running| *running != pid);
    child.wait().map_err(Failure::of("waiting for iperf3"))?;
    std::fs::write(&link.output, &text)
        .map_err(Failure::of(format!("writing {}", link.output.display())))?;
    let mut result = benchmark::iperf3::read(&text).map_err(Failure::of(&link.name))?;
    result.link = Some(link.name.clone());
    Ok(result)
}

/// The study's figure: the sum over the links of what their clients sent and their servers got.
/// Missing if one link has none.
fn together(parts: Vec<Benchmark>, started_ns: u64) -> Benchmark {
    let sum = |figure: fn(&Benchmark) -> Option<f64>| {
        let all: Option<Vec<f64>> = parts.iter().map(figure).collect();
        all.map(|all| all.iter().sum())
    };
    let count = |figure: fn(&Benchmark) -> Option<u64>| {
        let all: Option<Vec<u64>> = parts.iter().map(figure).collect();
        all.map(|all| all.iter().sum())
    };
    let failed = parts.iter().find_map(|part| {
        let error = part.error.as_ref()?;
        Some(format!("{}: {error}", part.link.as_deref().unwrap_or("?")))
    });
    Benchmark {
        kind: "parallel".to_owned(),
        started_ns: Some(started_ns),
        throughput_bps_sent: sum(|part| part.throughput_bps_sent),
        throughput_bps_received: sum(|part| part.throughput_bps_received),
        bytes_sent: count(|part| part.bytes_sent),
        bytes_received: count(|part| part.bytes_received),
        retransmits: count(|part| part.retransmits),
        duration_s: parts
            .iter()
            .filter_map(|part| part.duration_s)
            .reduce(f64::max),
        streams: u32::try_from(parts.len()).ok(),
        complete: parts.iter().all(|part| part.complete),
        error: failed,
        connections: parts
            .iter()
            .flat_map(|part| part.connections.clone())
            .collect(),
        parts,
        ..endpoint::own()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_with_a_missing_part_is_missing() {
        let part = |sent| Benchmark {
            link: Some("a to b".to_owned()),
            throughput_bps_sent: sent,
            complete: sent.is_some(),
            error: sent.is_none().then(|| "refused".to_owned()),
            ..Benchmark::default()
        };
        let whole = together(vec![part(Some(1e6)), part(Some(2e6))], 0);
        assert_eq!(
            (whole.throughput_bps_sent, whole.complete),
            (Some(3e6), true)
        );
        let broken = together(vec![part(Some(1e6)), part(None)], 0);
        assert_eq!((broken.throughput_bps_sent, broken.complete), (None, false));
        assert_eq!(broken.error.as_deref(), Some("a to b: refused"));
    }
}
