//! Accounts that must add up: a kernel counter beside vpnbench's own count.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the two numbers must relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// They count the same things.
    Equal,
    /// The kernel also counts things that leave no event.
    KernelAtLeast,
    /// They count different things here; the note says why. Shown, not compared.
    NotComparable,
}

/// One line of the books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reconciliation {
    /// Kernel counter, as nstat or the interface statistics name it.
    pub counter: String,
    /// Namespace or device it belongs to.
    pub place: String,
    /// Increase of the kernel's counter over the run.
    pub kernel: Option<u64>,
    /// vpnbench's own count of the same.
    pub vpnbench: Option<u64>,
    /// Kernel minus vpnbench.
    pub difference: Option<i64>,
    /// How the two must relate.
    pub relation: Relation,
    /// How much of the difference is explained by what is known to be missing among the events; null
    /// if there is nothing to explain it with.
    #[serde(default)]
    pub explained: Option<u64>,
    /// Whether they do, what is explained left out; null if one of them is missing or they are not
    /// comparable.
    pub agrees: Option<bool>,
    /// What the comparison includes or leaves out.
    pub note: Option<String>,
}

impl Reconciliation {
    /// Compares a counter with a count.
    #[must_use]
    pub fn new(
        counter: &str,
        place: &str,
        kernel: Option<u64>,
        vpnbench: Option<u64>,
        relation: Relation,
    ) -> Reconciliation {
        let difference = kernel
            .zip(vpnbench)
            .and_then(|(kernel, own)| i64::try_from(i128::from(kernel) - i128::from(own)).ok());
        let agrees = difference.and_then(|difference| match relation {
            Relation::Equal => Some(difference == 0),
            Relation::KernelAtLeast => Some(difference >= 0),
            Relation::NotComparable => None,
        });
        Reconciliation {
            counter: counter.to_owned(),
            place: place.to_owned(),
            kernel,
            vpnbench,
            difference,
            explained: None,
            relation,
            agrees,
            note: None,
        }
    }

    /// Explains what the kernel counted more by `events` that are known to be missing. Does nothing
    /// where there is no such difference or no such event.
    #[must_use]
    pub fn explain(mut self, events: u64, how: &str) -> Reconciliation {
        let more = self.difference.and_then(|more| u64::try_from(more).ok());
        let before = self.explained.unwrap_or(0);
        let open = more.unwrap_or(0).saturating_sub(before);
        let explained = open.min(events);
        if explained == 0 {
            return self;
        }
        self.explained = Some(before + explained);
        if self.relation == Relation::Equal {
            self.agrees = Some(explained == open);
        }
        self.add_note(&format!("{explained} of the difference: {how}"))
    }

    /// Adds to what the comparison includes or leaves out.
    #[must_use]
    pub fn add_note(mut self, words: &str) -> Reconciliation {
        self.note = Some(match self.note {
            Some(note) => format!("{note}; {words}"),
            None => words.to_owned(),
        });
        self
    }

    /// Says what the comparison includes or leaves out, instead of what was said before.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Reconciliation {
        self.note = Some(note.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_is_never_agreement() {
        let line = Reconciliation::new("TcpRetransSegs", "host", None, Some(3), Relation::Equal);
        assert_eq!((line.difference, line.agrees), (None, None));
    }

    #[test]
    fn a_difference_is_explained_by_what_is_known_to_be_missing() {
        let line = |kernel, missing| {
            let line = Reconciliation::new("c", "p", Some(kernel), Some(5), Relation::Equal);
            let line = line.explain(missing, "missing");
            (line.explained, line.agrees)
        };
        assert_eq!(line(7, 2), (Some(2), Some(true)));
        assert_eq!(line(7, 1), (Some(1), Some(false)));
        assert_eq!(line(5, 1), (None, Some(true)));
        assert_eq!(line(4, 1), (None, Some(false)), "we counted more");
    }

    #[test]
    fn relations_decide() {
        let check = |kernel, own, relation| {
            Reconciliation::new("c", "p", Some(kernel), Some(own), relation).agrees
        };
        assert_eq!(check(3, 3, Relation::Equal), Some(true));
        assert_eq!(check(3, 4, Relation::Equal), Some(false));
        assert_eq!(check(5, 4, Relation::KernelAtLeast), Some(true));
        assert_eq!(check(3, 4, Relation::KernelAtLeast), Some(false));
        assert_eq!(check(3, 4, Relation::NotComparable), None);
    }
}
