//! The bare wire, as the reference every tunnel is compared with.

use super::{End, Tunnel, Vpn};
use crate::lab::hosts::{Host, Hosts};

/// A "tunnel" whose devices and addresses are those of the wire.
pub(super) fn start(hosts: &Hosts) -> Tunnel {
    Tunnel {
        vpn: Vpn::None,
        a: end(&hosts.a),
        b: end(&hosts.b),
    }
}

fn end(host: &Host) -> End {
    End {
        device: host.device.clone(),
        ipv4: host.ipv4,
        ipv6: host.ipv6,
        daemon: None,
    }
}
