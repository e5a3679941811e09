//! Why discovery cannot name what to watch. Each message names the object and the next step.

use std::io;
use std::net::IpAddr;

use crate::probe::netns::NetnsError;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refused a question.
    #[error("cannot list {what} in netns {netns}: {source}")]
    Netlink {
        /// What was asked for.
        what: &'static str,
        /// Namespace.
        netns: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such device.
    #[error("no device {name} in netns {netns}; there are: {}; name one of them, or another namespace with --netns", .existing.join(", "))]
    UnknownDevice {
        /// What was asked for.
        name: String,
        /// Namespace.
        netns: String,
        /// Devices that do exist.
        existing: Vec<String>,
    },
    /// A device that is no tunnel was given as one.
    #[error(
        "{name} in netns {netns} is {kind}, not a tunnel; to watch it as a bare link use --outer {name}"
    )]
    NotATunnel {
        /// Device.
        name: String,
        /// Namespace.
        netns: String,
        /// What it is.
        kind: String,
    },
    /// No such process.
    #[error("no process {0}; check the pid with `ps -p {0}`, or use --comm or --tun")]
    NoProcess(u32),
    /// No process of that name.
    #[error("no process is called {0}; `ps -e -o pid,comm` lists the names, or use --tun IFACE")]
    NoComm(String),
    /// The process exists and has no TUN device.
    #[error(
        "{0} holds no TUN device{1}; name the tunnel with --tun IFACE, or its namespace with --netns"
    )]
    HoldsNoTun(String, String),
    /// Several tunnels fit.
    #[error("more than one tunnel fits: {}; choose with {options}", .candidates.join("; "))]
    Ambiguous {
        /// The tunnels, as `tun0 (tincd, pid 12) in netns a`.
        candidates: Vec<String>,
        /// Options that tell them apart.
        options: String,
    },
    /// No tunnel at all.
    #[error("no tunnel device {0}; start the VPN first, or watch a bare link with --outer IFACE")]
    NoTunnel(String),
    /// A host name of the command does not resolve.
    #[error(
        "'{0}', the destination of the command, does not resolve; use an address, or name the tunnel with --tun IFACE"
    )]
    Unresolved(String),
    /// No route to the destination.
    #[error(
        "no route to {destination} in netns {netns}: {source}; is the tunnel up? (`ip route get {destination}`), or name the namespace with --netns"
    )]
    Unroutable {
        /// Destination.
        destination: IpAddr,
        /// Namespace.
        netns: String,
        /// What the kernel said.
        source: io::Error,
    },
}
