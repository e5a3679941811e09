//! Loads the eBPF object for the running kernel and attaches its programs, row by row of the
//! catalog, with the reason wherever one does not attach.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{MapData, PerCpuArray};
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use vpnbench_common::catalog::{Attach, Group, PROBES, Probe, ProbeId};
use vpnbench_common::settings::{ProbeCounts, SOFTIRQ_VECTORS, Settings, Unrecorded};

use super::fields::{FieldError, KernelTypes};
use super::filter::{Filter, FilterError};
use super::ring::{self, Layout, Ring};
use crate::trace::model::{COVERED, NOT_ASKED_FOR, ProbeStatus};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vpnbench-ebpf"));

/// Stack samples per second and CPU. Not a round number, so that it does not beat with timers.
const SAMPLE_HZ: u64 = 499;

/// Programs without which a recording says nothing about packets.
const REQUIRED: [ProbeId; 2] = [ProbeId::NetDevStartXmit, ProbeId::NetifReceiveSkb];

/// Why nothing could be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel's types are not usable.
    #[error(transparent)]
    Fields(#[from] FieldError),
    /// The kernel refuses BPF to this user.
    #[error(
        "the kernel does not let this user load BPF programs ({what}); run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
    )]
    NotPermitted {
        /// What was refused.
        what: String,
    },
    /// The object does not load.
    #[error("cannot load the BPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// aya cannot parse the kernel's BTF.
    #[error("cannot read the kernel's types: {0}")]
    Btf(#[from] aya::BtfError),
    /// A probe that every recording needs.
    #[error("cannot attach {probe}: {reason}")]
    Required {
        /// Name of the probe.
        probe: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// A map of the object is missing or of another type.
    #[error("BPF map {name}: {source}")]
    Map {
        /// Map.
        name: &'static str,
        /// What went wrong.
        source: aya::maps::MapError,
    },
    /// A filter could not be set.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The rings could not be mapped.
    #[error("cannot map the ring buffers into this process: {0}; try a smaller --buffer")]
    Rings(std::io::Error),
}

impl AttachError {
    /// Whether the kernel or the user's privileges are the reason (exit status 3).
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        !matches!(self, Self::Map { .. } | Self::Filter(_) | Self::Rings(_))
    }
}

/// What to attach and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Probes wanted. See [`select`].
    pub probes: BTreeSet<ProbeId>,
    /// Ring buffer bytes over all rings.
    pub buffer_bytes: u64,
    /// Payload bytes to keep per packet.
    pub keep_payload: u32,
    /// Seed of the device table ([`super::filter::choose_seed`]).
    pub device_seed: u32,
}

/// The probes of the given groups.
#[must_use]
pub fn select(groups: &[Group]) -> BTreeSet<ProbeId> {
    PROBES
        .iter()
        .filter(|row| groups.contains(&row.group))
        .map(|row| row.id)
        .collect()
}

/// A loaded object. Programs are attached by [`Loaded::attach`].
pub struct Loaded {
    ebpf: Ebpf,
    btf: Btf,
    wanted: BTreeSet<ProbeId>,
    layout: Layout,
    /// Ring buffer bytes that were really allocated.
    pub buffer_bytes: u64,
    /// Names of the kernel's drop reasons.
    pub drop_reasons: BTreeMap<u32, String>,
    params: BTreeMap<&'static str, Option<u32>>,
}

/// Loads the object with the running kernel's offsets. Nothing fires yet.
///
/// # Errors
/// See [`AttachError`].
pub fn load(options: &Options) -> Result<Loaded, AttachError> {
    let types = KernelTypes::load()?;
    let params: BTreeMap<_, _> = PROBES
        .iter()
        .filter_map(|row| match row.attach {
            Attach::TpBtf(name) => Some((name, types.tracepoint_params(name))),
            _ => None,
        })
        .collect();
    let layout = Layout::new(options.buffer_bytes, processors());
    let settings = settings(&types, options, layout, &params)?;
    let drop_reasons = types.drop_reasons();
    drop(types);
    let btf = Btf::from_sys_fs()?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    loader.override_global("SETTINGS", bytemuck::bytes_of(&settings), true);
    loader.map_max_entries("RINGS", layout.blocks());
    loader.map_max_entries("CONTROL", layout.rings);
    let ebpf = loader.load(OBJECT).map_err(classify)?;
    Ok(Loaded {
        ebpf,
        btf,
        wanted: options.probes.clone(),
        layout,
        buffer_bytes: layout.bytes(),
        drop_reasons,
        params,
    })
}

