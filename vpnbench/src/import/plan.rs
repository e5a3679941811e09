//! What is to be read, and where it was captured.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use vpnbench_common::catalog::Tap;

pub use super::beside::File;

/// Where a capture was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To be told from the packets and the names of devices.
    Unknown,
    /// The tunnel device.
    Inner,
    /// The device that carries outer packets, or the only one.
    Outer,
    /// One tap: all packets of the file went the same way.
    Tap(Tap),
}

/// One file and where it was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name of the host.
    pub host: String,
    /// Where on it.
    pub place: Place,
    /// The file; `-` is standard input.
    pub path: PathBuf,
}

/// Name of the host of files that were given without one.
pub const HOST: &str = "host";

/// Files and what is known about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The files.
    pub sources: Vec<Source>,
    /// Addresses that are known to belong to a host.
    pub local: Vec<(String, IpAddr)>,
    /// A filter in libpcap's language; only packets that match are read.
    pub filter: Option<String>,
    /// What other tools said about the run.
    pub beside: Vec<File>,
}

impl Source {
    /// A file without a host.
    #[must_use]
    pub fn at(place: Place, path: PathBuf) -> Source {
        Source {
            host: HOST.to_owned(),
            place,
            path,
        }
    }
}

impl FromStr for Source {
    type Err = String;

    /// `HOST:TAP=FILE`
    fn from_str(text: &str) -> Result<Source, String> {
        let form = "expected HOST:TAP=FILE, e.g. left:outer=left-eth0.pcap";
        let (place, path) = text.split_once('=').ok_or(form)?;
        let (host, tap) = place.split_once(':').ok_or(form)?;
        if host.is_empty() || path.is_empty() {
            return Err(form.to_owned());
        }
        Ok(Source {
            host: host.to_owned(),
            place: tap.parse()?,
            path: path.into(),
        })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let visible = [Tap::TunTx, Tap::TunWrite, Tap::OuterTx, Tap::OuterRx];
        if let Some(tap) = visible.into_iter().find(|tap| tap.name() == text) {
            return Ok(Place::Tap(tap));
        }
        match text {
            "tun" | "inner" => Ok(Place::Inner),
            "outer" => Ok(Place::Outer),
            "any" => Ok(Place::Unknown),
            _ if Tap::ALL.into_iter().any(|tap| tap.name() == text) => Err(format!(
                "no capture can be taken at {text}; a capture sees tun.tx, tun.write, outer.tx and outer.rx"
            )),
            _ => Err(format!(
                "there is no tap \"{text}\": tun or outer for all packets of a device, any to tell from the packets, or one of tun.tx, tun.write, outer.tx, outer.rx"
            )),
        }
    }
}

/// `ADDR` or `HOST=ADDR`, an address of the host a capture was taken on.
///
/// # Errors
///
/// What is no address.
pub fn parse_local(text: &str) -> Result<(String, IpAddr), String> {
    let (host, address) = text.split_once('=').unwrap_or((HOST, text));
    match address.parse() {
        Ok(address) => Ok((host.to_owned(), address)),
        Err(_) => Err(format!(
            "\"{address}\" is no address: expected ADDR or HOST=ADDR"
        )),
    }
}

/// `FILE` or `HOST=FILE`, what another tool said about the run.
///
/// # Errors
///
/// None; a file that cannot be used is found when it is read.
pub fn parse_beside(text: &str) -> Result<File, String> {
    let named = text.split_once('=').filter(|(host, _)| !host.contains('/'));
    let (host, path) = named.unwrap_or((HOST, text));
    Ok(File {
        host: host.to_owned(),
        path: path.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_as_in_reports() {
        let source: Source = "left:tun=a=b.pcap".parse().expect("a source");
        assert_eq!((source.host.as_str(), source.place), ("left", Place::Inner));
        assert_eq!(source.path, PathBuf::from("a=b.pcap"));
        assert_eq!("outer.rx".parse(), Ok(Place::Tap(Tap::OuterRx)));
        for wrong in ["left=a", "a:tun", ":tun=a", "a:tun.read=b", "a:nowhere=b"] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
        assert_eq!(
            parse_local("b=::1"),
            Ok(("b".to_owned(), "::1".parse().expect("an address")))
        );
        assert!(parse_local("b").is_err());
    }
}
