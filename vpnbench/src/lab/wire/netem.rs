//! The kernel's own netem (net/sched/sch_netem.c) through rtnetlink.

use std::io;
use std::path::Path;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::super::error::{LabError, Result};
use super::super::{netlink, netns};
use super::account::NetemAccount;
use super::impairment::Impairment;
use super::random::share_u32;
use super::request::{self, Body, CREATE_NEW, DUMP, attributes, u32_at, u64_at};
use super::tables;

const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
const ROOT: u32 = 0xffff_ffff;
/// Handle 1:0.
const HANDLE: u32 = 0x1_0000;
/// Attributes of a qdisc (include/uapi/linux/rtnetlink.h).
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const STATS2: u16 = 7;
/// Of its statistics (include/uapi/linux/gen_stats.h).
const BASIC: u16 = 1;
const QUEUE: u16 = 3;
const PACKETS64: u16 = 8;
/// Of netem's options (include/uapi/linux/pkt_sched.h).
const CORR: u16 = 1;
const DELAY_DIST: u16 = 2;
const REORDER: u16 = 3;
const RATE: u16 = 6;
const RATE64: u16 = 8;
const LATENCY64: u16 = 10;
const JITTER64: u16 = 11;
const PRNG_SEED: u16 = 14;
/// Bytes of `struct tcmsg`.
const TCMSG: usize = 20;

/// Whether this kernel has netem, as a module that it loads by itself or built in. Tried out in a
/// namespace of its own that vanishes with the question.
pub(super) fn is_available() -> Result<bool> {
    netns::in_a_fresh_one(|| match add_to(1, &Impairment::default(), 1) {
        Ok(()) => Ok(true),
        // ENOENT: "Specified qdisc kind is unknown".
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(LabError::failed("looking for", "sch_netem")(error)),
    })
}

/// Puts a netem at the root of a device.
pub(super) fn add(netns: &Path, device: &str, impairment: &Impairment, seed: u64) -> Result<()> {
    let index = netlink::index(netns, device)?;
    netns::run_in(netns, || {
        add_to(index, impairment, seed).map_err(LabError::failed("adding netem to", device))
    })
}

fn add_to(index: u32, impairment: &Impairment, seed: u64) -> io::Result<()> {
    let mut message = tcmsg(index, HANDLE, ROOT);
    message.put_text(KIND, "netem");
    message.put(OPTIONS, &options(impairment, seed).bytes);
    request::ask(NETLINK_ROUTE, NEW_QDISC, CREATE_NEW, &message).map(drop)
}

fn tcmsg(index: u32, handle: u32, parent: u32) -> Body {
    let words = [0, index, handle, parent, 0];
    Body::new(&words.map(u32::to_ne_bytes).concat())
}

/// `struct tc_netem_qopt` and what follows it.
fn options(impairment: &Impairment, seed: u64) -> Body {
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    // The old fields count in ticks of 64 ns; the 64-bit ones below take precedence.
    let ticks = |nanos: u64| u32::try_from(nanos >> 6).unwrap_or(u32::MAX);
    let mut options = Body::new(&words(&[
        ticks(impairment.delay_ns),
        impairment.limit,
        share_u32(impairment.loss),
        impairment.gap,
        share_u32(impairment.duplicate),
        ticks(impairment.jitter_ns),
    ]));
    options.put(LATENCY64, &impairment.delay_ns.to_ne_bytes());
    options.put(JITTER64, &impairment.jitter_ns.to_ne_bytes());
    let correlations = [
        impairment.delay_correlation,
        impairment.loss_correlation,
        impairment.duplicate_correlation,
    ];
    if correlations.iter().any(|&correlation| correlation > 0.0) {
        options.put(CORR, &words(&correlations.map(share_u32)));
    }
    if impairment.reorder > 0.0 {
        let reorder = [impairment.reorder, impairment.reorder_correlation];
        options.put(REORDER, &words(&reorder.map(share_u32)));
    }
    if let Some(table) = tables::table(impairment.distribution) {
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        options.put(DELAY_DIST, &bytes);
    }
    if impairment.rate_bps > 0 {
        let bytes_per_second = impairment.rate_bps / 8;
        let small = u32::try_from(bytes_per_second).unwrap_or(u32::MAX);
        options.put(RATE, &words(&[small, 0, 0, 0]));
        options.put(RATE64, &bytes_per_second.to_ne_bytes());
    }
    options.put(PRNG_SEED, &seed.to_ne_bytes());
    options
}

