//! What other tools said about the run, given beside a capture: a benchmark's own result, the kernel's counters
//! before and after, the state of sockets, stacks. Each goes where a live recording has the same: iperf3's
//! JSON becomes what the run's command wrote, counters those of the host at both ends, stacks samples; what `ss`
//! said of a socket is kept beside the flow that the packets show.
//!
//! A file's kind is told from its content. What cannot be used is stated with file and line, and the rest is used.

mod counters;
mod sockets;
mod stacks;

use std::io::Read as _;
use std::path::PathBuf;

use super::ImportError;
use super::plan::HOST;
use crate::trace::model::{CommandOutput, SocketSample, Start, Symbols};
use crate::trace::{Code, Event, Input, Problem};
use counters::{Device, Protocols};

/// Bytes of a file that are read: all of these are small.
const BYTES_MAX: u64 = 64 << 20;

/// A file that is given beside captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Name of the host it was taken on.
    pub host: String,
    /// The file.
    pub path: PathBuf,
}

impl File {
    /// A file without a host.
    #[must_use]
    pub fn at(path: PathBuf) -> File {
        File {
            host: HOST.to_owned(),
            path,
        }
    }
}

/// What all of them said.
#[derive(Debug, Default)]
pub(super) struct Beside {
    benchmark: Option<String>,
    protocols: Vec<(u32, Protocols)>,
    devices: Vec<(u32, Device)>,
    sockets: Vec<SocketSample>,
    stacks: stacks::Stacks,
    problems: Vec<Problem>,
}

/// What a file is, by marks that only its tool writes.
enum Kind {
    Iperf3,
    Protocols,
    Device,
    Sockets,
    Stacks,
}

impl Kind {
    fn of(text: &str) -> Option<Kind> {
        let first = text.lines().find(|line| !line.trim().is_empty())?;
        let json = text.trim_start().starts_with('{');
        if json && text.contains("\"iperf 3") {
            Some(Kind::Iperf3)
        } else if first.starts_with('#') || json && first.trim_start().starts_with("{\"kernel\"") {
            Some(Kind::Protocols)
        } else if first.trim() == "NIC statistics:" {
            Some(Kind::Device)
        } else if sockets::is_first(first) {
            Some(Kind::Sockets)
        } else if stacks::is_header(first) {
            Some(Kind::Stacks)
        } else {
            None
        }
    }
}

/// A file that is being read: says what is wrong with it, and where.
struct Reading<'a> {
    name: &'a str,
    netns: u32,
    problems: &'a mut Vec<Problem>,
}

impl Reading<'_> {
    /// A line that is left out.
    fn bad_line(&mut self, number: usize, why: &str) {
        let message = format!("{}, line {number}: {why}; it is left out", self.name);
        self.problems
            .push(Problem::data_loss(Code::Unreadable, message));
    }
}

impl Beside {
    /// Reads all files. `netns` is the number of a host's namespace.
    pub(super) fn read(
        files: &[File],
        netns: impl Fn(&str) -> Option<u32>,
    ) -> Result<Beside, ImportError> {
        let mut all = Beside::default();
        for file in files {
            let name = Input::name(&file.path);
            let netns = netns(&file.host).ok_or_else(|| ImportError::Beside {
                path: name.clone(),
                reason: format!("there is no capture of a host \"{}\"", file.host),
            })?;
            let bytes = bytes(file, &name)?;
            all.add(&name, netns, &String::from_utf8_lossy(&bytes))?;
        }
        Ok(all)
    }

    fn add(&mut self, name: &str, netns: u32, text: &str) -> Result<(), ImportError> {
        let refused = |reason: String| ImportError::Beside {
            path: name.to_owned(),
            reason,
        };
        let kind = Kind::of(text).ok_or_else(|| {
            let first = text.lines().next().unwrap_or("").chars();
            let first: String = first.take(40).flat_map(char::escape_debug).collect();
            refused(format!(
                "it is none of iperf3's JSON, `nstat -asz`, `ethtool -S`, `ss -ti`, `perf script` (line 1 is \"{first}\")"
            ))
        })?;
        let mut reading = Reading {
            name,
            netns,
            problems: &mut self.problems,
        };
        match kind {
            Kind::Iperf3 => {
                if self.benchmark.is_some() {
                    return Err(refused(
                        "it is the second result of iperf3, and one is set beside the packets"
                            .to_owned(),
                    ));
                }
                self.benchmark = Some(text.to_owned());
            }
            Kind::Protocols => {
                let found = counters::protocols(text, &mut reading);
                self.protocols.push((netns, found));
            }
            Kind::Device => {
                let found = counters::device(text, &mut reading);
                self.devices.push((netns, found));
            }
            Kind::Sockets => self.sockets.extend(sockets::read(text, &mut reading)),
            Kind::Stacks => self.stacks.read(text, &mut reading),
        }
        Ok(())
    }

