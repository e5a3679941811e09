//! What is said, with which status, when something is wrong; and that nothing stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::machine;

use super::layout::{SHORT_PING, lab, stderr};

pub(crate) fn bad_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.toml");
    let cases = [
        ("[wire]\nunti = \"skb\"\n", ":2:1: unknown field `unti`"),
        (
            "[wire]\nunit = \"frame\"\n",
            ":2:8: unknown variant `frame`",
        ),
        (
            "[wire]\nbackend = \"netem\"\nmodel = \"exact\"\nloss = \"1%\"\n",
            ":3:1: wire.model",
        ),
        ("[benchmark]\nname = \"tcp\"\n\n[benchmark]\n", ":4:"),
        ("[vpn]\nname = \"openvpnn\"\n", ":2:8: "),
        (
            "[sysctls.lom]\n\"net.ipv4.tcp_sack\" = 0\n",
            ":1:10: sysctls.lom: there is no such host",
        ),
    ];
    for (text, expected) in cases {
        fs::write(&path, text)?;
        let name = path.to_string_lossy().into_owned();
        let output = lab(&["run", &name])?;
        let said = stderr(&output);
        ensure!(
            output.status.code() == Some(2),
            "{text:?}: {:?} {said}",
            output.status
        );
        ensure!(
            said.contains(&format!("{name}{expected}")),
            "{text:?}: {said}"
        );
        ensure!(output.stdout.is_empty());
    }
    let output = lab(&["run", "--set", "wire.unit=frame"])?;
    ensure!(output.status.code() == Some(2));
    ensure!(stderr(&output).contains("--set wire.unit=frame: unknown variant"));
    let output = lab(&["run", "/no/such/file.toml"])?;
    ensure!(output.status.code() == Some(2) && stderr(&output).contains("/no/such/file.toml"));
    let output = lab(&["matrix", "--vpn", "none,vpnx", "-o", "/nowhere"])?;
    ensure!(output.status.code() == Some(2) && stderr(&output).contains("vpnx"));
    Ok(())
}

pub(crate) fn missing_sysctl() -> Result<()> {
    let mut arguments = vec!["run", "--set", "sysctls.net.ipv4.tcp_no_such_thing=1"];
    arguments.extend(SHORT_PING);
    let output = lab(&arguments)?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("tcp_no_such_thing") && said.contains("[sysctls]"),
        "{said}"
    );
    Ok(())
}

/// A folder with a daemon of that name that does this.
fn fake(name: &str, script: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join(name);
    fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

pub(crate) fn missing_tool() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let mut command = vpnbench();
    // Nor from the lab's own cache.
    command.env("PATH", empty.path()).env("HOME", empty.path());
    command.env("XDG_CACHE_HOME", empty.path());
    let output = command
        .args(["lab", "run", "--vpn", "wireguard-go"])
        .output()?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("skipped: ") && said.contains("not found"),
        "{said}"
    );
    Ok(())
}

pub(crate) fn silent_daemon() -> Result<()> {
    let fake = fake("wireguard-go", "echo thinking; exec sleep 1000")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = vpnbench();
    command.env("PATH", format!("{}:{path}", fake.path().display()));
    let mut child = command
        .args(["lab", "run", "--vpn", "wireguard-go"])
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let status = child.wait()?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut said)?;
    ensure!(status.code() == Some(1), "{said}");
    ensure!(
        said.contains("waited") && said.contains("thinking"),
        "{said}"
    );
    ensure!(
        machine::runs_of(pid).is_empty(),
        "the run is still registered"
    );
    Ok(())
}

pub(crate) fn hanging_benchmark() -> Result<()> {
    let begun = Instant::now();
    let output = lab(&[
        "run",
        "--bench",
        "ping",
        "--duration",
        "10m",
        "--no-record",
        "--set",
        "run.limit=2s",
    ])?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(4), "{said}");
    ensure!(said.contains("had not ended after 2 s"), "{said}");
    ensure!(
        begun.elapsed() < Duration::from_secs(60),
        "it was not ended"
    );
    Ok(())
}
