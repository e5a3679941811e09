//! Recordings with something missing: what can be said is said, what cannot is unknown, and the report
//! says so at the top.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::printed;

/// Name and body.
pub(crate) type Case = (&'static str, fn() -> Result<()>);

pub(crate) const CASES: &[Case] = &[
    ("lost_events_refute_nothing", lossy),
    ("a_recording_cut_short_says_so", cut),
    ("an_empty_file_is_an_error_with_a_next_step", empty),
    ("without_tunnel_and_benchmark", bare),
    ("markdown_names_what_was_lost", markdown),
];

/// A queue that overflows: 200 packets enter, half of them are refused.
fn overflow() -> String {
    let mut text = String::from(
        "tunnel tun0 daemon=daemon/7\nlink tun0 kind=tun tx_packets=100 tx_dropped=100\n\n",
    );
    for number in 0..200 {
        let at = f64::from(number) / 1000.0 + 0.1;
        let flow = "flow=10.2.0.1:40000>10.2.0.2:5201";
        text.push_str(&format!(
            "{at:.4} packet tap=tun.tx dev=tun0 udp {flow} len=1420 payload=1392 skb={number}\n"
        ));
        let next = at + 0.0002;
        text.push_str(&match number % 2 {
            0 => format!(
                "{next:.4} taken tap=tun.read dev=tun0 len=1420 skb={number} at=tun_do_read\n"
            ),
            _ => format!(
                "{next:.4} drop dev=tun0 reason=FULL_RING at=tun_net_xmit len=1420 skb={number}\n"
            ),
        });
    }
    text
}

fn keep(_: &mut Vec<u8>) {}

fn json(timeline: &str, spoil: fn(&mut Vec<u8>)) -> Result<Value> {
    let output = printed(timeline, spoil, "json")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text(timeline: &str, spoil: fn(&mut Vec<u8>), format: &str) -> Result<String> {
    let output = printed(timeline, spoil, format)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn verdicts(report: &Value) -> Result<Vec<(String, String)>> {
    let findings = report["findings"].as_array().context("findings")?;
    let pair = |finding: &Value| {
        let word = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        (word("id"), word("verdict"))
    };
    Ok(findings.iter().map(pair).collect())
}

fn verdict(report: &Value, id: &str) -> Result<String> {
    let all = verdicts(report)?;
    let found = all.into_iter().find(|one| one.0 == id);
    Ok(found
        .with_context(|| format!("{id} is not in the report"))?
        .1)
}

fn lossy() -> Result<()> {
    let whole = json(&overflow(), keep)?;
    ensure!(
        verdict(&whole, "tun-queue-overflow")? == "supported",
        "without loss"
    );
    let lossy = format!("lost 1000\n{}", overflow());
    let report = json(&lossy, keep)?;
    ensure!(
        report["capture"]["lost"].as_u64() > Some(0),
        "the loss is in the books"
    );
    // Without loss no outer packet was a fragment; with it nobody knows.
    ensure!(
        verdict(&whole, "outer-fragmentation")? != "unknown",
        "it was judged"
    );
    for id in ["outer-fragmentation", "path-loss", "path-reordering"] {
        let found = verdict(&report, id)?;
        ensure!(
            found == "unknown",
            "{id} is {found} although events were lost"
        );
    }
    let screen = text(&lossy, keep, "text")?;
    let why = screen.split("WHY").nth(1).context("a section WHY")?;
    let first = why.lines().nth(1).unwrap_or_default();
    ensure!(
        first.contains("events were lost"),
        "the first line is: {first}"
    );
    Ok(())
}

fn cut() -> Result<()> {
    let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() * 3 / 4);
    let report = json(&overflow(), half)?;
    ensure!(report["capture"]["complete"] == false, "it is not complete");
    let screen = text(&overflow(), half, "text")?;
    ensure!(screen.contains("the recording is not whole"), "{screen}");
    Ok(())
}

fn empty() -> Result<()> {
    let output = printed(&overflow(), Vec::clear, "json")?;
    ensure!(output.status.code() == Some(1), "{:?}", output.status);
    ensure!(
        !output.stderr.is_empty() && output.stdout.is_empty(),
        "the error is on stderr"
    );
    Ok(())
}

fn bare() -> Result<()> {
    let timeline = "outer eth0\n0.100 packet tap=outer.tx dev=eth0 flow=10.0.0.1:40000>10.0.0.2:5201 len=1500 payload=1448 skb=1\n";
    let report = json(timeline, keep)?;
    let supported = verdicts(&report)?
        .into_iter()
        .find(|one| one.1 == "supported");
    ensure!(supported.is_none(), "one packet supports {supported:?}");
    ensure!(
        text(timeline, keep, "text")?.contains("nothing is supported"),
        "it says so"
    );
    Ok(())
}

fn markdown() -> Result<()> {
    let found = text(&overflow(), keep, "markdown")?;
    ensure!(found.contains("**tun-queue-overflow**"), "{found}");
    let lossy = text(&format!("lost 1000\n{}", overflow()), keep, "markdown")?;
    ensure!(lossy.contains("events were lost"), "{lossy}");
    Ok(())
}
