//! A run of the lab with all that it left.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vpnbench::lab::tunnel::truth::{self, Fate, Line, Way};
use vpnbench::report::model::{LedgerStage, Report, StageTime};
use vpnbench::trace::Reader;
use vpnbench_common::catalog::Tap;
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::witness::{Hidden, Witness};

/// Devices of the lab's reference tunnels: each run's own.
const DEVICES: &str = "ref*";
/// Devices of its wires: every run has them.
const WIRES: &str = "wire-*";

/// A run that has ended.
pub(crate) struct Run {
    folder: PathBuf,
    pub(crate) report: Report,
    /// First and last moment of the recording, CLOCK_MONOTONIC in ns.
    pub(crate) window: (u64, u64),
    /// Segments that no program could see, at the taps of all devices.
    pub(crate) hidden: u64,
}

/// One end of the reference tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    A,
    B,
}

impl End {
    pub(crate) fn letter(self) -> &'static str {
        match self {
            End::A => "a",
            End::B => "b",
        }
    }
}

impl Run {
    /// Runs a scenario.
    pub(crate) fn of(scenario: &str) -> Result<Run> {
        Ok(Run::in_folder(super::keep::folder()?, scenario, None, |_| Ok(()))?.0)
    }

    /// Runs a scenario while `beside` does something with the process that runs it; iperf3's client does
    /// not begin before that is done.
    pub(crate) fn beside<T>(
        scenario: &str,
        beside: impl FnOnce(u32) -> Result<T>,
    ) -> Result<(Run, T)> {
        let folder = super::keep::folder()?;
        let gate = folder.join("gate");
        let path = with_gate(&folder, &gate)?;
        Run::in_folder(folder, scenario, Some(path), |lab| {
            let done = beside(lab);
            // Also after an error: the client must end.
            fs::write(&gate, "")?;
            done
        })
    }

    fn in_folder<T>(
        folder: PathBuf,
        scenario: &str,
        path: Option<OsString>,
        beside: impl FnOnce(u32) -> Result<T>,
    ) -> Result<(Run, T)> {
        let file = folder.join("books.toml");
        fs::write(&file, scenario)?;
        let [devices, wires] = [DEVICES, WIRES].map(|names| [names.to_owned()].into());
        // Only process 1 was ever hidden.
        let witness = Witness::start_beside(&devices, &wires, &tasks_of_process_1()?)?;
        let mut command = vpnbench();
        command.args(["lab", "run"]).arg(&file).arg("-o");
        command.arg(folder.join("out"));
        command.args(["--report", "json"]);
        command.stdout(fs::File::create(folder.join("stdout"))?);
        command.stderr(fs::File::create(folder.join("stderr"))?);
        command.envs(path.map(|path| ("PATH", path)));
        let mut child = command.spawn()?;
        let done = beside(child.id());
        let status = child.wait()?;
        let done = done?;
        let said = fs::read_to_string(folder.join("stderr"))?;
        ensure!(status.success(), "{said}");
        let fired = witness.map_or(Ok(Vec::new()), Witness::finish)?;
        let report = fs::read(folder.join("out/report.json"))?;
        let report: Report = serde_json::from_slice(&report)?;
        ensure!(
            report.capture.lost == 0,
            "{} events lost",
            report.capture.lost
        );
        let mut run = Run {
            folder,
            report,
            window: (0, u64::MAX),
            hidden: 0,
        };
        let visible = run.read_trace()?;
        let (from, to) = run.window;
        let fired = fired
            .into_iter()
            .filter(|one| (from..=to).contains(&one.time_ns));
        let hidden = Hidden::new(fired.collect(), &visible);
        let devices = run.report.interfaces.iter().map(|one| &one.device);
        for device in devices.collect::<BTreeSet<_>>() {
            let taps = match device.starts_with("ref") {
                true => [Tap::TunQueue, Tap::TunTx, Tap::TunWrite],
                false => [Tap::OuterQueue, Tap::OuterTx, Tap::OuterRx],
            };
            for tap in taps {
                run.hidden += hidden.at(tap, device, 0)[2];
            }
        }
        if run.hidden > 0 {
            super::say(&format!("  {} segments on top of hidden tasks", run.hidden));
        }
        Ok((run, done))
    }

    /// Sets the window, which ends in silence; the tasks on top of which programs ran.
    fn read_trace(&mut self) -> Result<BTreeSet<u32>> {
        let reader = Reader::open(&self.file("run.vbt"))?;
        let began = reader.start().clock.monotonic_ns;
        let mut tasks = BTreeSet::new();
        let mut last = began;
        let summary = reader.for_each(|event| {
            tasks.insert(event.header().tid);
            last = last.max(event.header().time_ns);
        })?;
        ensure!(summary.problems.is_empty(), "{:?}", summary.problems);
        let ended = summary.end.map_or(last, |end| end.clock.monotonic_ns);
        self.window = (began, ended);
        Ok(tasks)
    }

    /// First and last moment of the recording, CLOCK_REALTIME in ns.
    pub(crate) fn window_of_real_time(&self) -> Result<(u64, u64)> {
        let clock = Reader::open(&self.file("run.vbt"))?.start().clock;
        let real = |monotonic: u64| {
            let since = i128::from(monotonic) - i128::from(clock.monotonic_ns);
            u64::try_from(i128::from(clock.realtime_ns) + since)
        };
        Ok((real(self.window.0)?, real(self.window.1)?))
    }

