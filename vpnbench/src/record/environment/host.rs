//! The machine and its clocks.

use std::fs;
use std::io::Read;

use nix::time::{ClockId, clock_gettime};

use crate::trace::model::{Clock, Host};

/// The three clocks, read back to back.
pub fn clock() -> Clock {
    let read =
        |id| clock_gettime(id).map_or(0, |time| std::time::Duration::from(time).as_nanos() as u64);
    Clock {
        monotonic_ns: read(ClockId::CLOCK_MONOTONIC),
        realtime_ns: read(ClockId::CLOCK_REALTIME),
        boottime_ns: read(ClockId::CLOCK_BOOTTIME),
    }
}

/// RFC 3339 UTC of a clock reading.
pub fn utc(clock: &Clock) -> String {
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(clock.realtime_ns))
        .ok()
        .and_then(|moment| {
            moment
                .format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_default()
}

/// The machine.
pub fn host() -> Host {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    let mut host = Host {
        cpus: online
            .ok()
            .flatten()
            .and_then(|cpus| u32::try_from(cpus).ok())
            .unwrap_or(1),
        ..Host::default()
    };
    if let Ok(names) = nix::sys::utsname::uname() {
        host.hostname = names.nodename().to_string_lossy().into_owned();
        host.kernel_release = names.release().to_string_lossy().into_owned();
        host.kernel_version = names.version().to_string_lossy().into_owned();
        host.machine = names.machine().to_string_lossy().into_owned();
    }
    host.hz = kernel_config(&host.kernel_release).as_deref().and_then(hz);
    host
}

/// The configuration the kernel was built with, where it or the distribution keeps it.
fn kernel_config(release: &str) -> Option<String> {
    if let Ok(text) = fs::read_to_string(format!("/boot/config-{release}")) {
        return Some(text);
    }
    let file = fs::File::open("/proc/config.gz").ok()?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// Timer frequency. `CLK_TCK` is always 100 and says nothing about it.
fn hz(config: &str) -> Option<u32> {
    config
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_HZ=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        let (first, second) = (clock(), clock());
        assert!(first.monotonic_ns > 0 && second.monotonic_ns >= first.monotonic_ns);
        assert!(first.realtime_ns > 1_500_000_000_000_000_000);
        let host = host();
        assert!(host.cpus > 0 && !host.kernel_release.is_empty() && !host.machine.is_empty());
        assert_eq!(
            hz("# CONFIG_HZ_100 is not set\nCONFIG_HZ_250=y\nCONFIG_HZ=250\n"),
            Some(250)
        );
        assert_eq!(hz("CONFIG_NO_HZ=y\n"), None);
    }
}
