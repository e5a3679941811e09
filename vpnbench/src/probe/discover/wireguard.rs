//! Peers of WireGuard: over netlink for the kernel's own, over the cross-platform socket for
//! daemons. Both answers contain the private key; only what is named here is kept.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_wireguard::{
    WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeerAttribute,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::netlink;

/// A daemon that is busy may take this long to answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a WireGuard device tells about its outer side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outer {
    /// UDP port it listens on, 0 if none.
    pub listen_port: u16,
    /// Firewall mark of outer packets, 0 if none.
    pub fwmark: u32,
    /// Endpoints of the peers.
    pub endpoints: Vec<SocketAddr>,
}

/// Asks the kernel about a WireGuard device of the calling thread's namespace. Needs
/// `CAP_NET_ADMIN`.
pub fn kernel(device: &str) -> io::Result<Outer> {
    let family = family_id("wireguard")?;
    let payload = WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfName(device.to_owned())],
    };
    let mut message = GenlMessage::from_payload(payload);
    message.set_resolved_family_id(family);
    let answer = netlink::dump(NETLINK_GENERIC, message)?;
    let mut outer = Outer::default();
    for attribute in answer
        .messages
        .into_iter()
        .flat_map(|message| message.payload.attributes)
    {
        match attribute {
            WireguardAttribute::ListenPort(port) => outer.listen_port = port,
            WireguardAttribute::Fwmark(mark) => outer.fwmark = mark,
            WireguardAttribute::Peers(peers) => {
                let attributes = peers.into_iter().flat_map(|peer| peer.0);
                outer
                    .endpoints
                    .extend(attributes.filter_map(|attribute| match attribute {
                        WireguardPeerAttribute::Endpoint(endpoint) => Some(endpoint),
                        _ => None,
                    }));
            }
            _ => {}
        }
    }
    Ok(outer)
}

fn family_id(name: &str) -> io::Result<u16> {
    let mut message = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
    });
    message.finalize();
    let answer = netlink::request(NETLINK_GENERIC, message)?;
    let mut attributes = answer
        .messages
        .into_iter()
        .flat_map(|message| message.payload.nlas);
    let id = attributes.find_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(id),
        _ => None,
    });
    id.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Asks a daemon of the WireGuard family over its socket. The socket's name is the device's name
/// whatever the namespace, so the caller must check that the answer fits the daemon.
pub fn daemon(device: &str) -> io::Result<Outer> {
    let mut stream = UnixStream::connect(format!("/var/run/wireguard/{device}.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"get=1\n\n")?;
    parse(BufReader::new(stream))
}

/// Reads `key=value` lines up to the empty line that ends an answer.
fn parse(answer: impl BufRead) -> io::Result<Outer> {
    let mut outer = Outer::default();
    for line in answer.lines() {
        let line = line?;
        let Some((key, value)) = line.split_once('=') else {
            break;
        };
        match key {
            "listen_port" => outer.listen_port = value.parse().unwrap_or_default(),
            "fwmark" => outer.fwmark = value.parse().unwrap_or_default(),
            "endpoint" => outer.endpoints.extend(value.parse::<SocketAddr>()),
            _ => {}
        }
    }
    Ok(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_a_daemon() {
        let text = "private_key=00\nlisten_port=51820\nfwmark=7\npublic_key=11\n\
                    endpoint=10.0.0.2:51820\nallowed_ip=10.98.0.2/32\n\
                    public_key=12\nendpoint=[fd00::2]:1\nendpoint=bad\nerrno=0\n\nafter=1\n";
        let outer = parse(text.as_bytes()).unwrap();
        assert_eq!((outer.listen_port, outer.fwmark), (51820, 7));
        let endpoints: Vec<String> = outer.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["10.0.0.2:51820", "[fd00::2]:1"]);
    }

    #[test]
    fn generic_netlink_answers() {
        // The controller itself has a fixed number.
        assert_eq!(family_id("nlctrl").unwrap(), 16);
    }

    #[test]
    fn absent_is_an_error() {
        assert!(daemon("vpnbench-none").is_err());
        assert!(kernel("vpnbench-none").is_err());
    }
}
