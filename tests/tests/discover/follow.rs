//! What happens after the start: changes, and snapshots.

use super::*;

pub(super) fn restart() -> Result<()> {
    let mut pair = Pair::new()?;
    let plan = from_inside(&pair.a, to("10.98.0.2"))??;
    ensure!(diff(&plan, &rediscover(&plan)).is_empty());
    let before = pair.wg_a.pid();
    pair.wg_a.stop();
    let gone = rediscover(&plan);
    let name = pair.wg_a.device.clone();
    let changes = diff(&plan, &gone);
    ensure!(
        changes.contains(&format!("device {name} is gone")),
        "{changes:?}"
    );
    ensure!(
        gone.devices.len() == plan.devices.len() && gone.ports == plan.ports,
        "{gone:?}"
    );
    pair.wg_a.restart(&pair.a, "10.98.0.1/24")?;
    pair.wg_a
        .peer(&pair.wg_b, "10.99.0.2:51820", "10.98.0.2/32")?;
    let again = rediscover(&gone);
    check_a(&pair, &again)?;
    let text = format!(
        "daemon wireguard-go restarted: pid {before} -> {}",
        pair.wg_a.pid()
    );
    ensure!(
        diff(&plan, &again).contains(&text),
        "{:?}",
        diff(&plan, &again)
    );
    let text = format!(
        "daemon wireguard-go (pid {}) opened {name}",
        pair.wg_a.pid()
    );
    ensure!(
        diff(&gone, &again).contains(&text),
        "{:?}",
        diff(&gone, &again)
    );
    Ok(())
}

pub(super) fn dropped_rights() -> Result<()> {
    let pair = Pair::new()?;
    let plan = from_inside(&pair.a, to("10.98.0.2"))??;
    let watched = plan.clone();
    let never_opened = named(&pair.b);
    let again = std::thread::spawn(move || -> Result<Plan> {
        for netns in &watched.netns {
            netns.drop_privileges()?;
        }
        netns::keep_only(KEPT_BY_DISCOVERY)?;
        ensure!(
            Netns::open(&never_opened).is_err(),
            "rights were not dropped"
        );
        Ok(rediscover(&watched))
    });
    let again = again.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    check_a(&pair, &again)?;
    ensure!(diff(&plan, &again).is_empty(), "{:?}", diff(&plan, &again));
    Ok(())
}

