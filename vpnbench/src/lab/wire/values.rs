//! Times, shares and rates as `tc netem` writes them: "4ms", "2.5%", "100mbit".

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A span of time with its unit: s, ms, us or ns.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Time {
    /// Nanoseconds.
    pub nanos: u64,
}

/// A share of all units, with a percent sign: "0.25%".
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Percent {
    /// 0 to 1.
    pub share: f64,
}

/// A data rate. As with tc, "mbit" is 10^6 bits and "mbps" 10^6 bytes per second.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Rate {
    /// Bits per second.
    pub bits_per_second: u64,
}

/// Longest suffix first where one ends in another. Factors are nanoseconds.
const TIMES: &[(&str, f64)] = &[
    ("msec", 1e6),
    ("usec", 1e3),
    ("nsec", 1.0),
    ("sec", 1e9),
    ("ms", 1e6),
    ("us", 1e3),
    ("ns", 1.0),
    ("s", 1e9),
];

/// Factors are bits per second (man tc, "RATES").
const RATES: &[(&str, f64)] = &[
    ("kibit", 1024.0),
    ("mibit", 1_048_576.0),
    ("gibit", 1_073_741_824.0),
    ("kbit", 1e3),
    ("mbit", 1e6),
    ("gbit", 1e9),
    ("tbit", 1e12),
    ("bit", 1.0),
    ("kbps", 8e3),
    ("mbps", 8e6),
    ("gbps", 8e9),
    ("bps", 8.0),
];

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        let nanos = with_unit(
            text,
            TIMES,
            "a time with its unit, such as 4ms, 250us or 1.5s",
        )?;
        Ok(Time { nanos })
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let bits_per_second = with_unit(text, RATES, "a rate with its unit, such as 100mbit")?;
        Ok(Rate { bits_per_second })
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        let number = text.trim().strip_suffix('%').and_then(number);
        match number {
            Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Percent {
                share: percent / 100.0,
            }),
            _ => Err(format!("{text:?} is not a share from 0% to 100%")),
        }
    }
}

fn with_unit(text: &str, units: &[(&str, f64)], wanted: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let parsed = units
        .iter()
        .find_map(|(unit, factor)| Some(number(lower.strip_suffix(unit)?)? * factor));
    match parsed {
        // Beyond 2^53 an f64 no longer holds every integer; no sensible setting comes near.
        Some(value) if value >= 0.0 && value.is_finite() && value < 9e15 => {
            Ok(value.round() as u64)
        }
        _ => Err(format!("{text:?} is not {wanted}")),
    }
}

fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    (text.chars().all(plain) && text.chars().any(|c| c.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

impl Percent {
    /// The kernel's form: 0 is never, 2^32-1 is always; rounded as iproute2 rounds
    /// (tc/q_netem.c, `set_percent`).
    #[must_use]
    pub fn of_u32(self) -> u32 {
        (self.share * f64::from(u32::MAX)).round() as u32
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (divisor, unit) = match self.nanos {
            0 => (1, "ms"),
            nanos if nanos % 1_000_000_000 == 0 => (1_000_000_000, "s"),
            nanos if nanos % 1_000_000 == 0 => (1_000_000, "ms"),
            nanos if nanos % 1000 == 0 => (1000, "us"),
            _ => (1, "ns"),
        };
        write!(formatter, "{}{unit}", self.nanos / divisor)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Twelve digits hide what the division by 100 did to the last bit.
        let percent = (self.share * 1e14).round() / 1e12;
        write!(formatter, "{percent}%")
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (divisor, unit) = match self.bits_per_second {
            0 => (1, "bit"),
            bits if bits % 1_000_000_000 == 0 => (1_000_000_000, "gbit"),
            bits if bits % 1_000_000 == 0 => (1_000_000, "mbit"),
            bits if bits % 1000 == 0 => (1000, "kbit"),
            _ => (1, "bit"),
        };
        write!(formatter, "{}{unit}", self.bits_per_second / divisor)
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.to_string()
            }
        }
    )*};
}

as_text!(Time, Percent, Rate);

/// Reads an empty string as "not set", so that a scenario can keep a key without a value.
pub(super) fn unless_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, nanos) in [
            ("4ms", 4_000_000),
            ("0.25ms", 250_000),
            (" 1.5 s", 1_500_000_000),
            ("250us", 250_000),
            ("7MSEC", 7_000_000),
            ("12ns", 12),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<Time>(), Ok(Time { nanos }), "{text}");
        }
        for text in [
            "4", "", "ms", "-4ms", "4mss", "1e3ms", "nanms", "4 m s", "infs",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_round_as_iproute2_rounds_them() {
        assert_eq!("1%".parse::<Percent>().map(Percent::of_u32), Ok(42_949_673));
        assert_eq!("0%".parse::<Percent>().map(Percent::of_u32), Ok(0));
        assert_eq!("100%".parse::<Percent>().map(Percent::of_u32), Ok(u32::MAX));
        assert_eq!(
            "25%".parse::<Percent>().map(Percent::of_u32),
            Ok(1_073_741_824)
        );
        for text in ["1", "101%", "-1%", "%", "", "1%%", "1 in 4"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_tell_bits_from_bytes() {
        let bits = |text: &str| text.parse::<Rate>().map(|rate| rate.bits_per_second);
        assert_eq!(bits("100mbit"), Ok(100_000_000));
        assert_eq!(bits("100mbps"), Ok(800_000_000));
        assert_eq!(bits("1.5gbit"), Ok(1_500_000_000));
        assert_eq!(bits("9600bit"), Ok(9600));
        assert_eq!(bits("64kibit"), Ok(65_536));
        assert!(bits("100").is_err() && bits("100m").is_err() && bits("fast").is_err());
    }

    #[test]
    fn text_survives_a_round_trip() {
        for text in ["4ms", "250us", "2s", "17ns", "0ms"] {
            assert_eq!(text.parse::<Time>().map(String::from).as_deref(), Ok(text));
        }
        for text in ["0.25%", "2.5%", "50%", "0.001%"] {
            assert_eq!(
                text.parse::<Percent>().map(String::from).as_deref(),
                Ok(text)
            );
        }
        for text in ["100mbit", "1gbit", "9600bit"] {
            assert_eq!(text.parse::<Rate>().map(String::from).as_deref(), Ok(text));
        }
    }
}
