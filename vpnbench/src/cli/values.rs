//! Values on the command line, parsed once into types that cannot be wrong.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use vpnbench_common::catalog::{Group, PROBES, ProbeId};
use vpnbench_common::event::PAYLOAD_MAX;

/// Longest name of an interface (`IFNAMSIZ` without the final zero).
const INTERFACE_NAME_MAX: usize = 15;
/// Smallest ring buffer.
const BUFFER_MIN: u64 = 64 << 10;
/// Largest ring buffer.
const BUFFER_MAX: u64 = 4 << 30;

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `-`
    Stdout,
    /// A file, created or replaced.
    File(PathBuf),
}

impl FromStr for Destination {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "-" {
            Destination::Stdout
        } else {
            Destination::File(text.into())
        })
    }
}

/// The outer side, as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OuterSelector {
    /// A device.
    Device(String),
    /// Address and port of the daemon's outer socket, local or remote.
    Endpoint(SocketAddr),
}

impl fmt::Display for OuterSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OuterSelector::Device(name) => formatter.write_str(name),
            OuterSelector::Endpoint(endpoint) => endpoint.fmt(formatter),
        }
    }
}

impl FromStr for OuterSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(endpoint) = text.parse() {
            return Ok(OuterSelector::Endpoint(endpoint));
        }
        parse_interface(text).map(OuterSelector::Device).map_err(|error| {
            format!("{error}; neither is it ADDR:PORT such as 192.0.2.1:51820 or [2001:db8::1]:51820")
        })
    }
}

/// The id of a finding.
pub(super) fn parse_finding(text: &str) -> Result<String, String> {
    match crate::explain::findings::rule(text) {
        Some(rule) => Ok(rule.id.to_owned()),
        None => Err("there is no such finding; `vpnbench explain` lists all of them".to_owned()),
    }
}

/// One element of `--probes`: a probe or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeChoice(Vec<ProbeId>);

impl FromStr for ProbeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let chosen: Vec<ProbeId> = PROBES
            .iter()
            .filter(|probe| probe.name == text || probe.group.name() == text)
            .map(|probe| probe.id)
            .collect();
        if chosen.is_empty() {
            let groups: Vec<&str> = Group::ALL.iter().map(|group| group.name()).collect();
            let probes: Vec<&str> = PROBES.iter().map(|probe| probe.name).collect();
            return Err(format!(
                "there is no probe or group of that name\n  groups: {}\n  probes: {}",
                groups.join(", "),
                probes.join(", ")
            ));
        }
        Ok(ProbeChoice(chosen))
    }
}

/// The probes that `--probes` names; `None` without the option.
#[must_use]
pub fn chosen_probes(choices: &[ProbeChoice]) -> Option<BTreeSet<ProbeId>> {
    let all = choices.iter().flat_map(|choice| choice.0.iter().copied());
    (!choices.is_empty()).then(|| all.collect())
}

/// Bytes of ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer(u64);

impl Buffer {
    /// Bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Parses an interface name as the kernel accepts it (`dev_valid_name`, net/core/dev.c).
///
/// # Errors
/// When the kernel would not accept the name.
pub fn parse_interface(text: &str) -> Result<String, String> {
    let bad = |character: char| character.is_whitespace() || matches!(character, '/' | ':');
    if text.is_empty()
        || text.len() > INTERFACE_NAME_MAX
        || text == "."
        || text == ".."
        || text.contains(bad)
    {
        return Err(format!(
            "\"{text}\" is not an interface name (1 to {INTERFACE_NAME_MAX} bytes without spaces, slashes and colons)"
        ));
    }
    Ok(text.to_owned())
}

/// Parses `500ms`, `30s`, `2m`, `1h`, `1m30s`; a number alone is seconds.
///
/// # Errors
/// When it is not a duration, or is 0.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration such as 500ms, 30s, 2m or 1m30s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let seconds = match rest[..end].trim() {
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    if total.is_zero() {
        Err(wrong())
    } else {
        Ok(total)
    }
}

/// Parses `64MiB`, `512KiB`, `1GiB`; K, M, G are taken as binary, a number alone as bytes.
///
/// # Errors
/// When it is not a size, or outside of 64KiB to 4GiB.
pub fn parse_buffer(text: &str) -> Result<Buffer, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let shift = match text[end..].trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        unit => {
            return Err(format!(
                "\"{unit}\" is not a unit of size; use KiB, MiB or GiB"
            ));
        }
    };
    let number: u64 = text[..end]
        .parse()
        .map_err(|_| format!("\"{text}\" is not a size such as 64MiB"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if (BUFFER_MIN..=BUFFER_MAX).contains(&bytes) => Ok(Buffer(bytes)),
        _ => Err("the ring buffer takes 64KiB to 4GiB".to_owned()),
    }
}

/// Parses the number of payload bytes to keep.
///
/// # Errors
/// When it is not a number, or more than a record holds.
pub fn parse_keep_payload(text: &str) -> Result<u32, String> {
    let number: u32 = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not a number of bytes"))?;
    if number as usize > PAYLOAD_MAX {
        return Err(format!(
            "at most {PAYLOAD_MAX} bytes can be kept per packet"
        ));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("1.5"), Ok(1_500));
        assert_eq!(ms("1m30s"), Ok(90_000));
        for wrong in [
            "",
            "0s",
            "s",
            "30x",
            "-1s",
            "1e400s",
            "9999999999999999999h",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_buffer("64MiB").map(Buffer::bytes), Ok(64 << 20));
        assert_eq!(parse_buffer("1048576").map(Buffer::bytes), Ok(1 << 20));
        for wrong in [
            "",
            "MiB",
            "64MB",
            "1KiB",
            "8GiB",
            "99999999999999999999GiB",
            "-1MiB",
        ] {
            assert!(parse_buffer(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_keep_payload("128"), Ok(128));
        assert!(parse_keep_payload("129").is_err());
    }

    #[test]
    fn every_probe_and_group_can_be_chosen() {
        for probe in PROBES {
            assert!(probe.name.parse::<ProbeChoice>().is_ok(), "{}", probe.name);
        }
        for group in Group::ALL {
            let choice: ProbeChoice = group.name().parse().expect("groups have probes");
            assert!(chosen_probes(&[choice]).is_some_and(|probes| !probes.is_empty()));
        }
        let error = "nonsense"
            .parse::<ProbeChoice>()
            .expect_err("no such probe");
        assert!(error.contains("tcp_retransmit_skb") && error.contains("threads"));
    }

    #[test]
    fn outer_selectors() {
        assert_eq!("eth0".parse(), Ok(OuterSelector::Device("eth0".to_owned())));
        let endpoint = "[2001:db8::1]:51820"
            .parse::<SocketAddr>()
            .expect("an endpoint");
        assert_eq!(
            "[2001:db8::1]:51820".parse(),
            Ok(OuterSelector::Endpoint(endpoint))
        );
        assert!("192.0.2.1:99999".parse::<OuterSelector>().is_err());
    }
}
