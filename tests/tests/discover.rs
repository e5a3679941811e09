//! Discovery against real daemons and devices in namespaces of its own.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use vpnbench::probe::discover::{
    Error, LinkChange, Plan, Selector, diff, discover, process, rediscover,
};
use vpnbench::probe::netns::{self, KEPT_BY_DISCOVERY, Netns, NetnsSpec};
use vpnbench::record::environment as record;
use vpnbench::trace::model::TunnelKind;
use vpnbench_tests::netns::{Namespace, connect, unique, wait_for};
use vpnbench_tests::tun;
use vpnbench_tests::wireguard::{End, Pair};

const TESTS: &[(&str, fn() -> Result<()>)] = &[
    ("from_the_command", from_the_command),
    ("from_names", from_names),
    ("both_ends", both_ends),
    ("ambiguous", ambiguous),
    ("multi_queue", multi_queue),
    ("daemon_elsewhere", daemon_elsewhere),
    ("tunnel_in_tunnel", tunnel_in_tunnel),
    ("bare_link", bare_link),
    ("outer_options", outer_options),
    ("kernel_tunnel", kernel_tunnel),
    ("restart", restart),
    ("dropped_rights", dropped_rights),
    ("link_watch", link_watch),
    ("errors", errors),
    ("environment", environment),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say("skipped: needs root");
    }
    let trial = |&(name, body): &(&'static str, fn() -> Result<()>)| {
        Trial::test(name, move || body().map_err(|error| Failed::from(format!("{error:#}"))))
            .with_ignored_flag(!root)
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}

