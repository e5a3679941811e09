//! A failure of the tool read as one of the network.

use crate::explain::facts::Facts;
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Rule};

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-tool-failure",
    claim: "a failure of the tool or the harness is read as one of the network",
    judged: "the benchmark ended with an error, a signal or an incomplete result",
    needs: &[],
    remedy: "repeat the run; its figures are those of an aborted measurement, not of the path",
    refuted_by: "the benchmark comes to its end and reports it",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let status = facts
        .context
        .end
        .and_then(|end| end.command_status.as_ref());
    let result = facts.outputs.benchmark.as_ref();
    if status.is_none() && result.is_none() {
        return Judgement::inapplicable("no benchmark was run");
    }
    let said = result.and_then(|result| result.error.clone());
    let code = status.map(|status| (status.code, status.signal));
    let failed = code.is_some_and(|code| code != (Some(0), None));
    let cut = result.is_some_and(|result| !result.complete);
    let summary = match (&said, code) {
        (Some(error), _) => format!("the benchmark says: {error}"),
        (None, Some((Some(code), _))) if code != 0 => {
            format!("the benchmark ended with status {code}")
        }
        (None, Some((_, Some(signal)))) => format!("the benchmark was ended by signal {signal}"),
        _ if cut => "the benchmark's result is incomplete".to_owned(),
        _ => "the benchmark came to its end".to_owned(),
    };
    let status = code.and_then(|code| code.0).map_or(0.0, f64::from);
    Known {
        probability: if said.is_some() || failed || cut {
            1.0
        } else {
            0.0
        },
        share: Some(1.0),
        summary,
        evidence: vec![Evidence::new("exit status", status, "status", "run").expected("0")],
        remedy: None,
    }
    .into()
}
