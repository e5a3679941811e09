//! Each fault does what it says, as often as it says.

use anyhow::{Context, Result, ensure};
use vpnbench::lab::tunnel::Settings;
use vpnbench::lab::tunnel::account::{Cause, Copied, Direction};
use vpnbench::lab::tunnel::faults::{
    AckDelay, DirectionFaults, Faults, Reorder, Retransmit, Select, Stall,
};
use vpnbench::lab::tunnel::settings::{PeerLock, QueueFull, Threads};
use vpnbench::lab::tunnel::span::Span;
use vpnbench::lab::tunnel::truth::{Fate, Line, Way};
use vpnbench_tests::tunnel::{Books, PORT, Rig};

use super::switches::reordered;

const COUNT: u32 = 1000;

/// Faults at end a from the device to the socket, and at end b from the socket to the device.
fn ends(a: DirectionFaults, b: DirectionFaults) -> [Settings; 2] {
    let settings = |faults| Settings {
        faults,
        ..Settings::default()
    };
    [
        settings(Faults {
            transmit: a,
            ..Faults::default()
        }),
        settings(Faults {
            receive: b,
            ..Faults::default()
        }),
    ]
}

/// Lines of the test's own datagrams.
fn own(lines: Vec<Line>, way: Way) -> Vec<Line> {
    let ours = |line: &Line| {
        let port = line.inner.as_ref().and_then(|inner| inner.destination_port);
        line.direction == way && port == Some(PORT)
    };
    lines.into_iter().filter(ours).collect()
}

fn count(lines: &[Line], fate: Fate) -> u64 {
    lines
        .iter()
        .filter(|line| line.fate == fate && line.copy.is_none())
        .count() as u64
}

/// Sends datagrams and holds what arrived against both truth logs.
fn flow(a: DirectionFaults, b: DirectionFaults, size: usize) -> Result<(Rig, Vec<u32>, Books)> {
    let [settings_a, settings_b] = ends(a, b);
    let rig = Rig::with(&settings_a, &settings_b)?;
    let (numbers, books) = rig.datagrams(false, COUNT, size)?;
    books.check()?;
    let sent = own(rig.truth(&rig.a)?, Way::Transmit);
    let decided = count(&sent, Fate::Carried) + count(&sent, Fate::Lost);
    ensure!(
        decided == u64::from(COUNT),
        "fates of {decided} datagrams are in the truth log"
    );
    let received = own(rig.truth(&rig.b)?, Way::Receive);
    let written = received
        .iter()
        .filter(|line| line.fate == Fate::Carried)
        .count();
    ensure!(
        written == numbers.len(),
        "{written} written, {} arrived",
        numbers.len()
    );
    Ok((rig, numbers, books))
}

fn lost(direction: &Direction, cause: Cause) -> u64 {
    direction.lost.get(&cause).map_or(0, |count| count.packets)
}