#[allow(clippy::print_stdout)] // the line that the contract for skipped tests asks for
fn say(text: &str) {
    println!("{text}");
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn open(namespace: &Namespace) -> Result<Netns> {
    Ok(Netns::open(&named(namespace))?)
}

fn named(namespace: &Namespace) -> NetnsSpec {
    NetnsSpec::Name(namespace.name.clone())
}

fn to(destination: &str) -> Selector {
    Selector { command: words(&format!("iperf3 -c {destination}")), ..Selector::default() }
}

/// Discovers as a process started in the namespace would.
fn from_inside(namespace: &Namespace, selector: Selector) -> Result<Result<Plan, Error>> {
    Ok(open(namespace)?.run(move || discover(&selector)))
}

fn device(plan: &Plan, name: &str) -> Result<(String, bool, u32)> {
    let found = plan.devices.iter().find(|device| device.name == name);
    let device = found.with_context(|| format!("{name} is not watched: {:?}", plan.devices))?;
    Ok((device.role.clone(), device.port_filter, device.l2_len))
}

/// The plan that every way of naming side A must lead to.
fn check_a(pair: &Pair, plan: &Plan) -> Result<()> {
    let inum = named(&pair.a).inum()?;
    ensure!(plan.tunnels.len() == 1, "tunnels {:?}", plan.tunnels);
    let tunnel = &plan.tunnels[0];
    ensure!(tunnel.interface == pair.wg_a.device && tunnel.netns == inum, "{tunnel:?}");
    ensure!(tunnel.kind == TunnelKind::Tun && tunnel.mtu == 1420, "{tunnel:?}");
    ensure!(tunnel.tun_flags == Some(1) && tunnel.queues == Some(1), "{tunnel:?}");
    let daemon = tunnel.daemon.as_ref().context("no daemon")?;
    ensure!(daemon.pid == pair.wg_a.pid() && daemon.comm == "wireguard-go", "{daemon:?}");
    ensure!(daemon.netns == inum && daemon.threads > 1 && daemon.exe.is_some(), "{daemon:?}");
    let udp = tunnel.sockets.iter().filter(|one| one.ip_proto == 17 && one.local_port == 51820);
    ensure!(udp.clone().count() >= 1, "{:?}", tunnel.sockets);
    ensure!(udp.clone().all(|one| one.netns == inum && one.inode != 0), "{:?}", tunnel.sockets);
    ensure!(tunnel.remotes == ["10.99.0.2:51820"], "{:?}", tunnel.remotes);
    ensure!(tunnel.outer_devices.len() == 1 && tunnel.outer_devices[0].name == "vd0");
    ensure!(device(plan, &pair.wg_a.device)? == ("tunnel".into(), false, 0));
    ensure!(device(plan, "vd0")? == ("outer".into(), true, 14));
    ensure!(plan.ports.iter().any(|key| (key.netns, key.port, key.ip_proto) == (inum, 51820, 17)));
    ensure!(plan.processes == [(pair.wg_a.pid(), 1)], "{:?}", plan.processes);
    ensure!(plan.netns.iter().map(Netns::inum).collect::<Vec<_>>() == [inum]);
    let flags = pair.a.exec(&format!("cat /sys/class/net/{}/tun_flags", tunnel.interface))?;
    ensure!(flags.trim() == "0x1", "{flags}");
    Ok(())
}

fn from_the_command() -> Result<()> {
    let pair = Pair::new()?;
    let plan = from_inside(&pair.a, to("10.98.0.2"))??;
    check_a(&pair, &plan)?;
    ensure!(plan.destination == Some("10.98.0.2".parse()?) && plan.notes.is_empty(), "{plan:?}");

    let line = format!("ip netns exec {} iperf3 -c 10.98.0.2", pair.a.name);
    check_a(&pair, &discover(&Selector { command: words(&line), ..Selector::default() })?)?;
    let line = format!("nsenter -t {} -n taskset 1 ping 10.98.0.2", pair.wg_a.pid());
    check_a(&pair, &discover(&Selector { command: words(&line), ..Selector::default() })?)?;
    let selector = Selector { netns: vec![named(&pair.a)], ..to("10.98.0.2") };
    check_a(&pair, &discover(&selector)?)
}

fn from_names() -> Result<()> {
    let pair = Pair::new()?;
    let tun = Selector { tun: Some(pair.wg_a.device.clone()), ..Selector::default() };
    check_a(&pair, &from_inside(&pair.a, tun.clone())??)?;
    let plan = discover(&tun)?;
    ensure!(plan.notes.iter().any(|note| note.contains(&pair.a.name)), "{:?}", plan.notes);
    ensure!(plan.tunnels[0].interface == pair.wg_a.device);
    let comm = Selector { comm: Some("wireguard-go".into()), ..Selector::default() };
    check_a(&pair, &discover(&Selector { netns: vec![named(&pair.a)], ..comm })?)?;
    let pid = Selector { pid: Some(pair.wg_a.pid()), ..Selector::default() };
    check_a(&pair, &from_inside(&pair.a, pid)??)?;
    let only = Selector { netns: vec![named(&pair.a)], ..Selector::default() };
    check_a(&pair, &discover(&only)?)
}

fn both_ends() -> Result<()> {
    let pair = Pair::new()?;
    let netns = vec![named(&pair.a), named(&pair.b)];
    let pattern = format!("{},{}", pair.wg_a.device, pair.wg_b.device);
    let line = format!("ip netns exec {} iperf3 -c 10.98.0.2", pair.a.name);
    for selector in [
        Selector { netns: netns.clone(), ..to("10.98.0.2") },
        Selector { netns: netns.clone(), ..Selector::default() },
        Selector { netns: netns.clone(), tun: Some(pattern), ..Selector::default() },
        Selector { netns: vec![named(&pair.b)], command: words(&line), ..Selector::default() },
    ] {
        let plan = discover(&selector)?;
        let names: Vec<&str> = plan.tunnels.iter().map(|tunnel| tunnel.interface.as_str()).collect();
        ensure!(names == [&pair.wg_a.device, &pair.wg_b.device], "{selector:?}: {names:?}");
        let outer = plan.devices.iter().filter(|device| device.role == "outer" && device.name == "vd0");
        ensure!(outer.count() == 2 && plan.netns.len() == 2, "{:?}", plan.devices);
        ensure!(plan.processes.len() == 2 && plan.ports.len() == 2, "{:?}", plan.ports);
    }
    Ok(())
}

fn ambiguous() -> Result<()> {
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    let (first, second) = (unique("t"), unique("t"));
    let _held = [tun::open(&netns, &first, 0, 1)?, tun::open(&netns, &second, 0, 1)?];
    for device in [&first, &second] {
        namespace.ip(&format!("link set {device} up"))?;
    }
    let scope = vec![named(&namespace)];
    for selector in [
        Selector { netns: scope.clone(), ..Selector::default() },
        Selector { netns: scope.clone(), pid: Some(std::process::id()), ..Selector::default() },
        Selector { netns: scope.clone(), tun: Some("t*".into()), ..Selector::default() },
        Selector { netns: scope.clone(), comm: process::comm(std::process::id()), ..Selector::default() },
    ] {
        let error = discover(&selector).err().context("no error")?;
        let Error::Ambiguous { candidates, options } = &error else { anyhow::bail!("{error}") };
        let expected = format!("pid {}) in netns {}", std::process::id(), namespace.name);
        ensure!(candidates.len() == 2 && candidates.iter().all(|one| one.ends_with(&expected)), "{error}");
        ensure!(candidates[0].starts_with(&first) && options == "--tun IFACE", "{error}");
    }
    // Machine-wide there may be others too: ours are listed.
    let error = from_inside(&namespace, Selector::default())?.err().context("no error")?;
    ensure!(error.to_string().contains(&first) && error.to_string().contains(&second), "{error}");
    // A destination decides between them.
    namespace.ip(&format!("route add 10.97.0.0/24 dev {second}"))?;
    let selector = Selector { tun: Some("t*".into()), netns: scope, ..to("10.97.0.2") };
    ensure!(discover(&selector)?.tunnels[0].interface == second);
    Ok(())
}

fn multi_queue() -> Result<()> {
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    let name = unique("t");
    let flags = libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR;
    let mut held = tun::open(&netns, &name, flags, 3)?;
    let selector = Selector { tun: Some(name), netns: vec![named(&namespace)], ..Selector::default() };
    let plan = discover(&selector)?;
    let tunnel = &plan.tunnels[0];
    ensure!(tunnel.queues == Some(3) && tunnel.tun_flags == Some(0x5101), "{tunnel:?}");
    ensure!(tunnel.daemon.as_ref().map(|daemon| daemon.pid) == Some(std::process::id()));
    held.pop();
    let next = rediscover(&plan)?;
    let changes = diff(&plan, &next);
    ensure!(changes.iter().any(|change| change.contains("3 -> 2")), "{changes:?}");
    Ok(())
}

fn daemon_elsewhere() -> Result<()> {
    let pair = Pair::new()?;
    let inner = Namespace::new()?;
    let device = &pair.wg_a.device;
    pair.a.ip(&format!("link set {device} netns {}", inner.name))?;
    inner.ip(&format!("addr add 10.98.0.1/24 dev {device}"))?;
    inner.ip(&format!("link set {device} up"))?;
    // The same name beside the daemon must not be mistaken for its device.
    let decoy_netns = open(&pair.a)?;
    let _decoy = tun::open(&decoy_netns, device, 0, 1)?;
    let plan = from_inside(&inner, to("10.98.0.2"))??;
    let (inside, outside) = (named(&inner).inum()?, named(&pair.a).inum()?);
    let tunnel = &plan.tunnels[0];
    ensure!(tunnel.interface == *device && tunnel.netns == inside, "{tunnel:?}");
    let daemon = tunnel.daemon.as_ref().context("no daemon")?;
    ensure!(daemon.pid == pair.wg_a.pid() && daemon.netns == outside, "{daemon:?}");
    ensure!(tunnel.sockets.iter().all(|socket| socket.netns == outside), "{tunnel:?}");
    ensure!(tunnel.outer_devices.len() == 1 && tunnel.outer_devices[0].netns == outside, "{tunnel:?}");
    ensure!(plan.netns.iter().map(Netns::inum).collect::<Vec<_>>() == [inside, outside]);
    Ok(())
}

fn tunnel_in_tunnel() -> Result<()> {
    let pair = Pair::new()?;
    let inner_a = End::start(&pair.a, 51821, "10.97.0.1/24")?;
    let inner_b = End::start(&pair.b, 51821, "10.97.0.2/24")?;
    inner_a.peer(&inner_b, "10.98.0.2:51821", "10.97.0.2/32")?;
    inner_b.peer(&inner_a, "10.98.0.1:51821", "10.97.0.1/32")?;
    let plan = from_inside(&pair.a, to("10.97.0.2"))??;
    let names: Vec<&str> = plan.tunnels.iter().map(|tunnel| tunnel.interface.as_str()).collect();
    ensure!(names == [&inner_a.device, &pair.wg_a.device], "{names:?}");
    ensure!(plan.tunnels[0].outer_devices[0].name == pair.wg_a.device);
    ensure!(device(&plan, &pair.wg_a.device)? == ("tunnel".into(), false, 0));
    ensure!(device(&plan, "vd0")? == ("outer".into(), true, 14));
    ensure!(plan.devices.len() == 3 && plan.processes.len() == 2, "{:?}", plan.devices);
    ensure!(diff(&plan, &rediscover(&plan)?).is_empty());
    Ok(())
}

fn bare_link() -> Result<()> {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    connect(&a, &b)?;
    let plan = from_inside(&a, to("10.99.0.2"))??;
    ensure!(plan.tunnels.is_empty() && plan.ports.is_empty() && plan.processes.is_empty());
    ensure!(device(&plan, "vd0")? == ("outer".into(), false, 14));
    ensure!(plan.notes.iter().any(|note| note.contains("no tunnel on this path")), "{:?}", plan.notes);
    let both = Selector { netns: vec![named(&a), named(&b)], ..to("10.99.0.2") };
    let plan = discover(&both)?;
    ensure!(plan.devices.len() == 2, "{:?}", plan.devices);
    let named_device = Selector { outer: Some("vd0".into()), netns: vec![named(&a)], ..Selector::default() };
    let plan = discover(&named_device)?;
    ensure!(device(&plan, "vd0")? == ("outer".into(), false, 14));
    ensure!(rediscover(&plan)?.devices == plan.devices);
    // An address of its own never leaves the machine.
    let plan = from_inside(&a, to("10.99.0.1"))??;
    ensure!(device(&plan, "lo").is_ok() && !plan.notes.is_empty(), "{plan:?}");
    Ok(())
}

fn outer_options() -> Result<()> {
    let pair = Pair::new()?;
    pair.a.ip("link add vx0 type veth peer name vx1")?;
    let outer = |text: &str| Selector { outer: Some(text.into()), ..to("10.98.0.2") };
    let plan = from_inside(&pair.a, outer("vx0"))??;
    ensure!(plan.tunnels[0].outer_devices[0].name == "vx0", "{:?}", plan.tunnels);
    ensure!(device(&plan, "vd0").is_err() && device(&plan, "vx0")?.1);
    let plan = from_inside(&pair.a, outer("10.99.0.2:7777"))??;
    ensure!(plan.ports.iter().filter(|key| key.port == 7777).count() == 2, "{:?}", plan.ports);
    ensure!(device(&plan, "vd0")? == ("outer".into(), true, 14));
    let alone = Selector { outer: Some("10.99.0.1:7777".into()), ..Selector::default() };
    let plan = from_inside(&pair.a, alone)??;
    ensure!(plan.tunnels.is_empty() && device(&plan, "vd0")? == ("outer".into(), true, 14));
    let peer = Selector { peer: Some("10.99.0.2".parse()?), ..to("10.98.0.2") };
    ensure!(from_inside(&pair.a, peer)??.tunnels[0].outer_devices.len() == 1);
    let error = from_inside(&pair.a, outer("eth7"))?.err().context("no error")?;
    ensure!(matches!(error, Error::UnknownDevice { .. }), "{error}");
    Ok(())
}

fn kernel_tunnel() -> Result<()> {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    connect(&a, &b)?;
    a.ip("link add vxl0 type vxlan id 7 remote 10.99.0.2 dstport 4789 dev vd0")?;
    a.ip("addr add 10.98.0.1/24 dev vxl0")?;
    a.ip("link set vxl0 up")?;
    let plan = from_inside(&a, to("10.98.0.2"))??;
    let tunnel = &plan.tunnels[0];
    ensure!(tunnel.kind == TunnelKind::KernelOther && tunnel.daemon.is_none(), "{tunnel:?}");
    ensure!(device(&plan, "vd0")? == ("outer".into(), false, 14));
    // Moved away, it still sends through the namespace in which it was made.
    a.ip(&format!("link set vxl0 netns {}", b.name))?;
    b.ip("link set vxl0 up")?;
    let plan = discover(&Selector { tun: Some("vxl0".into()), netns: vec![named(&b)], ..Selector::default() })?;
    let outer = &plan.tunnels[0].outer_devices;
    ensure!(outer.len() == 1 && outer[0].netns == named(&a).inum()?, "{outer:?} {:?}", plan.notes);
    Ok(())
}

fn restart() -> Result<()> {
    let mut pair = Pair::new()?;
    let plan = from_inside(&pair.a, to("10.98.0.2"))??;
    ensure!(diff(&plan, &rediscover(&plan)?).is_empty());
    let before = pair.wg_a.pid();
    pair.wg_a.stop();
    let gone = rediscover(&plan)?;
    let name = pair.wg_a.device.clone();
    let changes = diff(&plan, &gone);
    ensure!(changes.contains(&format!("device {name} is gone")), "{changes:?}");
    ensure!(gone.devices.len() == plan.devices.len() && gone.ports == plan.ports, "{gone:?}");
    pair.wg_a.restart(&pair.a, "10.98.0.1/24")?;
    pair.wg_a.peer(&pair.wg_b, "10.99.0.2:51820", "10.98.0.2/32")?;
    let again = rediscover(&gone)?;
    check_a(&pair, &again)?;
    let text = format!("daemon wireguard-go restarted: pid {before} -> {}", pair.wg_a.pid());
    ensure!(diff(&plan, &again).contains(&text), "{:?}", diff(&plan, &again));
    let text = format!("daemon wireguard-go (pid {}) opened {name}", pair.wg_a.pid());
    ensure!(diff(&gone, &again).contains(&text), "{:?}", diff(&gone, &again));
    Ok(())
}

fn dropped_rights() -> Result<()> {
    let pair = Pair::new()?;
    let plan = from_inside(&pair.a, to("10.98.0.2"))??;
    let watched = plan.clone();
    let again = std::thread::spawn(move || -> Result<Plan> {
        for netns in &watched.netns {
            netns.drop_privileges()?;
        }
        netns::keep_only(KEPT_BY_DISCOVERY)?;
        ensure!(Netns::open(&NetnsSpec::Pid(1)).is_err() || watched.netns.is_empty());
        Ok(rediscover(&watched)?)
    });
    let again = again.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    check_a(&pair, &again)?;
    ensure!(diff(&plan, &again).is_empty(), "{:?}", diff(&plan, &again));
    Ok(())
}

fn link_watch() -> Result<()> {
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
    for expected in [("vx0", LinkChange::Added), ("vx0", LinkChange::Changed), ("vx2", LinkChange::Added), ("vx0", LinkChange::Removed)] {
        ensure!(seen.iter().any(|(name, change)| (name.as_str(), *change) == expected), "{expected:?} {seen:?}");
    }
    drop(watch);
    let closed = || matches!(events.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    ensure!(wait_for(Duration::from_secs(2), closed), "the watcher goes on");
    Ok(())
}

fn errors() -> Result<()> {
    let pair = Pair::new()?;
    let inside = |selector| -> Result<String> {
        Ok(from_inside(&pair.a, selector)?.err().context("no error")?.to_string())
    };
    let text = inside(Selector { tun: Some("nosuch0".into()), ..Selector::default() })?;
    ensure!(text.contains("nosuch0") && text.contains("vd0") && text.contains(&pair.a.name), "{text}");
    let text = inside(Selector { tun: Some("vd0".into()), ..Selector::default() })?;
    ensure!(text.contains("veth") && text.contains("--outer vd0"), "{text}");
    let text = inside(Selector { pid: Some(4_000_000_000), ..Selector::default() })?;
    ensure!(text.contains("no process 4000000000"), "{text}");
    let text = inside(Selector { pid: Some(1), ..Selector::default() })?;
    ensure!(text.contains("pid 1 holds no TUN device") && text.contains("--tun"), "{text}");
    let text = inside(Selector { comm: Some("nosuchd".into()), ..Selector::default() })?;
    ensure!(text.contains("nosuchd") && text.contains("--tun"), "{text}");
    let text = inside(to("192.0.2.1"))?;
    ensure!(text.contains("192.0.2.1") && text.contains(&pair.a.name), "{text}");
    let text = inside(to("no-such-host.invalid"))?;
    ensure!(text.contains("no-such-host.invalid"), "{text}");
    let empty = Namespace::new()?;
    let error = discover(&Selector { netns: vec![named(&empty)], ..Selector::default() }).err();
    ensure!(matches!(error, Some(Error::NoTunnel(_))), "{error:?}");
    let error = discover(&Selector { netns: vec!["nosuchns".parse()?], ..Selector::default() }).err();
    ensure!(error.as_ref().is_some_and(|error| error.to_string().contains(&empty.name)), "{error:?}");
    Ok(())
}

fn environment() -> Result<()> {
    let pair = Pair::new()?;
    pair.a.ip("route add 10.50.0.0/16 via 10.99.0.2 mtu 1300")?;
    pair.a.exec("tc qdisc add dev vd0 root pfifo limit 77")?;
    pair.a.exec("ping -c 1 -W 2 10.98.0.2")?;
    let plan = discover(&Selector { netns: vec![named(&pair.a), named(&pair.b)], ..to("10.98.0.2") })?;
    let processes = [(pair.wg_a.pid(), "daemon"), (pair.wg_b.pid(), "daemon")];
    let begin = std::time::Instant::now();
    let environment = record::snapshot(&plan.netns, &processes);
    let took = begin.elapsed();
    say(&format!("snapshot of two namespaces: {} ms", took.as_millis()));
    ensure!(environment.missing.is_empty(), "{:?}", environment.missing);
    ensure!(environment.namespaces.len() == 2);
    let side = &environment.namespaces[0];
    ensure!(side.name.as_ref() == Some(&pair.a.name));
    ensure!(side.sysctls.contains_key("net.core.rmem_max"), "{:?}", side.sysctls);
    let vd0 = side.links.iter().find(|link| link.name == "vd0").context("no vd0")?;
    ensure!(vd0.kind.as_deref() == Some("veth") && vd0.mtu == 1500 && vd0.tx_queue_len > 0, "{vd0:?}");
    ensure!(vd0.addresses.contains(&"10.99.0.1/24".to_owned()), "{vd0:?}");
    ensure!(vd0.flags.contains(&"up".to_owned()) && vd0.counters.tx_packets > 0, "{vd0:?}");
    ensure!(vd0.qdiscs.iter().any(|one| one.kind == "pfifo" && one.parent == "root"), "{vd0:?}");
    ensure!(vd0.offloads.get("rx-gro").is_some() && vd0.offloads.len() > 30, "{vd0:?}");
    let route = "10.50.0.0/16 via 10.99.0.2 dev vd0 proto boot mtu 1300";
    ensure!(side.routes.iter().any(|one| one == route), "{:?}", side.routes);
    let direct = "10.98.0.0/24 dev ";
    ensure!(side.routes.iter().any(|one| one.starts_with(direct) && one.contains("src 10.98.0.1")));
    ensure!(side.counters.get("IcmpOutEchos") == Some(&1), "{:?}", side.counters.get("IcmpOutEchos"));
    let daemon: Vec<_> = environment.threads.iter().filter(|one| one.tgid == pair.wg_a.pid()).collect();
    ensure!(daemon.len() > 1 && daemon.iter().any(|one| one.runtime_ns > 0), "{daemon:?}");
    ensure!(environment.threads.iter().any(|one| one.comm.starts_with("ksoftirqd/") && one.role == "kernel"));
    let (versions, missing) = record::versions(&[pair.wg_a.pid()], &words("iperf3 -c 10.98.0.2"));
    ensure!(versions["wireguard-go"].contains("wireguard-go"), "{versions:?} {missing:?}");
    ensure!(versions["iperf3"].starts_with("iperf 3"), "{versions:?}");
    Ok(())
}
