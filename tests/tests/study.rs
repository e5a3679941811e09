//! `vpnbench study`: trees made here, with known mistakes planted, and the published study where
//! its results are at hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use vpnbench::study::{self, Findings, claims};
use vpnbench_tests::binary;

#[path = "study/published.rs"]
mod published;

type Outcome = Result<(), Failed>;
type Case = (&'static str, fn() -> Outcome);

/// The published study's results, beside the project; nothing else depends on them.
const PUBLISHED: &str = "../../shared/study/results-2025-12-18.tar.xz";

fn main() -> ExitCode {
    let cases: [Case; 9] = [
        ("figures_that_contradict_each_other", contradictions),
        ("planted_mistakes_are_found_and_nothing_else", planted),
        ("damaged_files_are_named_and_left_out", damaged),
        ("another_campaign_of_the_same_layout", campaigns),
        ("loose_files", loose),
        ("lab_runs", lab_runs),
        ("an_empty_folder_is_an_error", empty),
        ("the_command_writes_every_form", forms),
        ("claims_are_judged_by_the_data", judged),
    ];
    let mut trials: Vec<Trial> = cases
        .into_iter()
        .map(|(name, run)| Trial::test(name, run))
        .collect();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join(PUBLISHED);
    let trial = Trial::test("the_published_study", published::published_study);
    trials.push(if published.exists() {
        trial
    } else {
        trial
            .with_ignored_flag(true)
            .with_kind("skipped: the published study's results are not here")
    });
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A tree in the rig's layout.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        Tree {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    fn read(&self) -> Findings {
        let study = study::read(self.path()).expect("a tree");
        study::examine(&study, None, None)
    }
}

/// What one TCP test of 30 s says: Mbit/s forward sent, reverse received, retransmissions.
fn iperf3(forward: f64, reverse: f64, retransmits: u64) -> Value {
    let side = |mbps: f64| json!({ "bits_per_second": mbps * 1e6, "bytes": mbps * 1e6 * 30.0 / 8.0, "seconds": 30.0, "retransmits": retransmits });
    json!({
        "start": {
            "version": "iperf 3.18", "system_info": "Linux one 6.12.1 x", "tcp_mss_default": 1400,
            "test_start": { "protocol": "TCP", "num_streams": 1, "duration": 30, "bidir": 1 }
        },
        "intervals": [],
        "end": {
            "streams": [],
            "sum_sent": side(forward), "sum_received": side(forward),
            "sum_sent_bidir_reverse": side(reverse), "sum_received_bidir_reverse": side(reverse),
            "sender_tcp_congestion": "cubic"
        }
    })
}

fn success(data: Value, source: &str, target: &str, attempts: u64) -> String {
    json!({ "status": "success", "data": data, "meta": { "source": source, "target": target, "test_attempts": attempts, "duration_seconds": 33.0 } }).to_string()
}

const LINKS: [(&str, &str, &str); 3] = [
    ("0_ada", "ada", "bob"),
    ("1_bob", "bob", "cy"),
    ("2_cy", "cy", "ada"),
];

/// Three links of clean TCP results.
fn clean(tree: &Tree, system: &str, profile: &str, mbps: [f64; 3]) {
    for ((folder, source, target), mbps) in LINKS.iter().zip(mbps) {
        let text = success(iperf3(mbps, mbps, 10), source, target, 1);
        tree.write(
            &format!("{system}/{profile}/{folder}/tcp_iperf3.json"),
            &text,
        );
    }
}

fn ids(findings: &Findings) -> BTreeSet<String> {
    findings
        .audit
        .iter()
        .map(|finding| finding.id.clone())
        .collect()
}

