//! The real program: arguments, exit status, output.

use std::io::Write as _;
use std::process::{Output, Stdio};

use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::timeline::Timeline;

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
        &["attach", "--report", "pdf"],
        &["report", "a.vbt", "--fail-on", "nonsense"],
        &["explain", "nonsense"],
        &["compare", "a.json"],
        &["record", "--duration", "1s"],
        &["report"],
        &["export", "a.vbt"],
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
fn what_is_read_twice_cannot_come_through_a_pipe() {
    let output = run(&["report", "-", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("read twice"),
        "{}",
        stderr(&output)
    );
    let output = run(&["export", "-", "--to", "jsonl"]);
    assert_eq!(output.status.code(), Some(2));
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

/// A trace of the timeline that the golden test of that name shows.
fn trace() -> Vec<u8> {
    let text = include_str!("../golden/tun-queue-overflow.txt");
    let (input, _) = text
        .split_once("======== report")
        .expect("a timeline and a report");
    let timeline = Timeline::parse(input).expect("a timeline");
    timeline.trace().expect("a trace")
}

/// `vpnbench report - ARGUMENTS` with the bytes on stdin.
fn report(bytes: &[u8], arguments: &[&str]) -> Output {
    let mut child = vpnbench()
        .args(["report", "-"])
        .args(arguments)
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vpnbench runs");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // A program that stops reading is judged by its output.
    let _ = stdin.write_all(bytes);
    drop(stdin);
    child.wait_with_output().expect("vpnbench ends")
}

#[test]
fn a_trace_gives_a_report() {
    let output = report(&trace(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("FULL_RING") && text.contains("reconciled 3 of 3"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no terminal, no colours");
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    let coloured = report(&trace(), &["--color", "always"]);
    assert!(stdout(&coloured).contains('\u{1b}'));
}

#[test]
fn the_json_report_fits_its_schema() {
    let output = report(&trace(), &["--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(json["schema"], "vpnbench.report.v1");
    assert_eq!(json["retransmits"]["total"], 0);
    assert!(json["benchmark"].is_null(), "missing is null");
    let schema: serde_json::Value = serde_json::from_slice(&run(&["schema"]).stdout).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    if let Err(error) = schema.validate(&json) {
        panic!("{}: {error}", error.instance_path);
    }
}

#[test]
fn a_report_goes_to_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("report.json");
    let name = path.to_str().expect("a name");
    let output = report(&trace(), &["--format", "json", "-o", name]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    let text = std::fs::read(&path).expect("the report");
    assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
    let output = report(&trace(), &["-o", "/nonexistent/report.txt"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/nonexistent/report.txt"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_cut_trace_is_reported_as_incomplete() {
    let whole = trace();
    let events = whole.len() - 200;
    let output = report(&whole[..events], &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["capture"]["complete"], false);
    assert!(
        json["problems"]
            .as_array()
            .is_some_and(|problems| !problems.is_empty())
    );
}

#[test]
fn a_newer_trace_is_refused_with_its_version() {
    let mut bytes = trace();
    bytes[8..12].copy_from_slice(&99u32.to_le_bytes());
    let check = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&check.to_le_bytes());
    let output = report(&bytes, &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(
        message.contains("standard input") && message.contains("99"),
        "{message}"
    );
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
