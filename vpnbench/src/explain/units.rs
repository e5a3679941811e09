//! Numbers for people: separators, units, no more digits than the data carries.

/// `1,234,567`
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `-1,234`
#[must_use]
pub fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "+" };
    format!("{sign}{}", count(number.unsigned_abs()))
}

/// Three significant digits with a decimal prefix: `41.5 M`.
fn scaled(value: f64) -> (String, &'static str) {
    let mut value = value;
    let mut prefix = 0;
    const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let digits = match value {
        _ if prefix == 0 && value.fract() == 0.0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    (format!("{value:.digits$}"), PREFIXES[prefix])
}

/// `1.23 GB`, decimal.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let (number, prefix) = scaled(bytes as f64);
    format!("{number} {prefix}B")
}

/// `41.5 Mbit/s`
#[must_use]
pub fn rate(bps: f64) -> String {
    let (number, prefix) = scaled(bps.max(0.0).round());
    format!("{number} {prefix}bit/s")
}

/// `12.3 us`, `4.10 ms`, `30.0 s`
#[must_use]
pub fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s <= 0.0 => return "0 s".to_owned(),
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

/// `4.2 %`
#[must_use]
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent.abs() >= 99.95 || percent == 0.0 {
        format!("{percent:.0} %")
    } else if percent.abs() < 0.095 {
        format!("{percent:.2} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// `0.012`, or `< 0.001` where three digits would read as none at all.
#[must_use]
pub fn probability(p: f64) -> String {
    if p < 0.001 {
        "< 0.001".to_owned()
    } else {
        format!("{p:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        let texts = [0, 999, 1000, 1_234_567].map(count);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(signed(-1812), "-1,812");
        assert_eq!(signed(3), "+3");
    }

    #[test]
    fn small_probabilities_are_not_zero() {
        assert_eq!(probability(0.0123), "0.012");
        assert_eq!(probability(0.000_04), "< 0.001");
    }

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500), "1.50 kB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(rate(41_523_000.0), "41.5 Mbit/s");
        assert_eq!(rate(0.0), "0 bit/s");
        assert_eq!(duration(30.0), "30.0 s");
        assert_eq!(duration(0.0041), "4.10 ms");
        assert_eq!(duration(6e-6), "6.00 us");
        assert_eq!(percent(0.024), "2.4 %");
        assert_eq!(percent(0.0004), "0.04 %");
        assert_eq!(percent(1.0), "100 %");
    }
}