fn planted() -> Outcome {
    let tree = Tree::new();
    clean(&tree, "None", "baseline", [900.0, 901.0, 902.0]);
    clean(&tree, "Foo", "baseline", [700.0, 701.0, 702.0]);
    clean(&tree, "Bar", "baseline", [500.0, 501.0, 502.0]);
    let before = ids(&tree.read());
    let harmless = BTreeSet::from(["audit-offered-load:tcp/bidirectional".to_owned()]);
    assert_eq!(before, harmless, "a clean tree has clean books");
    // A dead flow, a retried test and directions that differ.
    tree.write(
        "Foo/baseline/1_bob/tcp_iperf3.json",
        &success(iperf3(0.001, 700.0, 10), "bob", "cy", 1),
    );
    tree.write(
        "Bar/baseline/0_ada/tcp_iperf3.json",
        &success(iperf3(500.0, 300.0, 10), "ada", "bob", 3),
    );
    tree.write(
        "Bar/baseline/1_bob/tcp_iperf3.json",
        &success(iperf3(501.0, 300.0, 10), "bob", "cy", 1),
    );
    tree.write(
        "Bar/baseline/2_cy/tcp_iperf3.json",
        &success(iperf3(502.0, 300.0, 10), "cy", "ada", 1),
    );
    let findings = tree.read();
    let found = ids(&findings);
    let new: BTreeSet<&str> = found.difference(&before).map(String::as_str).collect();
    let expected = BTreeSet::from([
        "audit-dead-flow:tcp/Foo/baseline",
        "audit-missing-samples:tcp/attempts",
        "audit-direction-mix:tcp/Bar/baseline",
    ]);
    assert_eq!(new, expected);
    let dead = findings
        .audit
        .iter()
        .find(|finding| finding.class == "audit-dead-flow")
        .expect("found");
    let throughput = dead
        .corrected
        .iter()
        .find(|one| one.figure == "tcp.throughput@Foo/baseline")
        .expect("corrected");
    let close =
        |value: Option<f64>, wanted: f64| value.is_some_and(|value| (value - wanted).abs() < 0.01);
    assert!(
        close(throughput.plain, (700.0 + 0.001 + 702.0) / 3.0),
        "{throughput:?}"
    );
    assert!(close(throughput.sound, 701.0), "{throughput:?}");
    every_pointer_leads_to_its_value(tree.path(), &findings);
    Ok(())
}

/// Each piece of evidence names a value; it must stand where the evidence says.
fn every_pointer_leads_to_its_value(root: &Path, findings: &Findings) -> u64 {
    let mut checked = 0;
    for finding in &findings.audit {
        for evidence in &finding.evidence {
            let Ok(text) = fs::read_to_string(root.join(&evidence.path)) else {
                assert!(evidence.value == "no file", "{}: {evidence:?}", finding.id);
                continue;
            };
            let document: Value = serde_json::from_str(&text).expect("evidence is in valid JSON");
            let value = document.pointer(&evidence.pointer);
            assert!(value.is_some(), "{}: nothing at {evidence:?}", finding.id);
            if let Some(number) = value.and_then(Value::as_f64) {
                // The shown number has at least three digits; units may differ by a power of ten.
                let shown: f64 = evidence
                    .value
                    .split([' ', ','])
                    .next()
                    .and_then(|word| word.parse().ok())
                    .unwrap_or(f64::NAN);
                let same = |factor: f64| {
                    (shown - number * factor).abs() <= 0.006 * (number * factor).abs().max(0.1)
                };
                assert!(
                    [1.0, 1e-6, 1e-3, 1e3, 1e6].into_iter().any(same),
                    "{}: {number} is not {evidence:?}",
                    finding.id
                );
                checked += 1;
            }
        }
    }
    checked
}

