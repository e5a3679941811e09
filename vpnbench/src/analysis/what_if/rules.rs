//! The settings that decide about loss, and what a kernel version makes of them.

use super::throughput::Control;
use crate::analysis::cause::Detection;
use crate::trace::model::Start;

/// `TCP_RACK_LOSS_DETECTION`, `TCP_RACK_STATIC_REO_WND`, `TCP_RACK_NO_DUPTHRESH` (include/net/tcp.h).
const LOSS_DETECTION: u32 = 1;
const STATIC_WINDOW: u32 = 2;
const NO_THRESHOLD: u32 = 4;

/// Settings of one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `net.ipv4.tcp_reordering`.
    pub reordering: u32,
    /// `net.ipv4.tcp_recovery`.
    pub recovery: u32,
    /// `net.ipv4.tcp_early_retrans`.
    pub early_retrans: u32,
    /// `net.ipv4.tcp_max_reordering`.
    pub max_reordering: u32,
    /// Whether this kernel has RFC 6675 marking (until 6.16).
    pub has_rfc6675: bool,
    /// Nanoseconds of a jiffy.
    pub tick_ns: u64,
    /// `net.ipv4.tcp_congestion_control`, or what the socket shows.
    pub control: Control,
}

impl Default for Rules {
    /// The kernel's defaults (net/ipv4/tcp_ipv4.c, `tcp_sk_init`), and 4 ms.
    fn default() -> Rules {
        Rules {
            reordering: 3,
            recovery: LOSS_DETECTION,
            early_retrans: 3,
            max_reordering: 300,
            has_rfc6675: false,
            tick_ns: 4_000_000,
            control: Control::Cubic,
        }
    }
}

impl Rules {
    /// The settings of a namespace at the start of a recording.
    #[must_use]
    pub fn of(start: &Start, netns: u32) -> Rules {
        let namespaces = &start.environment.namespaces;
        let namespace = namespaces.iter().find(|one| one.netns == netns);
        let text = |name: &str| Some(namespace?.sysctls.get(name)?.trim());
        let number = |name: &str| -> Option<u32> { text(name)?.parse().ok() };
        let default = Rules::default();
        let release = &start.host.kernel_release;
        Rules {
            reordering: number("net.ipv4.tcp_reordering").unwrap_or(default.reordering),
            recovery: number("net.ipv4.tcp_recovery").unwrap_or(default.recovery),
            early_retrans: number("net.ipv4.tcp_early_retrans").unwrap_or(default.early_retrans),
            max_reordering: number("net.ipv4.tcp_max_reordering").unwrap_or(default.max_reordering),
            has_rfc6675: Detection::new(None, release).has_rfc6675,
            tick_ns: start
                .host
                .hz
                .map_or(default.tick_ns, |hz| 1_000_000_000 / u64::from(hz.max(1))),
            control: Control::of(text("net.ipv4.tcp_congestion_control")),
        }
    }

    /// RFC 6675 instead of RACK.
    #[must_use]
    pub fn rfc6675(&self) -> bool {
        self.has_rfc6675 && self.recovery & LOSS_DETECTION == 0
    }

    /// The reordering window stays at one step.
    #[must_use]
    pub fn static_window(&self) -> bool {
        self.recovery & STATIC_WINDOW != 0
    }

    /// The threshold of SACKed segments does not end the reordering window.
    #[must_use]
    pub fn no_threshold(&self) -> bool {
        self.recovery & NO_THRESHOLD != 0
    }

    /// Tail loss probes are sent.
    #[must_use]
    pub fn probes(&self) -> bool {
        matches!(self.early_retrans, 3 | 4)
    }

    /// The algorithm in force, in words.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        if self.rfc6675() {
            "RFC 6675: a segment is lost once tcp_reordering segments above it are SACKed"
        } else if self.no_threshold() {
            "RACK without duplicate threshold"
        } else {
            "RACK, with the duplicate threshold until reordering has been seen"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_0_selects_rfc_6675_only_where_it_exists() {
        let mut start = Start::default();
        for (release, expected) in [("6.12.117+deb13", true), ("6.18.44", false)] {
            start.host.kernel_release = release.to_owned();
            let rules = Rules {
                recovery: 0,
                ..Rules::of(&start, 1)
            };
            assert_eq!(rules.rfc6675(), expected, "{release}");
        }
        assert!(
            !Rules {
                early_retrans: 0,
                ..Rules::default()
            }
            .probes()
        );
    }
}
