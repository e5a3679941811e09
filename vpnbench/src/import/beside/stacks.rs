//! `perf script`: a line per sample with the process, then a line per frame, innermost first, then an empty one. The names of
//! functions are in the file, so each gets an address of its own, as samples and symbols of a recording have.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use vpnbench_common::catalog::{Kind, ProbeId};
use vpnbench_common::event;

use super::Reading;
use crate::trace::Event;
use crate::trace::model::{Start, Symbols, Thread};

/// Samples kept; further ones are counted.
const SAMPLES_MAX: usize = 1 << 20;
/// Kernel addresses have this bit on all machines that Linux has perf for.
const KERNEL: u64 = 1 << 63;
/// Frames of a side that a record holds.
const DEPTH: usize = 32;

/// One sample: process, kernel and user frames by number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sample {
    tgid: u32,
    kernel: Vec<u32>,
    user: Vec<u32>,
}

/// All samples.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    samples: Vec<Sample>,
    names: Vec<String>,
    numbers: FxHashMap<String, u32>,
    processes: BTreeMap<u32, String>,
}

/// Process and thread of a sample's first line.
struct Header<'a> {
    comm: &'a str,
    tgid: u32,
}

fn header(line: &str) -> Option<Header<'_>> {
    if line.starts_with(char::is_whitespace) {
        // Short names are padded on the left; frames begin with an address.
        let first = line.split_whitespace().next()?;
        if u64::from_str_radix(first, 16).is_ok() && !line.contains(": ") {
            return None;
        }
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    // COMM PID[/TID] [CPU] TIME: ...
    let time = words.iter().position(|word| {
        let number = word.strip_suffix(':');
        number.is_some_and(|number| number.contains('.') && number.parse::<f64>().is_ok())
    })?;
    let cpu = time.checked_sub(1).filter(|at| words[*at].starts_with('['));
    let ids = cpu.unwrap_or(time).checked_sub(1)?;
    let (process, _) = words[ids].split_once('/').unwrap_or((words[ids], ""));
    let tgid = process.parse().ok()?;
    let end = line.find(words[ids])?;
    let comm = line[..end].trim();
    (!comm.is_empty()).then_some(Header { comm, tgid })
}

/// Whether a line begins a sample.
pub(super) fn is_header(line: &str) -> bool {
    header(line).is_some()
}

