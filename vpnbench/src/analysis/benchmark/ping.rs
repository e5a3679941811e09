//! iputils ping: replies, errors and the summary.
//!
//! ```text
//! [1795614064.200301] 64 bytes from 10.98.0.2: icmp_seq=2 ttl=64 time=0.037 ms
//! 5 packets transmitted, 5 received, +1 duplicates, +2 errors, 0% packet loss, time 813ms
//! rtt min/avg/max/mdev = 0.036/0.079/0.250/0.085 ms
//! ```

use std::collections::BTreeSet;

use super::model::{Benchmark, Interval, Packets, Quantiles};

/// Seconds of replies that one interval sums up.
const BIN_S: f64 = 1.0;

/// A reply.
#[derive(Debug, Clone, Copy)]
struct Reply {
    seq: u64,
    rtt_us: f64,
    /// Seconds on any one clock.
    at_s: Option<f64>,
    /// Seconds since 1970 (`-D`).
    realtime_s: Option<f64>,
}

/// What ping wrote, with its moment on the clock of its first reply, if `-D` was given.
#[derive(Debug, Clone, Default)]
pub struct Ping {
    /// The result.
    pub result: Benchmark,
    /// `CLOCK_REALTIME` seconds of the first line with a time stamp.
    pub realtime_s: Option<f64>,
}

/// Reads the lines of a ping, each with the second at which it arrived, if known.
pub fn read<'a>(lines: impl Iterator<Item = (Option<f64>, &'a str)>) -> Result<Ping, String> {
    let mut result = Benchmark {
        tool: "ping".to_owned(),
        kind: "ping".to_owned(),
        ..Benchmark::default()
    };
    let mut replies = Vec::new();
    let (mut seen, mut highest) = (BTreeSet::new(), 0);
    let (mut duplicates, mut reordered) = (0, 0);
    let (mut begun, mut runs) = (false, 0);
    for (at_s, line) in lines {
        if line.starts_with("PING ") {
            // One after another: sequence numbers begin again, counts add up.
            begun = true;
            runs += 1;
            result.complete = false;
            seen.clear();
            highest = 0;
        }
        if let Some(reply) = reply(at_s, line) {
            if !seen.insert(reply.seq) {
                duplicates += 1;
                continue;
            }
            reordered += u64::from(reply.seq < highest);
            highest = highest.max(reply.seq);
            replies.push(reply);
        } else if line.contains(" packets transmitted, ") {
            summary(line, &mut result);
        } else if let Some(figures) = line.strip_prefix("rtt min/avg/max/mdev = ") {
            rtt(figures, &mut result);
        } else if let Some(error) = line.strip_prefix("ping: ") {
            result.error = Some(error.to_owned());
        }
    }
    if !begun && result.error.is_none() {
        return Err("ping's output does not begin with PING".to_owned());
    }
    if !result.complete {
        // Killed before its summary: what was seen is known, what was sent is not.
        let count = (!replies.is_empty() || begun).then_some(replies.len() as u64);
        result.packets = Some(Packets {
            received: count,
            duplicates: Some(duplicates),
            ..Packets::default()
        });
    }
    if let Some(packets) = result.packets.as_mut().filter(|_| !replies.is_empty()) {
        packets.reordered = Some(reordered);
    }
    add_replies(&mut result, &replies);
    if runs > 1 && !replies.is_empty() {
        // The last summary speaks of the last run only.
        let sum: f64 = replies.iter().map(|reply| reply.rtt_us).sum();
        result.rtt_mean_us = Some(sum / replies.len() as f64);
    }
    let first = replies.iter().find_map(|reply| reply.realtime_s);
    Ok(Ping {
        result,
        realtime_s: first,
    })
}