pub(super) fn drops() -> Result<()> {
    let every = |number| Some(Select::every(number));
    let entry = DirectionFaults {
        drop_entry: every(10),
        ..Default::default()
    };
    let exit = DirectionFaults {
        drop_exit: every(7),
        ..Default::default()
    };
    for at_b in [false, true] {
        let pick = |faults: &DirectionFaults| match at_b {
            false => (faults.clone(), DirectionFaults::default()),
            true => (DirectionFaults::default(), faults.clone()),
        };
        let (a, b) = pick(&entry);
        let (_, numbers, books) = flow(a, b, 200)?;
        let account = if at_b {
            &books.b.receive
        } else {
            &books.a.transmit
        };
        let gone = lost(account, Cause::DropEntry);
        ensure!(
            gone == account.read.packets / 10,
            "entry, at b {at_b}: {account:?}"
        );
        ensure!(
            account.entered.packets == account.read.packets - gone,
            "entered: {account:?}"
        );
        check_arrived(&numbers, &books)?;

        let (a, b) = pick(&exit);
        let (_, numbers, books) = flow(a, b, 200)?;
        let account = if at_b {
            &books.b.receive
        } else {
            &books.a.transmit
        };
        let gone = lost(account, Cause::DropExit);
        ensure!(
            gone == account.crypto.packets / 7,
            "exit, at b {at_b}: {account:?}"
        );
        check_arrived(&numbers, &books)?;
    }
    let random = DirectionFaults {
        drop_exit: Some(Select::probability(0.1)),
        ..Default::default()
    };
    let (_, first, books) = flow(random.clone(), DirectionFaults::default(), 200)?;
    let gone = lost(&books.a.transmit, Cause::DropExit);
    // Six standard deviations around the mean of 100.
    ensure!((43..=157).contains(&gone), "{gone} of about 1000 were lost");
    ensure!(
        first.len() as u64 + gone >= u64::from(COUNT),
        "{} arrived",
        first.len()
    );

    let limit = DirectionFaults {
        size_limit: Some(1000),
        ..Default::default()
    };
    let (_, numbers, books) = flow(limit.clone(), DirectionFaults::default(), 1000 - 28)?;
    ensure!(
        numbers.len() == 1000,
        "1000 bytes: {} arrived",
        numbers.len()
    );
    ensure!(
        lost(&books.a.transmit, Cause::SizeLimit) == 0,
        "1000 bytes: some were lost"
    );
    let (_, numbers, books) = flow(limit, DirectionFaults::default(), 1000 - 27)?;
    ensure!(numbers.is_empty(), "1001 bytes: {} arrived", numbers.len());
    ensure!(
        lost(&books.a.transmit, Cause::SizeLimit) == 1000,
        "1001 bytes: not all are counted"
    );
    start_delay()
}

/// All packets of the direction are ours, but for what the kernel itself sends over a new device;
/// so what was lost and not ours is the difference.
fn check_arrived(numbers: &[u32], books: &Books) -> Result<()> {
    let (a, b) = (&books.a.transmit, &books.b.receive);
    let all = |direction: &Direction| {
        direction
            .lost
            .values()
            .map(|count| count.packets)
            .sum::<u64>()
    };
    let others = a.read.packets - u64::from(COUNT);
    let least = u64::from(COUNT) - all(a) - all(b);
    let arrived = numbers.len() as u64;
    ensure!(
        (least..=least + others).contains(&arrived),
        "{arrived} arrived: {a:?}, {b:?}"
    );
    Ok(())
}

fn start_delay() -> Result<()> {
    let faults = DirectionFaults {
        start_delay: Some(Span::from_millis(1500)),
        ..Default::default()
    };
    let [a, b] = ends(faults, DirectionFaults::default());
    let rig = Rig::with(&a, &b)?;
    let started = rig.settle()?.a.started_ns;
    let before = rig.truth(&rig.a)?.len();
    let (numbers, books) = rig.datagrams(false, 200, 100)?;
    books.check()?;
    let lines = own(rig.truth(&rig.a)?, Way::Transmit);
    ensure!(
        lines.len() == 200,
        "{} of 200 lines, {before} before",
        lines.len()
    );
    for line in &lines {
        let early = line.entered_ns < started + 1_500_000_000;
        ensure!(
            (line.cause == Some(Cause::StartDelay)) == early,
            "{line:?}, started {started}"
        );
    }
    let carried = count(&lines, Fate::Carried);
    ensure!(
        carried == numbers.len() as u64,
        "{carried} carried, {} arrived",
        numbers.len()
    );
    Ok(())
}

