//! Which stage may know which, and what the pure stages may not touch.

use super::Breach;
use super::source::{Path, Token};

/// The stages and what each may import of the others. Data flows
/// `probe -> record -> trace -> analysis -> explain -> report`; `import` makes the events of a trace from
/// captures. The values between them are defined in `trace` (recorded) and in each stage's own output
/// types. `cli` and `lab` drive.
const STAGES: &[(&str, &[&str])] = &[
    ("probe", &["trace"]),
    ("record", &["probe", "trace"]),
    ("trace", &[]),
    ("import", &["trace"]),
    ("analysis", &["trace"]),
    ("join", &["trace", "import", "analysis"]),
    ("explain", &["trace", "analysis"]),
    ("report", &["trace", "analysis", "explain"]),
    ("export", &["trace", "analysis"]),
    ("study", &["trace", "analysis", "explain", "report"]),
    (
        "lab",
        &[
            "probe", "record", "trace", "analysis", "explain", "report", "study",
        ],
    ),
    (
        "cli",
        &[
            "probe", "record", "trace", "import", "analysis", "join", "explain", "report",
            "export", "study", "lab",
        ],
    ),
];

/// Stages whose time and data arrive as arguments, so that a trace replays identically years later.
const PURE: [&str; 2] = ["analysis", "explain"];

/// Paths the pure stages may not use: clocks, files, processes, the network, the kernel.
const IMPURE_PATHS: &[&[&str]] = &[
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "os"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["aya"],
    &["libc"],
    &["netlink_packet_route"],
    &["nix"],
    &["procfs"],
    &["rtnetlink"],
    &["tempfile"],
    &["tokio"],
];

/// Words that mean a clock or a file wherever they come from.
const IMPURE_WORDS: [&str; 8] = [
    "Instant",
    "SystemTime",
    "UtcDateTime",
    "now_utc",
    "now_local",
    "TcpStream",
    "UdpSocket",
    "File",
];

/// Breaches in one file of vpnbench/src; other files have no stages.
pub(super) fn check(name: &str, tokens: &[Token<'_>], paths: &[Path<'_>]) -> Vec<Breach> {
    let Some(module) = module(name) else {
        return Vec::new();
    };
    let stage = module[0];
    let Some((_, allowed)) = STAGES.iter().find(|(name, _)| *name == stage) else {
        return Vec::new();
    };
    // Unit tests may read files and compare with anything.
    let end = first_line_of_tests(tokens);
    let paths: Vec<&Path<'_>> = paths.iter().filter(|path| path.line < end).collect();
    let mut breaches = backward(stage, allowed, module.len(), &paths);
    if PURE.contains(&stage) {
        breaches.extend(impure(stage, &paths));
    }
    breaches
}

/// `vpnbench/src/analysis/ledger.rs` is module `analysis::ledger`.
fn module(name: &str) -> Option<Vec<&str>> {
    let name = name.strip_prefix("vpnbench/src/")?.strip_suffix(".rs")?;
    let name = name.strip_suffix("/mod").unwrap_or(name);
    Some(name.split('/').collect())
}

fn first_line_of_tests(tokens: &[Token<'_>]) -> usize {
    let words = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let found = tokens.windows(words.len()).find(|window| {
        window
            .iter()
            .zip(words)
            .all(|(token, word)| token.text == word)
    });
    found.map_or(usize::MAX, |window| window[0].line)
}

fn backward(stage: &str, allowed: &[&str], depth: usize, paths: &[&Path<'_>]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for path in paths {
        let Some(target) = imported_stage(path, depth) else {
            continue;
        };
        let is_stage = STAGES.iter().any(|(name, _)| *name == target);
        if is_stage && target != stage && !allowed.contains(&target) {
            let message = format!(
                "`{stage}` must not know `{target}`: data flows probe -> record -> trace -> \
                 analysis -> explain -> report"
            );
            breaches.push(Breach {
                line: path.line,
                message,
            });
        }
    }
    breaches
}

/// The top-level module that a path of this crate leads to.
fn imported_stage<'a>(path: &Path<'a>, depth: usize) -> Option<&'a str> {
    let words = &path.words;
    if words.len() > 1 && matches!(words[0], "crate" | "vpnbench") {
        return Some(words[1]);
    }
    let ups = words.iter().take_while(|word| **word == "super").count();
    if ups >= depth {
        words.get(ups).copied()
    } else {
        None
    }
}

