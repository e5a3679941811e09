//! Switching a device's offloads off, through ethtool's generic netlink family
//! (Documentation/networking/ethtool-netlink.rst).

use std::io;
use std::path::Path;

use netlink_sys::protocols::NETLINK_GENERIC;

use super::super::error::{LabError, Result};
use super::super::netns;
use super::request::{self, Body, attributes, u16_at};

/// The family that knows the families, its question and attributes.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Setting features.
const FEATURES_SET: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const HEADER_DEV_NAME: u16 = 2;
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;

/// What makes units of several packets, or leaves work on a packet to the device.
const FEATURES: [&str; 8] = [
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-udp-segmentation",
    "tx-generic-segmentation",
    "rx-gro",
    "tx-checksum-ip-generic",
];

/// Switches them off. What a device sends then is single packets with their checksums filled in.
pub(super) fn switch_off(netns: &Path, device: &str) -> Result<()> {
    netns::run_in(netns, || {
        off(device).map_err(LabError::failed("switching offloads off on", device))
    })
}

fn off(device: &str) -> io::Result<()> {
    let family = family("ethtool")?;
    let mut bits = Body::default();
    for feature in FEATURES {
        let mut bit = Body::default();
        bit.put_text(BIT_NAME, feature); // without a value: off
        bits.put_nested(BITS_BIT, &bit);
    }
    let mut wanted = Body::default();
    wanted.put_nested(BITSET_BITS, &bits);
    let mut header = Body::default();
    header.put_text(HEADER_DEV_NAME, device);
    let mut body = Body::new(&[FEATURES_SET, 1, 0, 0]);
    body.put_nested(FEATURES_HEADER, &header);
    body.put_nested(FEATURES_WANTED, &wanted);
    request::ask(NETLINK_GENERIC, family, 0, &body).map(drop)
}

/// Message type of a generic netlink family.
fn family(name: &str) -> io::Result<u16> {
    let mut body = Body::new(&[GET_FAMILY, 1, 0, 0]);
    body.put_text(FAMILY_NAME, name);
    let answers = request::ask(NETLINK_GENERIC, CONTROL, 0, &body)?;
    let ids = answers.iter().filter_map(|answer| {
        let found = attributes(answer.get(4..)?).find(|(kind, _)| *kind == FAMILY_ID);
        u16_at(found?.1, 0)
    });
    ids.into_iter()
        .next()
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}