impl Stacks {
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Reads a file.
    pub(super) fn read(&mut self, text: &str, reading: &mut Reading<'_>) {
        let mut left_out = 0u64;
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                inside = false;
                continue;
            }
            if line.starts_with('#') {
                continue;
            }
            if !inside {
                let Some(found) = header(line) else {
                    reading.bad_line(number + 1, "no process and time of a sample");
                    continue;
                };
                inside = true;
                let comm = found.comm.to_owned();
                self.processes.entry(found.tgid).or_insert(comm);
                if self.samples.len() >= SAMPLES_MAX {
                    left_out += 1;
                }
                self.samples.push(Sample {
                    tgid: found.tgid,
                    kernel: Vec::new(),
                    user: Vec::new(),
                });
                continue;
            }
            if self.frame(line).is_none() {
                reading.bad_line(number + 1, "no frame with an address");
            }
        }
        self.samples.truncate(SAMPLES_MAX);
        if left_out > 0 {
            reading.bad_line(
                text.lines().count(),
                &format!("{left_out} samples are more than are read"),
            );
        }
    }

    /// `ADDRESS SYMBOL+OFFSET (FILE)`
    fn frame(&mut self, line: &str) -> Option<()> {
        let (address, name) = line.trim().split_once(' ')?;
        let address = u64::from_str_radix(address, 16).ok()?;
        let (symbol, file) = name.rsplit_once(" (").unwrap_or((name, ""));
        let file = file.trim_end_matches(')');
        let short = file.rsplit('/').next().unwrap_or(file);
        let module = match short {
            "" | "[kernel.kallsyms]" => String::new(),
            module if module.starts_with('[') => module.to_owned(),
            file => format!("[{file}]"),
        };
        let name = match symbol {
            "[unknown]" => module,
            symbol => format!("{symbol} {module}").trim_end().to_owned(),
        };
        let number = match self.numbers.get(&name) {
            Some(number) => *number,
            None => {
                let number = self.names.len() as u32;
                self.names.push(name.clone());
                self.numbers.insert(name, number);
                number
            }
        };
        let sample = self.samples.last_mut()?;
        let side = match address & KERNEL {
            0 => &mut sample.user,
            _ => &mut sample.kernel,
        };
        if side.len() < DEPTH {
            side.push(number);
        }
        Some(())
    }

    /// Says in the start frame that there are samples, and of which processes.
    pub(super) fn announce(&self, start: &mut Start) {
        if self.is_empty() {
            return;
        }
        for probe in &mut start.probes {
            if probe.id == ProbeId::CpuClock as u8 {
                (probe.attached, probe.reason) = (true, None);
                probe.kind = "perf script".to_owned();
            }
        }
        let threads = self.processes.iter().map(|(tgid, comm)| Thread {
            tgid: *tgid,
            tid: *tgid,
            comm: comm.clone(),
            role: "other".to_owned(),
            ..Thread::default()
        });
        start.environment.threads.extend(threads);
    }

    /// Hands out all samples.
    pub(super) fn samples(&self, time_ns: u64, deliver: &mut impl FnMut(Event<'_>)) {
        for one in &self.samples {
            let mut sample: event::Sample = bytemuck::Zeroable::zeroed();
            sample.header.time_ns = time_ns;
            sample.header.tid = one.tgid;
            (sample.header.kind, sample.header.probe) =
                (Kind::Sample as u8, ProbeId::CpuClock as u8);
            sample.tgid = one.tgid;
            for (slot, number) in sample.kernel.iter_mut().zip(&one.kernel) {
                *slot = KERNEL | u64::from(*number);
            }
            for (slot, number) in sample.user.iter_mut().zip(&one.user) {
                *slot = 1 + u64::from(*number);
            }
            sample.kernel_depth = one.kernel.len() as u16;
            sample.user_depth = one.user.len() as u16;
            deliver(Event::Sample(&sample));
        }
    }

    /// Names of the addresses of [`Stacks::samples`].
    pub(super) fn symbols(&self) -> Symbols {
        let mut symbols = Symbols::default();
        for one in &self.samples {
            for number in &one.kernel {
                let address = KERNEL | u64::from(*number);
                let name = || self.names[*number as usize].clone();
                symbols.kernel.entry(address).or_insert_with(name);
            }
            let own = symbols.user.entry(one.tgid).or_default();
            for number in &one.user {
                let name = || self.names[*number as usize].clone();
                own.entry(1 + u64::from(*number)).or_insert_with(name);
            }
        }
        symbols
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Problem;

    const REAL: &str = "iperf3  8132 58293.699706:   10101010 cpu-clock: 
\tffffffff82200809 _raw_spin_unlock_irqrestore+0x19 ([kernel.kallsyms])
\tffffffff816d87e2 tun_do_read+0x32 ([tun])
\t           fe954 __select+0xb4 (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t             38c [unknown] ([unknown])

 my daemon 77/78 [001] 58294.284142:   10101010 cpu-clock: 
\t           10f19 EVP_Cipher+0x29 (/usr/lib/libcrypto.so.3)

";

    fn read(text: &str) -> (Stacks, Vec<Problem>) {
        let (mut stacks, mut problems) = (Stacks::default(), Vec::new());
        let mut reading = Reading {
            name: "perf.txt",
            netns: 1,
            problems: &mut problems,
        };
        stacks.read(text, &mut reading);
        (stacks, problems)
    }

    #[test]
    fn samples_have_frames_on_both_sides() {
        let (stacks, problems) = read(REAL);
        assert_eq!(problems, []);
        let sides = |one: &Sample| (one.tgid, one.kernel.len(), one.user.len());
        let found: Vec<_> = stacks.samples.iter().map(sides).collect();
        assert_eq!(found, [(8132, 2, 2), (77, 0, 1)]);
        assert_eq!(stacks.processes[&77], "my daemon");
        let symbols = stacks.symbols();
        assert_eq!(symbols.user[&77][&5], "EVP_Cipher+0x29 [libcrypto.so.3]");
        assert_eq!(symbols.kernel[&(KERNEL | 1)], "tun_do_read+0x32 [tun]");
        let mut depths = Vec::new();
        stacks.samples(9, &mut |event| {
            if let Event::Sample(sample) = event {
                depths.push((
                    sample.header.time_ns,
                    sample.kernel_depth,
                    sample.user_depth,
                ));
            }
        });
        assert_eq!(depths, [(9, 2, 2), (9, 0, 1)]);
    }

    #[test]
    fn damage_is_named_by_line() {
        let (stacks, problems) = read(
            &REAL
                .replace("8132 58293.699706:", "8132")
                .replace("10f19 EVP", "zz EVP"),
        );
        assert_eq!(stacks.samples.len(), 1);
        let said: Vec<&str> = problems.iter().map(|one| one.message.as_str()).collect();
        assert!(said[0].contains("line 1:"), "{said:?}");
        assert!(
            said.last().is_some_and(|last| last.contains("line 8:")),
            "{said:?}"
        );
    }
}
