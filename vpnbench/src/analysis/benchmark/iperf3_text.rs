//! iperf3's text: rounded to three digits, so figures are good to about half a percent.
//!
//! ```text
//! [  5][TX-C]   0.00-1.00   sec  23.9 MBytes   200 Mbits/sec    0   1.12 MBytes
//! ```

use super::model::{Benchmark, Connection, Direction, Interval, Packets, Way};

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row<'a> {
    id: &'a str,
    role: Option<&'a str>,
    start_s: f64,
    end_s: f64,
    bytes: f64,
    bps: f64,
    retransmits: Option<u64>,
    cwnd: Option<f64>,
    jitter_us: Option<f64>,
    /// Lost and all.
    lost: Option<(u64, u64)>,
    /// `sender` or `receiver` at the end of a summary's line.
    end: Option<&'a str>,
}

/// Reads the text of a client.
pub(super) fn read(text: &str) -> Benchmark {
    let mut result = Benchmark {
        tool: "iperf3".to_owned(),
        ..Benchmark::default()
    };
    let mut rows = Vec::new();
    let mut columns = "";
    for line in text.lines() {
        if line.starts_with("[ ID]") {
            columns = line;
        } else if let Some(connection) = connection(line) {
            result.connections.push(connection);
        } else if let Some((_, error)) = line.split_once("iperf3: error - ") {
            result.error = Some(error.trim().to_owned());
        } else if let Some(version) = line.strip_prefix("iperf ") {
            result.version.get_or_insert(format!("iperf {version}"));
        } else if let Some(row) = row(line, columns) {
            rows.push(row);
        }
    }
    let udp = columns.contains("Datagrams");
    fill(&mut result, &rows, udp);
    for connection in &mut result.connections {
        connection.protocol = if udp { "udp" } else { "tcp" }.to_owned();
    }
    result
}

