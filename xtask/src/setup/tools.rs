//! The programs that the lab, the demo and the tests run, and why.

/// One program.
pub(super) struct Tool {
    /// As started.
    pub(super) program: &'static str,
    /// Debian's package with it.
    pub(super) package: &'static str,
    /// What needs it.
    pub(super) why: &'static str,
    /// Whether the build itself needs it, not only running and testing.
    pub(super) build: bool,
}

/// All of them.
pub(super) const TOOLS: &[Tool] = &[
    Tool {
        program: "ip",
        package: "iproute2",
        why: "tests look into namespaces with it",
        build: false,
    },
    Tool {
        program: "tc",
        package: "iproute2",
        why: "tests impair wires with it",
        build: false,
    },
    Tool {
        program: "iperf3",
        package: "iperf3",
        why: "benchmarks tcp and udp",
        build: false,
    },
    Tool {
        program: "ping",
        package: "iputils-ping",
        why: "benchmark ping",
        build: false,
    },
    Tool {
        program: "ristreceiver",
        package: "rist-tools",
        why: "benchmark stream with librist",
        build: false,
    },
    Tool {
        program: "wireguard-go",
        package: "wireguard-go",
        why: "the demo's tunnel",
        build: false,
    },
    Tool {
        program: "wg",
        package: "wireguard-tools",
        why: "configures wireguard-go",
        build: false,
    },
    Tool {
        program: "tcpdump",
        package: "tcpdump",
        why: "tests compare captures with it",
        build: false,
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
        why: "tests compare offload settings with it",
        build: false,
    },
    Tool {
        program: "pcap-config",
        package: "libpcap-dev",
        why: "libpcap, which the program links",
        build: true,
    },
];
