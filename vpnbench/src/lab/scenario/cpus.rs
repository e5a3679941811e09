//! `[cpus]`: which cores daemons and benchmark are kept to, and how much of them daemons get.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Invalid;
use crate::lab::error::{LabError, Result};
use crate::lab::wire::Percent;

/// Numbers of cores, as in /proc/cpuinfo; an empty list keeps to none in particular.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Cpus {
    /// For every program of the VPN, on all hosts.
    pub daemon: Vec<usize>,
    /// For the benchmark's servers and its client.
    pub benchmark: Vec<usize>,
    /// Most CPU time that each program of the VPN gets with all its threads, as a share of one core: it stops
    /// for the rest of each tenth of a second, as a container with a limit does. Without it there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon_share: Option<Percent>,
}

impl Cpus {
    pub(super) fn check(&self) -> std::result::Result<(), Invalid> {
        for (key, cores) in [("daemon", &self.daemon), ("benchmark", &self.benchmark)] {
            set_of(cores)
                .map_err(|message| Invalid::new(format!("cpus.{key}"), message))
                .map(drop)?;
        }
        // The kernel takes no quota below a millisecond of the period.
        if self.daemon_share.is_some_and(|given| given.share < 0.01) {
            return Err(Invalid::new("cpus.daemon_share", "at least 1%"));
        }
        Ok(())
    }
}

/// The set of these cores, if the calling process may use them all; `None` for an empty list.
///
/// # Errors
/// Names the core that this machine does not have, or that is not this process's to use.
pub(crate) fn usable(cores: &[usize]) -> Result<Option<CpuSet>> {
    let failed = |why: String| LabError::failed("keeping programs to", "the cores of [cpus]")(why);
    if cores.is_empty() {
        return Ok(None);
    }
    let set = set_of(cores).map_err(failed)?;
    let own = sched_getaffinity(Pid::this()).map_err(|errno| failed(errno.to_string()))?;
    let has = |core: &usize| own.is_set(*core).unwrap_or(false);
    match cores.iter().find(|core| !has(core)) {
        None => Ok(Some(set)),
        Some(missing) => {
            let there: Vec<String> = (0..CpuSet::count())
                .filter(has)
                .map(|core| core.to_string())
                .collect();
            let there = there.join(", ");
            Err(failed(format!(
                "core {missing} is not there to be used; there are: {there}"
            )))
        }
    }
}

fn set_of(cores: &[usize]) -> std::result::Result<CpuSet, String> {
    let mut set = CpuSet::new();
    for core in cores {
        let too_high = |_| format!("core {core}: the kernel counts to {}", CpuSet::count() - 1);
        set.set(*core).map_err(too_high)?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_are_not_there_are_named() {
        let last = CpuSet::count() - 1;
        let Err(error) = usable(&[last]) else {
            panic!("core {last} is there")
        };
        assert!(
            error.to_string().contains(&format!("core {last}")),
            "{error}"
        );
        assert!(usable(&[]).is_ok_and(|set| set.is_none()));
        assert!(set_of(&[CpuSet::count()]).is_err());
    }
}
