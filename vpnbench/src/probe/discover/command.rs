//! Reads a benchmark's command line: in which namespace it runs and whom it talks to.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::probe::netns::NetnsSpec;

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Namespace that a wrapper (`ip netns exec`, `nsenter`) switches to.
    pub netns: Option<NetnsSpec>,
    /// The program behind all wrappers.
    pub tool: Option<String>,
    /// Arguments that can be the destination, the likeliest first: addresses or host names.
    pub hosts: Vec<String>,
    /// Whether the tool is known, so that the first host is the destination and no guess.
    pub known: bool,
    /// Whether the command asks for IPv6.
    pub v6: bool,
}

/// How a tool is told its destination.
struct Tool {
    names: &'static [&'static str],
    /// Options whose value is the destination.
    destination: &'static [&'static str],
    /// Letters of short options that take a value, so that it is not read as the destination.
    valued: &'static str,
    /// Long options that take a value in the next argument.
    valued_long: &'static [&'static str],
    /// Whether the first positional argument is the destination.
    positional: bool,
}

const TOOLS: &[Tool] = &[
    Tool {
        names: &["iperf3", "iperf"],
        destination: &["-c", "--client"],
        valued: "pifFMBnklPtbwASCLXIToxN",
        valued_long: &[],
        positional: false,
    },
    Tool {
        names: &["ping", "ping4", "ping6", "fping"],
        destination: &[],
        valued: "cFiIlmMNpQsSTtwWe",
        valued_long: &[],
        positional: true,
    },
    Tool {
        names: &["ssh", "sftp", "mosh"],
        destination: &[],
        valued: "bcDEeFIiJLlmOopQRSWwBP",
        valued_long: &[],
        positional: true,
    },
    Tool {
        names: &["curl"],
        destination: &["--url"],
        valued: "AbcCdDeEFhHKmoPQrtTuUwxXyYz",
        valued_long: &[
            "--max-time",
            "--output",
            "--header",
            "--data",
            "--limit-rate",
            "--interface",
            "--resolve",
            "--connect-timeout",
            "--user",
            "--request",
            "--write-out",
            "--proxy",
            "--cacert",
            "--range",
        ],
        positional: true,
    },
    Tool {
        names: &["wget", "wget2"],
        destination: &[],
        valued: "aoOtTwQPUeDIAR",
        valued_long: &[
            "--output-document",
            "--timeout",
            "--tries",
            "--limit-rate",
            "--header",
        ],
        positional: true,
    },
    Tool {
        names: &["netperf", "flent", "omping"],
        destination: &["-H", "--host"],
        valued: "aAbBcCDfFiIlLnNoOpPTtvWwyY",
        valued_long: &["--length", "--title", "--step-size", "--output"],
        positional: false,
    },
    Tool {
        names: &["qperf", "nperf"],
        destination: &["-c", "--connect"],
        valued: "iptlw",
        valued_long: &[],
        positional: true,
    },
    Tool {
        names: &["sockperf"],
        destination: &["-i", "--ip"],
        valued: "pmtb",
        valued_long: &[],
        positional: false,
    },
    Tool {
        names: &[
            "nc",
            "ncat",
            "netcat",
            "telnet",
            "mtr",
            "traceroute",
            "tracepath",
        ],
        destination: &[],
        valued: "wpsiqxXPTIOmcfgkN",
        valued_long: &[],
        positional: true,
    },
    Tool {
        names: &["nuttcp", "hping3", "sipp"],
        destination: &[],
        valued: "ltTNwpicsdM",
        valued_long: &[],
        positional: true,
    },
];

