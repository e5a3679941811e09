//! From what the user says to the tunnel.

use super::*;

pub(super) fn from_the_command() -> Result<()> {
    let pair = Pair::new()?;
    let plan = from_inside(&pair.a, to("10.98.0.2"))??;
    check_a(&pair, &plan)?;
    ensure!(
        plan.destination == Some("10.98.0.2".parse()?) && plan.notes.is_empty(),
        "{plan:?}"
    );

    let line = format!("ip netns exec {} iperf3 -c 10.98.0.2", pair.a.name);
    check_a(
        &pair,
        &discover(&Selector {
            command: words(&line),
            ..Selector::default()
        })?,
    )?;
    let line = format!("nsenter -t {} -n taskset 1 ping 10.98.0.2", pair.wg_a.pid());
    check_a(
        &pair,
        &discover(&Selector {
            command: words(&line),
            ..Selector::default()
        })?,
    )?;
    let selector = Selector {
        netns: vec![named(&pair.a)],
        ..to("10.98.0.2")
    };
    check_a(&pair, &discover(&selector)?)
}

pub(super) fn from_names() -> Result<()> {
    let pair = Pair::new()?;
    let tun = Selector {
        tun: Some(pair.wg_a.device.clone()),
        ..Selector::default()
    };
    check_a(&pair, &from_inside(&pair.a, tun.clone())??)?;
    let plan = discover(&tun)?;
    ensure!(
        plan.notes.iter().any(|note| note.contains(&pair.a.name)),
        "{:?}",
        plan.notes
    );
    ensure!(plan.tunnels[0].interface == pair.wg_a.device);
    let comm = Selector {
        comm: Some("wireguard-go".into()),
        ..Selector::default()
    };
    check_a(
        &pair,
        &discover(&Selector {
            netns: vec![named(&pair.a)],
            ..comm
        })?,
    )?;
    let pid = Selector {
        pid: Some(pair.wg_a.pid()),
        ..Selector::default()
    };
    check_a(&pair, &from_inside(&pair.a, pid)??)?;
    let only = Selector {
        netns: vec![named(&pair.a)],
        ..Selector::default()
    };
    check_a(&pair, &discover(&only)?)
}

pub(super) fn both_ends() -> Result<()> {
    let pair = Pair::new()?;
    let netns = vec![named(&pair.a), named(&pair.b)];
    let pattern = format!("{},{}", pair.wg_a.device, pair.wg_b.device);
    let line = format!("ip netns exec {} iperf3 -c 10.98.0.2", pair.a.name);
    for selector in [
        Selector {
            netns: netns.clone(),
            ..to("10.98.0.2")
        },
        Selector {
            netns: netns.clone(),
            ..Selector::default()
        },
        Selector {
            netns: netns.clone(),
            tun: Some(pattern),
            ..Selector::default()
        },
        Selector {
            netns: vec![named(&pair.b)],
            command: words(&line),
            ..Selector::default()
        },
    ] {
        let plan = discover(&selector)?;
        let names: Vec<&str> = plan
            .tunnels
            .iter()
            .map(|tunnel| tunnel.interface.as_str())
            .collect();
        ensure!(
            names == [&pair.wg_a.device, &pair.wg_b.device],
            "{selector:?}: {names:?}"
        );
        let outer = plan
            .devices
            .iter()
            .filter(|device| device.role == "outer" && device.name == "vd0");
        ensure!(
            outer.count() == 2 && plan.netns.len() == 2,
            "{:?}",
            plan.devices
        );
        ensure!(
            plan.processes.len() == 2 && plan.ports.len() == 2,
            "{:?}",
            plan.ports
        );
    }
    Ok(())
}

