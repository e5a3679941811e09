//! Tunnels that are not there, or not the only ones.

use anyhow::{Result, ensure};
use vpnbench_tests::netns::unique;
use vpnbench_tests::wireguard::{End, Pair};

use crate::recorder::Place;
use crate::traffic::Wire;

pub(crate) fn unknown_names() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let name = wire.a.name.as_str();
    let line = format!("record --netns {name} --tun nosuch0 -o TRACE");
    place
        .run(&line)?
        .expect(1, &["nosuch0", name, "vd0", "lo"])?;
    let line = format!("record --netns {name} --outer nosuch0 -o TRACE");
    place.run(&line)?.expect(1, &["nosuch0", "vd0"])?;
    let missing = unique("no");
    let line = format!("record --netns {missing} -o TRACE");
    place.run(&line)?.expect(1, &[&missing, name])?;
    place
        .run("record --netns pid:4194305 -o TRACE")?
        .expect(1, &["4194305", "ps -p"])?;
    place
        .run("record --pid 4194305 -o TRACE")?
        .expect(1, &["4194305", "--comm"])?;
    place
        .run("record --comm nosuchdaemon -o TRACE")?
        .expect(1, &["nosuchdaemon", "--tun"])?;
    let line = format!("record --netns {name} --tun vd0 -o TRACE");
    place
        .run(&line)?
        .expect(1, &["vd0", "not a tunnel", "--outer"])?;
    let line = format!("record --netns {name} -o TRACE");
    place
        .run(&line)?
        .expect(1, &["no tunnel device", "--outer"])?;
    ensure!(!place.trace().exists(), "a trace of nothing");
    Ok(())
}

pub(crate) fn ambiguous() -> Result<()> {
    let (place, pair) = (Place::new()?, Pair::new()?);
    let second = End::start(&pair.a, 51830, "10.97.0.1/24")?;
    let line = format!("record --netns {} -o TRACE", pair.a.name);
    let ended = place.run(&line)?;
    ended.expect(2, &[&pair.wg_a.device, &second.device, "--tun"])?;
    ensure!(!place.trace().exists(), "a trace of nothing");
    Ok(())
}

pub(crate) fn unroutable() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let line = format!(
        "record --netns {} -o TRACE -- ping -c 1 203.0.113.9",
        wire.a.name
    );
    place
        .run(&line)?
        .expect(1, &["203.0.113.9", &wire.a.name, "ip route get"])?;
    let line = format!(
        "record --netns {} -o TRACE -- ping -c 1 nosuch.invalid",
        wire.a.name
    );
    place.run(&line)?.expect(1, &["nosuch.invalid", "--tun"])?;
    ensure!(!place.trace().exists(), "a trace of nothing");
    Ok(())
}