/// Processors that there can be: a ring for each.
fn processors() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

fn settings(
    types: &KernelTypes,
    options: &Options,
    layout: Layout,
    params: &BTreeMap<&'static str, Option<u32>>,
) -> Result<Settings, FieldError> {
    let count = |name: &str| params.get(name).copied().flatten().unwrap_or(0);
    Ok(Settings {
        offsets: types.offsets()?,
        ring_mask: layout.rings - 1,
        ring_blocks_log2: layout.blocks_log2,
        keep_payload: options.keep_payload,
        consume_skb_params: count("consume_skb"),
        kfree_skb_params: count("kfree_skb"),
        udp_fail_params: count("udp_fail_queue_rcv_skb"),
        retransmit_params: count("tcp_retransmit_skb"),
        io_uring_params: count("io_uring_complete"),
        device_seed: options.device_seed,
        futex_call: libc::SYS_futex as u32,
    })
}

fn classify(error: aya::EbpfError) -> AttachError {
    let text = chain(&error);
    if text.contains("Operation not permitted") || text.contains("os error 1)") {
        return AttachError::NotPermitted { what: text };
    }
    AttachError::Load(error)
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Attached programs and the maps user space reads. Dropping it detaches everything.
pub struct Attached {
    ebpf: Ebpf,
    /// Every row of the catalog with its attachment.
    pub statuses: Vec<ProbeStatus>,
    counts: PerCpuArray<MapData, ProbeCounts>,
    unrecorded: PerCpuArray<MapData, Unrecorded>,
    softirq: PerCpuArray<MapData, u64>,
    messages: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl Loaded {
    /// The maps that decide what is watched. Fill them before attaching.
    ///
    /// # Errors
    /// If the object lacks a map.
    pub fn filter(&mut self, device_seed: u32) -> Result<Filter, AttachError> {
        Ok(Filter::new(&mut self.ebpf, device_seed)?)
    }

    /// The rings.
    ///
    /// # Errors
    /// If the object lacks a map, or the kernel does not let it be mapped.
    pub fn rings(&mut self) -> Result<Vec<Ring>, AttachError> {
        let mut array = |name| {
            let map = self.ebpf.take_map(name);
            match map {
                Some(aya::maps::Map::Array(data)) => Ok(data),
                _ => Err(AttachError::Map {
                    name,
                    source: aya::maps::MapError::InvalidName {
                        name: name.to_owned(),
                    },
                }),
            }
        };
        let (blocks, control) = (array("RINGS")?, array("CONTROL")?);
        ring::map(blocks, control, self.layout).map_err(AttachError::Rings)
    }

    /// Verifies and attaches the wanted programs.
    ///
    /// # Errors
    /// If a probe that every recording needs does not attach.
    pub fn attach(mut self) -> Result<Attached, AttachError> {
        let mut statuses: Vec<ProbeStatus> = Vec::new();
        // Second-tier rows first: where one attaches, its first-tier stand-in is not needed.
        let (second, first): (Vec<_>, Vec<_>) = PROBES
            .iter()
            .partition(|row| matches!(row.attach, Attach::Fentry(_)));
        let mut covered = BTreeSet::new();
        for row in second.into_iter().chain(first) {
            let outcome = self.attach_row(row, &covered);
            if outcome.is_ok() && row.id == ProbeId::SkbConsumeUdp {
                covered.insert(ProbeId::SockRecvLength);
            }
            if let Err(reason) = &outcome
                && REQUIRED.contains(&row.id)
            {
                return Err(AttachError::Required {
                    probe: row.name,
                    reason: reason.clone(),
                });
            }
            statuses.push(status(row, outcome));
        }
        statuses.sort_by_key(|status| status.id);
        Ok(Attached {
            counts: take(&mut self.ebpf, "COUNTS")?,
            unrecorded: take(&mut self.ebpf, "UNRECORDED")?,
            softirq: take(&mut self.ebpf, "SOFTIRQ_TIME")?,
            // Without it the programs' rare warnings are not shown; nothing else is missing.
            messages: EbpfLogger::init(&mut self.ebpf).ok(),
            ebpf: self.ebpf,
            statuses,
        })
    }

    fn attach_row(&mut self, row: &Probe, covered: &BTreeSet<ProbeId>) -> Result<(), String> {
        if !self.wanted.contains(&row.id) {
            return Err(NOT_ASKED_FOR.to_owned());
        }
        if covered.contains(&row.id) {
            return Err(COVERED.to_owned());
        }
        if let Attach::TpBtf(name) = row.attach
            && self.params.get(name).copied().flatten().is_none()
        {
            return Err(format!(
                "this kernel has no tracepoint {name} (known since {})",
                row.since
            ));
        }
        let program = self
            .ebpf
            .program_mut(row.name)
            .ok_or("not in the BPF object")?;
        attach_program(program, row, &self.btf).map_err(|error| reason(&error))
    }
}

/// Lines of the verifier's log that say what it did not like; the ones before are its way there.
const VERIFIER_LINES: usize = 3;

/// Why a program did not attach. The verifier's log only if the verifier had anything to say.
fn reason(error: &ProgramError) -> String {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return chain(error);
    };
    let what = io_error.to_string();
    let what = what.split(" (os error").next().unwrap_or_default();
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        // Its statistics.
        .filter(|line| !line.is_empty() && !line.starts_with("processed "))
        .collect();
    match &lines[lines.len().saturating_sub(VERIFIER_LINES)..] {
        [] => what.to_owned(),
        last => format!("{what}: {}", last.join(" | ")),
    }
}

fn attach_program(program: &mut Program, row: &Probe, btf: &Btf) -> Result<(), ProgramError> {
    match (row.attach, program) {
        (Attach::TpBtf(name), Program::BtfTracePoint(program)) => {
            program.load(name, btf)?;
            program.attach()?;
        }
        (Attach::Fentry(name), Program::FEntry(program)) => {
            program.load(name, btf)?;
            program.attach()?;
        }
        (Attach::CpuClock, Program::PerfEvent(program)) => {
            program.load()?;
            for cpu in
                aya::util::online_cpus().map_err(|(_, error)| ProgramError::IOError(error))?
            {
                program.attach(
                    PerfEventConfig::Software(SoftwareEvent::CpuClock),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Frequency(SAMPLE_HZ),
                    true,
                )?;
            }
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(())
}

fn status(row: &Probe, outcome: Result<(), String>) -> ProbeStatus {
    ProbeStatus {
        id: row.id as u8,
        name: row.name.to_owned(),
        kind: match row.attach {
            Attach::TpBtf(_) => "tp_btf",
            Attach::Fentry(_) => "fentry",
            Attach::CpuClock => "cpu_clock",
        }
        .to_owned(),
        attached: outcome.is_ok(),
        reason: outcome.err(),
    }
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, AttachError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let invalid = |source| AttachError::Map { name, source };
    let map = ebpf.take_map(name).ok_or_else(|| {
        invalid(aya::maps::MapError::InvalidName {
            name: name.to_owned(),
        })
    })?;
    T::try_from(map).map_err(invalid)
}

/// What the kernel itself counted for one program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Times run, 0 unless BPF statistics were on.
    pub runs: u64,
    /// ns in all runs, 0 unless BPF statistics were on.
    pub ns: u64,
    /// Runs that the kernel skipped because the program was already running on that CPU.
    pub misses: u64,
}

impl Attached {
    /// Shows what the programs had to say (a full table), through the ordinary log.
    pub fn show_messages(&mut self) {
        if let Some(messages) = &mut self.messages {
            messages.flush();
        }
    }

    /// Events without room in the ring buffer so far, by probe number; probes with none are left
    /// out. Includes runs that the kernel itself skipped.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<u8, u64> {
        let mut lost = BTreeMap::new();
        for row in PROBES {
            let full: u64 = self
                .counts
                .get(&u32::from(row.id as u8), 0)
                .map_or(0, |cpus| cpus.iter().map(|counts| counts.lost).sum());
            if full > 0 {
                lost.insert(row.id as u8, full);
            }
        }
        lost
    }

    /// Where the kernel counts what each program did.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        let row = |row: &Probe| Counters::open(row.id as u8, self.ebpf.program(row.name)?);
        PROBES.iter().filter_map(row).collect()
    }

    /// Packets that passed a tap and were not recorded, by device index and tap number.
    #[must_use]
    pub fn unrecorded(&self) -> BTreeMap<(u32, u8), Unrecorded> {
        let mut all = BTreeMap::new();
        for (slot, cpus) in (0u32..).zip(self.unrecorded.iter()) {
            let Ok(cpus) = cpus else { continue };
            let sum = cpus
                .iter()
                .fold(Unrecorded::default(), |sum, one| Unrecorded {
                    filtered_units: sum.filtered_units + one.filtered_units,
                    filtered_bytes: sum.filtered_bytes + one.filtered_bytes,
                    lost_units: sum.lost_units + one.lost_units,
                    lost_bytes: sum.lost_bytes + one.lost_bytes,
                });
            if sum != Unrecorded::default() {
                all.insert((slot / 16, (slot % 16) as u8), sum);
            }
        }
        all
    }

    /// Softirq seconds per CPU and vector since attaching.
    #[must_use]
    pub fn softirq_s(&self) -> Vec<Vec<f64>> {
        let mut by_cpu: Vec<Vec<f64>> = Vec::new();
        for vector in 0..SOFTIRQ_VECTORS {
            let Ok(cpus) = self.softirq.get(&(vector as u32), 0) else {
                continue;
            };
            by_cpu.resize(cpus.len().max(by_cpu.len()), vec![0.0; SOFTIRQ_VECTORS]);
            for (row, ns) in by_cpu.iter_mut().zip(cpus.iter()) {
                row[vector] = *ns as f64 / 1e9;
            }
        }
        by_cpu
    }
}