/// What the netem at the root of a device has counted.
pub(super) fn account(netns: &Path, device: &str) -> Result<NetemAccount> {
    let index = netlink::index(netns, device)?;
    netns::run_in(netns, || {
        let failed = || LabError::failed::<io::Error>("reading netem's statistics of", device);
        let message = tcmsg(index, 0, 0);
        let answers = request::ask(NETLINK_ROUTE, GET_QDISC, DUMP, &message).map_err(failed())?;
        let found = answers.iter().find_map(|answer| statistics(answer, index));
        found.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))
    })
}

fn statistics(answer: &[u8], index: u32) -> Option<NetemAccount> {
    let own = u32_at(answer, 4)? == index;
    let body = answer.get(TCMSG..)?;
    let is_netem = attributes(body).any(|(kind, value)| kind == KIND && value == b"netem\0");
    let (_, stats) = attributes(body).find(|(kind, _)| own && is_netem && *kind == STATS2)?;
    let stat = |wanted| {
        attributes(stats)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let (basic, queue) = (stat(BASIC)?, stat(QUEUE)?);
    // The 32-bit packet count is all there is until it overflows.
    let packets = stat(PACKETS64).and_then(|value| u64_at(value, 0));
    Some(NetemAccount {
        sent_segments: packets.or_else(|| u32_at(basic, 8).map(u64::from))?,
        sent_bytes: u64_at(basic, 0)?,
        waiting_units: u32_at(queue, 0)?.into(),
        dropped_units: u32_at(queue, 8)?.into(),
        jumped_units: u32_at(queue, 12)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::impairment::Distribution;
    use super::*;

    #[test]
    fn options_are_laid_out_as_the_kernel_reads_them() {
        let impairment = Impairment {
            delay_ns: 4_000_000,
            jitter_ns: 7_000_000,
            loss: 0.01,
            reorder: 0.025,
            reorder_correlation: 0.5,
            gap: 1,
            rate_bps: 80_000_000_000,
            distribution: Distribution::Normal,
            ..Impairment::default()
        };
        let body = options(&impairment, 77);
        let words: Vec<u32> = (0..6)
            .filter_map(|at| u32_at(&body.bytes, at * 4))
            .collect();
        assert_eq!(words, [62_500, 1000, 42_949_673, 1, 0, 109_375]);
        let attribute = |wanted| {
            let mut all = attributes(&body.bytes[24..]);
            all.find(|(kind, _)| *kind == wanted)
                .map(|(_, value)| value.to_vec())
        };
        assert_eq!(
            attribute(LATENCY64),
            Some(4_000_000_u64.to_ne_bytes().to_vec())
        );
        assert_eq!(
            attribute(RATE64),
            Some(10_000_000_000_u64.to_ne_bytes().to_vec())
        );
        assert_eq!(
            attribute(RATE).map(|value| value[..4].to_vec()),
            Some(vec![0xff; 4])
        );
        assert_eq!(attribute(DELAY_DIST).map(|table| table.len()), Some(8192));
        assert_eq!(attribute(PRNG_SEED), Some(77_u64.to_ne_bytes().to_vec()));
        assert_eq!(attribute(CORR), None);
        let reorder = attribute(REORDER).unwrap();
        assert_eq!(u32_at(&reorder, 0), Some(107_374_182));
        assert_eq!(u32_at(&reorder, 4), Some(2_147_483_648));
    }
}
