//! What this kernel and this user may do, for people and for scripts.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::table::{Align, Screen, Table, wrap};

/// Name of the JSON form.
pub const SCHEMA: &str = "vpnbench.doctor.v1";

/// Result of `vpnbench doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorReport {
    /// `vpnbench.doctor.v1`.
    pub schema: String,
    /// Kernel release and machine.
    pub kernel: String,
    /// vpnbench version.
    pub tool_version: String,
    /// Conditions apart from probes: type information, privileges, file systems, limits.
    pub checks: Vec<Check>,
    /// Every probe of the catalog.
    pub probes: Vec<DoctorProbe>,
    /// What a recording can do here.
    pub verdict: Verdict,
}

/// What a recording can do here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every probe or its stand-in can be attached.
    Ready,
    /// Some probes cannot be attached; the rest can record.
    Limited,
    /// Nothing can be recorded.
    #[default]
    Blocked,
}

/// One condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What is checked, e.g. `kernel type information`.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Whether recording is impossible without it.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What to do if it does not hold.
    pub remedy: Option<String>,
}

/// Whether a probe can be attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeState {
    /// It can.
    Attachable,
    /// It cannot; another shows the same at less precision.
    Fallback,
    /// It cannot, and nothing stands in for it.
    #[default]
    Missing,
}

/// One probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorProbe {
    /// Name.
    pub name: String,
    /// Kind of attachment.
    pub kind: String,
    /// Group.
    pub group: String,
    /// Whether it can be attached.
    pub status: ProbeState,
    /// Why not, or which probe stands in, or makes it unnecessary.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl DoctorReport {
    /// The verdict that follows from the checks and probes.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        let blocked = self.checks.iter().any(|check| check.required && !check.ok);
        let missing = self
            .probes
            .iter()
            .filter(|probe| probe.status == ProbeState::Missing)
            .count();
        if blocked || (missing == self.probes.len() && missing > 0) {
            Verdict::Blocked
        } else if missing > 0 {
            Verdict::Limited
        } else {
            Verdict::Ready
        }
    }

    /// Writes one JSON document.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self).map_err(io::Error::from)?;
        out.write_all(b"\n")
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_text(&self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} {} on Linux {}",
            screen.title("vpnbench"),
            self.tool_version,
            self.kernel
        )?;
        for check in &self.checks {
            let mark = match (check.ok, check.required) {
                (true, _) => screen.good("ok  "),
                (false, true) => screen.bad("no  "),
                (false, false) => screen.warn("no  "),
            };
            writeln!(out, " {mark} {}: {}", check.name, check.found)?;
            if !check.ok {
                remedy(check.remedy.as_deref(), screen, out)?;
            }
        }
        writeln!(out)?;
        self.table().write("PROBES", screen, out)?;
        let remedies = self
            .probes
            .iter()
            .filter(|probe| probe.status != ProbeState::Attachable);
        let mut said = Vec::new();
        for text in remedies.filter_map(|probe| probe.remedy.as_deref()) {
            if !said.contains(&text) {
                remedy(Some(text), screen, out)?;
                said.push(text);
            }
        }
        let verdict = match self.verdict {
            Verdict::Ready => screen.good("ready to record"),
            Verdict::Limited => screen.warn("can record, with the limits above"),
            Verdict::Blocked => screen.bad("cannot record"),
        };
        writeln!(out, "\n{verdict}")
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("probe", Align::Text),
            ("group", Align::Text),
            ("kind", Align::Text),
            ("status", Align::Text),
            ("reason", Align::Text),
        ]);
        for probe in &self.probes {
            let status = match probe.status {
                ProbeState::Attachable => "attachable",
                ProbeState::Fallback => "fallback",
                ProbeState::Missing => "missing",
            };
            table.row(vec![
                probe.name.clone(),
                probe.group.clone(),
                probe.kind.clone(),
                status.to_owned(),
                probe.reason.clone().unwrap_or_default(),
            ]);
        }
        table
    }
}

fn remedy(text: Option<&str>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    match text {
        Some(text) => writeln!(
            out,
            "      try: {}",
            wrap(text, screen.width.saturating_sub(11), 11)
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(status: ProbeState) -> DoctorProbe {
        DoctorProbe {
            name: "tcp_probe".to_owned(),
            status,
            ..DoctorProbe::default()
        }
    }

    #[test]
    fn the_verdict_follows_from_the_facts() {
        let mut report = DoctorReport {
            probes: vec![probe(ProbeState::Attachable), probe(ProbeState::Fallback)],
            ..DoctorReport::default()
        };
        assert_eq!(report.judge(), Verdict::Ready);
        report.probes.push(probe(ProbeState::Missing));
        assert_eq!(report.judge(), Verdict::Limited);
        report.checks.push(Check {
            required: true,
            ..Check::default()
        });
        assert_eq!(report.judge(), Verdict::Blocked);
    }

    #[test]
    fn a_remedy_is_said_once() {
        let missing = DoctorProbe {
            remedy: Some("run as root".to_owned()),
            ..probe(ProbeState::Missing)
        };
        let report = DoctorReport {
            probes: vec![missing.clone(), missing],
            ..DoctorReport::default()
        };
        let mut out = Vec::new();
        report
            .write_text(
                Screen {
                    width: 80,
                    colour: false,
                },
                &mut out,
            )
            .expect("written");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.matches("try: run as root").count(), 1, "{text}");
    }
}
