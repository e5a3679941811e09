//! Which group a function belongs to: rules anyone can read and add to (`groups.txt`).

use std::fmt;

/// Rules of this version.
const RULES: &str = include_str!("groups.txt");

/// What code does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Encrypts, decrypts, hashes.
    Crypto,
    /// Copies.
    Copy,
    /// The way into the kernel and back.
    SystemCall,
    /// The kernel's network stack, devices and queues.
    Network,
    /// Sleeping, waking, switching.
    Scheduler,
    /// A language's run-time: scheduler, collector, allocator.
    Runtime,
    /// vpnbench's own probes.
    Probe,
    /// Anything else.
    Other,
}

impl Group {
    /// All groups.
    pub const ALL: [Group; 8] = [
        Group::Crypto,
        Group::Copy,
        Group::SystemCall,
        Group::Network,
        Group::Scheduler,
        Group::Runtime,
        Group::Probe,
        Group::Other,
    ];

    /// Name in rules and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::Crypto => "crypto",
            Group::Copy => "copy",
            Group::SystemCall => "system-call",
            Group::Network => "network",
            Group::Scheduler => "scheduler",
            Group::Runtime => "runtime",
            Group::Probe => "probe",
            Group::Other => "other",
        }
    }
}

/// Where a function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the kernel.
    Kernel,
    /// In the program.
    User,
}

#[derive(Debug, Clone)]
struct Rule {
    group: Group,
    side: Option<Side>,
    file: bool,
    pattern: String,
}

/// Rules in order.
#[derive(Debug, Clone)]
pub struct Rules {
    all: Vec<Rule>,
}

/// A line that is no rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRule {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for BadRule {}

impl Default for Rules {
    fn default() -> Self {
        Rules::parse(RULES).expect("a test reads the rules of this version")
    }
}

impl Rules {
    /// Reads rules, one per line: GROUP SIDE PATTERN.
    ///
    /// # Errors
    /// The first line that is no rule.
    pub fn parse(text: &str) -> Result<Rules, BadRule> {
        let lines = text.lines().enumerate();
        let lines = lines.map(|(number, line)| (number + 1, line.trim()));
        let rules = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let all = rules.map(|(line, text)| rule(text).map_err(|reason| BadRule { line, reason }));
        Ok(Rules {
            all: all.collect::<Result<_, _>>()?,
        })
    }

    /// These rules, and behind them the others.
    #[must_use]
    pub fn before(mut self, others: Rules) -> Rules {
        self.all.extend(others.all);
        self
    }

    /// The group of a function `name+0xoffset [file]`, if a rule fits it.
    #[must_use]
    pub fn group(&self, side: Side, symbol: &str) -> Option<Group> {
        let (name, file) = match symbol.rsplit_once('[') {
            Some((name, file)) => (name.trim_end(), file.trim_end_matches(']')),
            None => (symbol, ""),
        };
        let name = name.split_once("+0x").map_or(name, |(name, _)| name);
        let fits = |rule: &&Rule| {
            let text = if rule.file { file } else { name };
            rule.side.is_none_or(|wanted| wanted == side)
                && !text.is_empty()
                && matches(&rule.pattern, text)
        };
        self.all.iter().find(fits).map(|rule| rule.group)
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [group, side, pattern] = words[..] else {
        return Err("a rule is GROUP SIDE PATTERN".to_owned());
    };
    let known = Group::ALL.into_iter().find(|one| one.name() == group);
    let group = known.ok_or_else(|| {
        let names = Group::ALL.map(Group::name).join(", ");
        format!("\"{group}\" is no group; groups: {names}")
    })?;
    let side = match side {
        "kernel" => Some(Side::Kernel),
        "user" => Some(Side::User),
        "any" => None,
        other => return Err(format!("\"{other}\" is not kernel, user or any")),
    };
    let file = pattern
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    Ok(Rule {
        group,
        side,
        file: file.is_some(),
        pattern: file.unwrap_or(pattern).to_owned(),
    })
}

/// `*` stands for any text, also none.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("tcp_*", "tcp_ack", true),
            ("tcp_*", "__tcp_ack", false),
            ("*chacha*", "wg_chacha20", true),
            ("free", "free", true),
            ("free", "kfree", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxc", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn groups_of_known_functions() {
        let rules = Rules::default();
        for (side, symbol, group) in [
            (Side::User, "[libcrypto.so.3]", Some(Group::Crypto)),
            (
                Side::User,
                "EVP_CipherUpdate+0x12 [libcrypto.so.3]",
                Some(Group::Crypto),
            ),
            (
                Side::User,
                "golang.org/x/crypto/chacha20poly1305.(*chacha20poly1305).Seal+0x3 [wireguard-go]",
                Some(Group::Crypto),
            ),
            (
                Side::User,
                "runtime.memmove+0x1 [wireguard-go]",
                Some(Group::Copy),
            ),
            (
                Side::User,
                "runtime.findRunnable+0x1 [wireguard-go]",
                Some(Group::Runtime),
            ),
            (
                Side::User,
                "internal/runtime/syscall.Syscall6+0x1 [a]",
                Some(Group::SystemCall),
            ),
            (Side::Kernel, "rep_movs_alternative+0x1", Some(Group::Copy)),
            (
                Side::Kernel,
                "tun_do_read+0x1f2 [tun]",
                Some(Group::Network),
            ),
            (Side::Kernel, "__schedule+0x2", Some(Group::Scheduler)),
            (Side::Kernel, "do_syscall_64+0x2", Some(Group::SystemCall)),
            (Side::User, "main+0x2 [openvpn]", None),
        ] {
            assert_eq!(rules.group(side, symbol), group, "{symbol}");
        }
    }

    #[test]
    fn own_rules_come_first_and_bad_ones_name_their_line() {
        let own = Rules::parse("# mine\ncopy user main\n").expect("a rule");
        let rules = own.before(Rules::default());
        assert_eq!(
            rules.group(Side::User, "main+0x2 [openvpn]"),
            Some(Group::Copy)
        );
        let error = Rules::parse("\ncipher user x").expect_err("no such group");
        assert_eq!(error.line, 2);
        assert!(Rules::parse("copy all x").is_err());
        assert!(Rules::parse("copy").is_err());
    }
}