fn impure(stage: &str, paths: &[&Path<'_>]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for path in paths {
        let by_path = IMPURE_PATHS.iter().any(|impure| {
            // A bare `nix` may be a variable; `nix::x` is the crate.
            path.words.starts_with(impure) && path.words.len() > usize::from(impure.len() == 1)
        });
        let by_word = path.words.iter().any(|word| IMPURE_WORDS.contains(word));
        if by_path || by_word {
            let what = path.words.join("::");
            let message = format!(
                "`{what}` in the pure stage `{stage}`: clocks, files, processes and the network \
                 belong to record; pass the value in"
            );
            breaches.push(Breach {
                line: path.line,
                message,
            });
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::super::check as check_file;

    fn lines(name: &str, text: &str) -> Vec<usize> {
        check_file(name, text)
            .into_iter()
            .map(|breach| breach.line)
            .collect()
    }

    #[test]
    fn forward_knowledge_is_fine() {
        assert!(
            lines(
                "vpnbench/src/analysis/x.rs",
                "use crate::trace::model::Meta;"
            )
            .is_empty()
        );
        assert!(lines("vpnbench/src/record/mod.rs", "use crate::{probe, trace};").is_empty());
        assert!(
            lines(
                "vpnbench/src/cli/x.rs",
                "use crate::lab;\nuse crate::report;"
            )
            .is_empty()
        );
        assert!(lines("vpnbench/src/analysis/x.rs", "use super::ledger;").is_empty());
        assert!(lines("vpnbench/src/main.rs", "use vpnbench::cli;").is_empty());
    }

    #[test]
    fn backward_knowledge_is_not() {
        let file = "vpnbench/src/analysis/x.rs";
        assert_eq!(lines(file, "\nuse crate::record::Drain;"), [2]);
        assert_eq!(
            lines(file, "use crate::{\n    trace,\n    report::model,\n};"),
            [3]
        );
        assert_eq!(lines(file, "fn f() { crate::cli::run(); }"), [1]);
        assert_eq!(lines(file, "use super::super::explain;"), [1]);
        assert_eq!(
            lines("vpnbench/src/trace/mod.rs", "use super::analysis;"),
            [1]
        );
        assert_eq!(
            lines("vpnbench/src/report/x.rs", "use crate::lab::Run;"),
            [1]
        );
        assert_eq!(lines("vpnbench/src/lab/x.rs", "use crate::cli::Plan;"), [1]);
    }

    #[test]
    fn pure_stages_have_no_clock_and_no_files() {
        let file = "vpnbench/src/explain/findings/x.rs";
        assert_eq!(lines(file, "use std::time::Instant;"), [1]);
        assert_eq!(lines(file, "use std::time::{Duration,\n SystemTime};"), [2]);
        assert_eq!(lines(file, "fn f() { std::fs::read(p); }"), [1]);
        assert_eq!(lines(file, "use std::{fmt, process};"), [1]);
        assert_eq!(lines(file, "let t = time::OffsetDateTime::now_utc();"), [1]);
        assert_eq!(lines(file, "use nix::unistd;"), [1]);
        assert!(lines(file, "use std::net::IpAddr;\nuse std::time::Duration;").is_empty());
        assert!(lines(file, "// std::fs::read\nlet s = \"std::fs\";").is_empty());
        assert!(lines("vpnbench/src/record/x.rs", "use std::time::Instant;").is_empty());
    }

    #[test]
    fn unit_tests_may_read_files() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert!(lines("vpnbench/src/analysis/x.rs", text).is_empty());
    }
}
