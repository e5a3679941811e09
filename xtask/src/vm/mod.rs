//! `cargo xtask vm`: suites of this repository on the kernels that people run, in emulated
//! machines. Nothing of the host is touched: a guest has its files in memory, and no network.

mod archive;
mod golden;
mod guest;
mod kernels;
mod programs;
mod suites;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::run;
use guest::{Clock, Job, QEMU};
use kernels::{KERNELS, Kernel};
use programs::{OWN, Own};
use suites::{DOCTOR, FULL, SHORT, SUITES, Wanted};

/// Programs of the host without which there is no guest; `cargo xtask setup` installs them.
const NEEDED: [&str; 7] = [
    QEMU, "busybox", "cpio", "depmod", "xz", "apt-get", "dpkg-deb",
];

/// The program under test.
const PROGRAM: &str = "vpnbench";

/// Arguments.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Which kernels (6.1, 6.12); all of them when none is named
    #[arg(long = "kernel", value_name = "KERNEL", value_delimiter = ',')]
    kernels: Vec<String>,
    /// Suites, each with the cases wanted: doctor, kernel=tun_v4,tap_v6; the short ones when none
    /// is named
    #[arg(value_name = "SUITE[=CASE,..]")]
    suites: Vec<String>,
    /// A shell command to run in the guest, after the suites; what it writes to /out comes back
    #[arg(long = "run", value_name = "COMMAND")]
    commands: Vec<String>,
    /// Seconds that all of it may take on one kernel
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time_limit: u64,
    /// Let the guest's clock count instructions: what it measures does not depend on this machine's
    /// load, and cases that want a quiet machine run as well; slower
    #[arg(long)]
    exact_time: bool,
    /// Keep what the doctor says as what it should say
    #[arg(long)]
    bless: bool,
}

/// Runs what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut wanted = Vec::new();
    for text in &arguments.suites {
        wanted.push(suites::parse(text)?);
    }
    let commands = arguments.commands.iter().cloned().map(Wanted::Command);
    wanted.extend(commands);
    if wanted.is_empty() {
        wanted = parsed(SHORT)?;
    }
    let kernels = chosen(&arguments.kernels)?;
    if let Some(why) = missing() {
        println!("skipped: {why}");
        return Ok(());
    }
    let limit = Duration::from_secs(arguments.time_limit);
    let clock = match arguments.exact_time {
        true => Clock::Instructions,
        false => Clock::Host,
    };
    on_each(&kernels, &wanted, limit, clock, arguments.bless)
}

/// What `cargo xtask test` does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every program of the kernel probes loads, and a few exact counts.
    Short,
    /// Whole suites.
    Full,
}

/// Runs suites on every kernel; false if this machine cannot run guests.
pub(crate) fn test(extent: Extent) -> Result<bool> {
    if let Some(why) = missing() {
        println!("skipped: {why}");
        return Ok(false);
    }
    let (suites, seconds) = match extent {
        Extent::Short => (SHORT, 240),
        Extent::Full => (FULL, 1800),
    };
    let kernels: Vec<&Kernel> = KERNELS.iter().collect();
    let limit = Duration::from_secs(seconds);
    on_each(&kernels, &parsed(suites)?, limit, Clock::Host, false)?;
    Ok(true)
}

fn parsed(suites: &[&str]) -> Result<Vec<Wanted>> {
    suites.iter().map(|text| suites::parse(text)).collect()
}

fn chosen(names: &[String]) -> Result<Vec<&'static Kernel>> {
    let all = || KERNELS.iter().map(|kernel| kernel.name);
    if let Some(name) = names.iter().find(|name| !all().any(|known| known == *name)) {
        bail!(
            "no kernel {name:?}; there are: {}",
            all().collect::<Vec<_>>().join(", ")
        );
    }
    let is_chosen =
        |kernel: &&Kernel| names.is_empty() || names.iter().any(|name| name == kernel.name);
    Ok(KERNELS.iter().filter(is_chosen).collect())
}

/// What keeps this machine from running guests.
fn missing() -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!(
            "guests are x86_64, this machine is {}",
            std::env::consts::ARCH
        ));
    }
    let program = NEEDED.iter().find(|program| !run::is_installed(program))?;
    Some(format!(
        "{program} not found; to get it, on Debian as root: cargo xtask setup"
    ))
}

fn on_each(
    kernels: &[&Kernel],
    wanted: &[Wanted],
    limit: Duration,
    clock: Clock,
    bless: bool,
) -> Result<()> {
    let folder = run::target_dir()?.join("vm");
    let cache = folder.join("cache");
    std::fs::create_dir_all(&cache)?;
    let programs = programs::archive(&built(wanted)?, &cache)?;
    let environment = BTreeMap::from([
        ("PATH", programs::path()),
        ("VPNBENCH", format!("{OWN}/vpnbench")),
    ]);
    let script = suites::script(wanted, &environment, clock == Clock::Instructions);
    let mut failures = Vec::new();
    // One after the other: two would take the processors from each other, and suites wait for
    // things with deadlines.
    for kernel in kernels {
        println!("\n== kernel {}", kernel.name);
        let start = Instant::now();
        let results = folder.join(kernel.name);
        let outcome = kernel.bootable().and_then(|bootable| {
            let job = Job {
                kernel: &bootable,
                programs: &programs,
                script: &script,
                time_limit: limit,
                clock,
                results: results.clone(),
            };
            match guest::run(&job)? {
                0 => Ok(()),
                137 => bail!("not done after {} s", limit.as_secs()),
                status => bail!("status {status}; see {}", results.display()),
            }
        });
        let is_doctor = |wanted: &Wanted| matches!(wanted, Wanted::Suite(DOCTOR, _));
        let outcome = outcome.and_then(|()| match wanted.iter().any(is_doctor) {
            true => golden::check(kernel.name, &results.join("doctor.json"), bless),
            false => Ok(()),
        });
        let seconds = start.elapsed().as_secs();
        match outcome {
            Ok(()) => println!("kernel {}: passed in {seconds} s", kernel.name),
            Err(error) => {
                println!("kernel {}: FAILED in {seconds} s: {error:#}", kernel.name);
                failures.push(kernel.name);
            }
        }
    }
    if !failures.is_empty() {
        bail!("failed on kernel {}", failures.join(", "));
    }
    Ok(())
}

/// Builds the program and the test programs that the suites need, and finds where cargo has put
/// them.
fn built(wanted: &[Wanted]) -> Result<Vec<Own>> {
    let mut build = run::cargo(&["build", "--workspace", "--bin", PROGRAM])?;
    let mut names = vec![(PROGRAM, "bin")];
    for suite in SUITES {
        let is_wanted =
            |wanted: &Wanted| matches!(wanted, Wanted::Suite(name, _) if *name == suite.name);
        if suite.name != DOCTOR && wanted.iter().any(is_wanted) {
            build.args(["--test", suite.name]);
            names.push((suite.name, "test"));
        }
    }
    let line = run::line_of(&build);
    build.args(["--quiet", "--message-format=json-render-diagnostics"]);
    let output = build.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start: {line}"))?;
    if !output.status.success() {
        bail!("failed ({}): {line}", output.status);
    }
    let messages: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let found = |(name, kind): (&str, &str)| {
        let executable = messages.iter().rev().find_map(|message| {
            let target = &message["target"];
            let is_it = target["name"] == name && target["kind"][0] == kind;
            message["executable"].as_str().filter(|_| is_it)
        });
        Ok(Own {
            name: name.to_owned(),
            path: PathBuf::from(executable.with_context(|| format!("no {name} from: {line}"))?),
        })
    };
    names.into_iter().map(found).collect()
}
