//! The programs that the lab, the demo and the tests run, and why.

/// One program.
pub(super) struct Tool {
    /// As started.
    pub(super) program: &'static str,
    /// Debian's package with it.
    pub(super) package: &'static str,
    /// What needs it.
    pub(super) why: &'static str,
    /// What cannot be done without it.
    pub(super) need: Need,
}

/// What cannot be done without a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Building.
    Build,
    /// Running the lab and testing.
    Tests,
    /// Only some tests, which say that they are skipped.
    SomeTests,
}

/// All of them.
pub(super) const TOOLS: &[Tool] = &[
    Tool {
        program: "ip",
        package: "iproute2",
        why: "tests look into namespaces with it",
        need: Need::Tests,
    },
    Tool {
        program: "tc",
        package: "iproute2",
        why: "tests impair wires with it",
        need: Need::Tests,
    },
    Tool {
        program: "iperf3",
        package: "iperf3",
        why: "benchmarks tcp and udp",
        need: Need::Tests,
    },
    Tool {
        program: "ping",
        package: "iputils-ping",
        why: "benchmark ping",
        need: Need::Tests,
    },
    Tool {
        program: "ristreceiver",
        package: "rist-tools",
        why: "benchmark stream with librist",
        need: Need::Tests,
    },
    Tool {
        program: "wireguard-go",
        package: "wireguard-go",
        why: "the demo's tunnel",
        need: Need::Tests,
    },
    Tool {
        program: "wg",
        package: "wireguard-tools",
        why: "configures wireguard-go",
        need: Need::Tests,
    },
    Tool {
        program: "tcpdump",
        package: "tcpdump",
        why: "tests compare captures with it",
        need: Need::Tests,
    },
    Tool {
        program: "tshark",
        package: "tshark",
        why: "tests have it read captures a second way",
        need: Need::Tests,
    },
    Tool {
        program: "tcptrace",
        package: "tcptrace",
        why: "tests and a benchmark have it read captures a third way",
        need: Need::SomeTests,
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
        why: "tests compare offload settings with it",
        need: Need::Tests,
    },
    Tool {
        program: "pcap-config",
        package: "libpcap-dev",
        why: "libpcap, which the program links",
        need: Need::Build,
    },
    Tool {
        program: "chromium",
        package: "chromium",
        why: "tests open the HTML report in it",
        need: Need::SomeTests,
    },
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "tests run on other kernels in it",
        need: Need::SomeTests,
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
        why: "the shell and tools of such a kernel's first process",
        need: Need::SomeTests,
    },
    Tool {
        program: "cpio",
        package: "cpio",
        why: "packs what such a kernel boots from",
        need: Need::SomeTests,
    },
    Tool {
        program: "depmod",
        package: "kmod",
        why: "finds the modules that such a kernel loads",
        need: Need::SomeTests,
    },
    Tool {
        program: "xz",
        package: "xz-utils",
        why: "such a kernel's modules are compressed",
        need: Need::SomeTests,
    },
];
