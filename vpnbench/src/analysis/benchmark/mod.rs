//! The benchmark's own result: read from what its command wrote, set on the clock of the events,
//! and compared with the packets.
//!
//! Parsers are pure: text in, a [`Benchmark`] out. Output that ends too early, is damaged or holds
//! an error gives what can be known and says so; what a tool does not say is null.

pub mod correlate;
pub mod curl;
pub mod iperf3;
mod iperf3_json;
mod iperf3_text;
pub mod model;
pub mod own;
pub mod ping;
pub mod rist;
pub mod series;
#[cfg(test)]
mod tests;

use super::{Context, Problem};
use crate::trace::model::{Clock, CommandOutput};
use correlate::Timing;
pub use model::{Benchmark, Quantiles, Way};
use series::Series;

/// The tools whose output is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// iperf3: text, `--json`, `--json-stream`.
    Iperf3,
    /// iputils ping.
    Ping,
    /// curl with `-w`, or its progress table.
    Curl,
    /// `vpnbench lab part ..`
    Own,
}

impl Tool {
    /// The tool that a command runs, also behind `sudo`, `timeout`, `ip netns exec` and the like:
    /// the first word whose last path component is one of the tools' names.
    #[must_use]
    pub fn of_command(command: &[String]) -> Option<Tool> {
        let name = |word: &String| match word.rsplit('/').next()? {
            "iperf3" => Some(Tool::Iperf3),
            "ping" | "ping4" | "ping6" => Some(Tool::Ping),
            "curl" => Some(Tool::Curl),
            _ => None,
        };
        let own = command.windows(2).any(|words| words == ["lab", "part"]);
        own.then_some(Tool::Own)
            .or_else(|| command.iter().find_map(name))
    }

    /// The tool that wrote this, judged by marks that only it writes: for scripts.
    #[must_use]
    pub fn of_output(text: &str) -> Option<Tool> {
        if text.contains(own::SCHEMA) {
            Some(Tool::Own)
        } else if text.contains("\niperf Done.") || text.contains("\"version\":\t\"iperf 3") {
            Some(Tool::Iperf3)
        } else if text.starts_with("PING ") && text.contains(" ping statistics ---") {
            Some(Tool::Ping)
        } else {
            None
        }
    }
}

/// Reads what a command wrote. `None` if it is no benchmark that is known.
#[must_use]
pub fn read(
    command: &[String],
    output: &CommandOutput,
    clock: Option<Clock>,
) -> Option<(Benchmark, Vec<Problem>)> {
    let text = output.text();
    let tool = Tool::of_command(command).or_else(|| Tool::of_output(&text))?;
    let mut problems = Vec::new();
    if output.omitted_bytes > 0 {
        let message = format!(
            "{} bytes of the benchmark's output were too much to keep",
            output.omitted_bytes
        );
        problems.push(Problem::data_loss("benchmark", message));
    }
    let read = match tool {
        Tool::Iperf3 => iperf3::read(&text),
        Tool::Curl => curl::read(&text),
        Tool::Own => own::read(&text),
        Tool::Ping => ping(output, clock),
    };
    match read {
        Ok(result) => {
            if let Some(error) = &result.error {
                let message = format!("{} reports: {error}", result.tool);
                problems.push(Problem::info("benchmark", message));
            } else if !result.complete {
                let message = format!("{} did not report its end", result.tool);
                problems.push(Problem::data_loss("benchmark", message));
            }
            Some((result, problems))
        }
        Err(error) => {
            problems.push(Problem::data_loss("benchmark", error));
            Some((Benchmark::unread(tool), problems))
        }
    }
}

/// Lines of a ping with the moments of their arrival; `-D` is more exact.
fn ping(output: &CommandOutput, clock: Option<Clock>) -> Result<Benchmark, String> {
    let lines = output.lines();
    let first_ns = lines.first().map_or(0, |(ns, _)| *ns);
    let timed = lines.iter().map(|(ns, line)| {
        let after_s = super::seconds(ns.saturating_sub(first_ns));
        (Some(after_s), line.as_str())
    });
    let found = ping::read(timed)?;
    let mut result = found.result;
    if let (Some(realtime_s), Some(clock)) = (found.realtime_s, clock) {
        let behind_ns = realtime_s * 1e9 - clock.realtime_ns as f64;
        result.started_ns = u64::try_from(i128::from(clock.monotonic_ns) + behind_ns as i128).ok();
    } else if !result.intervals.is_empty() {
        // Its first reply, not its first line: that is when the intervals begin.
        let reply = lines.iter().find(|(_, line)| line.contains("icmp_seq="));
        result.started_ns = reply.map(|(ns, _)| *ns);
    }
    Ok(result)
}

impl Benchmark {
    /// A tool whose output could not be understood.
    fn unread(tool: Tool) -> Benchmark {
        let name = match tool {
            Tool::Iperf3 => "iperf3",
            Tool::Ping => "ping",
            Tool::Curl => "curl",
            Tool::Own => "vpnbench",
        };
        Benchmark {
            tool: name.to_owned(),
            ..Benchmark::default()
        }
    }
}

/// The benchmark of a trace, beside its packets.
#[must_use]
pub fn join(context: &Context<'_>, series: Series) -> (Option<Benchmark>, Vec<Problem>) {
    let Some(output) = context.end.and_then(|end| end.command_output.as_ref()) else {
        return (None, Vec::new());
    };
    let clock = Some(context.start.clock);
    let Some((mut result, mut problems)) = read(&context.start.command, output, clock) else {
        return (None, Vec::new());
    };
    let captured = series.captured;
    let (flows, left_out) = series.finish();
    if left_out > 0 {
        let message =
            format!("{left_out} packets of further flows are not set beside the benchmark");
        problems.push(Problem::info("benchmark", message));
    }
    let status = context.end.and_then(|end| end.command_status.as_ref());
    let timing = Timing {
        command_started_ns: status.map(|status| status.started_ns),
        arrival: arrivals(output).filter(|_| !captured),
        captured,
    };
    problems.extend(correlate::correlate(&mut result, &flows, context, timing));
    (Some(result), problems)
}

/// When the lines of iperf3's text arrived, against the ends of their intervals.
fn arrivals(output: &CommandOutput) -> Option<(u64, f64)> {
    let lines: Vec<(u64, f64)> = output
        .lines()
        .iter()
        .filter(|(_, line)| line.starts_with('[') && !line.ends_with("er"))
        .filter_map(|(ns, line)| {
            let (times, _) = line.split_once(" sec ")?;
            let (_, end) = times.trim_end().rsplit_once('-')?;
            Some((*ns, end.trim().parse().ok()?))
        })
        .collect();
    correlate::arrival(&lines)
}
