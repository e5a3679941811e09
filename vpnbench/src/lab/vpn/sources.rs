//! Which programs each VPN of the lab needs, and where they can be had: one row per VPN.
//!
//! Nothing here depends on the rest of the crate: `cargo xtask vpns` compiles this file too, so
//! that what it installs is what the lab looks for.

use std::env;
use std::path::PathBuf;

/// One VPN of the lab.
#[derive(Debug)]
pub struct Source {
    /// Name on the command line, in scenario files and in reports.
    pub name: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Name among the eleven systems of the study, where it stands for one of them.
    pub study: Option<&'static str>,
    /// The programs that must be there, the daemon first.
    pub programs: &'static [Program],
    /// Ways to get them; the first is the one to prefer.
    pub ways: &'static [Way],
    /// Whether a program in the lab's cache goes before one in PATH, because what distributions
    /// ship is too old for the study's configuration.
    pub prefer_cached: bool,
    /// What is odd about it, for whoever compares it with others; one sentence each.
    pub quirks: &'static [&'static str],
}

/// One program of a VPN.
#[derive(Debug)]
pub struct Program {
    /// As started.
    pub name: &'static str,
    /// Arguments that make it print its version and end; none when it cannot.
    pub version: &'static [&'static str],
}

/// How to get programs.
#[derive(Debug)]
pub enum Way {
    /// A package of Debian; its version depends on the release.
    Debian {
        /// The packages.
        packages: &'static [&'static str],
        /// The version in Debian 12.
        version: &'static str,
    },
    /// A crate with binaries.
    Crate {
        /// Its name.
        name: &'static str,
        /// The pinned version.
        version: &'static str,
        /// Debian packages that building it needs beside a C compiler.
        needs: &'static [&'static str],
    },
    /// Commands of a Go module.
    Go {
        /// The module's path.
        module: &'static str,
        /// The pinned version.
        version: &'static str,
        /// Packages of the commands, and the names their programs get.
        commands: &'static [(&'static str, &'static str)],
        /// Flags for the linker beside `-s -w`, which fill in the version where a plain build
        /// would leave it out.
        linker: &'static str,
        /// A module it requires that the module proxy does not serve, and a stand-in that does
        /// nothing, for one that does nothing on Linux either.
        stand_in: Option<StandIn>,
        /// Source of a small program of this repository, where the command is not the module's own.
        source: Option<&'static str>,
    },
    /// In no registry.
    Nowhere {
        /// What was looked for, and where the programs come from.
        why: &'static str,
    },
}

/// A Go module that is replaced.
#[derive(Debug)]
pub struct StandIn {
    /// Its path.
    pub module: &'static str,
    /// The only file of the stand-in.
    pub source: &'static str,
}

/// The folder with the lab's own programs: `$XDG_CACHE_HOME/vpnbench`, else `~/.cache/vpnbench`.
/// The programs themselves are in `bin` below it. None without a home.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("vpnbench"))
}

/// The row of a VPN.
#[must_use]
pub fn find(name: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.name == name)
}

const WG: Program = Program {
    name: "wg",
    version: &["--version"],
};
const WG_TOOLS: Way = Way::Debian {
    packages: &["wireguard-tools"],
    version: "1.0.20210914",
};
const TAILSCALE_MODULE: &str = "tailscale.com";
/// The newest that Go 1.26 builds; 1.104 wants Go 1.27.
const TAILSCALE_VERSION: &str = "v1.102.3";