pub(super) fn ambiguous() -> Result<()> {
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    let (first, second) = (unique("t"), unique("t"));
    let _held = [
        tun::open(&netns, &first, 0, 1)?,
        tun::open(&netns, &second, 0, 1)?,
    ];
    for device in [&first, &second] {
        namespace.ip(&format!("link set {device} up"))?;
    }
    let scope = vec![named(&namespace)];
    for selector in [
        Selector {
            netns: scope.clone(),
            ..Selector::default()
        },
        Selector {
            netns: scope.clone(),
            pid: Some(std::process::id()),
            ..Selector::default()
        },
        Selector {
            netns: scope.clone(),
            tun: Some("t*".into()),
            ..Selector::default()
        },
        Selector {
            netns: scope.clone(),
            comm: process::comm(std::process::id()),
            ..Selector::default()
        },
    ] {
        let error = discover(&selector).err().context("no error")?;
        let Error::Ambiguous {
            candidates,
            options,
        } = &error
        else {
            anyhow::bail!("{error}")
        };
        let expected = format!("pid {}) in netns {}", std::process::id(), namespace.name);
        ensure!(
            candidates.len() == 2 && candidates.iter().all(|one| one.ends_with(&expected)),
            "{error}"
        );
        ensure!(
            candidates[0].starts_with(&first) && options == "--tun IFACE",
            "{error}"
        );
    }
    // Machine-wide there may be others too: ours are listed.
    let error = from_inside(&namespace, Selector::default())?
        .err()
        .context("no error")?;
    ensure!(
        error.to_string().contains(&first) && error.to_string().contains(&second),
        "{error}"
    );
    // A destination decides between them.
    namespace.ip(&format!("route add 10.97.0.0/24 dev {second}"))?;
    let selector = Selector {
        tun: Some("t*".into()),
        netns: scope,
        ..to("10.97.0.2")
    };
    ensure!(discover(&selector)?.tunnels[0].interface == second);
    Ok(())
}

pub(super) fn errors() -> Result<()> {
    let pair = Pair::new()?;
    let inside = |selector| -> Result<String> {
        Ok(from_inside(&pair.a, selector)?
            .err()
            .context("no error")?
            .to_string())
    };
    let text = inside(Selector {
        tun: Some("nosuch0".into()),
        ..Selector::default()
    })?;
    ensure!(
        text.contains("nosuch0") && text.contains("vd0") && text.contains(&pair.a.name),
        "{text}"
    );
    let text = inside(Selector {
        tun: Some("vd0".into()),
        ..Selector::default()
    })?;
    ensure!(
        text.contains("veth") && text.contains("--outer vd0"),
        "{text}"
    );
    let text = inside(Selector {
        pid: Some(4_000_000_000),
        ..Selector::default()
    })?;
    ensure!(text.contains("no process 4000000000"), "{text}");
    let text = inside(Selector {
        pid: Some(1),
        ..Selector::default()
    })?;
    ensure!(
        text.contains("pid 1 holds no TUN device") && text.contains("--tun"),
        "{text}"
    );
    let text = inside(Selector {
        comm: Some("nosuchd".into()),
        ..Selector::default()
    })?;
    ensure!(text.contains("nosuchd") && text.contains("--tun"), "{text}");
    let text = inside(to("192.0.2.1"))?;
    ensure!(
        text.contains("192.0.2.1") && text.contains(&pair.a.name),
        "{text}"
    );
    let text = inside(to("no-such-host.invalid"))?;
    ensure!(text.contains("no-such-host.invalid"), "{text}");
    let empty = Namespace::new()?;
    let error = discover(&Selector {
        netns: vec![named(&empty)],
        ..Selector::default()
    })
    .err();
    ensure!(matches!(error, Some(Error::NoTunnel(_))), "{error:?}");
    let error = discover(&Selector {
        netns: vec!["nosuchns".parse()?],
        ..Selector::default()
    })
    .err();
    ensure!(
        error
            .as_ref()
            .is_some_and(|error| error.to_string().contains(&empty.name)),
        "{error:?}"
    );
    Ok(())
}
