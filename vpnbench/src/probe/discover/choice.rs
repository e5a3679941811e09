//! Candidates for the user: patterns that choose among them, and how they are listed.

use super::error::Error;
use super::process;
use super::scene::{Candidate, Scene};

/// Lists tunnels that all fit, and the options that tell them apart.
pub(super) fn ambiguous(scene: &Scene, found: &[Candidate]) -> Error {
    let differ = |key: &dyn Fn(&Candidate) -> String| {
        let mut keys: Vec<String> = found.iter().map(key).collect();
        keys.sort();
        keys.dedup();
        keys.len() == found.len()
    };
    let mut options = Vec::new();
    if differ(&|candidate| candidate.link.name.clone()) {
        options.push("--tun IFACE");
    }
    if found.iter().all(|candidate| !candidate.holders.is_empty())
        && differ(&|candidate| candidate.holders[0].pid.to_string())
    {
        options.push("--pid PID");
    }
    if differ(&|candidate| candidate.netns.to_string()) {
        options.push("--netns NAME");
    }
    let options = if options.is_empty() {
        vec!["--netns NAME and --tun IFACE"]
    } else {
        options
    };
    Error::Ambiguous {
        candidates: found
            .iter()
            .map(|candidate| text(scene, candidate))
            .collect(),
        options: options.join(", "),
    }
}

/// `tun0 (tincd, pid 12) in netns a`.
fn text(scene: &Scene, candidate: &Candidate) -> String {
    let holder = match (candidate.holders.first(), &candidate.link.kind) {
        (Some(holder), _) => process_text(holder.pid),
        (None, Some(kind)) if kind != "tun" => format!("{kind}, in the kernel"),
        (None, _) => "held by no process".to_owned(),
    };
    format!(
        "{} ({holder}) in netns {}",
        candidate.link.name,
        scene.label(candidate.netns)
    )
}

/// `tincd, pid 12`.
pub(super) fn process_text(pid: u32) -> String {
    format!(
        "{}, pid {pid}",
        process::comm(pid).unwrap_or_else(|| "?".to_owned())
    )
}

/// Whether a name fits one of the patterns `tun0,wg*`.
pub(super) fn matches(patterns: &str, name: &str) -> bool {
    patterns
        .split(',')
        .map(str::trim)
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("tun0", "tun0") && !matches("tun0", "tun01"));
        assert!(matches("a,wg*", "wg1") && matches("a, b", "b") && !matches("a,wg*", "b"));
    }
}
