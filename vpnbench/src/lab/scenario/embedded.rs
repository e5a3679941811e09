//! The scenarios the program carries, one file each in `vpnbench/scenarios/`.

/// A scenario that is compiled in.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Name: that of the file without its ending.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

impl Embedded {
    pub(super) fn file_name(&self) -> String {
        format!("{}.toml", self.name)
    }
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(Embedded {
            name: $name,
            text: include_str!(concat!("../../../scenarios/", $name, ".toml")),
        }),*]
    };
}

/// All of them, in the order they are listed.
pub const EMBEDDED: &[Embedded] = embedded![
    "demo",
    "medium-place",
    "medium-headscale",
    "medium-reference",
    "foreign-cpu-quota",
    "foreign-delayed-acks",
    "foreign-dropped-sizes",
    "foreign-one-core",
    "foreign-short-queue",
    "foreign-small-buffer",
    "healthy-boringtun",
    "healthy-easytier",
    "healthy-gotatun",
    "healthy-headscale",
    "healthy-hyprspace",
    "healthy-mycelium",
    "healthy-nebula",
    "healthy-none",
    "healthy-openvpn",
    "healthy-quincy",
    "healthy-reference",
    "healthy-tailscale",
    "healthy-tinc",
    "healthy-vpncloud",
    "healthy-wireguard",
    "healthy-wireguard-go",
    "healthy-yggdrasil",
    "healthy-zerotier",
    "ack-path-delay",
    "application-limited",
    "audit-dead-flow",
    "audit-direction-mix",
    "audit-impairment-unit",
    "audit-impairment-void",
    "audit-missing-samples",
    "audit-not-normalised",
    "audit-too-few-runs",
    "audit-tool-failure",
    "audit-unequal-conditions",
    "congestion-window-limited",
    "cpu-contention",
    "crypto-bound",
    "daemon-thread-saturated",
    "fixed-timer-wait",
    "gro-masks-reordering",
    "gso-batch-impairment",
    "jumbo-overlay-amplification",
    "no-udp-backpressure",
    "outer-fragmentation",
    "outer-receive-overflow",
    "outer-send-drop",
    "path-detour",
    "path-loss",
    "path-reordering",
    "periodic-stall",
    "receiver-window-limited",
    "sender-buffer-limited",
    "serialized-send-pipeline",
    "size-dependent-loss",
    "small-datagram-overhead",
    "spurious-retransmits",
    "syscall-bound",
    "tail-loss-timeouts",
    "tun-queue-overflow",
    "tunnel-bufferbloat",
    "tunnel-duplicates",
    "tunnel-loss",
    "tunnel-reordering",
    "mixed-duplicates-loss",
    "mixed-lock-loss",
    "mixed-loss-overflow",
    "mixed-loss-tunnel-reordering",
    "mixed-reordering-tunnel-loss",
    "mixed-stall-loss",
    "mixed-tunnel-loss-acks",
    "mixed-window-tunnel-loss",
];

pub(super) fn find(name: &str) -> Option<&'static Embedded> {
    EMBEDDED.iter().find(|scenario| scenario.name == name)
}
