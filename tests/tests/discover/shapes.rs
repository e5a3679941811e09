//! Tunnels and links of every shape.

use super::*;

pub(super) fn multi_queue() -> Result<()> {
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    let name = unique("t");
    let flags = libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR;
    let mut held = tun::open(&netns, &name, flags, 3)?;
    let selector = Selector {
        tun: Some(name),
        netns: vec![named(&namespace)],
        ..Selector::default()
    };
    let plan = discover(&selector)?;
    let tunnel = &plan.tunnels[0];
    ensure!(
        tunnel.queues == Some(3) && tunnel.tun_flags == Some(0x5101),
        "{tunnel:?}"
    );
    ensure!(tunnel.daemon.as_ref().map(|daemon| daemon.pid) == Some(std::process::id()));
    held.pop();
    let mut next = rediscover(&plan);
    let mut changes = Vec::new();
    // A program that another case is just starting holds all descriptors until it is executed, and so the queue.
    let fewer = wait_for(Duration::from_secs(5), || {
        next = rediscover(&plan);
        changes = diff(&plan, &next);
        changes.iter().any(|change| change.contains("3 -> 2"))
    });
    ensure!(fewer, "{changes:?}");
    // A daemon that starts to carry its packets over TCP.
    let listener = netns.run(|| std::net::TcpListener::bind("0.0.0.0:0"))?;
    let text = format!(
        "new outer socket tcp 0.0.0.0:{}",
        listener.local_addr()?.port()
    );
    let changes = diff(&next, &rediscover(&next));
    ensure!(changes.contains(&text), "{changes:?}");
    Ok(())
}

pub(super) fn daemon_elsewhere() -> Result<()> {
    let pair = Pair::new()?;
    let inner = Namespace::new()?;
    let device = &pair.wg_a.device;
    pair.a
        .ip(&format!("link set {device} netns {}", inner.name))?;
    inner.ip(&format!("addr add 10.98.0.1/24 dev {device}"))?;
    inner.ip(&format!("link set {device} up"))?;
    // The same name beside the daemon must not be mistaken for its device.
    let decoy_netns = open(&pair.a)?;
    let _decoy = tun::open(&decoy_netns, device, 0, 1)?;
    let plan = from_inside(&inner, to("10.98.0.2"))??;
    let (inside, outside) = (named(&inner).inum()?, named(&pair.a).inum()?);
    let tunnel = &plan.tunnels[0];
    ensure!(
        tunnel.interface == *device && tunnel.netns == inside,
        "{tunnel:?}"
    );
    let daemon = tunnel.daemon.as_ref().context("no daemon")?;
    ensure!(
        daemon.pid == pair.wg_a.pid() && daemon.netns == outside,
        "{daemon:?}"
    );
    ensure!(
        tunnel.sockets.iter().all(|socket| socket.netns == outside),
        "{tunnel:?}"
    );
    ensure!(
        tunnel.outer_devices.len() == 1 && tunnel.outer_devices[0].netns == outside,
        "{tunnel:?}"
    );
    ensure!(plan.netns.iter().map(Netns::inum).collect::<Vec<_>>() == [inside, outside]);
    Ok(())
}

pub(super) fn tunnel_in_tunnel() -> Result<()> {
    let pair = Pair::new()?;
    let inner_a = End::start(&pair.a, 51821, "10.97.0.1/24")?;
    let inner_b = End::start(&pair.b, 51821, "10.97.0.2/24")?;
    inner_a.peer(&inner_b, "10.98.0.2:51821", "10.97.0.2/32")?;
    inner_b.peer(&inner_a, "10.98.0.1:51821", "10.97.0.1/32")?;
    let plan = from_inside(&pair.a, to("10.97.0.2"))??;
    let names: Vec<&str> = plan
        .tunnels
        .iter()
        .map(|tunnel| tunnel.interface.as_str())
        .collect();
    ensure!(names == [&inner_a.device, &pair.wg_a.device], "{names:?}");
    ensure!(plan.tunnels[0].outer_devices[0].name == pair.wg_a.device);
    ensure!(device(&plan, &pair.wg_a.device)? == ("tunnel".into(), false, 0));
    ensure!(device(&plan, "vd0")? == ("outer".into(), true, 14));
    ensure!(
        plan.devices.len() == 3 && plan.processes.len() == 2,
        "{:?}",
        plan.devices
    );
    ensure!(diff(&plan, &rediscover(&plan)).is_empty());
    Ok(())
}

