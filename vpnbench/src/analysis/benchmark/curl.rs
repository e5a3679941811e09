//! curl: `-w '%{json}'`, `-w` with `name: value` lines, and the table it shows while it works.
//!
//! Times are seconds, speeds bytes per second (curl's `--write-out`). The progress table goes to
//! standard error and is rounded to three digits; `-w` says more.

use serde_json::Value;

use super::model::{Benchmark, Connection, Quantiles};

/// Reads what curl wrote.
pub fn read(text: &str) -> Result<Benchmark, String> {
    let mut result = Benchmark {
        tool: "curl".to_owned(),
        kind: "http".to_owned(),
        streams: Some(1),
        ..Benchmark::default()
    };
    if let Some((_, error)) = text.split_once("curl: (") {
        result.error = error.lines().next().map(|line| format!("({line}"));
    }
    let found = json(text, &mut result) || named(text, &mut result) || table(text, &mut result);
    if !found && result.error.is_none() {
        return Err("curl's output holds no figures; -w '%{json}' makes it write them".to_owned());
    }
    result.complete = found && result.error.is_none();
    Ok(result)
}

/// The object that `%{json}` writes, behind whatever was downloaded to standard output.
fn json(text: &str, result: &mut Benchmark) -> bool {
    let starts = text.match_indices('{').map(|(at, _)| at);
    // Last first: the body may hold braces too. More than a few are not looked at.
    let starts: Vec<usize> = starts.collect();
    let value = starts.iter().rev().take(16).find_map(|at| {
        let mut values = serde_json::Deserializer::from_str(&text[*at..]).into_iter::<Value>();
        let value = values.next()?.ok()?;
        value["time_total"].is_number().then_some(value)
    });
    let Some(value) = value else { return false };
    fill(result, &|name| value[name].as_f64());
    result.version = value["curl_version"]
        .as_str()
        .and_then(|version| version.split(' ').next())
        .map(|version| version.replace('/', " "));
    if let Some(error) = value["errormsg"].as_str() {
        result.error = Some(error.to_owned());
    }
    let port = |name: &str| {
        value[name]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
    };
    if let (Some(local_port), Some(remote_port)) = (port("local_port"), port("remote_port")) {
        let protocol = if value["http_version"] == "3" {
            "udp"
        } else {
            "tcp"
        };
        result.connections.push(Connection {
            local_port,
            remote_port,
            protocol: protocol.to_owned(),
        });
    }
    true
}

/// Lines such as `time_total: 1.5`, `time_total=1.5`, with curl's own variable names.
fn named(text: &str, result: &mut Benchmark) -> bool {
    let find = |name: &str| {
        let mut values = text.lines().filter_map(|line| {
            let rest = line.trim().strip_prefix(name)?;
            let rest = rest.trim_start_matches([':', '=', ' ', '\t']);
            rest.trim_end_matches('s').trim().parse::<f64>().ok()
        });
        values.next()
    };
    if find("time_total").is_none() && find("speed_download").is_none() {
        return false;
    }
    fill(result, &find);
    true
}

fn fill(result: &mut Benchmark, find: &dyn Fn(&str) -> Option<f64>) {
    let us = |name: &str| find(name).filter(|time| *time > 0.0).map(|s| s * 1e6);
    let one = |value: Option<f64>| {
        value.map(|value| Quantiles {
            p50: Some(value),
            ..Quantiles::default()
        })
    };
    let (down, up) = (find("size_download"), find("size_upload"));
    let uploads = up > down;
    let speed = if uploads {
        "speed_upload"
    } else {
        "speed_download"
    };
    result.duration_s = find("time_total");
    let bps = find(speed).map(|bytes| 8.0 * bytes);
    let bytes = if uploads { up } else { down }.map(|bytes| bytes as u64);
    if uploads {
        result.throughput_bps_sent = bps;
        result.bytes_sent = bytes;
    } else {
        result.throughput_bps_received = bps;
        result.bytes_received = bytes;
    }
    let before = us("time_namelookup").unwrap_or(0.0);
    result.connect_us = one(us("time_connect").map(|connected| connected - before));
    let ready = us("time_pretransfer").unwrap_or(0.0);
    result.first_byte_us = one(us("time_starttransfer").map(|first| first - ready));
}

/// The last line of the progress table.
fn table(text: &str, result: &mut Benchmark) -> bool {
    let mut lines = text.lines().flat_map(|line| line.split('\r'));
    if !lines.any(|line| line.trim_start().starts_with("Dload")) {
        return false;
    }
    let mut rows = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.len() == 12).then_some(words)
    });
    let Some(row) = rows.next_back() else {
        return false;
    };
    result.bytes_received = amount(row[3]).map(|bytes| bytes as u64);
    result.throughput_bps_received = amount(row[6]).map(|bytes| 8.0 * bytes);
    true
}

/// `2539k`: bytes in units of 1024 (curl's `tool_progress.c`).
fn amount(text: &str) -> Option<f64> {
    let last = text.chars().last()?;
    let power = ['k', 'M', 'G', 'T', 'P']
        .iter()
        .position(|one| *one == last);
    match power {
        Some(power) => {
            let number: f64 = text.get(..text.len() - 1)?.parse().ok()?;
            Some(number * 1024_f64.powi(power as i32 + 1))
        }
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_out_as_json() {
        let result = read(include_str!("fixtures/curl-write.json")).expect("figures");
        assert_eq!(result.bytes_received, Some(5266));
        assert_eq!(result.throughput_bps_received, Some(8.0 * 592_484.0));
        assert_eq!(result.duration_s, Some(0.008_888));
        assert_eq!(result.connections[0].local_port, 56_524);
        assert_eq!(result.version.as_deref(), Some("libcurl 7.88.1"));
        let first = result
            .first_byte_us
            .and_then(|time| time.p50)
            .unwrap_or(0.0);
        assert!((first - 8071.0).abs() < 0.5, "{first}");
        assert!(result.complete);
        let behind = format!("a body {{\n{}", include_str!("fixtures/curl-write.json"));
        assert_eq!(read(&behind).ok(), Some(result));
    }

    #[test]
    fn named_lines_progress_and_failure() {
        let named = read(include_str!("fixtures/curl-write.txt")).expect("figures");
        assert_eq!(
            (named.duration_s, named.bytes_received),
            (Some(0.005_563), None)
        );
        let table = read(include_str!("fixtures/curl-progress.txt")).expect("figures");
        assert_eq!(table.bytes_received, Some(5266));
        assert_eq!(table.throughput_bps_received, Some(8.0 * 2539.0 * 1024.0));
        let refused = read(include_str!("fixtures/curl-refused.txt")).expect("an error");
        assert!(!refused.complete);
        assert!(
            refused
                .error
                .is_some_and(|error| error.contains("Failed to connect"))
        );
        assert!(read("<html>{}</html>").is_err());
    }
}
