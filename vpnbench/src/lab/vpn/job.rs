//! What adapters work with: the places a VPN is set up in, its programs, and ways to start them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::programs::Programs;
use super::sources::Source;
use super::{End, Setup};
use crate::lab::error::{LabError, Result};
use crate::lab::hosts::{self, Host};
pub(super) use crate::lab::ports::{Transport, wait as wait_for_port};
use crate::lab::process::{Process, Program};
use crate::lab::{netlink, part, wait};

/// One host of the tunnel to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) host: &'a Host,
    /// Counted from 1; the client's host is 1.
    pub(super) number: u8,
    /// a, b, c: short enough for the names of devices.
    pub(super) side: char,
    /// The address its end gets where the VPN lets one choose.
    pub(super) ipv4: Ipv4Addr,
    /// Likewise, where the kernel has IPv6.
    pub(super) ipv6: Option<Ipv6Addr>,
}

/// Setting up one VPN.
pub(super) struct Job<'s, 'a> {
    setup: &'s mut Setup<'a>,
    source: &'static Source,
    programs: Programs,
    /// All hosts, the client's first.
    pub(super) places: Vec<Place<'a>>,
    version: Option<Option<String>>,
}

impl<'s, 'a> Job<'s, 'a> {
    pub(super) fn new(
        setup: &'s mut Setup<'a>,
        source: &'static Source,
        programs: Programs,
    ) -> Job<'s, 'a> {
        let place = |host: &'a Host| Place {
            host,
            number: host.number,
            side: char::from(b'a' + host.number - 1),
            ipv4: Ipv4Addr::new(10, 98, 0, host.number),
            ipv6: host
                .ipv6
                .map(|_| Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, host.number.into())),
        };
        let places = setup.hosts.iter().map(place).collect();
        Job {
            setup,
            source,
            programs,
            places,
            version: None,
        }
    }

    /// Version of the daemon, asked for once.
    pub(super) fn version(&mut self) -> Option<String> {
        let (programs, source) = (&self.programs, self.source);
        let asked = self.version.get_or_insert_with(|| programs.version(source));
        asked.clone()
    }

    /// Whether the daemon's version begins with this.
    pub(super) fn is_version(&mut self, prefix: &str) -> bool {
        self.version()
            .is_some_and(|version| version.starts_with(prefix))
    }

    /// A device name that no other run has: control sockets of some daemons are named after the
    /// device and live in the file system, not in the namespace. At most 15 bytes.
    pub(super) fn device(&self, prefix: &str, place: &Place<'_>) -> String {
        format!("{prefix}{}{}", self.setup.id, place.side)
    }

    /// A folder of the run's own for keys and configuration, readable by root only.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.setup.undo.directory().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(LabError::file("creating", &folder))?;
        Ok(folder)
    }

    /// Path of a program of this VPN.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        self.programs.path(name).map(Path::to_owned)
    }

    /// What `make` made at the run's first start; when the daemons are started again it is the same.
    pub(super) fn once(
        &mut self,
        name: &str,
        make: impl FnOnce(&Self) -> Result<String>,
    ) -> Result<String> {
        if let Some(kept) = self.setup.kept.get(name) {
            return Ok(kept.clone());
        }
        let made = make(self)?;
        self.setup.kept.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    /// Announces a file the daemon will create outside the run's directory.
    pub(super) fn expect_file(&mut self, path: &Path) -> Result<()> {
        self.setup.undo.expect_file(path)
    }

    /// Starts a program of this VPN at a place; its output goes to `PROGRAM-HOST.log`.
    pub(super) fn daemon(
        &mut self,
        place: &Place<'_>,
        program: &str,
        arguments: &[&str],
    ) -> Result<Process> {
        self.daemon_with(place, program, arguments, &[])
    }

    /// The same with additions to its environment.
    pub(super) fn daemon_with(
        &mut self,
        place: &Place<'_>,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        let path = self.program(program)?;
        let log = format!("{program}-{}.log", place.host.label);
        let program = Program {
            name: &path.to_string_lossy(),
            arguments,
            netns: &place.host.netns,
            log: self.setup.logs.join(log),
        };
        self.setup.undo.start_with(&program, environment)
    }

    /// Starts a program of the lab's own at a place; its output goes to `NAME-HOST.log`.
    pub(super) fn part(
        &mut self,
        place: &Place<'_>,
        name: &str,
        settings: &impl Serialize,
    ) -> Result<Process> {
        let log = self.log_file(&format!("{name}-{}.log", place.host.label));
        part::start(self.setup.undo, name, settings, &place.host.netns, log)
    }

    /// A file beside the logs, for what a program accounts for.
    pub(super) fn log_file(&self, name: &str) -> PathBuf {
        self.setup.logs.join(name)
    }

    /// The run's directory, the working directory of tools.
    pub(super) fn directory(&self) -> &Path {
        self.setup.undo.directory()
    }

    /// Runs a program of this VPN at a place to its end, with `input` on its standard input, and
    /// returns what it wrote to its standard output.
    pub(super) fn tool(
        &self,
        place: &Place<'_>,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String> {
        let path = self.program(program)?;
        self.command(place, &path.to_string_lossy(), arguments, input)
    }

    /// The same with any program.
    pub(super) fn command(
        &self,
        place: &Place<'_>,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String> {
        let name = program.rsplit('/').next().unwrap_or(program);
        let failed = || LabError::failed::<std::io::Error>("running", name);
        let mut command = self
            .setup
            .undo
            .command(&place.host.netns, program)
            .map_err(failed())?;
        let mut child = command
            .args(arguments)
            .current_dir(self.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading it says why on its standard error.
            let _closed = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let message = format!("{} {}", text.trim(), errors.trim());
        Err(LabError::failed(
            "running",
            format!("{name} {}", arguments.first().unwrap_or(&"")),
        )(format!("{}: {}", output.status, message.trim())))
    }

    /// Starts an end at each place, one after the other.
    pub(super) fn each(
        &mut self,
        mut start: impl FnMut(&mut Self, &Place<'a>) -> Result<End>,
    ) -> Result<Vec<End>> {
        let places = self.places.clone();
        places.iter().map(|place| start(self, place)).collect()
    }

    /// An end whose device the daemon makes, with the addresses of its place.
    pub(super) fn end(place: &Place<'_>, device: String, daemon: Process) -> End {
        End {
            device,
            ipv4: Some(place.ipv4),
            ipv6: place.ipv6,
            daemon: Some(daemon),
        }
    }
}

/// Gives a device that is there the addresses of its place and brings it up.
pub(super) fn bring_up(place: &Place<'_>, end: &End, mtu: Option<u32>) -> Result<()> {
    let addresses = hosts::addresses(place.ipv4, end.ipv6);
    netlink::bring_up(&place.host.netns, &end.device, mtu, &addresses)
}

/// Waits until a daemon's device is there.
pub(super) fn wait_for_device(
    place: &Place<'_>,
    device: &str,
    daemon: &Process,
    limit: Duration,
) -> Result<()> {
    let what = format!("{}'s device {device}", daemon.name());
    wait::until(&what, limit, &[daemon], || {
        Ok(netlink::exists(&place.host.netns, device)?.then_some(()))
    })
}

/// Waits until a daemon's device has the addresses the daemon chose for it. `ipv4` says whether one
/// of that family is among them; every one of these VPNs has IPv6 where the kernel does.
pub(super) fn end_by_daemon(
    place: &Place<'_>,
    device: String,
    daemon: Process,
    ipv4: bool,
    limit: Duration,
) -> Result<End> {
    let what = format!("{}'s addresses on {device}", daemon.name());
    let wants_ipv6 = place.ipv6.is_some();
    let (ipv4, ipv6) = wait::until(&what, limit, &[&daemon], || {
        if !netlink::exists(&place.host.netns, &device)? {
            return Ok(None);
        }
        let (mut four, mut six) = (None, None);
        for address in netlink::addresses(&place.host.netns, &device)? {
            match address {
                IpAddr::V4(address) if ipv4 => four = four.or(Some(address)),
                IpAddr::V6(address) if !address.is_unicast_link_local() => {
                    six = six.or(Some(address));
                }
                _ => {}
            }
        }
        let complete = (!ipv4 || four.is_some()) && (!wants_ipv6 || six.is_some());
        Ok(complete.then_some((four, six)))
    })?;
    Ok(End {
        device,
        ipv4,
        ipv6,
        daemon: Some(daemon),
    })
}

/// Writes a file only root can read.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(LabError::file("creating", path))?;
    file.write_all(text.as_bytes())
        .map_err(LabError::file("writing", path))
}

/// Writes a configuration as JSON, which is YAML as well.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    write(path, &format!("{value:#}\n"))
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(LabError::file("reading", path))
}
