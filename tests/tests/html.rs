//! The HTML report in headless Chromium: used as a reader would, in both themes, and printed. Skipped where
//! there is no Chromium.
//!
//! `html/check.js` runs inside the page: it moves the cursor, zooms, follows the findings' links and clicks a
//! frame of the flame graph, and leaves what it saw for the test to read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use vpnbench::analysis::ledger::LedgerStage;
use vpnbench::analysis::limits::Point;
use vpnbench::analysis::threads::{ThreadSecond, ThreadTime};
use vpnbench::explain::{Evidence, Finding, Verdict};
use vpnbench::report::model::{Cpu, Ledger, ResentSegment, StackSamples, TcpFlow};
use vpnbench::report::{Report, html};

const CHECK: &str = include_str!("html/check.js");
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Largest file of a 10-minute run.
const LARGEST: usize = 3_000_000;
/// Longest time until everything is drawn, ms.
const SLOWEST_MS: f64 = 2000.0;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let browser = browser();
    let trial = |name: &'static str, body: fn(&Path) -> Result<()>| {
        let found = browser.clone();
        let trial = Trial::test(name, move || {
            let browser = found.unwrap_or_default();
            body(&browser).map_err(|error| Failed::from(format!("{error:#}")))
        });
        match browser {
            Some(_) => trial,
            None => trial
                .with_ignored_flag(true)
                .with_kind("skipped: chromium not found"),
        }
    };
    let trials = vec![
        trial("a_reader_can_use_the_page", |browser| used(browser, false)),
        trial("and_in_the_dark", |browser| used(browser, true)),
        trial("it_prints", printed),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path);
    places.find_map(|place| {
        let mut programs = BROWSERS.iter().map(|name| place.join(name));
        programs.find(|program| program.is_file())
    })
}

/// As long as a run of ten minutes makes it: all courses have their most points.
fn report() -> Report {
    let mut report = Report::default();
    report.run.id = "ten-minutes".to_owned();
    report.run.duration_s = Some(600.0);
    report.capture.complete = true;
    report.findings = ["path-loss", "daemon-thread-saturated"]
        .map(|id| Finding {
            id: id.to_owned(),
            verdict: Verdict::Supported,
            confidence: Some(0.99),
            share: Some(0.5),
            summary: "for the test".to_owned(),
            evidence: vec![
                Evidence::new("lost", 9.0, "packets", "ledger"),
                Evidence::new("busy", 0.9, "of the time", "threads"),
            ],
            ..Finding::default()
        })
        .to_vec();
    report.tcp_flows = (0..8).map(flow).collect();
    let stages = ["tun-queue", "daemon-send", "wire"]
        .map(|name| LedgerStage {
            name: name.to_owned(),
            direction: "a > b".to_owned(),
            entered: 1_000_000,
            left: 990_000,
            lost: 10_000,
            ..LedgerStage::default()
        })
        .to_vec();
    report.ledger = Some(Ledger {
        stages,
        ..Ledger::default()
    });
    report.threads = (0..40).map(thread).collect();
    let stack = |number: u64| StackSamples {
        stack: format!(
            "tunnel (1);main;run;{};work::number_{number}_[k]",
            ["seal", "send"][number as usize % 2]
        ),
        samples: 1 + number,
    };
    report.cpu = Some(Cpu {
        samples_by_group: Some([("crypto".to_owned(), 9)].into()),
        stacks: (0..1000).map(stack).collect(),
        ..Cpu::default()
    });
    report
}

fn flow(number: u32) -> TcpFlow {
    let point = |at: u32| Point {
        start_s: f64::from(at) * 2.34,
        srtt_us: Some(10_000.0 + f64::from(at)),
        cwnd: 10 + at % 90,
        retransmits: u64::from(at % 7),
        throughput_bps: 1e8 + f64::from(at * 7919 % 1000) * 12_345.678,
        ..Point::default()
    };
    let resent = |at: u32| ResentSegment {
        time_s: f64::from(at) * 0.3,
        offset: u64::from(at) * 3_750_000,
        cause: ["dupack", "rack", "tlp"][at as usize % 3].to_owned(),
        original_arrived: Some(at.is_multiple_of(4)),
    };
    TcpFlow {
        src: format!("10.98.0.1:{}", 40_000 + number),
        dst: "10.98.0.2:5201".to_owned(),
        acked_bytes: 7_500_000_000,
        series: (0..256).map(point).collect(),
        resent: (0..2000).map(resent).collect(),
        ..TcpFlow::default()
    }
}

