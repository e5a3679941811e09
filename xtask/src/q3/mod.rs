//! `cargo xtask q3`: is a tunnel CPU-bound, and by what? Four VPNs, kept to two cores and to one; docs/q3.md.
//!
//! One iperf3 stream over a plain pair of links. Daemons and benchmark are kept to core 1, or to cores 0 and 1;
//! the recorder is not. Each run leaves its report in target/q3 and is not made again, so the command may be
//! stopped and taken up.

mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run;
use table::Run;

/// The VPNs of the question, by their names in the lab.
const VPNS: [&str; 4] = ["tinc", "wireguard-go", "vpncloud", "openvpn"];
/// What the programs are kept to.
const CORES: [(&str, &str); 2] = [("two", "[0, 1]"), ("one", "[1]")];

/// How much to run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Runs of each VPN and number of cores
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: u32,
    /// Throw earlier runs away
    #[arg(long)]
    again: bool,
}

/// Makes the runs that are missing and writes docs/q3.md.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let home = run::target_dir()?.join("q3");
    if arguments.again && home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    let program = match std::env::var_os("VPNBENCH") {
        Some(path) => PathBuf::from(path),
        None => run::target_dir()?.join("debug/vpnbench"),
    };
    let mut runs = Vec::new();
    // Round by round, so that the machine's other work hits all alike.
    for number in 1..=arguments.runs {
        for vpn in VPNS {
            for (cores, list) in CORES {
                let path = home.join(format!("{vpn}-{cores}-{number}.json"));
                if !path.exists() {
                    one(&program, vpn, list, &path)?;
                }
                runs.push(Run::read(&path, vpn, cores)?);
            }
        }
    }
    let text = table::text(&VPNS, &CORES.map(|(name, _)| name), &runs);
    println!("{text}");
    let path = run::root()?.join("docs/q3.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// One run; its report with the load of the machine before and after.
fn one(program: &Path, vpn: &str, cores: &str, path: &Path) -> Result<()> {
    let before = load()?;
    let output = Command::new(program)
        .args(["--quiet", "lab", "run", "--vpn", vpn, "--bench", "tcp"])
        .args(["--duration", "5s", "--report", "json"])
        .args(["--set", &format!("cpus.daemon={cores}")])
        .args(["--set", &format!("cpus.benchmark={cores}")])
        .stdin(Stdio::null())
        .output()
        .context("cannot start vpnbench")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{vpn} on cores {cores}: {}: {complaint}", output.status);
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{vpn}: the report is no JSON"))?;
    let whole = serde_json::json!({ "load": [before, load()?], "report": report });
    println!("{vpn} on cores {cores}: done, load {before}");
    fs::write(path, whole.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

/// Load average of the last minute.
fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().context("/proc/loadavg has no number")
}
