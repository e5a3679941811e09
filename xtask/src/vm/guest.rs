//! One guest: boots, runs a script within a time limit, and brings back what it wrote.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::archive;
use super::kernels::Bootable;
use crate::run;

/// The emulator's program.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// Longest that booting, and sending the files, may take beside the script.
const AROUND: Duration = Duration::from_secs(90);
/// What the script prints, in the folder of results.
const OUTPUT: &str = "output.log";
/// Memory in MiB.
const MEMORY: u32 = 3072;

/// What a guest's clock follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// The host's: timers of a guest fire late when the host has other work.
    Host,
    /// Instructions, a nanosecond each, and while the guest waits for a timer none at all
    /// (qemu's -icount): a guest has all the time it needs between two timers.
    Instructions,
}

/// What to run and where its results go.
pub(super) struct Job<'a> {
    /// What boots.
    pub(super) kernel: &'a Bootable,
    /// Programs that the guest has.
    pub(super) programs: &'a Path,
    /// Shell script.
    pub(super) script: &'a str,
    /// Longest that it may run.
    pub(super) time_limit: Duration,
    /// What its clock follows.
    pub(super) clock: Clock,
    /// Folder for its files, [`OUTPUT`] and `console.log`. Replaced.
    pub(super) results: PathBuf,
}

/// Runs it; the script's exit status, 137 when its time was up.
pub(super) fn run(job: &Job<'_>) -> Result<i32> {
    let results = &job.results;
    if results.exists() {
        fs::remove_dir_all(results)
            .with_context(|| format!("cannot replace {}", results.display()))?;
    }
    let stage = results.join("stage");
    fs::create_dir_all(&stage).with_context(|| format!("cannot create {}", stage.display()))?;
    fs::write(stage.join("suite"), job.script)?;
    fs::write(
        stage.join("time-limit"),
        job.time_limit.as_secs().to_string(),
    )?;
    let (own, initrd) = (results.join("run.cpio"), results.join("initrd"));
    archive::write(&stage, &own)?;
    archive::join(&[&job.kernel.modules, job.programs, &own], &initrd)?;
    fs::remove_dir_all(stage)?;
    fs::remove_file(own)?;

    let files = results.join("files.tar");
    let mut child = qemu(job, &initrd, &files)
        .spawn()
        .with_context(|| format!("cannot start {QEMU}"))?;
    let ended = wait(&mut child, &results.join(OUTPUT), job.time_limit + AROUND);
    fs::remove_file(initrd)?;
    let console = results.join("console.log");
    if !ended? {
        bail!(
            "the guest did not end within {} s and was ended; its last words are in {}",
            (job.time_limit + AROUND).as_secs(),
            console.display()
        );
    }
    run::output(
        Command::new("tar")
            .args(["--extract", "--no-same-owner", "--file"])
            .arg(&files)
            .arg("--directory")
            .arg(results),
    )
    .with_context(|| format!("the guest sent no files; see {}", console.display()))?;
    fs::remove_file(files)?;
    let status = fs::read_to_string(results.join("status"))
        .with_context(|| format!("the guest has no result; see {}", console.display()))?;
    status.trim().parse().context("the guest's status")
}

fn qemu(job: &Job<'_>, initrd: &Path, files: &Path) -> Command {
    let results = &job.results;
    let shown = |path: &Path| path.display().to_string();
    let mut command = Command::new(QEMU);
    let accelerator = match job.clock {
        Clock::Instructions => {
            command.args(["-icount", "shift=0,sleep=off"]);
            "tcg,thread=single"
        }
        Clock::Host if kvm_works() => "kvm",
        // Not one thread per processor: when one rewrites code (a static key, as BPF statistics have), the
        // other goes on with a stale breakpoint there, and Linux panics ("Oops: int3"). Linux relies on
        // processors seeing the rewritten code once they answer an interrupt, QEMU 7.2 does not ensure it.
        Clock::Host => "tcg,thread=single",
    };
    command.args(["-accel", accelerator, "-cpu", "max", "-smp", "2"]);
    command.args(["-m", &MEMORY.to_string()]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]);
    command.arg("-kernel").arg(&job.kernel.vmlinuz);
    command.arg("-initrd").arg(initrd);
    // Without the reliable clock source every look at the clock would leave the emulated processor,
    // and without mitigations every indirect call is cheaper.
    command.args([
        "-append",
        "console=ttyS0 panic=-1 loglevel=5 tsc=reliable no_timer_check mitigations=off \
         random.trust_cpu=on audit=0 net.ifnames=0",
    ]);
    let console = format!(
        "file,id=console,path={}",
        shown(&results.join("console.log"))
    );
    command.args(["-chardev", &console, "-serial", "chardev:console"]);
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    let output = format!("file,id=output,path={}", shown(&results.join(OUTPUT)));
    command.args([
        "-chardev",
        &output,
        "-device",
        "virtserialport,chardev=output,name=output",
    ]);
    let files = format!("file,id=files,path={}", shown(files));
    command.args([
        "-chardev",
        &files,
        "-device",
        "virtserialport,chardev=files,name=files",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Shows the output as it comes until the guest ends, or ends it; whether it ended by itself.
fn wait(child: &mut Child, output: &Path, limit: Duration) -> Result<bool> {
    let end = Instant::now() + limit;
    let mut shown = 0;
    loop {
        // In this order, so that what came last is shown, too.
        let status = child.try_wait()?;
        shown += show(output, shown)?;
        match status {
            Some(status) if status.success() => return Ok(true),
            Some(status) => bail!("{QEMU} failed: {status}"),
            None if Instant::now() >= end => {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
            None => sleep(Duration::from_millis(50)),
        }
    }
}

/// Prints a file from a byte on; how many bytes that were.
fn show(file: &Path, from: u64) -> Result<u64> {
    let Ok(mut file) = File::open(file) else {
        // The emulator has not created it yet.
        return Ok(0);
    };
    file.seek(SeekFrom::Start(from))?;
    Ok(io::copy(&mut file, &mut io::stdout())?)
}

/// Whether the processor's own virtualisation can be used. A /dev/kvm alone does not say so: a
/// machine that is a guest itself may have one that runs nothing.
fn kvm_works() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let may = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    (has("vmx") || has("svm")) && may
}
