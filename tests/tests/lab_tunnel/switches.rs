//! Each switch does what it says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, ensure};
use vpnbench::lab::tunnel::Settings;
use vpnbench::lab::tunnel::account::Cause;
use vpnbench::lab::tunnel::faults::Faults;
use vpnbench::lab::tunnel::settings::{
    Fragmentation, Order, PeerLock, QueueFull, Threads, Transport,
};
use vpnbench_tests::tunnel::{PORT, Rig};

/// Bytes of a TCP transfer: many times the windows and batches involved.
const TRANSFER: usize = 2 << 20;

fn configurations() -> Vec<(&'static str, Settings)> {
    let best = Settings::default;
    let pipeline = || Settings {
        threads: Threads::Pipeline,
        ..best()
    };
    vec![
        ("best", best()),
        ("plain", Settings::plain()),
        (
            "single",
            Settings {
                threads: Threads::Single,
                ..best()
            },
        ),
        ("pipeline", pipeline()),
        (
            "pipeline of one",
            Settings {
                workers: 1,
                worker_run: 16,
                ..pipeline()
            },
        ),
        (
            "unordered",
            Settings {
                order: Order::Unordered,
                ..pipeline()
            },
        ),
        (
            "lock",
            Settings {
                peer_lock: PeerLock::Both,
                ..pipeline()
            },
        ),
        (
            "lock, inline",
            Settings {
                peer_lock: PeerLock::Transmit,
                ..best()
            },
        ),
        (
            "short queue",
            Settings {
                queue_depth: 4,
                ..pipeline()
            },
        ),
        (
            "queues",
            Settings {
                tun_queues: 2,
                ..best()
            },
        ),
        (
            "no tun_gso",
            Settings {
                tun_gso: false,
                ..best()
            },
        ),
        (
            "no tun_gro",
            Settings {
                tun_gro: false,
                ..best()
            },
        ),
        (
            "no outer_gso",
            Settings {
                outer_gso: false,
                ..best()
            },
        ),
        (
            "no outer_gro",
            Settings {
                outer_gro: false,
                ..best()
            },
        ),
        (
            "batches of 3",
            Settings {
                read_batch: 3,
                send_batch: 3,
                receive_batch: 3,
                ..best()
            },
        ),
        (
            "tcp",
            Settings {
                transport: Transport::Tcp,
                ..best()
            },
        ),
        (
            "tcp, single",
            Settings {
                transport: Transport::Tcp,
                threads: Threads::Single,
                ..best()
            },
        ),
        (
            "quic",
            Settings {
                transport: Transport::Quic,
                ..best()
            },
        ),
        (
            "quic, pipeline",
            Settings {
                transport: Transport::Quic,
                ..pipeline()
            },
        ),
        (
            "jumbo",
            Settings {
                mtu: 65_535,
                ..best()
            },
        ),
        (
            "fragments",
            Settings {
                mtu: 9000,
                fragmentation: Fragmentation::Kernel,
                ..best()
            },
        ),
        (
            "paced",
            Settings {
                pacing: Some(50_000_000),
                ..best()
            },
        ),
        (
            "busy",
            Settings {
                busy_poll: true,
                ..best()
            },
        ),
    ]
}