pub(super) fn copies() -> Result<()> {
    let none = DirectionFaults::default;
    let twice = DirectionFaults {
        duplicate: Some(Select::every(5)),
        ..none()
    };
    let again = Retransmit {
        select: Select::every(4),
        after: Span::from_millis(30),
    };
    let again = DirectionFaults {
        retransmit: Some(again),
        ..none()
    };
    for (a, b, copied) in [
        (twice.clone(), none(), Copied::Duplicate),
        (none(), twice, Copied::Duplicate),
        (again.clone(), none(), Copied::Retransmit),
        (none(), again, Copied::Retransmit),
    ] {
        let at_b = a == none();
        let (rig, numbers, books) = flow(a, b, 200)?;
        let account = if at_b {
            &books.b.receive
        } else {
            &books.a.transmit
        };
        let (planted, every) = match copied {
            Copied::Duplicate => (account.duplicates, 5),
            Copied::Retransmit => (account.retransmits, 4),
        };
        ensure!(
            planted == account.crypto.packets / every,
            "{copied:?}: {account:?}"
        );
        let (end, way) = if at_b {
            (&rig.b, Way::Receive)
        } else {
            (&rig.a, Way::Transmit)
        };
        let lines = own(rig.truth(end)?, way);
        let ours = lines
            .iter()
            .filter(|line| line.copy == Some(copied))
            .count();
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let extra = numbers.len() - distinct.len();
        ensure!(
            distinct.len() == 1000,
            "{copied:?}: {} numbers arrived",
            distinct.len()
        );
        ensure!(
            extra == ours,
            "{copied:?}: {extra} arrived twice, {ours} were copied"
        );
        for line in lines
            .iter()
            .filter(|line| line.copy == Some(Copied::Retransmit))
        {
            ensure!(
                line.ns - line.entered_ns >= 30_000_000,
                "too early: {line:?}"
            );
        }
    }
    Ok(())
}

pub(super) fn reordering() -> Result<()> {
    let at_most = Span::from_millis(2000);
    let reorder = Some(Reorder {
        every: 10,
        by: 3,
        at_most,
    });
    let faults = DirectionFaults {
        reorder,
        ..Default::default()
    };
    for at_b in [false, true] {
        let (a, b) = match at_b {
            false => (faults.clone(), DirectionFaults::default()),
            true => (DirectionFaults::default(), faults.clone()),
        };
        let (rig, numbers, books) = flow(a, b, 200)?;
        let account = if at_b {
            &books.b.receive
        } else {
            &books.a.transmit
        };
        ensure!(
            account.reordered == account.crypto.packets / 10,
            "{account:?}"
        );
        ensure!(numbers.len() == 1000, "{} arrived", numbers.len());
        let (end, way) = if at_b {
            (&rig.b, Way::Receive)
        } else {
            (&rig.a, Way::Transmit)
        };
        let held = own(rig.truth(end)?, way)
            .iter()
            .filter(|line| line.held)
            .count() as u64;
        let late = reordered(&numbers);
        // One that nothing came after is not late.
        let alone = account.reorder_timeouts;
        ensure!(
            (held - alone..=held).contains(&late),
            "{late} late, {held} held, {alone} alone"
        );
        if !at_b {
            let counted = books.b.receive.out_of_order;
            ensure!(
                counted >= late,
                "{counted} outer packets out of order, {late} inner"
            );
        }
    }
    Ok(())
}

pub(super) fn delays() -> Result<()> {
    let delay = DirectionFaults {
        delay: Some(Span::from_millis(40)),
        ..Default::default()
    };
    let (rig, numbers, books) = flow(delay, DirectionFaults::default(), 200)?;
    ensure!(
        numbers == (0..COUNT).collect::<Vec<_>>(),
        "{} arrived, in order?",
        numbers.len()
    );
    let account = &books.a.transmit;
    ensure!(account.delayed == account.crypto.packets, "{account:?}");
    for line in own(rig.truth(&rig.a)?, Way::Transmit) {
        ensure!(
            line.ns - line.entered_ns >= 40_000_000,
            "too early: {line:?}"
        );
    }
    let ack_delay = Some(AckDelay {
        delay: Span::from_millis(25),
        max_bytes: 100,
    });
    let faults = DirectionFaults {
        ack_delay,
        ..Default::default()
    };
    let [a, b] = ends(DirectionFaults::default(), DirectionFaults::default());
    let b = Settings {
        faults: Faults {
            transmit: faults,
            ..b.faults
        },
        ..b
    };
    let rig = Rig::with(&a, &b)?;
    let (from, to) = (rig.a.inner(false), rig.b.inner(false));
    let listener = rig
        .b
        .netns
        .run(move || std::net::TcpListener::bind((to, PORT)))?;
    let _stream = rig
        .a
        .netns
        .run(move || std::net::TcpStream::connect((to, PORT)))?;
    let _peer = listener.accept().with_context(|| format!("from {from}"))?;
    let books = rig.settle()?;
    books.check()?;
    let lines = rig.truth(&rig.b)?;
    let bare = lines.iter().filter(|line| {
        let tcp = line.inner.as_ref().is_some_and(|inner| inner.protocol == 6);
        tcp && line.direction == Way::Transmit
    });
    let mut acks = 0;
    for line in bare {
        acks += 1;
        ensure!(
            line.ns - line.entered_ns >= 25_000_000,
            "too early: {line:?}"
        );
    }
    ensure!(
        acks > 0 && books.b.transmit.acks_delayed == acks,
        "{acks}: {:?}",
        books.b.transmit
    );
    Ok(())
}

