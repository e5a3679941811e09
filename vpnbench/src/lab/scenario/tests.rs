//! Reading scenarios: every complaint names its place, every scenario the program carries reads.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

fn error(text: &str, settings: &[&str]) -> String {
    let settings: Vec<Setting> = settings
        .iter()
        .map(|s| s.parse().expect("KEY=VALUE"))
        .collect();
    match Scenario::parse(&Source::new("x.toml", text), &settings) {
        Ok(scenario) => panic!("accepted: {scenario:?}"),
        Err(error) => error.to_string(),
    }
}

fn with(settings: &[&str]) -> Scenario {
    let settings: Vec<Setting> = settings
        .iter()
        .map(|s| s.parse().expect("KEY=VALUE"))
        .collect();
    Scenario::parse(&Source::empty(), &settings).expect("fits")
}

#[test]
fn complaints_name_file_line_and_column() {
    let cases = [
        (
            "title = \"x\"\nsede = 3\n",
            "x.toml:2:1: unknown field `sede`",
        ),
        (
            "[run]\nrepetitions = \"three\"\n",
            "x.toml:2:15: invalid type: string",
        ),
        ("[run]\nrepetitions = -1\n", "x.toml:2:15: invalid value"),
        (
            "\n[run]\nrepetitions = 0\n",
            "x.toml:3:1: run.repetitions: at least 1",
        ),
        ("[vpn]\nname = \"vpnx\"\n", "x.toml:2:8: "),
        (
            "[benchmark]\nduration = \"10 parsecs\"\n",
            "x.toml:2:1: duration: \"10 parsecs\" is not a length",
        ),
        (
            "[run]\nlimit = \"soon\"\n",
            "x.toml:2:1: run.limit: \"soon\" is not a duration",
        ),
        (
            "[expect]\nfindings = [\"slow\"]\n",
            "x.toml:2:1: expect.findings: there is no finding",
        ),
        ("[run\n", "x.toml:1:5: "),
        ("name = \"A b\"\n", "x.toml:1:1: name: "),
        (
            "[sysctls]\n\"kernel.panic\" = 1\n",
            "kernel.panic is neither a sysctl of a network namespace",
        ),
        (
            "[sysctls.a]\n\"kernel.panic\" = 1\n",
            "x.toml:2:1: sysctls.a.kernel.panic: only sysctls",
        ),
        (
            "[sysctls]\n\"net.ipv4.../../kernel/panic\" = 1\n",
            "only sysctls",
        ),
        (
            "[wire]\nunit = \"frame\"\n",
            "x.toml:2:8: unknown variant `frame`",
        ),
        (
            "[wire]\nbackend = \"netem\"\nmodel = \"exact\"\nloss = \"1%\"\n",
            "x.toml:3:1: wire.model: ",
        ),
        (
            "[sysctls.yuki]\n\"net.ipv4.tcp_sack\" = 1\n",
            "x.toml:1:10: sysctls.yuki: there is no such host",
        ),
        (
            "[sysctls]\n\"net.ipv4.tcp_sack\" = 1.5\n",
            "x.toml:2:23: invalid type: floating point",
        ),
    ];
    for (text, expected) in cases {
        let error = error(text, &[]);
        assert!(error.contains(expected), "{text:?} gave {error}");
    }
}

#[test]
fn complaints_about_settings_name_the_setting() {
    let cases = [
        (
            "run.repetition=3",
            "--set run.repetition=3: unknown field `repetition`",
        ),
        (
            "run.repetitions=many",
            "--set run.repetitions=many: invalid type",
        ),
        (
            "run.repetitions=0",
            "--set run.repetitions=0: run.repetitions: at least 1",
        ),
        ("name.x=1", "--set name.x=1: "),
        (
            "sysctls.vm.overcommit=1",
            "--set sysctls.vm.overcommit=1: sysctls.vm: there is no such host",
        ),
    ];
    for (setting, expected) in cases {
        let error = error("", &[setting]);
        assert!(error.contains(expected), "{setting} gave {error}");
    }
}

#[test]
fn settings_need_no_quotes_and_reach_every_section() {
    let scenario = with(&[
        "vpn.name=wireguard-go",
        "benchmark.duration=1500ms",
        "run.record=false",
        "seed=7",
        "title=10",
        "sysctls.net.ipv4.tcp_reordering=10",
        "sysctls.b.net.ipv4.tcp_rmem=4096 131072 6291456",
    ]);
    assert_eq!(scenario.vpn.name.name(), "wireguard-go");
    assert_eq!(
        scenario.benchmark.duration(),
        Some(Duration::from_millis(1500))
    );
    assert!(!scenario.run.record);
    assert_eq!((scenario.seed, scenario.title.as_str()), (7, "10"));
    assert_eq!(scenario.sysctls.all["net.ipv4.tcp_reordering"], "10");
    assert_eq!(
        scenario.sysctls.hosts["b"]["net.ipv4.tcp_rmem"],
        "4096 131072 6291456"
    );
}

#[test]
fn another_benchmark_has_parameters_of_its_own() {
    let scenario = with(&[
        "benchmark.streams=4",
        "benchmark.name=ping",
        "benchmark.duration=2s",
    ]);
    assert_eq!(scenario.benchmark.bench().name(), "ping");
    assert_eq!(scenario.benchmark.duration(), Some(Duration::from_secs(2)));
    let error = error("", &["benchmark.name=ping", "benchmark.streams=4"]);
    assert!(
        error.starts_with("--set benchmark.streams=4: streams: unknown"),
        "{error}"
    );
}

#[test]
fn sysctls_may_be_quoted_or_nested() {
    let quoted =
        "[sysctls]\n\"net.ipv4.tcp_sack\" = 0\n[sysctls.a]\n\"net.ipv4.tcp_dsack\" = false\n";
    let nested = "[sysctls]\nnet.ipv4.tcp_sack = 0\n[sysctls.a.net.ipv4]\ntcp_dsack = 0\n";
    let read = |text| {
        Scenario::parse(&Source::new("x", text), &[])
            .expect("fits")
            .sysctls
    };
    assert_eq!(read(quoted), read(nested));
}

#[test]
fn the_effective_scenario_reads_back_the_same() {
    for embedded in EMBEDDED {
        let source = Source::new(embedded.file_name(), embedded.text);
        let scenario = Scenario::parse(&source, &[]).unwrap_or_else(|error| panic!("{error}"));
        let text = scenario.to_toml().expect("writes");
        let again = Scenario::parse(&Source::new("effective", &text), &[]);
        assert_eq!(
            again.unwrap_or_else(|error| panic!("{error} in\n{text}")),
            scenario.complete()
        );
        assert_eq!(scenario.name, embedded.name, "the name is that of the file");
        assert!(!scenario.title.is_empty(), "{} has no title", embedded.name);
    }
}

#[test]
fn every_file_is_carried() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let files: BTreeSet<String> = files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    let carried: BTreeSet<String> = EMBEDDED.iter().map(Embedded::file_name).collect();
    assert_eq!(files, carried);
}

#[test]
fn a_scenario_is_found_by_name_or_says_where_to_look() {
    assert!(Scenario::open(Path::new("healthy-none"), &[]).is_ok());
    let error = Scenario::open(Path::new("no-such-scenario"), &[]).expect_err("unknown");
    assert!(error.to_string().contains("lab scenario list"), "{error}");
}
