//! Fills the doctor's report from what the kernel really accepts.

use vpnbench_common::catalog::{Attach, Group, PROBES, Probe};

use crate::probe::attach::{self, AttachError, Options};
use crate::probe::doctor::{self, Condition};
use crate::report::doctor::{Check, DoctorProbe, DoctorReport, ProbeState, SCHEMA};
use crate::trace::model::ProbeStatus;

/// Loads and attaches everything once, and says what happened.
pub(super) fn examine() -> DoctorReport {
    let host = crate::record::environment::host();
    let mut checks: Vec<Check> = doctor::conditions().into_iter().map(check).collect();
    let (statuses, refusal) = match try_all() {
        Ok(statuses) => (statuses, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    checks.extend(refusal.as_ref().map(|found| Check {
        name: "recording".to_owned(),
        ok: false,
        required: true,
        found: found.clone(),
        remedy: Some("mend what is missing above, then run `vpnbench doctor` again".to_owned()),
    }));
    let probes = PROBES
        .iter()
        .map(|row| probe(row, &statuses, refusal.as_deref()))
        .collect();
    let mut report = DoctorReport {
        schema: SCHEMA.to_owned(),
        kernel: format!("{} {}", host.kernel_release, host.machine),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        checks,
        probes,
        ..DoctorReport::default()
    };
    report.verdict = report.judge();
    report
}

fn try_all() -> Result<Vec<ProbeStatus>, AttachError> {
    let options = Options {
        probes: attach::select(&Group::ALL),
        buffer_bytes: 1 << 20,
        keep_payload: 0,
        device_seed: 0,
    };
    Ok(attach::load(&options)?.attach()?.statuses)
}

fn check(condition: Condition) -> Check {
    Check {
        name: condition.name.to_owned(),
        ok: condition.ok,
        required: condition.required,
        found: condition.found,
        remedy: condition.remedy.map(str::to_owned),
    }
}

fn attached(row: &Probe, statuses: &[ProbeStatus]) -> bool {
    statuses
        .iter()
        .any(|status| status.id == row.id as u8 && status.attached)
}

fn probe(row: &Probe, statuses: &[ProbeStatus], refusal: Option<&str>) -> DoctorProbe {
    let status = statuses.iter().find(|status| status.id == row.id as u8);
    let stand_in = row
        .fallback
        .and_then(|id| PROBES.iter().find(|other| other.id == id))
        .filter(|other| attached(other, statuses));
    // A first-tier row that a second-tier one makes unnecessary is not missing.
    let is_attached = attached(row, statuses);
    let covered_by = PROBES
        .iter()
        .find(|other| other.fallback == Some(row.id) && attached(other, statuses))
        .filter(|_| !is_attached);
    let state = if is_attached || covered_by.is_some() {
        ProbeState::Attachable
    } else if stand_in.is_some() {
        ProbeState::Fallback
    } else {
        ProbeState::Missing
    };
    let why = status
        .and_then(|status| status.reason.as_deref())
        .or(refusal);
    let reason = match (state, stand_in) {
        (ProbeState::Attachable, _) => {
            covered_by.map(|other| format!("not needed: {} is attached", other.name))
        }
        (_, Some(other)) => Some(format!(
            "{} stands in ({})",
            other.name,
            first_line(why.unwrap_or("not accepted"))
        )),
        (_, None) => why.map(first_line),
    };
    DoctorProbe {
        name: row.name.to_owned(),
        kind: match row.attach {
            Attach::TpBtf(_) => "tp_btf",
            Attach::Fentry(_) => "fentry",
            Attach::CpuClock => "cpu_clock",
        }
        .to_owned(),
        group: row.group.name().to_owned(),
        status: state,
        remedy: remedy(row, state),
        reason,
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.trim_end_matches('.').to_owned()
}

fn remedy(row: &Probe, state: ProbeState) -> Option<String> {
    if state == ProbeState::Attachable {
        return None;
    }
    Some(match row.attach {
        Attach::Fentry(_) => {
            "a kernel with CONFIG_FUNCTION_TRACER and CONFIG_DYNAMIC_FTRACE accepts it".to_owned()
        }
        Attach::TpBtf(_) => format!("a kernel from {} on has it", row.since),
        Attach::CpuClock => "needs CAP_PERFMON or kernel.perf_event_paranoid below 1".to_owned(),
    })
}
