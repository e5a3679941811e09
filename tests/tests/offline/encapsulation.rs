//! Tunnels whose packets carry the inner packet as it is: taken off, and each inner packet found in its own
//! outer one. Captures made by hand, with tshark as the independent account, and one of a real VXLAN.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vpnbench::report::Report;
use vpnbench_tests::netns::{Namespace, connect, wait_for};

use crate::join::report;
use crate::make::{Format, Link, Packet, connection};
use crate::tshark;

/// Ends of the tunnel.
const ENDS: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const ETHERNET: [u8; 14] = [2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 0];
/// Looks at the files without a change before they count as complete (10 ms or more apart).
const QUIET_LOOKS: u32 = 150;
const PATIENCE: Duration = Duration::from_secs(20);

/// A tunnel: its IP protocol, UDP port, header, whether there is Ethernet inside, and the name of its device.
struct Tunnel {
    protocol: u8,
    port: u16,
    header: &'static [u8],
    ethernet: bool,
    device: &'static str,
}

const TUNNELS: [Tunnel; 5] = [
    Tunnel {
        protocol: 4,
        port: 0,
        header: &[],
        ethernet: false,
        device: "ipip0",
    },
    Tunnel {
        protocol: 47,
        port: 0,
        header: &[0, 0, 8, 0],
        ethernet: false,
        device: "gre0",
    },
    Tunnel {
        protocol: 47,
        port: 0,
        // With key and sequence number, and Ethernet inside (gretap).
        header: &[0x30, 0, 0x65, 0x58, 0, 0, 0, 7, 0, 0, 0, 1],
        ethernet: true,
        device: "gre0",
    },
    Tunnel {
        protocol: 17,
        port: 4789,
        header: &[8, 0, 0, 0, 0, 0, 42, 0],
        ethernet: true,
        device: "vxlan0",
    },
    Tunnel {
        protocol: 17,
        port: 6081,
        header: &[2, 0, 0x65, 0x58, 0, 0, 42, 0, 1, 2, 0x80, 1, 0, 0, 0, 0],
        ethernet: true,
        device: "geneve0",
    },
];

impl Tunnel {
    fn wrap(&self, number: usize, inner: &Packet) -> Result<Packet> {
        let mut payload = self.header.to_vec();
        if self.ethernet {
            payload.extend(ETHERNET);
        }
        payload.extend(&inner.bytes);
        if self.port != 0 {
            let length = payload.len() as u16 + 8;
            let header = [50_000u16, self.port, length, 0].map(u16::to_be_bytes);
            payload.splice(0..0, header.concat());
        }
        let [near, far] = ENDS;
        let (from, to) = if inner.outgoing {
            (near, far)
        } else {
            (far, near)
        };
        let protocol = etherparse::IpNumber(self.protocol);
        let mut header = etherparse::Ipv4Header::new(payload.len() as u16, 64, protocol, from, to)?;
        header.identification = number as u16 + 1;
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = Vec::new();
        header.write(&mut bytes)?;
        bytes.extend(payload);
        Ok(Packet {
            bytes,
            ..inner.clone()
        })
    }
}

fn analyze(path: &Path) -> Result<Report> {
    let path = path.to_str().context("a path of letters")?;
    report(&["analyze", path, "--local", "192.0.2.1"])
}

/// Inner TCP packets and their payload, as tshark counts them.
fn by_tshark(path: &Path) -> Result<(u64, u64)> {
    let mut tshark = Command::new("tshark");
    tshark
        .arg("-r")
        .arg(path)
        .args(["-Y", "tcp", "-T", "fields", "-e", "tcp.len"]);
    let output = tshark.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "tshark: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let lengths: Result<Vec<u64>, _> = text.lines().map(str::parse).collect();
    let lengths = lengths?;
    Ok((lengths.len() as u64, lengths.iter().sum()))
}

/// Inner packets and payload at the tunnel device, and whether every inner packet was found in an outer one.
fn inner(report: &Report) -> Result<(u64, u64)> {
    let inner = report
        .flows
        .iter()
        .filter(|flow| flow.tap.starts_with("tun.") && flow.protocol == "tcp");
    let sums = inner.fold((0, 0), |sum, flow| {
        (sum.0 + flow.packets, sum.1 + flow.payload_bytes)
    });
    let stages = &report.ledger.as_ref().context("a ledger")?.stages;
    let daemon: Vec<_> = stages
        .iter()
        .filter(|stage| stage.name.starts_with("daemon"))
        .collect();
    ensure!(!daemon.is_empty(), "{stages:?}");
    for stage in daemon {
        // What is not IP (ARP inside of Ethernet) is the tunnel's own.
        let paired = stage.left - stage.originated;
        ensure!(
            stage.entered == paired && stage.lost == 0 && stage.unexplained == 0,
            "{stage:?}"
        );
    }
    Ok(sums)
}

