//! A configured impairment that did not act.

use crate::explain::facts::{Effect, Facts};
use crate::explain::model::Evidence;
use crate::explain::rule::{Judgement, Known, Rule};
use crate::explain::{bounds, confidence, units};

pub(in crate::explain::findings) const RULE: Rule = Rule {
    id: "audit-impairment-void",
    claim: "a configured impairment did not act, or acted otherwise than its name says",
    judged: "for each effect configured by whoever made the path (`lab run`): packets it hit, against half of the share that was asked for",
    needs: &[],
    remedy: "check what acts before explaining its effects: netem's correlation makes small shares vanish (leave it out), and an impairment on another device than the traffic's does nothing",
    refuted_by: "the effect hits the configured share of packets",
    consequence_of: &[],
    lower_bound: false,
    judge,
};

fn judge(facts: &Facts<'_>) -> Judgement {
    let Some(wire) = facts
        .given
        .wire
        .as_ref()
        .filter(|wire| !wire.effects.is_empty())
    else {
        return Judgement::inapplicable("nothing says what impairment was configured");
    };
    let missed = |effect: &Effect| {
        let (hit, of) = (effect.hit as f64, effect.of as f64);
        1.0 - confidence::ratio_above(hit, of, effect.configured / 2.0)
    };
    let worst = wire
        .effects
        .iter()
        .max_by(|a, b| missed(a).total_cmp(&missed(b)));
    let Some(effect) = worst else {
        return Judgement::inapplicable("nothing was configured");
    };
    if effect.of as f64 * effect.configured < 1.0 - bounds::SURE {
        return Judgement::unseen("too few packets passed the impairment");
    }
    let acted = effect.hit as f64 / (effect.of as f64).max(1.0);
    Known {
        probability: missed(effect),
        share: Some((1.0 - acted / effect.configured).clamp(0.0, 1.0)),
        summary: format!(
            "{} of {} was configured and hit {} of {} packets ({})",
            effect.name,
            units::percent(effect.configured),
            units::count(effect.hit),
            units::count(effect.of),
            units::percent(acted)
        ),
        evidence: vec![
            Evidence::new(
                format!("{} that acted", effect.name),
                acted,
                "of the packets",
                "wire",
            )
            .expected(units::percent(effect.configured)),
        ],
        remedy: None,
    }
    .into()
}
