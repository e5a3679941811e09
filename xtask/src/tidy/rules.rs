//! Rules about single files: length, names, unfinished code, unsafe code.

use super::Breach;
use super::source::Token;

/// A file longer than this hides its own structure; aim for 400.
const LONGEST: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "helper", "helpers", "misc"];

/// Files, or folders ending in `/`, that may hold unsafe blocks.
const UNSAFE: &[&str] = &[
    // Kernel memory and BPF helpers.
    "vpnbench-ebpf/src/",
    // fork/exec, pidfds, signal handlers.
    "vpnbench/src/lab/netns.rs",
    "vpnbench/src/lab/process.rs",
    "vpnbench/src/lab/signals.rs",
    "vpnbench/src/lab/tunnel/device.rs",
    // Real-time scheduling.
    "vpnbench/src/lab/wire/embedded/priority.rs",
    // Device ioctls and descriptors of other processes.
    "vpnbench/src/probe/discover/process.rs",
    // Memory shared with the kernel programs.
    "vpnbench/src/probe/ring.rs",
    "vpnbench/src/record/environment/offloads.rs",
    "tests/src/tun.rs",
    // A socket option that no crate at hand offers.
    "tests/src/tcp.rs",
    // A pseudo terminal to press keys on.
    "tests/tests/live.rs",
    // A command that ends with the recorder.
    "vpnbench/src/record/command.rs",
    // A pseudo terminal for its output.
    "vpnbench/src/record/tee.rs",
    // The second Ctrl-C.
    "vpnbench/src/record/interrupt.rs",
    // A test that lowers its own file size limit.
    "vpnbench/src/trace/file.rs",
];

/// Breaches in one file.
pub(super) fn check(name: &str, text: &str, tokens: &[Token<'_>]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut report = |line, message: String| breaches.push(Breach { line, message });
    let lines = text.lines().count();
    if lines > LONGEST {
        report(
            0,
            format!("{lines} lines: split it (at most {LONGEST}, aim for 400)"),
        );
    }
    let parts = name.trim_end_matches(".rs").split('/');
    for part in parts.filter(|part| EMPTY_NAMES.contains(part)) {
        report(
            0,
            format!("`{part}` says nothing: name the file after what it does"),
        );
    }
    let may_be_unsafe = UNSAFE
        .iter()
        .any(|allowed| match allowed.strip_suffix('/') {
            Some(_) => name.starts_with(allowed),
            None => name == *allowed,
        });
    for window in tokens.windows(3) {
        let [first, second, third] = window else {
            continue;
        };
        match (first.text, second.text, third.text) {
            ("todo" | "unimplemented", "!", _) => {
                report(
                    first.line,
                    format!("`{}!`: finish it or leave it out", first.text),
                );
            }
            ("#", "[", "ignore") => {
                let message = "`#[ignore]`: a test that cannot run here says `skipped: why`";
                report(first.line, message.to_owned());
            }
            ("unsafe", "{", _) if !may_be_unsafe => {
                let message = "an unsafe block outside the files listed in xtask/src/tidy/rules.rs";
                report(first.line, message.to_owned());
            }
            _ => {}
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
    fn long_files_and_empty_names() {
        assert!(lines("tests/src/a.rs", &"\n".repeat(600)).is_empty());
        assert_eq!(lines("tests/src/a.rs", &"\n".repeat(601)), [0]);
        assert_eq!(lines("vpnbench/src/trace/utils.rs", ""), [0]);
        assert_eq!(lines("vpnbench/src/misc/a.rs", ""), [0]);
    }

    #[test]
    fn unfinished_code() {
        assert_eq!(lines("tests/src/a.rs", "\nfn f() { todo!() }"), [2]);
        assert_eq!(
            lines("tests/src/a.rs", "fn f() { unimplemented!(\"x\") }"),
            [1]
        );
        assert_eq!(
            lines("tests/src/a.rs", "#[test]\n#[ignore = \"x\"]\nfn f() {}"),
            [2]
        );
        assert!(lines("tests/src/a.rs", "// todo!()\nlet s = \"todo!()\";").is_empty());
    }

    #[test]
    fn unsafe_only_where_listed() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(lines("vpnbench/src/trace/x.rs", text), [1]);
        assert!(lines("vpnbench/src/lab/netns.rs", text).is_empty());
        assert!(lines("vpnbench-ebpf/src/skb.rs", text).is_empty());
        assert!(
            lines(
                "vpnbench/src/trace/x.rs",
                "#[unsafe(no_mangle)] static A: u8 = 0;"
            )
            .is_empty()
        );
    }
}