fn fill(result: &mut Benchmark, rows: &[Row<'_>], udp: bool) {
    // With several streams the sums count, otherwise the only stream of each direction.
    let summed = rows.iter().any(|row| row.id == "SUM");
    let rows: Vec<&Row<'_>> = rows
        .iter()
        .filter(|row| !summed || row.id == "SUM")
        .collect();
    let both = rows.iter().any(|row| row.role == Some("RX-C"))
        && rows.iter().any(|row| row.role == Some("TX-C"));
    let summary = |end: &str, role: Option<&str>| {
        rows.iter()
            .find(|row| row.end == Some(end) && (role.is_none() || row.role == role))
            .copied()
    };
    let way = both.then_some("TX-C");
    let forward = direction(summary("sender", way), summary("receiver", way));
    result.throughput_bps_sent = forward.throughput_bps_sent;
    result.throughput_bps_received = forward.throughput_bps_received;
    result.retransmits = forward.retransmits;
    result.bytes_sent = forward.bytes_sent;
    result.bytes_received = forward.bytes_received;
    result.loss_ratio = forward.loss_ratio;
    if both {
        let role = Some("RX-C");
        result.reverse = Some(direction(
            summary("sender", role),
            summary("receiver", role),
        ));
    }
    let intervals = rows.iter().filter(|row| row.end.is_none());
    // Without roles only the sender's intervals have these columns.
    let sends = both || rows.iter().any(|row| row.cwnd.is_some()) || udp_sender(&rows, udp);
    result.intervals = intervals.map(|row| interval(row, sends)).collect();
    let reversed = !both && !sends && !result.intervals.is_empty();
    result.kind = match (udp, both, reversed) {
        (false, true, _) => "tcp-bidir",
        (false, _, true) => "tcp-reverse",
        (false, ..) => "tcp",
        (true, true, _) => "udp-bidir",
        (true, _, true) => "udp-reverse",
        (true, ..) => "udp",
    }
    .to_owned();
    let streams = result.connections.len() / if both { 2 } else { 1 };
    result.streams = u32::try_from(streams).ok().filter(|count| *count > 0);
    if let Some(received) = summary("receiver", way) {
        result.jitter_us = received.jitter_us;
        let sent = summary("sender", way).and_then(|row| row.lost);
        result.packets = received.lost.map(|(lost, all)| Packets {
            sent: sent.map(|(_, sent)| sent),
            received: Some(all.saturating_sub(lost)),
            lost: Some(lost),
            ..Packets::default()
        });
        result.complete = result.error.is_none();
    }
    result.duration_s = summary("sender", way).map(|row| row.end_s);
}

/// A UDP sender's intervals count datagrams and know nothing of their loss.
fn udp_sender(rows: &[&Row<'_>], udp: bool) -> bool {
    let mut intervals = rows.iter().filter(|row| row.end.is_none());
    udp && intervals.all(|row| row.lost.is_none())
}

fn interval(row: &Row<'_>, sends: bool) -> Interval {
    let received = row.role.map_or(!sends, |role| role == "RX-C");
    let loss = row.lost.filter(|(_, all)| *all > 0);
    Interval {
        start_s: row.start_s,
        end_s: row.end_s,
        throughput_bps: Some(row.bps),
        retransmits: row.retransmits,
        way: if received { Way::Received } else { Way::Sent },
        cwnd_bytes: row.cwnd.map(|bytes| bytes as u64),
        loss_ratio: loss.map(|(lost, all)| lost as f64 / all as f64),
        jitter_us: row.jitter_us,
        ..Interval::default()
    }
}

fn direction(sent: Option<&Row<'_>>, received: Option<&Row<'_>>) -> Direction {
    let loss = received
        .and_then(|row| row.lost)
        .filter(|(_, all)| *all > 0);
    Direction {
        throughput_bps_sent: sent.map(|row| row.bps),
        throughput_bps_received: received.map(|row| row.bps),
        retransmits: sent.and_then(|row| row.retransmits),
        bytes_sent: sent.map(|row| row.bytes as u64),
        bytes_received: received.map(|row| row.bytes as u64),
        loss_ratio: loss.map(|(lost, all)| lost as f64 / all as f64),
    }
}

/// `[  5] local 10.0.0.1 port 46790 connected to 10.0.0.2 port 5201`
fn connection(line: &str) -> Option<Connection> {
    let (_, rest) = line.split_once("] local ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let ["port", local, "connected", "to", _, "port", remote] = words.get(1..8)? else {
        return None;
    };
    Some(Connection {
        local_port: local.parse().ok()?,
        remote_port: remote.parse().ok()?,
        protocol: String::new(),
    })
}

fn row<'a>(line: &'a str, columns: &str) -> Option<Row<'a>> {
    let (id, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (role, rest) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (role, rest) = inner.split_once(']')?;
            (Some(role), rest)
        }
        None => (None, rest),
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (times, [unit, amount, amount_unit, rate, rate_unit]) = (*words.first()?, words.get(1..6)?)
    else {
        return None;
    };
    if *unit != "sec" || words.contains(&"(omitted)") {
        return None;
    }
    let (start, end) = times.split_once('-')?;
    let mut row = Row {
        id: id.trim(),
        role,
        start_s: start.parse().ok()?,
        end_s: end.parse().ok()?,
        bytes: amount.parse::<f64>().ok()? * bytes_unit(amount_unit)?,
        bps: rate.parse::<f64>().ok()? * bits_unit(rate_unit)?,
        retransmits: None,
        cwnd: None,
        jitter_us: None,
        lost: None,
        end: None,
    };
    let mut rest = &words[6..];
    if let Some(end @ (&"sender" | &"receiver")) = rest.last() {
        row.end = Some(end);
        rest = &rest[..rest.len() - 1];
    }
    read_columns(&mut row, rest, columns);
    Some(row)
}

/// What follows the bitrate depends on the table's head.
fn read_columns(row: &mut Row<'_>, words: &[&str], columns: &str) {
    let number = |word: Option<&&str>| word.and_then(|word| word.parse::<f64>().ok());
    if columns.contains("Jitter") {
        row.jitter_us = number(words.first()).map(|ms| ms * 1e3);
        row.lost = words.get(2).and_then(|word| {
            let (lost, all) = word.split_once('/')?;
            Some((lost.parse().ok()?, all.parse().ok()?))
        });
    } else if columns.contains("Retr") {
        row.retransmits = words.first().and_then(|word| word.parse().ok());
        let unit = words.get(2).and_then(|unit| bytes_unit(unit));
        row.cwnd = number(words.get(1))
            .zip(unit)
            .map(|(size, unit)| size * unit);
    }
}

/// Amounts are in units of 1024, rates in units of 1000 (iperf3's `units.c`).
fn bytes_unit(unit: &str) -> Option<f64> {
    let prefix = unit.strip_suffix("Bytes")?;
    let power = ["", "K", "M", "G", "T"]
        .iter()
        .position(|one| *one == prefix)?;
    Some(1024_f64.powi(power as i32))
}

fn bits_unit(unit: &str) -> Option<f64> {
    let (prefix, factor) = match unit.strip_suffix("bits/sec") {
        Some(prefix) => (prefix, 1.0),
        // --format in capitals: bytes, in units of 1024
        None => return bytes_unit(unit.strip_suffix("/sec")?).map(|bytes| 8.0 * bytes),
    };
    let power = ["", "K", "M", "G", "T"]
        .iter()
        .position(|one| *one == prefix)?;
    Some(factor * 1000_f64.powi(power as i32))
}
