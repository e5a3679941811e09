//! What each core has done since boot.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::Missing;
use crate::trace::model::CoreTicks;

/// The lines of `/proc/stat` that are about one core.
pub(super) fn read(missing: &mut Missing) -> Vec<CoreTicks> {
    let text = match fs::read_to_string("/proc/stat") {
        Ok(text) => text,
        Err(error) => {
            missing.push(format!("time of the cores: /proc/stat: {error}"));
            return Vec::new();
        }
    };
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let ticks = u32::try_from(ticks).unwrap_or(100);
    let cores = text.lines().filter_map(|line| core(line, ticks));
    cores
        .map(|one| CoreTicks {
            khz: frequency(one.cpu, "scaling_cur_freq"),
            max_khz: frequency(one.cpu, "cpuinfo_max_freq"),
            ..one
        })
        .collect()
}

/// A file of cpufreq (Documentation/admin-guide/pm/cpufreq.rst); most virtual machines have none.
fn frequency(cpu: u32, file: &str) -> Option<u64> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/{file}");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `cpuN user nice system idle iowait irq softirq steal guest guest_nice` (proc(5)).
fn core(line: &str, ticks_per_s: u32) -> Option<CoreTicks> {
    let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
    let cpu = words.next()?.parse().ok()?;
    if line.starts_with("cpu ") {
        return None;
    }
    let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = numbers[..] else {
        return None;
    };
    Some(CoreTicks {
        cpu,
        ticks_per_s,
        user: user + nice,
        system,
        idle: idle + iowait,
        irq,
        softirq,
        steal,
        khz: None,
        max_khz: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cores() {
        let found = core("cpu1 10 2 3 40 5 6 7 8 0 0", 100).expect("a core");
        assert_eq!(
            (found.cpu, found.user, found.idle, found.steal),
            (1, 12, 45, 8)
        );
        assert_eq!(core("cpu  10 2 3 40 5 6 7 8 0 0", 100), None);
        assert_eq!(core("intr 1 2", 100), None);
        assert!(!read(&mut Vec::new()).is_empty());
    }
}