/// A socket that has no remote, as QUIC's have none: the address that it is bound to says by which device
/// it sends, also if that is a TAP device; bound to any address it may be each of them.
pub(super) fn bound_socket() -> Result<()> {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    connect(&a, &b)?;
    let netns = open(&a)?;
    let (name, wire) = (unique("t"), unique("w"));
    let _wire = tun::open_tap(&netns, &wire)?;
    a.ip(&format!("addr add 10.95.0.1/24 dev {wire}"))?;
    a.ip(&format!("link set {wire} up"))?;
    let _held = tun::open(&netns, &name, 0, 1)?;
    let selector = Selector {
        tun: Some(name),
        netns: vec![named(&a)],
        ..Selector::default()
    };
    let outer = |address: &'static str| -> Result<Vec<String>> {
        let socket = netns.run(move || std::net::UdpSocket::bind(address))?;
        let plan = discover(&selector)?;
        drop(socket);
        let devices = plan.tunnels[0].outer_devices.iter();
        Ok(devices.map(|device| device.name.clone()).collect())
    };
    ensure!(outer("10.95.0.1:0")? == [wire.as_str()]);
    ensure!(outer("10.99.0.1:0")? == ["vd0"]);
    let any = outer("0.0.0.0:0")?;
    ensure!(any.contains(&"vd0".to_owned()), "{any:?}");
    Ok(())
}

pub(super) fn bare_link() -> Result<()> {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    connect(&a, &b)?;
    let plan = from_inside(&a, to("10.99.0.2"))??;
    ensure!(plan.tunnels.is_empty() && plan.ports.is_empty() && plan.processes.is_empty());
    ensure!(device(&plan, "vd0")? == ("outer".into(), false, 14));
    ensure!(
        plan.notes
            .iter()
            .any(|note| note.contains("no tunnel on this path")),
        "{:?}",
        plan.notes
    );
    let both = Selector {
        netns: vec![named(&a), named(&b)],
        ..to("10.99.0.2")
    };
    let plan = discover(&both)?;
    ensure!(plan.devices.len() == 2, "{:?}", plan.devices);
    let named_device = Selector {
        outer: Some("vd0".into()),
        netns: vec![named(&a)],
        ..Selector::default()
    };
    let plan = discover(&named_device)?;
    ensure!(device(&plan, "vd0")? == ("outer".into(), false, 14));
    ensure!(rediscover(&plan).devices == plan.devices);
    // An address of its own never leaves the machine.
    let plan = from_inside(&a, to("10.99.0.1"))??;
    ensure!(
        device(&plan, "lo").is_ok() && !plan.notes.is_empty(),
        "{plan:?}"
    );
    Ok(())
}

pub(super) fn outer_options() -> Result<()> {
    let pair = Pair::new()?;
    pair.a.ip("link add vx0 type veth peer name vx1")?;
    let outer = |text: &str| Selector {
        outer: Some(text.into()),
        ..to("10.98.0.2")
    };
    let plan = from_inside(&pair.a, outer("vx0"))??;
    ensure!(
        plan.tunnels[0].outer_devices[0].name == "vx0",
        "{:?}",
        plan.tunnels
    );
    ensure!(device(&plan, "vd0").is_err() && device(&plan, "vx0")?.1);
    let plan = from_inside(&pair.a, outer("10.99.0.2:7777"))??;
    ensure!(
        plan.ports.iter().filter(|key| key.port == 7777).count() == 2,
        "{:?}",
        plan.ports
    );
    ensure!(device(&plan, "vd0")? == ("outer".into(), true, 14));
    let alone = Selector {
        outer: Some("10.99.0.1:7777".into()),
        ..Selector::default()
    };
    let plan = from_inside(&pair.a, alone)??;
    ensure!(plan.tunnels.is_empty() && device(&plan, "vd0")? == ("outer".into(), true, 14));
    let peer = Selector {
        peer: Some("10.99.0.2".parse()?),
        ..to("10.98.0.2")
    };
    ensure!(from_inside(&pair.a, peer)??.tunnels[0].outer_devices.len() == 1);
    let error = from_inside(&pair.a, outer("eth7"))?
        .err()
        .context("no error")?;
    ensure!(matches!(error, Error::UnknownDevice { .. }), "{error}");
    Ok(())
}

pub(super) fn kernel_tunnel() -> Result<()> {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    connect(&a, &b)?;
    a.ip("link add vxl0 type vxlan id 7 remote 10.99.0.2 dstport 4789 dev vd0")?;
    a.ip("addr add 10.98.0.1/24 dev vxl0")?;
    a.ip("link set vxl0 up")?;
    let plan = from_inside(&a, to("10.98.0.2"))??;
    let tunnel = &plan.tunnels[0];
    ensure!(
        tunnel.kind == TunnelKind::KernelOther && tunnel.daemon.is_none(),
        "{tunnel:?}"
    );
    ensure!(device(&plan, "vd0")? == ("outer".into(), false, 14));
    // Moved away, it still sends through the namespace in which it was made.
    a.ip(&format!("link set vxl0 netns {}", b.name))?;
    b.ip("link set vxl0 up")?;
    let plan = discover(&Selector {
        tun: Some("vxl0".into()),
        netns: vec![named(&b)],
        ..Selector::default()
    })?;
    let outer = &plan.tunnels[0].outer_devices;
    ensure!(
        outer.len() == 1 && outer[0].netns == named(&a).inum()?,
        "{outer:?} {:?}",
        plan.notes
    );
    Ok(())
}