fn contradictions() -> Outcome {
    let tree = Tree::new();
    clean(&tree, "None", "baseline", [900.0, 901.0, 902.0]);
    let mut slip = iperf3(901.0, 901.0, 1);
    slip["end"]["sum_sent"]["bits_per_second"] = json!(901.0e3);
    tree.write(
        "None/baseline/1_bob/tcp_iperf3.json",
        &success(slip, "bob", "cy", 1),
    );
    let mut half = iperf3(902.0, 902.0, 1);
    half["end"]["sum_sent"]["bytes"] = json!(902e6 * 15.0 / 8.0);
    tree.write(
        "None/baseline/2_cy/tcp_iperf3.json",
        &success(half, "cy", "ada", 1),
    );
    let mut window = iperf3(900.0, 900.0, 1);
    window["end"]["streams"] = json!([{ "sender": { "sender": true, "min_rtt": 2000, "mean_rtt": 2500, "max_snd_cwnd": 20_000 } }]);
    tree.write(
        "None/baseline/0_ada/tcp_iperf3.json",
        &success(window, "ada", "bob", 1),
    );
    let found = ids(&tree.read());
    for id in [
        "audit-unit:rate/tcp/None/baseline/bob>cy-0-forward",
        "audit-counter-artifact:rate/tcp/None/baseline/cy>ada-0-forward",
        "audit-counter-artifact:window/tcp/None/baseline/ada>bob-0-forward",
    ] {
        assert!(found.contains(id), "{id} is not in {found:?}");
    }
    Ok(())
}

fn damaged() -> Outcome {
    let tree = Tree::new();
    clean(&tree, "None", "baseline", [900.0, 901.0, 902.0]);
    tree.write("Foo/baseline/0_ada/tcp_iperf3.json", "{ \"status\": \"succ");
    tree.write("Foo/baseline/1_bob/tcp_iperf3.json", "{ \"status\": \"success\", \"data\": { \"end\": { \"sum_sent\": { \"bits_per_second\": NaN } } } }");
    tree.write(
        "Foo/baseline/2_cy/tcp_iperf3.json",
        &success(iperf3(-5.0, 1e30, 1), "cy", "ada", 1),
    );
    tree.write(
        "Foo/baseline/0_ada/ping.json",
        &json!({ "status": "success", "data": { "rtt_avg_ms": { "average": "quick" } } })
            .to_string(),
    );
    tree.write("Foo/baseline/1_bob/ping.json", "[1, 2");
    tree.write("Foo/baseline/tc_settings.json", "null");
    let findings = tree.read();
    let named = |path: &str| {
        findings
            .problems
            .iter()
            .filter(|problem| problem.path.ends_with(path))
            .count()
    };
    assert_eq!(named("0_ada/tcp_iperf3.json"), 1, "{:?}", findings.problems);
    assert_eq!(named("1_bob/tcp_iperf3.json"), 1);
    assert!(
        named("2_cy/tcp_iperf3.json") >= 2,
        "a negative and an absurd value"
    );
    assert!(named("0_ada/ping.json") >= 1 && named("1_bob/ping.json") == 1);
    let table = findings
        .tables
        .iter()
        .find(|table| table.id == "tcp.throughput")
        .expect("a table");
    let row = table
        .rows
        .iter()
        .find(|row| row.system == "Foo")
        .expect("a row");
    assert_eq!(row.figures[0].plain, None, "nothing damaged is averaged");
    // A sparse file is as large as any, and is not read.
    let large = tree.path().join("Foo/baseline/2_cy/ping.json");
    let file = fs::File::create(&large).expect("a file");
    file.set_len(study::layout::LARGEST + 1)
        .expect("a sparse file");
    assert!(tree.read().problems.iter().any(
        |problem| problem.path.ends_with("2_cy/ping.json") && problem.message.contains("bytes")
    ));
    Ok(())
}

fn campaigns() -> Outcome {
    let tree = Tree::new();
    for (date, factor) in [("2026-01-01", 1.0), ("2026-02-01", 0.5)] {
        clean(
            &tree,
            &format!("{date}/None"),
            "baseline",
            [900.0, 901.0, 902.0],
        );
        clean(
            &tree,
            &format!("{date}/Quux"),
            "baseline",
            [400.0 * factor, 410.0 * factor, 420.0 * factor],
        );
        clean(
            &tree,
            &format!("{date}/Quux"),
            "low_impairment",
            [40.0, 41.0, 42.0],
        );
    }
    let findings = tree.read();
    assert_eq!(findings.layout, "rig");
    let systems: Vec<&str> = findings.systems.iter().map(String::as_str).collect();
    assert_eq!(
        systems,
        [
            "None@2026-01-01",
            "None@2026-02-01",
            "Quux@2026-01-01",
            "Quux@2026-02-01"
        ]
    );
    assert_eq!(findings.profiles, ["baseline", "low"]);
    // The bare link was not measured at low: that is a gap of the design, not of a cell.
    let table = findings
        .tables
        .iter()
        .find(|table| table.id == "tcp.throughput")
        .expect("a table");
    let bare = table
        .rows
        .iter()
        .find(|row| row.system == "None@2026-01-01")
        .expect("a row");
    assert_eq!((bare.figures[1].plain, bare.figures[0].samples), (None, 3));
    Ok(())
}

