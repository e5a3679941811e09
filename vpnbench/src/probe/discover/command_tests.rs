use super::*;

fn target(line: &str) -> Target {
    read(
        &line
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    )
}

#[test]
fn destinations() {
    for (line, host) in [
        ("iperf3 -c 10.2.0.2", "10.2.0.2"),
        ("iperf3 -c10.2.0.2 -t 30", "10.2.0.2"),
        ("iperf3 --client 10.2.0.2 -B 10.2.0.1", "10.2.0.2"),
        ("iperf3 --client=10.2.0.2", "10.2.0.2"),
        ("/usr/bin/iperf3 -t 30 -B 10.2.0.1 -c fd00::2", "fd00::2"),
        ("iperf3 -c vpn.yuki -u -b 0", "vpn.yuki"),
        (
            "iperf --bidir --connect-timeout 600 --time 30 --json -Z -c vpn.X --username mario",
            "vpn.X",
        ),
        ("ping 10.2.0.2", "10.2.0.2"),
        ("ping -c 100 -i 0.2 -W 1 vpn.X", "vpn.X"),
        ("ping -I 10.2.0.1 10.2.0.2", "10.2.0.2"),
        ("ping -c5 10.2.0.2", "10.2.0.2"),
        ("ping fe80::1%eth0", "fe80::1"),
        (
            "curl -s -o /dev/null http://10.2.0.2:8080/file?x=1",
            "10.2.0.2",
        ),
        ("curl http://user:pw@host.example/", "host.example"),
        ("curl https://[fd00::2]:443/x", "fd00::2"),
        ("curl --max-time 30 host.example", "host.example"),
        ("wget -q -O - http://cache.vpn.X/file", "cache.vpn.X"),
        (
            "ssh -p 2222 -l root user@10.2.0.2 cat /dev/zero",
            "10.2.0.2",
        ),
        ("netperf -H 10.2.0.2 -l 30 -t TCP_RR", "10.2.0.2"),
        ("qperf -i 1 -g 1 -t 30 -p 18001 -c vpn.X", "vpn.X"),
        ("qperf 10.2.0.2 tcp_bw", "10.2.0.2"),
        ("nc 10.2.0.2 5001", "10.2.0.2"),
        ("mybench --to 10.2.0.2:99", "10.2.0.2"),
        ("mybench 30 10.2.0.2", "10.2.0.2"),
        ("mybench 4k rist://10.2.0.2:40052?buffer=400", "10.2.0.2"),
    ] {
        assert_eq!(
            target(line).hosts.first().map(String::as_str),
            Some(host),
            "{line}"
        );
    }
}

#[test]
fn wrappers() {
    let name = |name: &str| Some(NetnsSpec::Name(name.into()));
    let path = |path: &str| Some(NetnsSpec::Path(path.into()));
    for (line, netns) in [
        ("iperf3 -c 10.2.0.2", None),
        ("ip netns exec a iperf3 -c 10.2.0.2", name("a")),
        ("ip -n x netns exec a iperf3 -c 10.2.0.2", name("a")),
        (
            "sudo ip netns exec a taskset -c 0 iperf3 -c 10.2.0.2",
            name("a"),
        ),
        (
            "nsenter -t 12 -n iperf3 -c 10.2.0.2",
            Some(NetnsSpec::Pid(12)),
        ),
        (
            "nsenter -n -t 12 -- iperf3 -c 10.2.0.2",
            Some(NetnsSpec::Pid(12)),
        ),
        (
            "nsenter -t12 -nm iperf3 -c 10.2.0.2",
            Some(NetnsSpec::Pid(12)),
        ),
        (
            "nsenter --target 12 --all iperf3 -c 10.2.0.2",
            Some(NetnsSpec::Pid(12)),
        ),
        (
            "nsenter --target=12 --net iperf3 -c 10.2.0.2",
            Some(NetnsSpec::Pid(12)),
        ),
        (
            "nsenter --net=/run/netns/a iperf3 -c 10.2.0.2",
            path("/run/netns/a"),
        ),
        (
            "nsenter -n/run/netns/a iperf3 -c 10.2.0.2",
            path("/run/netns/a"),
        ),
        ("nsenter -t 12 -m iperf3 -c 10.2.0.2", None),
        ("taskset 0x3 iperf3 -c 10.2.0.2", None),
        ("taskset -c 0,1 iperf3 -c 10.2.0.2", None),
        ("nice iperf3 -c 10.2.0.2", None),
        ("nice -n 5 iperf3 -c 10.2.0.2", None),
        ("nice -n5 timeout -k 5 30 iperf3 -c 10.2.0.2", None),
        ("timeout --signal=INT 30s iperf3 -c 10.2.0.2", None),
        ("env -u HOME LANG=C iperf3 -c 10.2.0.2", None),
        ("stdbuf -oL iperf3 -c 10.2.0.2", None),
        ("chrt -f 10 iperf3 -c 10.2.0.2", None),
        ("perf stat -- iperf3 -c 10.2.0.2", None),
    ] {
        let target = target(line);
        assert_eq!(target.netns, netns, "{line}");
        assert_eq!(target.tool.as_deref(), Some("iperf3"), "{line}");
        assert_eq!(target.hosts, ["10.2.0.2"], "{line}");
    }
}

#[test]
fn no_destination() {
    for line in [
        "",
        "sleep 30",
        "iperf3 -s",
        "mybench --out=/data/10.2.0.2 30s 4k",
        "ip netns exec a",
    ] {
        assert_eq!(target(line).hosts, Vec::<String>::new(), "{line}");
    }
    assert!(target("iperf3 -c 10.2.0.2").known);
    assert!(!target("mybench 10.2.0.2").known);
    assert_eq!(target("mybench word 10.2.0.2").hosts, ["10.2.0.2", "word"]);
}

#[test]
fn resolution() {
    assert_eq!(
        resolve("10.2.0.2", false),
        Some("10.2.0.2".parse().unwrap())
    );
    assert!(resolve("localhost", false).is_some_and(|address| address.is_loopback()));
}
