//! Quantiles of HDR histograms of microseconds.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Quantiles in us, exact to 1 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "quantiles")]
pub struct Quantiles {
    pub samples: u64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
    pub mean: f64,
}

impl Quantiles {
    /// `None` without a sample.
    #[must_use]
    pub fn of(histogram: &Histogram<u32>) -> Option<Quantiles> {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64;
        (!histogram.is_empty()).then(|| Quantiles {
            samples: histogram.len(),
            min: histogram.min() as f64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: histogram.max() as f64,
            mean: histogram.mean(),
        })
    }
}

/// An empty histogram of us that grows with its values.
#[must_use]
pub(super) fn histogram() -> Histogram<u32> {
    let mut histogram = match Histogram::new_with_bounds(1, 1 << 20, 2) {
        Ok(histogram) => histogram,
        Err(_) => unreachable!("two digits between 1 us and 1 s are always possible"),
    };
    histogram.auto(true);
    histogram
}