fn loose() -> Outcome {
    let tree = Tree::new();
    for (run, mbps) in [100.0, 110.0, 120.0].iter().enumerate() {
        tree.write(
            &format!("wg/lossy/{run}.json"),
            &iperf3(*mbps, *mbps, 1).to_string(),
        );
    }
    tree.write("wg/lossy/ping.txt", "--- 10.0.0.2 ping statistics ---\n10 packets transmitted, 9 received, 10% packet loss, time 9012ms\nrtt min/avg/max/mdev = 0.100/0.200/0.300/0.050 ms\n");
    tree.write(
        "wg/lossy/download.json",
        &json!({ "results": [{ "command": "fetch", "mean": 2.0, "times": [1.9, 2.1] }] })
            .to_string(),
    );
    tree.write("wg/lossy/broken.json", &json!({ "start": { "version": "iperf 3.18" }, "intervals": [], "end": {}, "error": "unable to connect" }).to_string());
    tree.write("wg/lossy/notes.json", "{}");
    let study = study::read(tree.path()).expect("a tree");
    assert_eq!(study.layout, "loose");
    let rates: Vec<f64> = study
        .rows_of("wg", "lossy", "tcp", "sent_bps")
        .filter(|row| row.direction == study::Direction::Forward)
        .map(|row| row.value / 1e6)
        .collect();
    assert_eq!(rates, [100.0, 110.0, 120.0]);
    let loss: Vec<f64> = study
        .rows_of("wg", "lossy", "ping", "loss_percent")
        .map(|row| row.value)
        .collect();
    assert_eq!(loss, [10.0]);
    assert_eq!(
        study
            .tests
            .iter()
            .filter(|test| !test.outcome.is_done())
            .count(),
        1
    );
    Ok(())
}

fn lab_runs() -> Outcome {
    let tree = Tree::new();
    for (vpn, run, mbps) in [
        ("none", 0, 900.0),
        ("none", 1, 910.0),
        ("tinc", 0, 300.0),
        ("tinc", 1, 310.0),
    ] {
        let folder = format!("cells/{vpn}-{run}");
        tree.write(&format!("{folder}/scenario.toml"), &format!("name = \"x\"\n[wire]\nprofile = \"low\"\n[vpn]\nname = \"{vpn}\"\n[benchmark]\nname = \"tcp\"\n"));
        tree.write(&format!("{folder}/benchmark.json"), &json!({ "schema": "vpnbench.benchmark.v1", "benchmark": { "tool": "iperf3", "kind": "tcp", "throughput_bps_sent": mbps * 1e6, "throughput_bps_received": mbps * 1e6, "retransmits": 3, "intervals": [] } }).to_string());
    }
    let study = study::read(tree.path()).expect("a tree");
    assert_eq!((study.layout.as_str(), study.tests.len()), ("lab", 4));
    let findings = study::examine(&study, None, None);
    let table = findings
        .tables
        .iter()
        .find(|table| table.id == "tcp.throughput")
        .expect("a table");
    assert_eq!(table.columns, ["low"]);
    assert_eq!(
        (
            table.rows[0].system.as_str(),
            table.rows[0].figures[0].plain
        ),
        ("none", Some(905.0))
    );
    Ok(())
}