fn add_replies(result: &mut Benchmark, replies: &[Reply]) {
    let quantiles = Quantiles::of(replies.iter().map(|reply| reply.rtt_us).collect());
    if let Some(quantiles) = quantiles {
        // The summary has more digits at its ends than nothing; quantiles need the replies.
        result.rtt_us = Some(quantiles);
        result.streams = Some(1);
    }
    let clock = |reply: &Reply| reply.realtime_s.or(reply.at_s);
    let Some(origin) = replies.first().and_then(clock) else {
        return;
    };
    let mut bins: Vec<Vec<f64>> = Vec::new();
    for reply in replies {
        let Some(at) = clock(reply) else { return };
        // A clock that was set back is no reason for a bin before the first.
        let bin = ((at - origin) / BIN_S).max(0.0) as usize;
        if bin > 100_000 {
            return;
        }
        bins.resize_with(bins.len().max(bin + 1), Vec::new);
        bins[bin].push(reply.rtt_us);
    }
    let filled = bins.iter().enumerate().filter(|(_, bin)| !bin.is_empty());
    result.intervals = filled
        .map(|(index, bin)| Interval {
            start_s: index as f64 * BIN_S,
            end_s: (index + 1) as f64 * BIN_S,
            rtt_us: Some(bin.iter().sum::<f64>() / bin.len() as f64),
            ..Interval::default()
        })
        .collect();
}

/// A line of a reply; errors (`Destination Host Unreachable`) have no time.
fn reply(at_s: Option<f64>, line: &str) -> Option<Reply> {
    let (stamp, line) = match line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((stamp, rest)) => (stamp.parse().ok(), rest),
        None => (None, line),
    };
    let (_, rest) = line.split_once("icmp_seq=")?;
    let (seq, rest) = rest.split_once(' ')?;
    let (_, time) = rest.split_once("time=")?;
    let (amount, unit) = time.split_once(' ')?;
    unit.starts_with("ms").then_some(())?;
    Some(Reply {
        seq: seq.parse().ok()?,
        rtt_us: amount.parse::<f64>().ok()? * 1e3,
        at_s,
        realtime_s: stamp,
    })
}

fn summary(line: &str, result: &mut Benchmark) {
    let mut packets = Packets {
        duplicates: Some(0),
        errors: Some(0),
        ..Packets::default()
    };
    for part in line.split(", ") {
        let (amount, what) = part.split_once(' ').unwrap_or((part, ""));
        let count = amount.trim_start_matches('+').parse::<u64>().ok();
        match what {
            "packets transmitted" => packets.sent = count,
            "received" | "packets received" => packets.received = count,
            "duplicates" => packets.duplicates = count,
            "errors" => packets.errors = count,
            _ if amount == "time" => {
                let ms = what
                    .strip_suffix("ms")
                    .and_then(|ms| ms.parse::<f64>().ok());
                result.duration_s = ms.map(|ms| ms / 1e3);
            }
            _ => {}
        }
    }
    if let Some(before) = result.packets {
        let add = |sum: &mut Option<u64>, earlier: Option<u64>| {
            *sum = sum.zip(earlier).map(|(one, other)| one + other);
        };
        add(&mut packets.sent, before.sent);
        add(&mut packets.received, before.received);
        add(&mut packets.duplicates, before.duplicates);
        add(&mut packets.errors, before.errors);
    }
    // ping rounds its percentage; the counts do not.
    packets.lost = packets
        .sent
        .zip(packets.received)
        .map(|(sent, received)| sent.saturating_sub(received));
    let sent = packets.sent.filter(|sent| *sent > 0);
    result.loss_ratio = sent
        .zip(packets.lost)
        .map(|(sent, lost)| lost as f64 / sent as f64);
    // A summary that is cut short says nothing about what came back.
    result.complete = sent.is_some() && packets.received.is_some();
    result.packets = Some(packets);
}

