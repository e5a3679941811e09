//! Lengths of time in settings, written with their unit: `"250us"`, `"5ms"`, `"10s"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Units, largest first, with their length in nanoseconds.
const UNITS: [(&str, u64); 5] = [
    ("min", 60_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

/// A length of time with nanosecond resolution.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Span(Duration);

impl Span {
    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Span {
        Span(Duration::from_millis(milliseconds))
    }

    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// In nanoseconds; 584 years and more are 584 years.
    #[must_use]
    pub fn nanoseconds(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(duration)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is no length of time; write it like 250us, 5ms, 1.5s");
        let text = text.trim();
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (unit, nanoseconds) = unit.ok_or_else(wrong)?;
        let number: f64 = text[..text.len() - unit.len()]
            .trim()
            .parse()
            .map_err(|_| wrong())?;
        let seconds = number * *nanoseconds as f64 / 1e9;
        Duration::try_from_secs_f64(seconds)
            .map(Span)
            .map_err(|_| wrong())
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.nanoseconds();
        let whole = |unit: u64| nanoseconds.is_multiple_of(unit) && nanoseconds >= unit;
        match nanoseconds {
            n if whole(1_000_000_000) => write!(formatter, "{}s", n / 1_000_000_000),
            n if whole(1_000_000) => write!(formatter, "{}ms", n / 1_000_000),
            n if whole(1_000) => write!(formatter, "{}us", n / 1_000),
            n => write!(formatter, "{n}ns"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["0ns", "17ns", "250us", "5ms", "90s", "1500us"] {
            let span: Result<Span, String> = text.parse();
            assert_eq!(span.map(|span| span.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("1.5s".parse(), Ok(Span::from_millis(1500)));
        assert_eq!("2 min".parse(), Ok(Span::from_millis(120_000)));
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in ["", "5", "ms", "-1ms", "fast", "1h", "1e300s"] {
            let read: Result<Span, String> = text.parse();
            assert!(
                read.is_err_and(|error| error.contains("length of time")),
                "{text}"
            );
        }
    }
}
