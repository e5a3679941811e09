//! The programs that the lab, the demo and the tests run, and why.

/// One program.
pub(super) struct Tool {
    /// As started.
    pub(super) program: &'static str,
    /// Debian's package with it.
    pub(super) package: &'static str,
    /// What needs it.
    pub(super) why: &'static str,
}

/// All of them.
pub(super) const TOOLS: &[Tool] = &[
    Tool {
        program: "ip",
        package: "iproute2",
        why: "tests look into namespaces with it",
    },
    Tool {
        program: "tc",
        package: "iproute2",
        why: "tests impair wires with it",
    },
    Tool {
        program: "iperf3",
        package: "iperf3",
        why: "benchmarks tcp and udp",
    },
    Tool {
        program: "ping",
        package: "iputils-ping",
        why: "benchmark ping",
    },
    Tool {
        program: "wireguard-go",
        package: "wireguard-go",
        why: "the demo's tunnel",
    },
    Tool {
        program: "wg",
        package: "wireguard-tools",
        why: "configures wireguard-go",
    },
    Tool {
        program: "tcpdump",
        package: "tcpdump",
        why: "tests compare captures with it",
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
        why: "tests compare offload settings with it",
    },
];
