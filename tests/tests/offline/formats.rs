//! The same packets in every format and behind every link layer come to the same figures.

use anyhow::{Result, ensure};
use vpnbench::report::Report;

use crate::make::{Format, Link, SEGMENTS, connection, gzip};
use crate::read::{Read, read};

/// What must not depend on the file: packets and payload by direction, retransmissions by cause.
fn figures(report: &Report) -> Vec<String> {
    let flows = report.flows.iter().map(|flow| {
        let way = if flow.tap.ends_with(".tx") {
            "leaves"
        } else {
            "comes"
        };
        format!(
            "{} {way}: {} packets, {} bytes",
            flow.src, flow.packets, flow.payload_bytes
        )
    });
    let mut list: Vec<String> = flows.collect();
    list.sort();
    let retransmits = &report.retransmits;
    list.push(format!(
        "{:?} {:?}",
        retransmits.total, retransmits.by_cause
    ));
    list
}

fn expect(name: &str, found: &Read) -> Result<()> {
    let figures = figures(&found.report);
    let sent = SEGMENTS + 3;
    ensure!(
        figures[0] == format!("10.0.0.1:40000 leaves: {sent} packets, 101000 bytes"),
        "{name}: {figures:?}"
    );
    ensure!(
        figures[1] == format!("10.0.0.2:5201 comes: {SEGMENTS} packets, 0 bytes"),
        "{name}: {figures:?}"
    );
    let causes = found.report.retransmits.by_cause.unwrap_or_default();
    ensure!(
        found.report.retransmits.total == Some(1) && causes.dupack == 1,
        "{name}: {causes:?}"
    );
    Ok(())
}

pub(crate) fn every_format() -> Result<()> {
    let packets = connection()?;
    for format in Format::all() {
        for link in Link::ALL {
            let file = format.file(link, 65_536, &packets);
            let name = format!("{format:?} {link:?}");
            let found = read(file)?;
            expect(&name, &found)?;
            ensure!(
                found
                    .problems
                    .iter()
                    .all(|one| !one.message.contains("byte ")),
                "{name}"
            );
        }
    }
    Ok(())
}

pub(crate) fn packed() -> Result<()> {
    let file = Format::PLAIN.file(Link::Ethernet, 65_536, &connection()?);
    expect("gzip", &read(gzip(&file)?)?)?;
    expect("zstd", &read(zstd::encode_all(file.as_slice(), 3)?)?)
}

pub(crate) fn snap_length() -> Result<()> {
    let file = Format::PLAIN.file(Link::Ethernet, 80, &connection()?);
    let found = read(file)?;
    expect("80 bytes", &found)?;
    ensure!(found.says("are cut to 80 bytes"), "{:?}", found.problems);
    Ok(())
}

pub(crate) fn growing() -> Result<()> {
    let file = Format::PLAIN.file(Link::Raw, 65_536, &connection()?);
    let found = read(file[..file.len() - 7].to_vec())?;
    ensure!(
        found.packets == u64::from(2 * SEGMENTS + 2),
        "{}",
        found.packets
    );
    ensure!(found.says("still being written"), "{:?}", found.problems);
    Ok(())
}

pub(crate) fn clock_step() -> Result<()> {
    let mut packets = connection()?;
    let half = packets.len() / 2;
    for packet in &mut packets[half..] {
        packet.time_ns -= 3_000_000_000;
    }
    let found = read(Format::PLAIN.file(Link::Ethernet, 65_536, &packets))?;
    ensure!(found.packets == packets.len() as u64, "{}", found.packets);
    ensure!(
        found.says("the clock was set 1 times, back by 3.0 s"),
        "{:?}",
        found.problems
    );
    Ok(())
}

pub(crate) fn duplicates() -> Result<()> {
    let packets = connection()?;
    let twice: Vec<_> = packets
        .iter()
        .flat_map(|one| {
            let mut copy = one.clone();
            copy.time_ns += 2000;
            [one.clone(), copy]
        })
        .collect();
    let found = read(Format::PLAIN.file(Link::Cooked, 65_536, &twice))?;
    expect("copies", &found)?;
    let text = format!("{} packets are copies", packets.len());
    ensure!(found.says(&text), "{:?}", found.problems);
    Ok(())
}
