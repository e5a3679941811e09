//! The wire beside its own log of every unit.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use vpnbench::lab::wire::{FATE_JUMPED, FATE_SENT, TruthRecord, read_truth};

use crate::run::{End, Run};

/// Port of the reference tunnel's outer sockets in the lab.
const OUTER_PORT: u16 = 4600;

/// The tunnel's datagrams that came from an end while recording.
fn records(run: &Run, from: End) -> Result<Vec<TruthRecord>> {
    let mut records = read_truth(&run.file("logs/wire.truth"))?;
    let number = match from {
        End::A => 1,
        End::B => 2,
    };
    let (began, ended) = run.window;
    records.retain(|one| {
        let entered = u64::try_from(one.time_in_ns).unwrap_or(0);
        one.from == number
            && one.protocol == 17
            && one.destination_port == OUTER_PORT
            && (began..=ended).contains(&entered)
    });
    Ok(records)
}

fn run(impairments: &str, settings: &str) -> Result<Run> {
    Run::of(&format!(
        "name = \"books\"\n[wire]\nbackend = \"embedded\"\nunit = \"packet\"\n\
         truth = \"wire.truth\"\ndelay = \"2ms\"\n{impairments}\n[vpn]\nname = \"reference\"\n\
         [vpn.settings]\n{settings}\n[benchmark]\nname = \"tcp\"\nduration = \"1s\"\n"
    ))
}

/// Both directions beside the wire's log.
pub(crate) fn beside_wire(run: &Run) -> Result<()> {
    for end in [End::A, End::B] {
        // A copy has the number of its original.
        let mut units: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for one in records(run, end)? {
            let unit = units.entry(one.number).or_default();
            unit.0 = u64::from(one.segments);
            unit.1 += u64::from([FATE_SENT, FATE_JUMPED].contains(&one.fate));
        }
        let sum = |count: fn(u64) -> u64| -> u64 {
            units
                .values()
                .map(|(segments, arrived)| segments * count(*arrived))
                .sum()
        };
        let stage = run.stage("wire", end)?;
        run.equal("entered the wire", stage.entered, sum(|_| 1))?;
        let lost = sum(|arrived| u64::from(arrived == 0));
        run.lost("lost on the wire", stage, lost)?;
        let copies = sum(|arrived| arrived.saturating_sub(1));
        run.equal("copied by the wire", stage.duplicated, copies)?;
        ensure!(
            end == End::B || stage.lost > 3,
            "hardly any traffic: {stage:?}"
        );
    }
    run.adds_up()
}

/// Single datagrams leave the sender, each with an identification of its own.
pub(crate) fn loss() -> Result<()> {
    let settings = "outer_gso = false";
    beside_wire(&run("loss = \"2%\"\nduplicate = \"1%\"", settings)?)
}

/// A wire that cuts UDP_SEGMENT batches: their datagrams share identifications with those of the next
/// batches (`__ip_make_skb` takes one for all of them). A copy could be taken for a datagram that was
/// lost, so there are none.
pub(crate) fn cut_batches() -> Result<()> {
    beside_wire(&run("loss = \"2%\"", "")?)
}

/// Time on the wire beside its own log of when it took and gave each frame.
pub(crate) fn delay() -> Result<()> {
    let run = Run::of(
        "name = \"books\"\n[wire]\nbackend = \"embedded\"\nunit = \"packet\"\n\
         truth = \"wire.truth\"\ndelay = \"20ms\"\n[vpn]\nname = \"reference\"\n\
         [benchmark]\nname = \"ping\"\ncount = 40\ninterval = \"20ms\"\n",
    )?;
    for end in [End::A, End::B] {
        let mut times: Vec<i64> = records(&run, end)?
            .iter()
            .map(|one| one.time_out_ns - one.time_in_ns)
            .collect();
        times.sort_unstable();
        let middle = times.get(times.len() / 2).context("nothing crossed")?;
        let truth = *middle as f64 / 1000.0;
        ensure!(truth >= 20_000.0, "the wire did not delay: {truth} us");
        let found = run.time("wire", end)?.p50_us;
        run.close("median on the wire", found, truth)?;
    }
    run.adds_up()
}
