//! Discovery against real daemons and devices in namespaces of its own.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use vpnbench::probe::discover::{
    Error, LinkChange, Plan, Selector, diff, discover, process, rediscover,
};
use vpnbench::probe::netns::{self, Capability, KEPT_BY_DISCOVERY, Netns, NetnsSpec};
use vpnbench::record::environment as record;
use vpnbench::trace::model::TunnelKind;
use vpnbench_tests::netns::{Namespace, Process, connect, unique, wait_for};
use vpnbench_tests::tun;
use vpnbench_tests::wireguard::{End, Pair};

#[path = "discover/find.rs"]
mod find;
#[path = "discover/follow.rs"]
mod follow;
#[path = "discover/shapes.rs"]
mod shapes;

type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("from_the_command", find::from_the_command),
    ("from_names", find::from_names),
    ("both_ends", find::both_ends),
    ("ambiguous", find::ambiguous),
    ("multi_queue", shapes::multi_queue),
    ("daemon_elsewhere", shapes::daemon_elsewhere),
    ("tunnel_in_tunnel", shapes::tunnel_in_tunnel),
    ("bound_socket", shapes::bound_socket),
    ("bare_link", shapes::bare_link),
    ("outer_options", shapes::outer_options),
    ("kernel_tunnel", shapes::kernel_tunnel),
    ("restart", follow::restart),
    ("dropped_rights", follow::dropped_rights),
    ("foreign_daemon", follow::foreign_daemon),
    ("link_watch", follow::link_watch),
    ("errors", find::errors),
    ("environment", follow::environment),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let root = nix::unistd::geteuid().is_root();
    if !root {
        say("skipped: needs root");
    }
    let trial = |&(name, body): &Test| {
        Trial::test(name, move || {
            body().map_err(|error| Failed::from(format!("{error:#}")))
        })
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
    Selector {
        command: words(&format!("iperf3 -c {destination}")),
        ..Selector::default()
    }
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
    ensure!(
        tunnel.interface == pair.wg_a.device && tunnel.netns == inum,
        "{tunnel:?}"
    );
    ensure!(
        tunnel.kind == TunnelKind::Tun && tunnel.mtu == 1420,
        "{tunnel:?}"
    );
    ensure!(
        tunnel.tun_flags == Some(1) && tunnel.queues == Some(1),
        "{tunnel:?}"
    );
    let daemon = tunnel.daemon.as_ref().context("no daemon")?;
    ensure!(
        daemon.pid == pair.wg_a.pid() && daemon.comm == "wireguard-go",
        "{daemon:?}"
    );
    ensure!(
        daemon.netns == inum && daemon.threads > 1 && daemon.exe.is_some(),
        "{daemon:?}"
    );
    let udp = tunnel
        .sockets
        .iter()
        .filter(|one| one.ip_proto == 17 && one.local_port == 51820);
    ensure!(udp.clone().count() >= 1, "{:?}", tunnel.sockets);
    ensure!(
        udp.clone().all(|one| one.netns == inum && one.inode != 0),
        "{:?}",
        tunnel.sockets
    );
    ensure!(
        tunnel.remotes == ["10.99.0.2:51820"],
        "{:?}",
        tunnel.remotes
    );
    ensure!(tunnel.outer_devices.len() == 1 && tunnel.outer_devices[0].name == "vd0");
    ensure!(device(plan, &pair.wg_a.device)? == ("tunnel".into(), false, 0));
    ensure!(device(plan, "vd0")? == ("outer".into(), true, 14));
    ensure!(
        plan.ports
            .iter()
            .any(|key| (key.netns, key.port, key.ip_proto) == (inum, 51820, 17))
    );
    ensure!(
        plan.processes == [(pair.wg_a.pid(), 1)],
        "{:?}",
        plan.processes
    );
    ensure!(plan.netns.iter().map(Netns::inum).collect::<Vec<_>>() == [inum]);
    let flags = pair.a.exec(&format!(
        "cat /sys/class/net/{}/tun_flags",
        tunnel.interface
    ))?;
    ensure!(flags.trim() == "0x1", "{flags}");
    Ok(())
}