pub(crate) fn by_hand() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let packets = connection()?;
    for tunnel in &TUNNELS {
        let wrapped: Result<Vec<Packet>> = packets
            .iter()
            .enumerate()
            .map(|(number, packet)| tunnel.wrap(number, packet))
            .collect();
        let path = folder.path().join("outer.pcap");
        std::fs::write(&path, Format::PLAIN.file(Link::Ethernet, 65_536, &wrapped?))?;
        let report = analyze(&path)?;
        let device = &report.tunnel.as_ref().context(tunnel.device)?.interface;
        ensure!(
            device == tunnel.device,
            "{device} instead of {}",
            tunnel.device
        );
        let found = inner(&report).context(tunnel.device)?;
        ensure!(
            found.0 == packets.len() as u64,
            "{}: {found:?}",
            tunnel.device
        );
        ensure!(
            report.retransmits.total == Some(1),
            "{:?}",
            report.retransmits
        );
        if tshark::missing().is_none() {
            let theirs = by_tshark(&path)?;
            ensure!(
                theirs == found,
                "{}: tshark {theirs:?}, {found:?}",
                tunnel.device
            );
        }
    }
    Ok(())
}

/// Why there is no VXLAN here.
pub(crate) fn vxlan_missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let found = |name: &str| {
        let mut command = Command::new(name);
        let ended = command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ended.is_ok()
    };
    if !found("tcpdump") {
        return Some("tcpdump is not installed".to_owned());
    }
    let namespace = Namespace::new().ok()?;
    let made =
        namespace.ip("link add vx0 type vxlan id 1 dstport 4789 remote 192.0.2.9 local 127.0.0.1");
    made.err()
        .map(|error| format!("this kernel has no VXLAN: {error}"))
}

/// A real VXLAN between two namespaces: the outer capture alone shows what tcpdump sees at the tunnel device.
pub(crate) fn real_vxlan() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    connect(&a, &b)?;
    for (here, address, inner) in [(&a, "10.99.0", 1), (&b, "10.99.0", 2)] {
        let other = 3 - inner;
        here.ip(&format!(
            "link add vx0 type vxlan id 42 dstport 4789 local {address}.{inner} remote {address}.{other} dev vd0"
        ))?;
        // Nothing but the transfer: no neighbour discovery.
        here.ip(&format!(
            "link set vx0 address 02:00:00:00:07:0{inner} addrgenmode none"
        ))?;
        here.ip(&format!("addr add 10.98.7.{inner}/24 dev vx0"))?;
        here.ip("link set vx0 up")?;
        here.ip(&format!(
            "neigh replace 10.98.7.{other} lladdr 02:00:00:00:07:0{other} dev vx0 nud permanent"
        ))?;
    }
    let dump = |device: &str| -> Result<(std::process::Child, std::path::PathBuf)> {
        let path = folder.path().join(format!("{device}.pcap"));
        let line = format!(
            "netns exec {} tcpdump -n -U -s 200 -B 32768 -Z root -i {device} -w {} tcp or udp port 4789",
            a.name,
            path.display()
        );
        let child = Command::new("ip")
            .args(line.split_whitespace())
            .stderr(Stdio::null())
            .spawn()?;
        ensure!(
            wait_for(PATIENCE, || path
                .metadata()
                .is_ok_and(|file| file.len() >= 24)),
            "tcpdump does not start"
        );
        Ok((child, path))
    };
    let (mut outer, outer_path) = dump("vd0")?;
    let (mut tunnel, tunnel_path) = dump("vx0")?;
    transfer(&a, &b)?;
    // What is in the kernel's buffers comes to the files within tcpdump's timeout of a second: until nothing more does.
    let (mut size, mut looks) = (0, 0);
    let settled = wait_for(PATIENCE, || {
        let files =
            [&outer_path, &tunnel_path].map(|path| path.metadata().map_or(0, |file| file.len()));
        let now = files.iter().sum::<u64>();
        looks = if now == size { looks + 1 } else { 0 };
        size = now;
        looks > QUIET_LOOKS
    });
    ensure!(settled, "the captures do not end");
    for child in [&mut outer, &mut tunnel] {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        child.wait()?;
    }
    let path = outer_path.to_str().context("a path of letters")?;
    let report = report(&["analyze", path])?;
    let found = inner(&report)?;
    ensure!(found.1 > 3_000_000, "{found:?}");
    if tshark::missing().is_none() {
        // Units of several segments are one packet to tshark, so payload is compared.
        let theirs = by_tshark(&tunnel_path)?;
        ensure!(theirs.1 == found.1, "tshark at vx0 {theirs:?}, {found:?}");
    }
    Ok(())
}

/// 4 MB from a to b over the tunnel.
fn transfer(a: &Namespace, b: &Namespace) -> Result<()> {
    let python = |host: &Namespace, program: &str| -> Result<std::process::Child> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host.name, "python3", "-c", program]);
        Ok(command.stdout(Stdio::piped()).spawn()?)
    };
    let mut server = python(
        b,
        "import socket\ns=socket.create_server(('10.98.7.2',7007))\nprint('up',flush=True)\nc,_=s.accept()\nn=0\nwhile True:\n d=c.recv(65536)\n if not d: break\n n+=len(d)\nprint(n)",
    )?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(
        server.stdout.take().context("a pipe")?,
    ));
    ensure!(
        lines.next().context("a line")?? == "up",
        "the server does not start"
    );
    let client = python(
        a,
        "import socket\nc=socket.create_connection(('10.98.7.2',7007),20)\nc.sendall(b'x'*4000000)\nc.shutdown(1)\nc.recv(1)",
    )?;
    let ended = client.wait_with_output()?.status;
    ensure!(ended.success(), "the client: {ended}");
    let received = lines.next().context("a line")??;
    ensure!(received == "4000000", "{received} bytes came");
    server.wait()?;
    Ok(())
}