pub(super) fn link_watch() -> Result<()> {
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    netns.drop_privileges()?;
    let (sender, events) = mpsc::channel();
    let watch = netns.watch_links(sender)?;
    namespace.ip("link add vx0 type veth peer name vx1")?;
    namespace.ip("link set vx0 up")?;
    namespace.ip("link set vx1 name vx2")?;
    namespace.ip("link del vx0")?;
    let mut seen = Vec::new();
    while let Ok(event) = events.recv_timeout(Duration::from_secs(2)) {
        ensure!(event.netns == netns.inum());
        let last = event.change == LinkChange::Removed && event.name == "vx0";
        seen.push((event.name, event.change));
        if last {
            break;
        }
    }
    for expected in [
        ("vx0", LinkChange::Added),
        ("vx0", LinkChange::Changed),
        ("vx2", LinkChange::Added),
        ("vx0", LinkChange::Removed),
    ] {
        ensure!(
            seen.iter()
                .any(|(name, change)| (name.as_str(), *change) == expected),
            "{expected:?} {seen:?}"
        );
    }
    drop(watch);
    let closed = || matches!(events.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    ensure!(
        wait_for(Duration::from_secs(2), closed),
        "the watcher goes on"
    );
    Ok(())
}

pub(super) fn environment() -> Result<()> {
    let pair = Pair::new()?;
    pair.a.ip("route add 10.50.0.0/16 via 10.99.0.2 mtu 1300")?;
    pair.a.exec("tc qdisc add dev vd0 root pfifo limit 77")?;
    pair.a.exec("ping -c 1 -W 2 10.98.0.2")?;
    let plan = discover(&Selector {
        netns: vec![named(&pair.a), named(&pair.b)],
        ..to("10.98.0.2")
    })?;
    let of_softirqs = |pid: &u32| {
        let comm = process::comm(*pid);
        comm.is_some_and(|comm| comm.starts_with("ksoftirqd/"))
    };
    let softirqs = process::pids().into_iter().find(of_softirqs);
    let softirqs = softirqs.context("no ksoftirqd")?;
    let processes = [
        (pair.wg_a.pid(), "daemon"),
        (pair.wg_b.pid(), "daemon"),
        (softirqs, "kernel"),
    ];
    let begin = std::time::Instant::now();
    let environment = record::snapshot(&plan.netns, &processes);
    let took = begin.elapsed();
    say(&format!(
        "snapshot of two namespaces: {} ms",
        took.as_millis()
    ));
    ensure!(environment.missing.is_empty(), "{:?}", environment.missing);
    ensure!(environment.namespaces.len() == 2);
    let side = &environment.namespaces[0];
    ensure!(side.name.as_ref() == Some(&pair.a.name));
    ensure!(
        side.sysctls.contains_key("net.core.rmem_max"),
        "{:?}",
        side.sysctls
    );
    let vd0 = side
        .links
        .iter()
        .find(|link| link.name == "vd0")
        .context("no vd0")?;
    ensure!(
        vd0.kind.as_deref() == Some("veth") && vd0.mtu == 1500 && vd0.tx_queue_len > 0,
        "{vd0:?}"
    );
    ensure!(
        vd0.addresses.contains(&"10.99.0.1/24".to_owned()),
        "{vd0:?}"
    );
    ensure!(
        vd0.flags.contains(&"up".to_owned()) && vd0.counters.tx_packets > 0,
        "{vd0:?}"
    );
    ensure!(
        vd0.qdiscs
            .iter()
            .any(|one| one.kind == "pfifo" && one.parent == "root"),
        "{vd0:?}"
    );
    ensure!(
        vd0.offloads.contains_key("rx-gro") && vd0.offloads.len() > 30,
        "{vd0:?}"
    );
    let route = "10.50.0.0/16 via 10.99.0.2 dev vd0 proto boot mtu 1300";
    ensure!(
        side.routes.iter().any(|one| one == route),
        "{:?}",
        side.routes
    );
    let direct = "10.98.0.0/24 dev ";
    ensure!(
        side.routes
            .iter()
            .any(|one| one.starts_with(direct) && one.contains("src 10.98.0.1"))
    );
    ensure!(
        side.counters.get("IcmpOutEchos") == Some(&1),
        "{:?}",
        side.counters.get("IcmpOutEchos")
    );
    let daemon: Vec<_> = environment
        .threads
        .iter()
        .filter(|one| one.tgid == pair.wg_a.pid())
        .collect();
    ensure!(
        daemon.len() > 1 && daemon.iter().any(|one| one.runtime_ns > 0),
        "{daemon:?}"
    );
    ensure!(
        environment
            .threads
            .iter()
            .any(|one| one.comm.starts_with("ksoftirqd/") && one.role == "kernel")
    );
    let (versions, missing) = record::versions(&[pair.wg_a.pid()], &words("iperf3 -c 10.98.0.2"));
    ensure!(
        versions["wireguard-go"].contains("wireguard-go"),
        "{versions:?} {missing:?}"
    );
    ensure!(versions["iperf3"].starts_with("iperf 3"), "{versions:?}");
    Ok(())
}

/// A daemon of another user, looked at with each set of capabilities.
pub(super) fn foreign_daemon() -> Result<()> {
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    let name = unique("t");
    let queue = tun::open(&netns, &name, 0, 1)?.pop().context("no queue")?;
    let daemon = Process::spawn_with(
        "setpriv --reuid 65534 --regid 65534 --clear-groups sleep 60",
        queue,
    )?;
    wait_for(Duration::from_secs(2), || {
        process::comm(daemon.pid()).as_deref() == Some("sleep")
    });
    let selector = Selector {
        tun: Some(name),
        netns: vec![named(&namespace)],
        ..Selector::default()
    };
    let plan = discover(&selector)?;
    ensure!(plan.processes == [(daemon.pid(), 1)], "{plan:?}");
    let all = seen_with(&plan, KEPT_BY_DISCOVERY.to_vec())?;
    ensure!(
        all.processes == plan.processes && diff(&plan, &all).is_empty(),
        "{all:?}"
    );
    ensure!(
        !all.notes.iter().any(|note| note.contains("did not tell")),
        "{:?}",
        all.notes
    );
    for left_out in KEPT_BY_DISCOVERY {
        let kept = KEPT_BY_DISCOVERY
            .iter()
            .filter(|cap| *cap != left_out)
            .copied()
            .collect();
        let less = seen_with(&plan, kept)?;
        let unsure = less.notes.iter().any(|note| note.contains("did not tell"));
        // Without net admin the device's namespace is guessed; without the others nothing is seen.
        let guesses = *left_out == Capability::CAP_NET_ADMIN;
        let expected = (usize::from(guesses), guesses);
        ensure!(
            (less.processes.len(), unsure) == expected,
            "without {left_out:?}: {less:?}"
        );
    }
    Ok(())
}

fn seen_with(plan: &Plan, kept: Vec<Capability>) -> Result<Plan> {
    let plan = plan.clone();
    let look = std::thread::spawn(move || -> Result<Plan> {
        netns::keep_only(&kept)?;
        Ok(rediscover(&plan))
    });
    look.join().map_err(|_| anyhow::anyhow!("panicked"))?
}
