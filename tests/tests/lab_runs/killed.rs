//! Twenty runs in a row, five of them killed at random moments.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::machine;

const RUNS: u32 = 20;
/// Every fourth run is killed.
const KILLED_EVERY: u32 = 4;

/// By what the killed runs can be found on the machine.
#[derive(Default)]
struct Traces {
    ids: Vec<String>,
    namespaces: Vec<u64>,
}

impl Traces {
    /// Notes what a run has at this moment.
    fn note(&mut self, pid: u32) {
        for run in machine::runs_of(pid) {
            let id = run.split('.').next().unwrap_or_default().to_owned();
            for side in ["a", "b"] {
                let namespace = Path::new("/run/netns").join(format!("vb-{id}-{side}"));
                self.namespaces
                    .extend(fs::metadata(namespace).map(|data| data.ino()));
            }
            self.ids.push(id);
        }
    }

    fn left(&self) -> Vec<String> {
        let folders = ["/run/netns", "/run/vpnbench", "/var/run/wireguard"];
        let entries = folders.into_iter().flat_map(|folder| {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
        });
        let names = entries.map(|path| path.display().to_string());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts: Vec<String> = mounts.lines().map(str::to_owned).collect();
        let of_ours = |name: &String| self.ids.iter().any(|id| name.contains(id.as_str()));
        let mut left: Vec<String> = names.chain(mounts).filter(of_ours).collect();
        left.extend(machine::processes_in(&self.namespaces));
        left
    }
}

fn short_run(temporary: &Path) -> Command {
    let mut command = vpnbench();
    command.env("TMPDIR", temporary);
    command.args(["lab", "run", "--vpn", "wireguard-go", "--bench", "ping"]);
    command.args(["--duration", "400ms", "--no-record"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

pub(crate) fn twenty_runs() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let mut traces = Traces::default();
    // The first run says how long one takes here; the kills are spread over that time, at fractions
    // that look random and are the same each time (multiples of the golden ratio).
    let mut usual = Duration::ZERO;
    let mut interrupted = 0;
    for number in 1..=RUNS {
        let begun = Instant::now();
        let mut child = short_run(temporary.path()).spawn()?;
        if number % KILLED_EVERY == 0 {
            let fraction = (f64::from(number) * 0.618_034).fract();
            thread::sleep(usual.mul_f64(fraction));
            traces.note(child.id());
            child.kill()?;
            let status = child.wait()?;
            interrupted += u32::from(!status.success());
        } else {
            let status = child.wait()?;
            ensure!(status.success(), "run {number} ended with {status}");
            usual = usual.max(begun.elapsed().min(Duration::from_secs(5)));
        }
    }
    ensure!(interrupted > 0, "no kill came in time");
    let down = vpnbench().args(["lab", "down"]).output()?;
    ensure!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
    let left = traces.left();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    let files: Vec<_> = fs::read_dir(temporary.path())?.flatten().collect();
    ensure!(files.is_empty(), "temporary files: {files:?}");
    Ok(())
}