/// Programs that start another one, and the letters of their options that take a value.
const WRAPPERS: &[(&str, &str, usize)] = &[
    // name, valued options, positional arguments of its own before the command
    ("taskset", "p", 1),
    ("chrt", "pTPD", 1),
    ("timeout", "ks", 1),
    ("nice", "n", 0),
    ("ionice", "cnp", 0),
    ("env", "uCS", 0),
    ("stdbuf", "ioe", 0),
    ("sudo", "ugCDhpRrTtU", 0),
    ("doas", "uC", 0),
    ("time", "fo", 0),
    ("setsid", "", 0),
    ("nohup", "", 0),
    ("exec", "a", 0),
    ("numactl", "CNmip", 0),
    ("strace", "eopsaSuPEIbUX", 0),
    ("ltrace", "eopsaSunl", 0),
    ("perf", "", 0),
];

/// Reads a command line.
pub fn read(command: &[String]) -> Target {
    let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut target = Target::default();
    while let Some(rest) = unwrap(&words, &mut target.netns) {
        words = rest;
    }
    let Some((program, arguments)) = words.split_first() else {
        return target;
    };
    let program = base(program);
    target.tool = Some(program.to_owned());
    target.v6 = program.ends_with("ping6")
        || arguments
            .iter()
            .any(|word| matches!(*word, "-6" | "--ipv6"));
    let tool = TOOLS.iter().find(|tool| tool.names.contains(&program));
    if let Some(hosts) = tool
        .map(|tool| hosts_of(tool, arguments))
        .filter(|hosts| !hosts.is_empty())
    {
        target.hosts = hosts;
        target.known = true;
    } else {
        target.hosts = arguments.iter().filter_map(|word| host_in(word)).collect();
        // An address is a likelier destination than a word which might happen to be a name.
        target
            .hosts
            .sort_by_key(|host| host.parse::<IpAddr>().is_err());
    }
    target
}

/// The command behind a wrapper, or None if the first word is none.
fn unwrap<'a>(words: &[&'a str], netns: &mut Option<NetnsSpec>) -> Option<Vec<&'a str>> {
    let (program, rest) = words.split_first()?;
    match base(program) {
        "ip" => {
            let at = rest
                .iter()
                .position(|word| matches!(*word, "netns" | "net"))?;
            let (name, command) = match &rest[at..] {
                ["netns" | "net", "exec" | "e", name, command @ ..] => (name, command),
                _ => return None,
            };
            *netns = name.parse().ok();
            Some(command.to_vec())
        }
        "nsenter" => Some(unwrap_nsenter(rest, netns)),
        name => {
            let &(_, valued, own) = WRAPPERS.iter().find(|(wrapper, ..)| *wrapper == name)?;
            let own = if name == "perf" { 1 } else { own };
            Some(skip(rest, valued, own))
        }
    }
}

/// `nsenter -t PID -n CMD`, `nsenter --net=PATH CMD`, `nsenter -n/PATH CMD`.
fn unwrap_nsenter<'a>(words: &[&'a str], netns: &mut Option<NetnsSpec>) -> Vec<&'a str> {
    let (mut pid, mut net, mut path) = (None, false, None);
    let mut words = words.iter().copied();
    let command = loop {
        let Some(word) = words.next() else { break None };
        if word == "--" {
            break words.next();
        }
        let Some(option) = word.strip_prefix('-') else {
            break Some(word);
        };
        match option {
            "t" | "-target" | "S" | "-setuid" | "G" | "-setgid" => {
                let value = words.next();
                if matches!(option, "t" | "-target") {
                    pid = value;
                }
            }
            "n" | "-net" | "a" | "-all" => net = true,
            _ => {
                if let Some(value) = option.strip_prefix("-target=") {
                    pid = Some(value);
                } else if let Some(value) = option.strip_prefix("-net=") {
                    path = Some(value);
                } else if let Some(value) = option
                    .strip_prefix('t')
                    .filter(|_| !option.starts_with('-'))
                {
                    pid = Some(value);
                } else if let Some(value) = option.strip_prefix('n') {
                    // Either `-n/PATH` or several letters such as `-nm`.
                    path = value.starts_with('/').then_some(value).or(path);
                    net |= path.is_none();
                } else if !option.starts_with('-') {
                    net |= option.contains('n');
                }
            }
        }
    };
    *netns = match (path, pid.and_then(|pid| pid.parse().ok())) {
        (Some(path), _) => Some(NetnsSpec::Path(path.into())),
        (None, Some(pid)) if net => Some(NetnsSpec::Pid(pid)),
        _ => netns.take(),
    };
    command.into_iter().chain(words).collect()
}

