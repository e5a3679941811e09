//! The real program: arguments, exit status, output.

use std::io::Write as _;
use std::process::{Output, Stdio};

use vpnbench_tests::binary::vpnbench;

fn run(arguments: &[&str]) -> Output {
    vpnbench().args(arguments).output().expect("vpnbench runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn usage_errors_are_status_2() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["attach", "--duration", "soon"],
        &["attach", "--tun", "a/b"],
        &["attach", "--keep-payload", "100000"],
        &["attach", "--buffer", "1KiB"],
        &["attach", "--report", "html"],
        &["record", "--duration", "1s"],
        &["report"],
        &["report", "a.vbt", "b.vbt"],
        &["man", "nonsense"],
        &["schema", "--quiet", "--verbose"],
    ] {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            output.stdout.is_empty(),
            "{arguments:?} writes errors on stderr only"
        );
    }
}

#[test]
fn an_unknown_probe_lists_the_known_ones() {
    let output = run(&["record", "-o", "x.vbt", "--probes", "tcp,nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for name in ["nonsense", "packets", "threads", "tcp_retransmit_skb"] {
        assert!(text.contains(name), "{name} in {text}");
    }
}

#[test]
fn joining_traces_is_refused_plainly() {
    let output = run(&["report", "a.vbt", "b.vbt"]);
    assert!(
        stderr(&output).contains("not in this version"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_trace_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = directory.path().join("text.vbt");
    std::fs::write(&text, "this is no trace\n".repeat(100)).expect("written");
    let empty = directory.path().join("empty.vbt");
    std::fs::write(&empty, "").expect("written");
    let missing = directory.path().join("missing.vbt");
    for path in [&text, &empty, &missing] {
        let output = vpnbench()
            .arg("report")
            .arg(path)
            .output()
            .expect("vpnbench runs");
        assert_eq!(output.status.code(), Some(1), "{}", path.display());
        let message = stderr(&output);
        assert!(message.starts_with("vpnbench: error: "), "{message}");
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_and_version_succeed() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["attach", "--help"],
        &["lab", "--help"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn completions_for_all_shells() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("keep-payload"), "{shell}");
    }
}

#[test]
fn manual_pages() {
    let root = run(&["man"]);
    assert!(
        stdout(&root).contains(".TH vpnbench 1"),
        "{}",
        stdout(&root)
    );
    let attach = stdout(&run(&["man", "attach"]));
    assert!(
        attach.contains("vpnbench") && attach.contains("payload"),
        "{attach}"
    );
}

#[test]
fn the_schema_is_a_schema() {
    let output = run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert!(jsonschema::meta::is_valid(&schema));
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    for arguments in [
        &["schema"][..],
        &["completions", "zsh"],
        &["man", "attach"],
        &["--help"],
    ] {
        let mut child = vpnbench()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("vpnbench runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("vpnbench ends");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_full_device_is_an_error() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let output = vpnbench()
        .arg("schema")
        .stdout(full)
        .output()
        .expect("vpnbench runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("No space left"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn colours_only_where_wanted() {
    let plain = run(&["nonsense"]);
    assert!(
        !stderr(&plain).contains('\u{1b}'),
        "no terminal, no colours"
    );
    let mut child = vpnbench()
        .args(["--color", "always", "schema"])
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("vpnbench runs");
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended already.
        let _ = stdin.write_all(b"\n");
    }
    let output = child.wait_with_output().expect("vpnbench ends");
    assert!(
        !stdout(&output).contains('\u{1b}'),
        "JSON is never coloured"
    );
}