/// All of them, the bare wire and the study's systems first.
pub const SOURCES: &[Source] = &[
    Source {
        name: "none",
        title: "the bare wire, no tunnel",
        study: Some("Internal"),
        programs: &[],
        ways: &[],
        prefer_cached: false,
        quirks: &["Every tunnel is compared with it; its device is the wire's."],
    },
    Source {
        name: "reference",
        title: "the lab's own reference tunnel",
        study: None,
        programs: &[],
        ways: &[],
        prefer_cached: false,
        quirks: &[
            "A laboratory instrument, not a VPN to use: every mechanism is a switch and faults can \
             be planted (docs/lab-tunnel.md).",
            "It joins the first two hosts; where there is a third, the way leads through a relay \
             on it.",
        ],
    },
    Source {
        name: "wireguard",
        title: "WireGuard in the kernel",
        study: Some("WireGuard"),
        programs: &[WG],
        ways: &[WG_TOOLS],
        prefer_cached: false,
        quirks: &[
            "Needs the kernel's wireguard module; where the kernel has none, a run is skipped and \
             the userspace implementations stand for WireGuard.",
            "There is no daemon: the work is done by kernel threads that no process owns.",
        ],
    },
    Source {
        name: "wireguard-go",
        title: "WireGuard in Go",
        study: Some("WireGuard"),
        programs: &[
            Program {
                name: "wireguard-go",
                version: &["--version"],
            },
            WG,
        ],
        ways: &[
            Way::Debian {
                packages: &["wireguard-go", "wireguard-tools"],
                version: "0.0.20220316",
            },
            Way::Go {
                module: "golang.zx2c4.com/wireguard",
                version: "v0.0.0-20260522210424-ecfc5a8d5446",
                commands: &[("golang.zx2c4.com/wireguard", "wireguard-go")],
                linker: "",
                stand_in: None,
                source: None,
            },
        ],
        prefer_cached: false,
        quirks: &[
            "Debian's 2022 version predates the TUN and UDP offloads; `build = \"cached\"` takes \
             the current one.",
            "The current one calls itself 0.0.20250522 whatever its commit.",
        ],
    },
    Source {
        name: "boringtun",
        title: "WireGuard in Rust, by Cloudflare",
        study: Some("WireGuard"),
        programs: &[
            Program {
                name: "boringtun-cli",
                version: &["--version"],
            },
            WG,
        ],
        ways: &[
            Way::Crate {
                name: "boringtun-cli",
                version: "0.7.1",
                needs: &[],
            },
            WG_TOOLS,
        ],
        prefer_cached: false,
        quirks: &[
            "Opens four TUN queues and a connected socket per peer.",
            "Without `--disable-drop-privileges` it dies where there is no login session.",
        ],
    },
    Source {
        name: "gotatun",
        title: "WireGuard in Rust, by Mullvad",
        study: Some("WireGuard"),
        programs: &[
            Program {
                name: "gotatun",
                version: &["--version"],
            },
            WG,
        ],
        ways: &[
            Way::Crate {
                name: "gotatun-cli",
                version: "0.10.2",
                needs: &[],
            },
            WG_TOOLS,
        ],
        prefer_cached: false,
        quirks: &[
            "Asks for 7 MiB of receive buffer, unlike the other WireGuards.",
            "Leaves its control socket behind when it ends; the lab removes it.",
        ],
    },
    Source {
        name: "zerotier",
        title: "ZeroTier One with a controller of its own",
        study: Some("ZeroTier"),
        programs: &[Program {
            name: "zerotier-one",
            version: &["-v"],
        }],
        ways: &[Way::Nowhere {
            why: "in no registry: no Debian package, no crate, and for Python only API clients and a \
                  userspace library; take it from ZeroTier and put it into PATH",
        }],
        prefer_cached: false,
        quirks: &[
            "MTU 2800: on a 1500-byte wire each full packet becomes two datagrams.",
            "The controller hands out the addresses; the first host is controller and moon.",
        ],
    },
    Source {
        name: "headscale",
        title: "tailscaled, coordinated by headscale",
        study: Some("Headscale"),
        programs: &[
            Program {
                name: "tailscaled",
                version: &["--version"],
            },
            Program {
                name: "tailscale",
                version: &[],
            },
            Program {
                name: "headscale",
                version: &["version"],
            },
        ],
        ways: &[
            Way::Go {
                module: TAILSCALE_MODULE,
                version: TAILSCALE_VERSION,
                commands: &[
                    ("tailscale.com/cmd/tailscaled", "tailscaled"),
                    ("tailscale.com/cmd/tailscale", "tailscale"),
                ],
                linker: "",
                stand_in: None,
                source: None,
            },
            Way::Go {
                module: "github.com/juanfont/headscale",
                version: "v0.28.0",
                commands: &[("github.com/juanfont/headscale/cmd/headscale", "headscale")],
                linker: "",
                stand_in: None,
                source: None,
            },
        ],
        prefer_cached: false,
        quirks: &[
            "Addresses come from the coordination server, 100.64.0.0/10; MTU 1280.",
            "No DERP relay: the map's only server answers STUN and relays nothing. Hosts must reach each \
             other directly.",
        ],
    },
    Source {
        name: "tailscale",
        title: "tailscaled, coordinated by its module's own test server",
        study: Some("Headscale"),
        programs: &[
            Program {
                name: "tailscaled",
                version: &["--version"],
            },
            Program {
                name: "tailscale",
                version: &[],
            },
            Program {
                name: "vpnbench-tailscale-lab",
                version: &[],
            },
        ],
        ways: &[Way::Go {
            module: TAILSCALE_MODULE,
            version: TAILSCALE_VERSION,
            commands: &[
                ("tailscale.com/cmd/tailscaled", "tailscaled"),
                ("tailscale.com/cmd/tailscale", "tailscale"),
                (".", "vpnbench-tailscale-lab"),
            ],
            linker: "",
            stand_in: None,
            source: Some(include_str!("tailscale_control.go")),
        }],
        prefer_cached: false,
        quirks: &[
            "Packets take the same way as with headscale; only who introduces the hosts to each \
             other differs.",
            "The MTU is 1280, and the inner IPv6 addresses are Tailscale's.",
        ],
    },
    Source {
        name: "yggdrasil",
        title: "Yggdrasil, an IPv6 overlay",
        study: Some("Yggdrasil"),
        programs: &[Program {
            name: "yggdrasil",
            version: &["-version"],
        }],
        ways: &[
            Way::Go {
                module: "github.com/yggdrasil-network/yggdrasil-go",
                version: "v0.5.14",
                commands: &[(
                    "github.com/yggdrasil-network/yggdrasil-go/cmd/yggdrasil",
                    "yggdrasil",
                )],
                linker: "-X github.com/yggdrasil-network/yggdrasil-go/src/version.buildName=yggdrasil \
                         -X github.com/yggdrasil-network/yggdrasil-go/src/version.buildVersion=0.5.14",
                stand_in: Some(StandIn {
                    module: "suah.dev/protect",
                    source: include_str!("protect_stand_in.go"),
                }),
                source: None,
            },
            Way::Debian {
                packages: &["yggdrasil"],
                version: "0.4.7",
            },
        ],
        prefer_cached: true,
        quirks: &[
            "Addresses follow from the keys and are IPv6 only.",
            "MTU 65535 (53049 in 0.4): the jumbo MTU does what offloads do elsewhere.",
            "The study's quic:// peers need 0.5; with 0.4 the adapter takes tls://. The two do not \
             talk to each other.",
            "0.4 sets bbr on its outer TCP sockets, whatever the system's default.",
        ],
    },
    Source {
        name: "nebula",
        title: "Nebula, by Slack",
        study: Some("Nebula"),
        programs: &[
            Program {
                name: "nebula",
                version: &["-version"],
            },
            Program {
                name: "nebula-cert",
                version: &["-version"],
            },
        ],
        ways: &[
            Way::Go {
                module: "github.com/slackhq/nebula",
                version: "v1.10.3",
                commands: &[
                    ("github.com/slackhq/nebula/cmd/nebula", "nebula"),
                    ("github.com/slackhq/nebula/cmd/nebula-cert", "nebula-cert"),
                ],
                linker: "-X main.Build=1.10.3",
                stand_in: None,
                source: None,
            },
            Way::Debian {
                packages: &["nebula"],
                version: "1.6.1",
            },
        ],
        prefer_cached: true,
        quirks: &[
            "IPv6 inside the tunnel needs version 2 certificates, which came with 1.10; Debian's \
             1.6.1 carries IPv4 only.",
            "1.11 and later need a module that the module proxy does not serve.",
        ],
    },
    Source {
        name: "easytier",
        title: "EasyTier",
        study: Some("EasyTier"),
        programs: &[Program {
            name: "easytier-core",
            version: &["--version"],
        }],
        ways: &[Way::Crate {
            name: "easytier",
            version: "2.0.3",
            needs: &["protobuf-compiler", "libprotobuf-dev"],
        }],
        prefer_cached: false,
        quirks: &[
            "The study ran 2.4.5; the newest crate is 2.0.3.",
            "Over TCP, as in the study, outer segments are large and carry many packets.",
            "Prints its network secret to its log.",
        ],
    },
    Source {
        name: "vpncloud",
        title: "VpnCloud",
        study: Some("VpnCloud"),
        programs: &[Program {
            name: "vpncloud",
            version: &["--version"],
        }],
        ways: &[Way::Crate {
            name: "vpncloud",
            version: "2.3.0",
            needs: &[],
        }],
        prefer_cached: false,
        quirks: &[
            "Panics without a route to 8.8.8.8, which it never talks to: the lab gives it one \
             across the wire, where nobody forwards it.",
            "Picks its cipher by a speed test at the start unless told; the lab pins AES-128.",
        ],
    },
    Source {
        name: "hyprspace",
        title: "Hyprspace, on libp2p",
        study: Some("Hyprspace"),
        programs: &[Program {
            name: "hyprspace",
            version: &["version"],
        }],
        ways: &[Way::Nowhere {
            why: "the Go module proxy does not serve the module, Debian has no package; put a \
                  release of it into PATH",
        }],
        prefer_cached: false,
        quirks: &[
            "Addresses follow from the keys, in 100.64.0.0/16.",
            "Each packet is sent by a goroutine of its own, so packets of one flow overtake each \
             other inside the sender.",
            "All packets to one peer share one libp2p stream: losses on the wire become delay.",
        ],
    },
    Source {
        name: "tinc",
        title: "tinc",
        study: Some("Tinc"),
        programs: &[Program {
            name: "tincd",
            version: &["--version"],
        }],
        ways: &[Way::Debian {
            packages: &["tinc"],
            version: "1.0.36",
        }],
        prefer_cached: false,
        quirks: &[
            "The study ran 1.1pre; Debian has 1.0. Keys that only 1.1 knows are refused with 1.0.",
            "The device's MTU stays 1500; tinc finds the path MTU in a few seconds and clamps the \
             MSS. The lab waits for that before the benchmark starts.",
            "Falls back to TCP where UDP does not get through.",
        ],
    },
    Source {
        name: "mycelium",
        title: "Mycelium, an IPv6 overlay by ThreeFold",
        study: Some("Mycelium"),
        programs: &[Program {
            name: "mycelium",
            version: &["--version"],
        }],
        ways: &[Way::Nowhere {
            why: "in no registry: the crate of that name is another project; take it from \
                  ThreeFold and put it into PATH",
        }],
        prefer_cached: false,
        quirks: &[
            "Addresses follow from the keys and are IPv6 only.",
            "The study's hosts reached each other through public nodes; in the lab there is nothing \
             but the wire, so peers are direct.",
        ],
    },
    Source {
        name: "openvpn",
        title: "OpenVPN",
        study: None,
        programs: &[Program {
            name: "openvpn",
            version: &["--version"],
        }],
        ways: &[Way::Debian {
            packages: &["openvpn"],
            version: "2.6.14",
        }],
        prefer_cached: false,
        quirks: &[
            "One thread does everything.",
            "The kernel's data channel offload is off unless asked for, so that there is a daemon \
             to watch.",
        ],
    },
    Source {
        name: "quincy",
        title: "Quincy, on QUIC datagrams",
        study: None,
        programs: &[
            Program {
                name: "quincy-server",
                version: &["--version"],
            },
            Program {
                name: "quincy-client",
                version: &["--version"],
            },
            WG,
        ],
        ways: &[
            Way::Crate {
                name: "quincy-server",
                version: "3.1.1",
                needs: &[],
            },
            Way::Crate {
                name: "quincy-client",
                version: "3.1.1",
                needs: &[],
            },
            WG_TOOLS,
        ],
        prefer_cached: false,
        quirks: &[
            "Uses TUN and UDP offloads and 2 MiB socket buffers.",
            "`wg` makes its keys.",
        ],
    },
];

#[cfg(test)]
#[path = "sources/tests.rs"]
mod tests;
