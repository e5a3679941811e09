//! `ss -ti` (also with `-n`, `-m`, `-e`, `-p`): a line per socket and an indented one with its TCP state. Samples have no
//! time: they are taken to be in order.

use super::Reading;
use crate::trace::model::SocketSample;

/// Whether this is how the output begins: its heading, or a socket.
pub(super) fn is_first(line: &str) -> bool {
    line.starts_with("State ") && line.contains("Local Address:Port") || is_socket(line)
}

fn is_socket(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let state = words.next().is_some_and(|state| {
        state.len() > 3
            && state
                .chars()
                .all(|one| one.is_ascii_uppercase() || one == '-')
    });
    let numbers = words
        .by_ref()
        .take(2)
        .filter(|word| word.parse::<u64>().is_ok());
    state && numbers.count() == 2 && words.next().is_some_and(|end| end.contains(':'))
}

/// Reads all samples.
pub(super) fn read(text: &str, reading: &mut Reading<'_>) -> Vec<SocketSample> {
    let mut found: Vec<SocketSample> = Vec::new();
    let mut socket: Option<(String, String)> = None;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with("State ") {
            continue;
        }
        if !line.starts_with(char::is_whitespace) {
            socket = None;
            if is_socket(line) {
                let mut ends = line.split_whitespace().skip(3).map(end);
                socket = ends.next().zip(ends.next());
            }
            if socket.is_none() {
                reading.bad_line(number + 1, "no socket with two addresses");
            }
            continue;
        }
        // The lines of a socket that could not be read go with it.
        let Some((local, remote)) = &socket else {
            continue;
        };
        let mut sample = SocketSample {
            netns: reading.netns,
            local: local.clone(),
            remote: remote.clone(),
            ..SocketSample::default()
        };
        match fields(line, &mut sample) {
            Ok(true) => found.push(sample),
            Ok(false) => {}
            Err(word) => reading.bad_line(number + 1, &format!("\"{word}\" is no value of ss")),
        }
    }
    found
}

/// An address and port as reports have them: without the device that `ss` appends behind `%`.
fn end(text: &str) -> String {
    match (text.split_once('%'), text.rsplit_once(':')) {
        (Some((address, _)), Some((_, port))) => format!("{address}:{port}"),
        _ => text.to_owned(),
    }
}

/// Reads the state's words; whether it is the line that has it.
fn fields<'a>(line: &'a str, sample: &mut SocketSample) -> Result<bool, &'a str> {
    let mut has_state = false;
    for word in line.split_whitespace() {
        let Some((name, value)) = word.split_once(':') else {
            continue;
        };
        match name {
            "cwnd" => {
                has_state = true;
                sample.cwnd = value.parse().map_err(|_| word)?;
            }
            "busy" => sample.busy_ms = Some(milliseconds(value).ok_or(word)?),
            "rwnd_limited" => sample.rwnd_limited_ms = Some(milliseconds(value).ok_or(word)?),
            "sndbuf_limited" => sample.sndbuf_limited_ms = Some(milliseconds(value).ok_or(word)?),
            _ => {}
        }
    }
    Ok(has_state)
}

/// `12ms(3.4%)`
fn milliseconds(text: &str) -> Option<u64> {
    text.split_once("ms")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Problem;

    const REAL: &str = "State Recv-Q Send-Q Local Address:Port  Peer Address:PortProcess
ESTAB 0      0          10.77.0.1%spv0:41918    10.77.0.2:5201
\t cubic wscale:10,10 rto:204 rtt:0.22/0.163 mss:1448 pmtu:1500 cwnd:156 retrans:0/3 send 8214109091bps busy:1008ms rwnd_limited:12ms(1.2%) reordering:5 reord_seen:2 minrtt:0.01
ESTAB 0      0      [fd00::1]:41918    [fd00::2]:5201
\t skmem:(r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0)
\t bbr cwnd:13 mss:1428 busy:4ms
";

    fn samples(text: &str) -> (Vec<SocketSample>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut reading = Reading {
            name: "ss.txt",
            netns: 1,
            problems: &mut problems,
        };
        (read(text, &mut reading), problems)
    }

    #[test]
    fn the_state_of_each_socket() {
        let (found, problems) = samples(REAL);
        assert_eq!(problems, []);
        let [first, second] = &found[..] else {
            panic!("two sockets: {found:?}");
        };
        assert_eq!(
            (first.local.as_str(), first.remote.as_str()),
            ("10.77.0.1:41918", "10.77.0.2:5201")
        );
        assert_eq!((first.cwnd, first.busy_ms), (156, Some(1008)));
        assert_eq!(
            (first.rwnd_limited_ms, first.sndbuf_limited_ms),
            (Some(12), None)
        );
        assert_eq!(
            (second.local.as_str(), second.cwnd),
            ("[fd00::1]:41918", 13)
        );
    }

    #[test]
    fn damage_is_named_by_line() {
        let (found, problems) = samples(
            &REAL
                .replace("cwnd:156", "cwnd:1z6")
                .replace("ESTAB 0      0      [", "EST ["),
        );
        assert_eq!(found, []);
        let said: Vec<&str> = problems.iter().map(|one| one.message.as_str()).collect();
        assert!(
            said[0].contains("line 3: \"cwnd:1z6\"") && said[1].contains("line 4"),
            "{said:?}"
        );
    }
}
