//! Damaged files: what is damaged is stated with its place, and the rest is used.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use vpnbench::import::plan::File;

use crate::make::{Format, Link, connection, gzip};
use crate::read::{Read, read, read_beside};
use crate::with;

/// Files that are read damaged in every run of the suite.
const SOME: u64 = 1_000;
/// Files that are read damaged on demand.
const MANY: u64 = 10_000;
/// Memory that reading must stay below, MiB.
const MEMORY_MIB: u64 = 1024;
/// Longest time for one of them, in a build without optimisation on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Numbers that look random and are the same every time (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// One to four changes: bytes that differ, are missing, are new or stand twice.
fn damaged(random: &mut Random, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let length = (1 + random.below(40)).min(bytes.len() - at);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at..at + length].fill([0, 0xff, 0x7f][random.below(3)]),
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let new: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                drop(bytes.splice(at..at, new));
            }
            4 => {
                let copy = bytes[at..at + length].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            _ => bytes.truncate(at.max(24)),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

pub(crate) fn some() -> Result<()> {
    mutated(SOME, &captures()?, |file| read(file).is_ok())
}

pub(crate) fn many() -> Result<()> {
    mutated(MANY, &captures()?, |file| read(file).is_ok())
}

pub(crate) fn some_beside() -> Result<()> {
    beside(SOME)
}

pub(crate) fn many_beside() -> Result<()> {
    beside(MANY)
}

/// What other tools said, beside a whole capture.
fn beside(files: u64) -> Result<()> {
    let mut packets = connection()?;
    packets.truncate(60);
    let capture = Format::PLAIN.file(Link::Ethernet, 120, &packets);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("damaged");
    let readable = |file: Vec<u8>| {
        let file = std::fs::write(&path, file).map(|()| File::at(path.clone()));
        file.is_ok_and(|file| read_beside(capture.clone(), vec![file]).is_ok())
    };
    let originals: Vec<Vec<u8>> = with::SAMPLES
        .into_iter()
        .map(|name| std::fs::read(with::sample(name)))
        .collect::<std::io::Result<_>>()?;
    mutated(files, &originals, readable)
}

fn captures() -> Result<Vec<Vec<u8>>> {
    let mut packets = connection()?;
    packets.truncate(60);
    let mut originals = Vec::new();
    for format in Format::all() {
        for link in [Link::Ethernet, Link::Raw, Link::Cooked2, Link::Null] {
            originals.push(format.file(link, 120, &packets));
        }
    }
    originals.push(gzip(&originals[0])?);
    originals.push(zstd::encode_all(originals[1].as_slice(), 1)?);
    Ok(originals)
}

/// Reads damaged copies of these in turn.
#[allow(clippy::print_stdout, reason = "figures of a measurement, for the log")]
fn mutated(files: u64, originals: &[Vec<u8>], is_readable: impl Fn(Vec<u8>) -> bool) -> Result<()> {
    let mut random = Random(7);
    let (mut readable, mut slowest) = (0, Duration::ZERO);
    for number in 0..files {
        let original = &originals[number as usize % originals.len()];
        let file = damaged(&mut random, original);
        let began = Instant::now();
        // Errors are fine, panics are not.
        readable += u64::from(is_readable(file));
        let took = began.elapsed();
        slowest = slowest.max(took);
        ensure!(took < LONGEST, "file {number} took {took:?}");
    }
    ensure!(readable > files / 2, "only {readable} could be used at all");
    // Of all cases of the suite that ran so far, in this one process.
    let peak = procfs::process::Process::myself()?.status()?.vmhwm;
    let peak_mib = peak.context("VmHWM")? / 1024;
    ensure!(peak_mib < MEMORY_MIB, "{peak_mib} MiB were resident");
    println!("{files} damaged files: the slowest took {slowest:?}, {peak_mib} MiB at most");
    Ok(())
}

fn used(found: &Read, of: usize, without: u64) -> Result<()> {
    let expected = of as u64 - without;
    ensure!(
        found.packets == expected,
        "{} packets instead of {expected}: {:?}",
        found.packets,
        found.problems
    );
    ensure!(found.says("at byte "), "{:?}", found.problems);
    Ok(())
}

/// A record whose header is destroyed: only it is lost.
pub(crate) fn one_record() -> Result<()> {
    let packets = connection()?;
    let before = Format::PLAIN
        .file(Link::Ethernet, 65_536, &packets[..20])
        .len();
    let mut file = Format::PLAIN.file(Link::Ethernet, 65_536, &packets);
    file[before..before + 16].fill(0xee);
    used(&read(file)?, packets.len(), 1)?;
    let ng = Format {
        ng: true,
        ..Format::PLAIN
    };
    let before = ng.file(Link::Ethernet, 65_536, &packets[..20]).len();
    let mut file = ng.file(Link::Ethernet, 65_536, &packets);
    file[before + 4..before + 8].fill(0xee);
    used(&read(file)?, packets.len(), 1)
}

/// Bytes missing in the middle: two records are lost at most.
pub(crate) fn hole() -> Result<()> {
    let packets = connection()?;
    for format in Format::all() {
        let before = format.file(Link::Ethernet, 65_536, &packets[..20]).len();
        let mut file = format.file(Link::Ethernet, 65_536, &packets);
        file.drain(before - 20..before + 9);
        let found = read(file)?;
        let lost = packets.len() as u64 - found.packets;
        ensure!(
            (1..=3).contains(&lost),
            "{format:?}: {lost} lost, {:?}",
            found.problems
        );
        ensure!(found.says("at byte "), "{:?}", found.problems);
    }
    Ok(())
}

pub(crate) fn something_else() -> Result<()> {
    let error = read(b"\xf7VBtrace, say".to_vec())
        .err()
        .map(|error| error.to_string());
    let error = error.unwrap_or_default();
    ensure!(error.contains("neither pcap nor pcapng"), "{error}");
    let empty = Format::PLAIN.file(Link::Ethernet, 65_536, &[]);
    let error = read(empty)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(error.contains("holds no IP packet"), "{error}");
    Ok(())
}