/// The kernel's counters of one program: `/proc/self/fdinfo` of its descriptor.
#[derive(Debug)]
pub struct Counters {
    /// Probe number.
    pub probe: u8,
    file: File,
    text: String,
}

impl Counters {
    fn open(probe: u8, program: &Program) -> Option<Counters> {
        let fd = program.fd().ok()?.as_fd().as_raw_fd();
        Some(Counters {
            probe,
            file: File::open(format!("/proc/self/fdinfo/{fd}")).ok()?,
            text: String::new(),
        })
    }

    /// What has been counted so far; None if the program is not loaded any more.
    pub fn read(&mut self) -> Option<ProgramStats> {
        self.text.clear();
        self.file.rewind().ok()?;
        self.file.read_to_string(&mut self.text).ok()?;
        let value = |key: &str| {
            self.text.lines().find_map(|line| {
                let rest = line.strip_prefix(key)?.strip_prefix(':')?;
                rest.trim().parse().ok()
            })
        };
        Some(ProgramStats {
            runs: value("run_cnt")?,
            ns: value("run_time_ns")?,
            // Since Linux 5.12.
            misses: value("recursion_misses").unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_and_the_catalog_name_the_same_programs() {
        let object = aya_obj::Object::parse(OBJECT).expect("the embedded object parses");
        let programs: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
        let rows: BTreeSet<&str> = PROBES.iter().map(|row| row.name).collect();
        assert_eq!(programs, rows);
    }
}