/// Drops a wrapper's options, `NAME=value` words and its own positional arguments.
fn skip<'a>(words: &[&'a str], valued: &str, own: usize) -> Vec<&'a str> {
    let (mut at, mut left) = (0, own);
    while let Some(word) = words.get(at) {
        if *word == "--" {
            at += 1;
            break;
        }
        if word.len() > 1 && word.starts_with('-') {
            at += 1 + usize::from(takes_next(word, valued));
        } else if word.contains('=') && !word.starts_with('/') {
            at += 1;
        } else if left > 0 {
            left -= 1;
            at += 1;
        } else {
            break;
        }
    }
    let at = if left > 0 { at + left } else { at };
    words
        .get(at.min(words.len())..)
        .unwrap_or_default()
        .to_vec()
}

/// Whether a short option's value is the next word: its last letter takes one.
fn takes_next(word: &str, valued: &str) -> bool {
    !word.starts_with("--") && word.len() == 2 && word.ends_with(|letter| valued.contains(letter))
}

fn hosts_of(tool: &Tool, arguments: &[&str]) -> Vec<String> {
    let (mut named, mut positional) = (Vec::new(), Vec::new());
    let mut words = arguments.iter().copied().peekable();
    while let Some(word) = words.next() {
        let option = tool
            .destination
            .iter()
            .find(|option| word.starts_with(**option));
        if let Some(value) = option.and_then(|option| word.strip_prefix(option)) {
            let value = if value.is_empty() {
                words.next().unwrap_or_default()
            } else {
                value
            };
            named.extend(host_in(value.trim_start_matches('=')));
        } else if word.len() > 1 && word.starts_with('-') {
            if takes_next(word, tool.valued) || tool.valued_long.contains(&word) {
                words.next();
            }
        } else if tool.positional {
            positional.extend(host_in(word));
        }
    }
    // `ping A B` goes through A to B and `traceroute HOST LENGTH` has the host first: the first
    // positional argument stands for the path either way.
    named.extend(positional);
    named
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The host in a word: an address, `host:port`, `[v6]:port`, `user@host`, `user@host:path`, a URL.
fn host_in(word: &str) -> Option<String> {
    let rest = word.split_once("://").map_or(word, |(_, rest)| rest);
    let is_url = rest.len() != word.len();
    if (!is_url && (word.starts_with(['-', '/', '.']) || word.contains('='))) || word.is_empty() {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return Some(address.ip().to_string());
    }
    // `fe80::1%eth0`: the zone is no part of the address for a route lookup.
    let unzoned = authority.split('%').next()?;
    if let Ok(address) = unzoned.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let host = authority.split(':').next()?;
    let valid = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    // Numbers, durations and sizes are words of many command lines and resolve as addresses:
    // getaddrinfo reads `30` as 0.0.0.30.
    let named = host.contains(|letter: char| letter.is_ascii_alphabetic());
    let numeric = host.starts_with(|letter: char| letter.is_ascii_digit()) && !host.contains('.');
    (!host.is_empty() && named && !numeric && host.chars().all(valid)).then(|| host.to_owned())
}

/// Resolves a host. Without an address of the wanted family any will do.
pub fn resolve(host: &str, v6: bool) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let found: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .ok()?
        .map(|address| address.ip())
        .collect();
    let wanted = found.iter().find(|address| address.is_ipv6() == v6);
    wanted.or(found.first()).copied()
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