    /// A file of the run's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join("out").join(name)
    }

    /// What became of each packet that an end of the tunnel read while recording.
    pub(crate) fn truth(&self, end: End, way: Way) -> Result<Vec<Line>> {
        let path = self.file(&format!("logs/tunnel-{}.truth.jsonl", end.letter()));
        let mut lines = truth::read(&path)?;
        let (from, to) = self.window;
        lines.retain(|line| line.direction == way && (from..=to).contains(&line.entered_ns));
        Ok(lines)
    }

    /// Packets of a fate that an end read while recording, copies left out.
    pub(crate) fn count(&self, end: End, way: Way, fate: Fate) -> Result<u64> {
        let lines = self.truth(end, way)?;
        let counted = lines
            .iter()
            .filter(|line| line.fate == fate && line.copy.is_none());
        Ok(counted.count() as u64)
    }

    /// A stage in the direction that begins at an end.
    pub(crate) fn stage(&self, name: &str, from: End) -> Result<&LedgerStage> {
        let ledger = self.report.ledger.as_ref().context("no ledger")?;
        let mut stages = ledger.stages.iter();
        let found = stages.find(|stage| stage.name == name && begins(&stage.direction, from));
        found.with_context(|| format!("no {name} among {:?}", ledger.stages))
    }

    /// The time in a stage.
    pub(crate) fn time(&self, name: &str, from: End) -> Result<&StageTime> {
        let mut stages = self.report.stages.iter();
        let found = stages.find(|stage| stage.name == name && begins(&stage.direction, from));
        found.with_context(|| format!("no {name} among {:?}", self.report.stages))
    }

    /// A ledger's figure beside the truth: equal but for what nobody could see.
    pub(crate) fn equal(&self, what: &str, found: u64, truth: u64) -> Result<()> {
        let [ours, theirs] = [found, truth].map(|one| one.to_string());
        super::table::figure(what, &ours, &theirs, self.hidden);
        ensure!(
            found.abs_diff(truth) <= self.hidden,
            "{what}: {found}, in truth {truth}, hidden {}; ledger {:#?}",
            self.hidden,
            self.report.ledger
        );
        Ok(())
    }

    /// As [`Run::equal`], in bytes: nobody knows how many were in a hidden segment.
    pub(crate) fn bytes(&self, what: &str, found: u64, truth: u64) -> Result<()> {
        let [ours, theirs] = [found, truth].map(|one| one.to_string());
        super::table::figure(what, &ours, &theirs, self.hidden);
        ensure!(
            found.abs_diff(truth) <= self.hidden * 1500,
            "{what}: {found} bytes, in truth {truth}, hidden {}: {:#?}",
            self.hidden,
            self.report.ledger.as_ref().map(|ledger| &ledger.sums)
        );
        Ok(())
    }

    /// A time in us beside the truth: within 5 % or 50 us.
    pub(crate) fn close(&self, what: &str, found: f64, truth: f64) -> Result<()> {
        let [ours, theirs] = [found, truth].map(|one| format!("{one:.0} us"));
        super::table::figure(what, &ours, &theirs, self.hidden);
        ensure!(
            (found - truth).abs() <= (0.05 * truth).max(50.0),
            "{what}: {found} us, in truth {truth} us"
        );
        Ok(())
    }

    /// Losses of a stage beside the truth. What went in shortly before the end may be `inside`: the log
    /// goes on and knows what became of it.
    pub(crate) fn lost(&self, what: &str, stage: &LedgerStage, truth: u64) -> Result<()> {
        self.equal(
            what,
            truth.clamp(stage.lost, stage.lost + stage.inside),
            truth,
        )
    }

    /// Every stage's books add up, and every line of the kernel's counters.
    pub(crate) fn adds_up(&self) -> Result<()> {
        let ledger = self.report.ledger.as_ref().context("no ledger")?;
        let open: u64 = ledger
            .stages
            .iter()
            .map(|one| one.unexplained.unsigned_abs() + one.unseen)
            .sum();
        super::table::figure("unexplained or unseen", &open.to_string(), "0", self.hidden);
        if self.hidden == 0 {
            ensure!(open == 0 && ledger.balanced == Some(true), "{ledger:#?}");
        } else {
            ensure!(open <= self.hidden, "hidden {}: {ledger:#?}", self.hidden);
        }
        self.counters_agree()
    }

    /// The books of the kernel's counters.
    pub(crate) fn counters_agree(&self) -> Result<()> {
        for line in &self.report.books {
            super::table::counter(line);
            // What is hidden is missing at the devices' taps, too; TCP's total explains itself.
            let must = self.hidden == 0 || line.counter == "TcpRetransSegs";
            ensure!(!must || line.agrees != Some(false), "{line:?}");
        }
        Ok(())
    }
}

/// A search path with an iperf3 whose client waits for a file.
fn with_gate(folder: &Path, gate: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let real = folders.iter().map(|one| one.join("iperf3"));
    let real = real.into_iter().find(|one| one.is_file());
    let real = real.context("no iperf3")?;
    let own = folder.join("bin");
    fs::create_dir(&own)?;
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *' -c '*|*' --client '*)\n\
         while [ ! -e {} ]; do sleep 0.02; done;;\nesac\nexec {} \"$@\"\n",
        gate.display(),
        real.display()
    );
    let script = own.join("iperf3");
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    folders.insert(0, own);
    Ok(std::env::join_paths(folders)?)
}

fn tasks_of_process_1() -> Result<BTreeSet<u32>> {
    let tasks = fs::read_dir("/proc/1/task")?;
    let names = tasks.map(|one| Ok(one?.file_name().to_string_lossy().parse()?));
    names.collect()
}

/// Whether a direction begins at an end.
pub(crate) fn begins(direction: &str, from: End) -> bool {
    let first = direction.split(" > ").next().unwrap_or_default();
    first.ends_with(&format!("-{}", from.letter()))
}
