//! What every finding means: one source for `vpnbench explain ID` and docs/findings.md.

use std::fmt::Write as _;

use super::bounds::BOUNDS;
use super::findings;
use super::rule::Rule;

/// The explanation of one finding as plain text.
#[must_use]
pub fn describe(rule: &Rule) -> String {
    let mut text = format!("{}\n\n{}\n", rule.id, sentence(rule.claim));
    for (title, body) in parts(rule) {
        let _ = write!(text, "\n{title}\n  {body}\n");
    }
    text
}

/// docs/findings.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Findings\n\n\
         Generated from `vpnbench/src/explain/findings/`; do not edit.\n\
         Regenerate: `cargo run -p vpnbench --example gen_docs`.\n\n\
         `vpnbench explain ID` prints one of them. A finding is *supported* or *refuted* when its counts make it\n\
         so with a probability of at least 95 %, and *unknown* otherwise, with the reason. A missing probe, an\n\
         end that was not watched or lost events make it unknown, never refuted. Supported findings are ranked\n\
         by their share of the problem: of the time in which senders had unacknowledged data, of the packets\n\
         that did not arrive, or of the time a packet takes; each below those it follows from that account for half of it\n\
         or more (a cause of less leaves the larger part to something else); what a sender waits for is below all of them.\n\n\
         A ratio k of n is compared with a bound by its posterior under Jeffreys' prior,\n\
         Beta(k + 1/2, n - k + 1/2). A share of time counts as many observations as the state could change:\n\
         one for each round trip of a sender, one for each time that a queue holds its packets.\n\n\
         ## What losses cost\n\n\
         A window reduction costs the time until the window is back: K = cbrt(W (1 - beta) / C) s with\n\
         C = 0.4 and beta = 0.7, or W (1 - beta) / alpha round trips with alpha = 3 (1 - beta) / (1 + beta)\n\
         where that is less (RFC 9438, equations 2 and 4); W (1 - beta) is what the recoveries that were not\n\
         taken back gave up. Time in recoveries and waiting for timeouts is added. The share of all losses is\n\
         this time, of the busy time, as far as the congestion window was what limited; each place has the\n\
         part of it that it has of the lost segments, and spurious retransmissions have theirs.\n\n\
         ## Bounds\n\n| bound | value | source |\n| --- | --- | --- |\n",
    );
    for bound in BOUNDS {
        let _ = writeln!(
            text,
            "| {} | {} {} | {} |",
            bound.name, bound.value, bound.unit, bound.source
        );
    }
    text.push_str("\n## Index\n\n| id | claim |\n| --- | --- |\n");
    for rule in findings::all() {
        let _ = writeln!(text, "| [`{0}`](#{0}) | {1} |", rule.id, rule.claim);
    }
    for rule in findings::all() {
        let _ = write!(text, "\n## {}\n\n{}\n", rule.id, sentence(rule.claim));
        for (title, body) in parts(rule) {
            let _ = write!(text, "\n**{title}** {body}\n");
        }
    }
    text
}

fn parts(rule: &Rule) -> Vec<(&'static str, String)> {
    let needs: Vec<String> = rule.needs.iter().map(|need| need.text()).collect();
    let mut parts = vec![("Judged by", sentence(rule.judged))];
    if !needs.is_empty() {
        parts.push(("Needs", sentence(&needs.join(", "))));
    }
    parts.push(("Try", sentence(rule.remedy)));
    parts.push(("Wrong if", sentence(rule.refuted_by)));
    if !rule.consequence_of.is_empty() {
        parts.push(("May follow from", sentence(&rule.consequence_of.join(", "))));
    }
    parts
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{}{}{end}", first.unwrap_or_default(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/findings.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/findings.md is out of date; run: cargo run -p vpnbench --example gen_docs"
        );
    }
}