fn vpnbench(arguments: &[&str]) -> std::process::Output {
    binary::vpnbench()
        .args(arguments)
        .output()
        .expect("vpnbench runs")
}

fn empty() -> Outcome {
    let tree = Tree::new();
    let path = tree.path().to_string_lossy().into_owned();
    let output = vpnbench(&["study", &path]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("no benchmark results") && text.contains(&path),
        "{text}"
    );
    let output = vpnbench(&["study", "/no/such/folder"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/folder"));
    Ok(())
}

fn forms() -> Outcome {
    let tree = Tree::new();
    clean(&tree, "None", "baseline", [900.0, 901.0, 902.0]);
    clean(&tree, "Foo", "baseline", [700.0, 701.0, 0.001]);
    let path = tree.path().to_string_lossy().into_owned();
    let csv = tree.path().join("all.csv");
    let output = vpnbench(&[
        "study",
        &path,
        "--format",
        "json",
        "--measurements",
        &csv.to_string_lossy(),
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let findings: Findings = serde_json::from_slice(&output.stdout).expect("the schema's own JSON");
    assert_eq!(findings.schema, study::SCHEMA);
    let rows = fs::read_to_string(&csv).expect("a table").lines().count() as u64;
    assert_eq!(rows, findings.measurements + 1);
    let parquet = tree.path().join("all.parquet");
    assert!(
        vpnbench(&["study", &path, "--measurements", &parquet.to_string_lossy()])
            .status
            .success()
    );
    assert_eq!(&fs::read(&parquet).expect("a file")[..4], b"PAR1");
    let html =
        String::from_utf8(vpnbench(&["study", &path, "--format", "html"]).stdout).expect("text");
    assert!(
        html.starts_with("<!doctype html>") && html.contains("<svg") && !html.contains("src="),
        "self-contained"
    );
    let text = String::from_utf8(vpnbench(&["study", &path, "--tables"]).stdout).expect("text");
    assert!(
        text.contains("audit-dead-flow") && text.contains("TCP.THROUGHPUT"),
        "{text}"
    );
    assert!(
        text.lines().all(|line| !line.contains('\u{1b}')),
        "no colours into a pipe"
    );
    let bad = tree.path().join("claims.toml");
    fs::write(&bad, "[[claim]]\nid = 'x'\nwrong = 1").expect("a file");
    let output = vpnbench(&["study", &path, "--claims", &bad.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("line 3") && text.contains("claims.toml"),
        "{text}"
    );
    Ok(())
}

fn judged() -> Outcome {
    let tree = Tree::new();
    clean(&tree, "None", "baseline", [900.0, 901.0, 902.0]);
    clean(&tree, "Foo", "baseline", [950.0, 951.0, 0.001]);
    let study = study::read(tree.path()).expect("a tree");
    let file = claims::File::parse(
        r#"
        [[claim]]
        id = "slower"
        holds_if = ["tcp.throughput@Foo/baseline < tcp.throughput@None/baseline"]
        [[claim]]
        id = "unit"
        printed = [{ figure = "tcp.throughput@None/baseline", value = 0.901 }]
        [[claim]]
        id = "faster"
        holds_if = ["tcp.throughput@Foo/baseline > 1.01 * tcp.throughput@None/baseline"]
        [[claim]]
        id = "unknown"
        holds_if = ["tcp.throughput@Bar/baseline > 1"]
        "#,
    )
    .map_err(Failed::from)?;
    let findings = study::examine(&study, Some(&file), None);
    let verdicts: Vec<(&str, claims::Verdict)> = findings
        .claims
        .iter()
        .map(|one| (one.id.as_str(), one.verdict))
        .collect();
    use claims::Verdict::{CannotBeTold, DoesNotHold, Holds};
    assert_eq!(
        verdicts,
        [
            ("slower", DoesNotHold),
            ("unit", DoesNotHold),
            ("faster", Holds),
            ("unknown", CannotBeTold)
        ],
        "{:?}",
        findings.claims
    );
    assert!(findings.claims[1].reasons[0].contains("slip of units"));
    Ok(())
}
