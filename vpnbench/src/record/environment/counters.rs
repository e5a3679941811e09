//! Protocol counters under the names that `nstat` prints.

use std::collections::BTreeMap;
use std::fs;

use super::{Missing, kept};

/// Counters of the calling thread's namespace.
pub(super) fn read(missing: &mut Missing) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for file in ["snmp", "netstat"] {
        let path = format!("/proc/thread-self/net/{file}");
        if let Some(text) = kept(fs::read_to_string(&path), &path, missing) {
            tables(&text, &mut counters);
        }
    }
    // Absent where the kernel has no IPv6.
    if let Ok(text) = fs::read_to_string("/proc/thread-self/net/snmp6") {
        pairs(&text, &mut counters);
    }
    counters
}

/// `Tcp: RtoMin RtoMax ..` above `Tcp: 200 120000 ..`.
fn tables(text: &str, counters: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let Some((protocol, names)) = names.split_once(':') else {
            continue;
        };
        let Some((_, values)) = values.split_once(':') else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // -1 is a limit that is not set, no count.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{protocol}{name}"), value);
            }
        }
    }
}

/// `Udp6RcvbufErrors 0`.
fn pairs(text: &str, counters: &mut BTreeMap<String, u64>) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) {
            counters.insert(name.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let mut counters = BTreeMap::new();
        tables(
            "Tcp: MaxConn RetransSegs\nTcp: -1 7\nTcpExt: TCPTimeouts\nTcpExt: 3\nodd\n",
            &mut counters,
        );
        pairs("Udp6RcvbufErrors   \t5\nbad\n", &mut counters);
        let expected = [
            ("TcpExtTCPTimeouts", 3),
            ("TcpRetransSegs", 7),
            ("Udp6RcvbufErrors", 5),
        ];
        assert_eq!(
            counters,
            expected
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        );
    }
}