fn thread(number: u32) -> ThreadTime {
    let second = |second: u32| ThreadSecond {
        second,
        cpu_s: f64::from(second * 31 % 100) / 99.7,
        ..ThreadSecond::default()
    };
    ThreadTime {
        tid: 1000 + number,
        comm: format!("worker-{number}"),
        cpu_s: 300.0,
        seconds: (0..600).map(second).collect(),
        ..ThreadTime::default()
    }
}

/// Runs the browser on a page of its own home.
fn open(browser: &Path, home: &Path, dark: bool, more: &[&str], page: &str) -> Result<Output> {
    let file = home.join("report.html");
    fs::write(&file, page)?;
    let scheme = if dark { 0 } else { 1 };
    let output = Command::new("timeout")
        .arg("120")
        .arg(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args(["--enable-logging=stderr", "--window-size=1100,900"])
        .arg(format!("--user-data-dir={}", home.display()))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .args(more)
        .arg(format!("file://{}", file.display()))
        .output()
        .context("cannot start the browser")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the browser ended with {}:\n{said}",
        output.status
    );
    let console: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(":CONSOLE"))
        .collect();
    ensure!(
        console.is_empty(),
        "on the console:\n{}",
        console.join("\n")
    );
    Ok(output)
}

fn page() -> Result<String> {
    let mut page = Vec::new();
    html::write(&report(), &mut page)?;
    ensure!(page.len() <= LARGEST, "{} bytes", page.len());
    Ok(String::from_utf8(page)?)
}

#[allow(clippy::print_stdout)] // the figures that a test measured are part of its result
fn used(browser: &Path, dark: bool) -> Result<()> {
    let page = page()?;
    let size = page.len();
    let end = page.rfind("</body>").context("the page has a body")?;
    let page = format!("{}<script>{CHECK}</script>{}", &page[..end], &page[end..]);
    let home = tempfile::tempdir()?;
    let more = ["--virtual-time-budget=10000", "--dump-dom"];
    let output = open(browser, home.path(), dark, &more, &page)?;
    let text = String::from_utf8(output.stdout)?;
    let seen = text.split("<pre id=\"seen\">").nth(1);
    let seen = seen.and_then(|rest| rest.split("</pre>").next());
    let seen = seen
        .context("the page did not come to its end")?
        .replace("&gt;", ">")
        .replace("&lt;", "<")
        .replace("&amp;", "&");
    println!("  {size} bytes; {seen}");
    let seen: Value = serde_json::from_str(&seen)?;
    let number = |name: &str| seen[name].as_f64().unwrap_or(-1.0);
    ensure!(seen["failed"].is_null(), "{}", seen["failed"]);
    ensure!(
        seen["requests"] == serde_json::json!([]),
        "{}",
        seen["requests"]
    );
    ensure!(number("drawn_ms") > 0.0 && number("drawn_ms") < SLOWEST_MS);
    ensure!(number("charts") >= 6.0 && number("sequence") >= 1.0 && number("flows") >= 3.0);
    let cursors = seen["cursors"].as_array().context("no cursors")?;
    ensure!(
        cursors.len() == 4
            && cursors
                .iter()
                .all(|one| one.as_f64() > Some(0.0) && *one == cursors[0])
    );
    ensure!(seen["zoomed"][0] != seen["whole"] && seen["zoomed"][0] == seen["zoomed"][1]);
    ensure!(seen["back"] == seen["whole"], "a double click shows all");
    ensure!(
        number("links") >= 2.0 && seen["dead"] == serde_json::json!([]),
        "{}",
        seen["dead"]
    );
    ensure!(seen["hash"] == "#books", "{}", seen["hash"]);
    ensure!(number("flames") > 10.0 && seen["widened"] == true);
    ensure!(seen["wider_than_the_screen"] == false);
    let white = seen["background"] == "rgb(255, 255, 255)";
    ensure!(
        white != dark,
        "{} with a dark preference: {dark}",
        seen["background"]
    );
    Ok(())
}

fn printed(browser: &Path) -> Result<()> {
    let home = tempfile::tempdir()?;
    let target = home.path().join("report.pdf");
    let print = format!("--print-to-pdf={}", target.display());
    open(
        browser,
        home.path(),
        true,
        &["--virtual-time-budget=10000", &print],
        &page()?,
    )?;
    let pdf = fs::read(&target).context("nothing was printed")?;
    ensure!(
        pdf.starts_with(b"%PDF") && pdf.len() > 20_000,
        "{} bytes",
        pdf.len()
    );
    Ok(())
}
