//! Figures of runs for people.

use super::outcome::Figure;
use crate::report::units;

/// A figure's value with the unit that its name ends in.
#[must_use]
pub fn figure_text(figure: &Figure) -> String {
    value_text(&figure.name, figure.value)
}

/// A value with the unit that a figure's name says it has.
#[must_use]
pub fn value_text(name: &str, value: f64) -> String {
    let has = |part: &str| name.split('_').any(|word| word == part);
    match () {
        () if has("bps") => units::rate(value),
        () if has("us") => units::duration(value / 1e6),
        () if has("ms") => units::duration(value / 1e3),
        () if has("s") => units::duration(value),
        () if has("ratio") || has("share") => units::percent(value),
        () if value.fract() == 0.0 && (0.0..1e15).contains(&value) => units::count(value as u64),
        () if value.abs() >= 100.0 => format!("{value:.0}"),
        () => format!("{value:.2}"),
    }
}

/// The name of a figure without its unit, for headings.
#[must_use]
pub fn heading(name: &str) -> String {
    let units = ["bps", "us", "ms", "s", "ratio"];
    let words: Vec<&str> = name
        .split('_')
        .filter(|word| !units.contains(word))
        .map(|word| if word == "mb" { "MB" } else { word })
        .collect();
    words.join(" ")
}

/// A switch without the sections that its last parts make plain.
#[must_use]
pub fn brief(switch: &str) -> String {
    let short = switch.replace("vpn.settings.", "");
    short.replace("sysctls.net.ipv4.", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_unit_of_their_name() {
        assert_eq!(
            value_text("throughput_bps_received", 41_523_000.0),
            "41.5 Mbit/s"
        );
        assert_eq!(value_text("rtt_us_p50", 6_000.0), "6.00 ms");
        assert_eq!(value_text("loss_ratio", 0.024), "2.4 %");
        assert_eq!(value_text("retransmits", 1812.0), "1,812");
        assert_eq!(value_text("retransmits", 1812.4), "1812");
        assert_eq!(heading("throughput_bps_received"), "throughput received");
        assert_eq!(heading("retransmits_per_mb"), "retransmits per MB");
    }
}