fn rtt(figures: &str, result: &mut Benchmark) {
    let figures = figures.split(' ').next().unwrap_or_default();
    let figures: Vec<f64> = figures
        .split('/')
        .filter_map(|text| text.parse().ok())
        .collect();
    if let [min, mean, max, mdev] = figures[..] {
        result.rtt_us = Some(Quantiles {
            min: Some(min * 1e3),
            max: Some(max * 1e3),
            ..Quantiles::default()
        });
        result.rtt_mean_us = Some(mean * 1e3);
        result.jitter_us = Some(mdev * 1e3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Ping {
        match read(text.lines().map(|line| (None, line))) {
            Ok(ping) => ping,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_summary_and_its_replies() {
        let result = parse(include_str!("fixtures/ping.txt")).result;
        let expected = Packets {
            sent: Some(5),
            received: Some(5),
            lost: Some(0),
            duplicates: Some(0),
            reordered: Some(0),
            errors: Some(0),
        };
        assert_eq!(result.packets, Some(expected));
        assert_eq!(
            (result.loss_ratio, result.rtt_mean_us),
            (Some(0.0), Some(79.0))
        );
        let rtt = result.rtt_us.expect("replies");
        assert_eq!(
            (rtt.min, rtt.p50, rtt.max),
            (Some(36.0), Some(36.0), Some(250.0))
        );
        assert_eq!(
            (result.jitter_us, result.duration_s),
            (Some(85.0), Some(0.813))
        );
    }

    #[test]
    fn loss_duplicates_and_silence() {
        let lossy = parse(include_str!("fixtures/ping-loss.txt")).result;
        assert_eq!(lossy.loss_ratio, Some(0.2));
        assert_eq!(lossy.packets.and_then(|packets| packets.lost), Some(2));
        let doubled = parse(include_str!("fixtures/ping-duplicates.txt")).result;
        let packets = doubled.packets.expect("a summary");
        assert_eq!((packets.received, packets.duplicates), (Some(3), Some(2)));
        assert_eq!(
            doubled.rtt_us.and_then(|rtt| rtt.max),
            Some(365.0),
            "first copies only"
        );
        let silent = parse(include_str!("fixtures/ping-unreachable.txt")).result;
        assert_eq!((silent.loss_ratio, silent.rtt_us), (Some(1.0), None));
        let quiet = parse(include_str!("fixtures/ping-quiet.txt")).result;
        let rtt = quiet.rtt_us.expect("a summary");
        assert_eq!((rtt.min, rtt.p50), (Some(19.0), None));
        assert_eq!(
            parse(include_str!("fixtures/ping6.txt")).result.loss_ratio,
            Some(0.0)
        );
    }

    #[test]
    fn time_stamps_give_the_clock() {
        let ping = parse(include_str!("fixtures/ping-timestamps.txt"));
        assert_eq!(ping.realtime_s, Some(1_795_614_063.984_931));
        assert_eq!(ping.result.intervals.len(), 1);
        let untimed = parse(include_str!("fixtures/ping.txt"));
        assert!(
            untimed.result.intervals.is_empty(),
            "no clock, no intervals"
        );
        let lines = include_str!("fixtures/ping.txt").lines();
        let timed = read(
            lines
                .enumerate()
                .map(|(index, line)| (Some(index as f64), line)),
        );
        assert_eq!(timed.map(|ping| ping.result.intervals.len()), Ok(5));
    }

    #[test]
    fn runs_one_after_another_add_up() {
        let one = include_str!("fixtures/ping-loss.txt");
        let (single, twice) = (parse(one).result, parse(&format!("{one}\n{one}")).result);
        let (single, twice) = (single.packets, twice.packets);
        let counts =
            |packets: Option<Packets>| packets.map(|one| (one.sent, one.received, one.lost));
        let double = |count: Option<u64>| count.map(|count| 2 * count);
        let doubled = counts(single).map(|(a, b, c)| (double(a), double(b), double(c)));
        assert_eq!(counts(twice), doubled);
        assert_eq!(twice.and_then(|one| one.duplicates), Some(0));
    }

    #[test]
    fn every_cut_is_a_part() {
        let text = include_str!("fixtures/ping-loss.txt");
        let summary = text.find("received").unwrap_or_default();
        for end in 0..text.len() {
            let Ok(ping) = read(text[..end].lines().map(|line| (None, line))) else {
                continue;
            };
            assert!(!ping.result.complete || end > summary, "{end}");
            assert!(ping.result.loss_ratio.is_none() || end > summary, "{end}");
        }
    }
}
