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
    /// Whether they do; null if one of them is missing or they are not comparable.
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
            relation,
            agrees,
            note: None,
        }
    }

    /// Adds what the comparison includes or leaves out.
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