    /// Whether there is anything.
    fn is_empty(&self) -> bool {
        self.benchmark.is_none()
            && self.protocols.is_empty()
            && self.devices.is_empty()
            && self.sockets.is_empty()
            && self.stacks.is_empty()
    }

    /// Puts the state at the beginning into the start frame, and that at the end into `end`, a copy of its
    /// environment.
    pub(super) fn begin(&mut self, start: &mut Start) -> crate::trace::model::Environment {
        if self.is_empty() {
            return start.environment.clone();
        }
        if self.benchmark.is_some() {
            start.command = ["iperf3", "--json"].map(str::to_owned).to_vec();
        }
        self.stacks.announce(start);
        let mut end = start.environment.clone();
        counters::place_protocols(
            &self.protocols,
            [&mut start.environment, &mut end],
            &mut self.problems,
        );
        counters::place_devices(
            &self.devices,
            [&mut start.environment, &mut end],
            &mut self.problems,
        );
        end
    }

    /// Hands out the samples, at the time of the first packet: their own clock is another one.
    pub(super) fn samples(&self, time_ns: u64, deliver: &mut impl FnMut(Event<'_>)) {
        self.stacks.samples(time_ns, deliver);
    }

    /// What the benchmark wrote, as if it had come at the end.
    pub(super) fn output(&mut self, end_ns: u64) -> Option<CommandOutput> {
        let text = self.benchmark.take()?;
        let mut output = CommandOutput::new(false);
        output.push(end_ns, text.as_bytes());
        Some(output)
    }

    /// Samples of sockets.
    pub(super) fn sockets(&mut self) -> Vec<SocketSample> {
        std::mem::take(&mut self.sockets)
    }

    /// Names of the code addresses in samples.
    pub(super) fn symbols(&mut self) -> Symbols {
        self.stacks.symbols()
    }

    /// What is to be said about the files.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }
}

fn bytes(file: &File, name: &str) -> Result<Vec<u8>, ImportError> {
    let opened = Input::open(&file.path).map_err(|source| ImportError::Open {
        path: name.to_owned(),
        source,
    })?;
    let mut bytes = Vec::new();
    let read = opened.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|source| ImportError::Read {
        path: name.to_owned(),
        offset: bytes.len() as u64,
        source,
    })?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(ImportError::Beside {
            path: name.to_owned(),
            reason: format!("it is larger than {} MiB", BYTES_MAX >> 20),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Result<Beside, ImportError> {
        let mut all = Beside::default();
        for (number, text) in texts.iter().enumerate() {
            all.add(&format!("file{number}"), 1, text)?;
        }
        Ok(all)
    }

    #[test]
    fn kinds_are_told_from_the_content() {
        let texts = [
            "{\n\t\"start\":\t{\"version\":\t\"iperf 3.12\"}}",
            "#kernel\nIpInReceives  0  0.0\n",
            "{\"kernel\":{\"IpInReceives\":0}}",
            "NIC statistics:\n     rx_packets: 7\n",
            "State Recv-Q Send-Q Local Address:Port Peer Address:PortProcess\n",
            "iperf3  8132 58293.699706:   10101010 cpu-clock: \n\tffffffff82200809 a+0x1 ([kernel.kallsyms])\n",
        ];
        let found = all(&texts).expect("all are known");
        assert!(found.benchmark.is_some());
        assert_eq!((found.protocols.len(), found.devices.len()), (2, 1));
        assert!(!found.stacks.is_empty());
        assert_eq!(found.problems, []);
    }

    #[test]
    fn what_is_unknown_or_given_twice_is_refused_with_the_file() {
        let error = all(&["hello\n"]).expect_err("unknown").to_string();
        assert!(
            error.contains("file0") && error.contains("hello"),
            "{error}"
        );
        let iperf = "{\"version\":\t\"iperf 3.12\"}";
        let error = all(&[iperf, iperf]).expect_err("twice").to_string();
        assert!(
            error.contains("file1") && error.contains("second"),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(kind in 0usize..6, lines in "(?s).{0,400}") {
            let begin = [
                "{\"kernel\":",
                "#kernel\n",
                "NIC statistics:\n",
                "State Recv-Q Send-Q Local Address:Port\n",
                "ESTAB 0 0 a:1 b:2\n\t",
                "a 1 2.5: x\n\t",
            ];
            let found = all(&[&format!("{}{lines}", begin[kind])]).expect("a known kind");
            found.samples(1, &mut |event| assert!(!event.bytes().is_empty()));
        }
    }
}