/// Datagrams and a TCP transfer of each family arrive complete, and the books add up.
pub(super) fn carry() -> Result<()> {
    for (name, settings) in configurations() {
        one(&settings).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn one(settings: &Settings) -> Result<()> {
    let rig = Rig::new(settings)?;
    for ipv6 in [false, true] {
        let (mut numbers, books) = rig.datagrams(ipv6, 100, 300)?;
        books.check()?;
        numbers.sort_unstable();
        ensure!(
            numbers == (0..100).collect::<Vec<_>>(),
            "of 100 arrived {numbers:?}"
        );
        transfer(&rig, ipv6)?;
    }
    rig.settle()?.check()
}

/// Sends bytes over TCP from a to b and compares them.
pub(super) fn transfer(rig: &Rig, ipv6: bool) -> Result<()> {
    let to = rig.b.inner(ipv6);
    let listener = rig.b.netns.run(move || TcpListener::bind((to, PORT)))?;
    let mut stream = rig.a.netns.run(move || TcpStream::connect((to, PORT)))?;
    let data: Vec<u8> = (0..TRANSFER).map(|index| (index / 7) as u8).collect();
    thread::scope(|scope| {
        let sent = scope.spawn(|| stream.write_all(&data));
        let (peer, _) = listener.accept()?;
        let mut received = Vec::new();
        peer.take(TRANSFER as u64).read_to_end(&mut received)?;
        ensure!(
            received == data,
            "the stream was damaged: {} bytes",
            received.len()
        );
        ensure!(
            sent.join().is_ok_and(|sent| sent.is_ok()),
            "the sender failed"
        );
        Ok(())
    })
}

/// Packets per unit at the four places, with the switch and without it.
pub(super) fn super_packets() -> Result<()> {
    let best = Settings::default;
    let on = measure(&best())?;
    ensure!(
        on.iter().all(|(units, parts)| parts > units),
        "super-packets everywhere: {on:?}"
    );
    let switched = [
        Settings {
            tun_gso: false,
            ..best()
        },
        Settings {
            outer_gso: false,
            ..best()
        },
        Settings {
            outer_gro: false,
            ..best()
        },
        Settings {
            tun_gro: false,
            ..best()
        },
    ];
    for (place, settings) in switched.iter().enumerate() {
        let off = measure(settings)?;
        ensure!(
            off[place].0 == off[place].1,
            "place {place} is off: {off:?}"
        );
    }
    Ok(())
}

/// Units and parts at tun read, outer send (a), outer receive, tun write (b).
fn measure(settings: &Settings) -> Result<[(u64, u64); 4]> {
    let rig = Rig::new(settings)?;
    transfer(&rig, false)?;
    transfer(&rig, true)?;
    let books = rig.settle()?;
    books.check()?;
    let (a, b) = (&books.a.transmit, &books.b.receive);
    Ok([a.input, a.output, b.input, b.output].map(|units| (units.units, units.parts)))
}

pub(super) fn order() -> Result<()> {
    for order in [Order::Ordered, Order::Unordered] {
        let mut faults = Faults::default();
        // One slow worker, so that the others overtake it also on a machine with one core.
        faults.transmit.burn_crypto = "300us".parse().map_err(anyhow::Error::msg)?;
        faults.transmit.burn_crypto_worker = Some(0);
        let settings = Settings {
            threads: Threads::Pipeline,
            workers: 2,
            order,
            faults,
            ..Settings::default()
        };
        let rig = Rig::new(&settings)?;
        let (numbers, books) = rig.datagrams(false, 600, 200)?;
        books.check()?;
        ensure!(numbers.len() == 600, "{} arrived", numbers.len());
        let late = reordered(&numbers);
        let counted = books.b.receive.out_of_order;
        match order {
            Order::Ordered => ensure!((late, counted) == (0, 0), "{late} late, {counted} counted"),
            Order::Unordered => ensure!(late > 0 && counted > 0, "{late} late, {counted} counted"),
        }
    }
    Ok(())
}

/// RFC 4737 section 3: packets with a number below one that came earlier.
pub(super) fn reordered(numbers: &[u32]) -> u64 {
    let mut highest = 0;
    let late = numbers.iter().filter(|number| {
        highest = highest.max(**number);
        **number < highest
    });
    late.count() as u64
}

pub(super) fn fragmentation() -> Result<()> {
    let with = |fragmentation| Settings {
        mtu: 9000,
        fragmentation,
        ..Settings::default()
    };
    let (count, size) = (50, 8000);

    let rig = Rig::new(&with(Fragmentation::Own))?;
    let (numbers, books) = rig.datagrams(false, count, size)?;
    books.check()?;
    ensure!(numbers.len() == 50, "own: {} arrived", numbers.len());
    let (parts, left) = (books.a.transmit.output.parts, books.a.transmit.left.packets);
    // 8000 + 28 + 16 bytes in pieces of 1472 - 16.
    ensure!(
        parts == left + 5 * 50,
        "own: {parts} datagrams for {left} packets"
    );
    ensure!(
        rig.a.mib("Ip", "FragCreates")? == 0,
        "own: the kernel made fragments, too"
    );

    let rig = Rig::new(&with(Fragmentation::Kernel))?;
    let (numbers, books) = rig.datagrams(false, count, size)?;
    books.check()?;
    ensure!(numbers.len() == 50, "kernel: {} arrived", numbers.len());
    ensure!(
        rig.a.mib("Ip", "FragOKs")? == 50,
        "kernel: not all were fragmented"
    );
    ensure!(
        rig.b.mib("Ip", "ReasmOKs")? == 50,
        "kernel: not all were put together"
    );

    let rig = Rig::new(&with(Fragmentation::Forbid))?;
    let (numbers, books) = rig.datagrams(false, count, size)?;
    books.check()?;
    let refused = books
        .a
        .transmit
        .lost
        .get(&Cause::TooBig)
        .map(|count| count.packets);
    ensure!(
        (numbers.len(), refused) == (0, Some(50)),
        "forbid: {numbers:?}, {refused:?} refused"
    );
    Ok(())
}

pub(super) fn buffers() -> Result<()> {
    let settings = Settings {
        receive_buffer: Some(9 << 20),
        send_buffer: Some(30_000),
        threads: Threads::Pipeline,
        queue_full: QueueFull::Drop,
        ..Settings::default()
    };
    let books = Rig::new(&settings)?.settle()?;
    // The kernel doubles what is asked for (socket(7)).
    ensure!(
        books.a.socket_receive_buffer == Some(18 << 20),
        "{:?}",
        books.a.socket_receive_buffer
    );
    ensure!(
        books.a.socket_send_buffer == Some(60_000),
        "{:?}",
        books.a.socket_send_buffer
    );
    Ok(())
}