pub(super) fn burning() -> Result<()> {
    let span = |text: &str| text.parse::<Span>().map_err(anyhow::Error::msg);
    let faults = DirectionFaults {
        burn_entry: span("20us")?,
        burn_crypto: span("40us")?,
        burn_exit: span("60us")?,
        ..Default::default()
    };
    let (_, _, books) = flow(faults, DirectionFaults::default(), 200)?;
    let account = &books.a.transmit;
    for (stage, each) in [(0, 20_000), (1, 40_000), (2, 60_000)] {
        let (burnt, least) = (account.burnt_ns[stage], each * account.read.packets);
        ensure!(burnt >= least, "stage {stage}: {burnt} of {least} ns");
    }
    let burnt: u64 = account.burnt_ns.iter().sum();
    let thread = books
        .a
        .threads
        .iter()
        .find(|thread| thread.name == "transmit");
    let cpu = thread
        .and_then(|thread| thread.cpu_ns)
        .context("no CPU time of the thread")?;
    ensure!(
        cpu >= burnt,
        "the kernel counted {cpu} ns, {burnt} ns were burnt"
    );
    Ok(())
}

pub(super) fn stalls() -> Result<()> {
    let stall = Stall {
        period: Span::from_millis(100),
        length: Span::from_millis(30),
    };
    let faults = DirectionFaults {
        stall: Some(stall),
        ..Default::default()
    };
    let (_, numbers, books) = flow(faults, DirectionFaults::default(), 200)?;
    ensure!(numbers.len() == 1000, "{} arrived", numbers.len());
    let account = &books.a.transmit;
    let alive = (books.a.written_ns - books.a.started_ns) / 100_000_000;
    ensure!(
        (1..=alive).contains(&account.stalls),
        "{} stalls in {alive} periods",
        account.stalls
    );
    ensure!(
        books.a.receive.stalls == 0,
        "the other direction stalled, too"
    );
    Ok(())
}

pub(super) fn full_queue() -> Result<()> {
    let mut faults = Faults::default();
    faults.transmit.burn_crypto = "200us".parse().map_err(anyhow::Error::msg)?;
    let settings = Settings {
        threads: Threads::Pipeline,
        workers: 1,
        queue_depth: 8,
        queue_full: QueueFull::Drop,
        faults,
        ..Settings::default()
    };
    let rig = Rig::with(&settings, &Settings::default())?;
    let (numbers, books) = rig.datagrams(false, COUNT, 200)?;
    books.check()?;
    let gone = lost(&books.a.transmit, Cause::QueueFull);
    ensure!(
        gone > 0 && books.a.transmit.queue_deepest <= 8,
        "{:?}",
        books.a.transmit
    );
    check_arrived(&numbers, &books)
}

pub(super) fn lock() -> Result<()> {
    let mut faults = Faults::default();
    faults.transmit.sleep_in_lock = Some("200us".parse().map_err(anyhow::Error::msg)?);
    let settings = Settings {
        threads: Threads::Pipeline,
        workers: 2,
        peer_lock: PeerLock::Transmit,
        faults,
        ..Settings::default()
    };
    let rig = Rig::with(&settings, &Settings::default())?;
    let (numbers, books) = rig.datagrams(false, 500, 200)?;
    books.check()?;
    let account = &books.a.transmit;
    ensure!(numbers.len() == 500, "{} arrived", numbers.len());
    ensure!(
        account.lock_waits > 0 && account.lock_wait_ns > 0,
        "{account:?}"
    );
    // Packets leave one at a time.
    ensure!(account.output.units == account.output.parts, "{account:?}");
    Ok(())
}
