//! Cross-checks inside one file: figures that must agree with each other. A disagreement by a
//! power of 1000 is `audit-unit`, any other `audit-counter-artifact`.

use super::{Corrected, Evidence, Finding, number};
use crate::study::model::{Direction, Row, Study};

/// Rate and bytes are rounded and timed apart; more than this is no rounding.
const TOLERANCE: f64 = 0.02;

/// Finds flows whose own figures contradict each other.
#[must_use]
pub fn find(study: &Study) -> Vec<Finding> {
    let mut findings = Vec::new();
    for row in &study.rows {
        match row.metric.as_str() {
            "sent_bps" => {
                findings.extend(rate_and_bytes(study, row));
                findings.extend(window_and_rate(study, row));
            }
            "packets" => findings.extend(packets_and_bytes(study, row)),
            _ => {}
        }
    }
    findings
}

/// A power of 1000 between two figures, if that is what separates them.
fn slip(ratio: f64) -> Option<&'static str> {
    let slips = [
        (1e3, "1000"),
        (1e6, "a million"),
        (1e-3, "1/1000"),
        (1e-6, "a millionth"),
    ];
    let found = slips
        .iter()
        .find(|(factor, _)| (ratio / factor - 1.0).abs() < 0.1);
    found.map(|(_, name)| *name)
}

fn finding(row: &Row, what: &str, ratio: f64, title: String, evidence: Vec<Evidence>) -> Finding {
    let (class, title) = match slip(ratio) {
        Some(factor) => (
            "audit-unit",
            format!("{title}: off by {factor}, a slip of units"),
        ),
        None => ("audit-counter-artifact", title),
    };
    let direction = match row.direction {
        Direction::Forward => "forward",
        Direction::Reverse => "reverse",
    };
    Finding {
        class: class.to_owned(),
        id: format!(
            "{class}:{what}/{}/{}/{}/{}-{}-{direction}",
            row.benchmark,
            row.system,
            row.profile,
            row.link(),
            row.run
        ),
        title,
        systems: vec![row.system.clone()],
        profile: Some(row.profile.clone()),
        benchmark: row.benchmark.clone(),
        evidence,
        corrected: Vec::new(),
        effect: "at least one of the two is wrong: neither is used without knowing which"
            .to_owned(),
    }
}

/// Rate = 8 x bytes / seconds.
fn rate_and_bytes(study: &Study, row: &Row) -> Option<Finding> {
    let (bytes, seconds) = (
        study.beside(row, "sent_bytes")?,
        study.beside(row, "seconds")?,
    );
    if seconds.value <= 0.0 || bytes.value <= 0.0 {
        return None;
    }
    let own = 8.0 * bytes.value / seconds.value;
    let ratio = row.value / own;
    if (ratio - 1.0).abs() <= TOLERANCE {
        return None;
    }
    let title = format!(
        "{} of {} at {}, {}: {} bytes in {} s are {} bit/s, not {}",
        row.benchmark,
        row.system,
        row.profile,
        row.link(),
        bytes.value,
        number(seconds.value),
        number(own),
        number(row.value)
    );
    let evidence = vec![
        Evidence::row(row, "the rate"),
        Evidence::row(bytes, "the bytes of the same flow"),
        Evidence::row(seconds, "its duration"),
    ];
    let mut found = finding(row, "rate", ratio, title, evidence);
    found.corrected.push(Corrected {
        figure: format!(
            "{} rate of {} at {}, {}",
            row.benchmark,
            row.system,
            row.profile,
            row.link()
        ),
        unit: "bit/s".to_owned(),
        plain: Some(row.value),
        sound: Some(own),
        formula: "8 x bytes / seconds of the same object".to_owned(),
    });
    Some(found)
}

/// A flow cannot send more than its largest window per smallest round trip (Little's law). The
/// RTTs are smoothed samples, so twice as much is still believed.
fn window_and_rate(study: &Study, row: &Row) -> Option<Finding> {
    if row.direction != Direction::Forward {
        return None;
    }
    let window = study.beside(row, "cwnd_max_bytes")?;
    let rtt = study.beside(row, "rtt_min_us")?;
    if rtt.value <= 0.0 || window.value <= 0.0 {
        return None;
    }
    let most = 8.0 * window.value / (rtt.value / 1e6);
    let ratio = row.value / most;
    if ratio <= 2.0 {
        return None;
    }
    let title = format!(
        "{} of {} at {}, {}: window / RTT allows {} Mbit/s, the flow is said to have sent {}",
        row.benchmark,
        row.system,
        row.profile,
        row.link(),
        number(most / 1e6),
        number(row.value / 1e6)
    );
    let evidence = vec![
        Evidence::row(row, "the rate"),
        Evidence::row(window, "largest congestion window"),
        Evidence::row(rtt, "smallest smoothed RTT, in microseconds"),
    ];
    Some(finding(row, "window", ratio, title, evidence))
}

/// Datagrams received x their size = bytes received.
fn packets_and_bytes(study: &Study, row: &Row) -> Option<Finding> {
    let (bytes, lost) = (
        study.beside(row, "received_bytes")?,
        study.beside(row, "lost_packets")?,
    );
    let forward = Row {
        direction: Direction::Forward,
        ..row.clone()
    };
    let block = study.beside(&forward, "block_bytes")?;
    let received = row.value - lost.value;
    if received < 100.0 || bytes.value <= 0.0 {
        return None;
    }
    let ratio = bytes.value / (received * block.value);
    // What arrives late is counted as lost first and taken back; a tenth is not a contradiction.
    if (ratio - 1.0).abs() <= 0.1 {
        return None;
    }
    let title = format!(
        "{} of {} at {}, {}: {} packets of {} bytes arrived, but {} bytes",
        row.benchmark,
        row.system,
        row.profile,
        row.link(),
        number(received),
        block.value,
        bytes.value
    );
    let evidence = vec![
        Evidence::row(row, "packets"),
        Evidence::row(lost, "lost of them"),
        Evidence::row(bytes, "bytes received"),
        Evidence::row(block, "size of a datagram"),
    ];
    Some(finding(row, "packets", ratio, title, evidence))
}
