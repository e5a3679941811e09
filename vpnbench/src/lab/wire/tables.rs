//! The delay distributions of iproute2 (netem/normal.c, pareto.c, paretonormal.c), computed: each
//! table holds 4096 quantiles, scaled so that [`SCALE`] is one standard deviation.

use statrs::function::erf::erfc;

use super::impairment::Distribution;

/// `NETEM_DIST_SCALE`.
pub(super) const SCALE: i64 = 8192;
/// Entries of a table.
const ENTRIES: usize = 4096;
/// Steps into which the generators divide the probability.
const STEPS: usize = 16384;

/// The table of a distribution; none for the uniform one.
pub(super) fn table(distribution: Distribution) -> Option<Vec<i16>> {
    match distribution {
        Distribution::Uniform => None,
        Distribution::Normal => Some(normal().map(clip).collect()),
        Distribution::Pareto => Some(pareto().map(clip).collect()),
        Distribution::ParetoNormal => {
            // Whole-number division, as the generator does it.
            let mixed = normal()
                .zip(pareto())
                .map(|(normal, pareto)| (normal + 3 * pareto) / 4);
            Some(mixed.map(clip).collect())
        }
    }
}

fn clip(value: i64) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// For each probability the last x, in steps of 0.00005 from -10 to 10.05, whose distribution
/// function rounds to it.
fn normal() -> impl Iterator<Item = i64> {
    let mut quantiles = vec![0.0_f64; STEPS + 1];
    let mut x = -10.0_f64;
    // Added up step by step: the rounding errors of the sum are part of the table.
    while x < 10.05 {
        let below = 0.5 * erfc(-x / std::f64::consts::SQRT_2);
        quantiles[(STEPS as f64 * below).round_ties_even() as usize] = x;
        x += 0.00005;
    }
    (0..ENTRIES).map(move |entry| {
        let quantile = quantiles[entry * (STEPS / ENTRIES)];
        (quantile * SCALE as f64).round_ties_even() as i64
    })
}

/// Index 3: x = p^(-1/3), less its mean 1.5, scaled by 4/3, cut at the largest 16-bit number.
fn pareto() -> impl Iterator<Item = i64> {
    (0..ENTRIES).map(|entry| {
        let probability = (65_536 - 16 * entry) as f64 / 65_536.0;
        let value = (1.0 / probability.powf(1.0 / 3.0) - 1.5) * (4.0 / 3.0) * SCALE as f64;
        value.min(32_767.0).round_ties_even() as i64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_shape_their_name_says() {
        let normal = table(Distribution::Normal).unwrap();
        assert_eq!(normal.len(), ENTRIES);
        // Probability one half is mean; 84.13 % is one standard deviation above.
        assert!(normal[2048].abs() <= 2, "{}", normal[2048]);
        let above = normal[(0.841_345 * ENTRIES as f64) as usize];
        assert!((8170..=8200).contains(&above), "{above}");
        // The first entry's probability rounds to 0: the last such x is about -4.
        assert!(
            (-33_000..=-32_000).contains(&i32::from(normal[0])),
            "{}",
            normal[0]
        );

        let pareto = table(Distribution::Pareto).unwrap();
        assert_eq!(pareto[0], -5461); // (1 - 1.5) * 4/3 * 8192
        assert_eq!(pareto[4095], 32_767);
        let mean = pareto.iter().map(|&value| f64::from(value)).sum::<f64>() / 4096.0;
        assert!((-300.0..0.0).contains(&mean), "{mean}"); // below 0 because cut on the right

        let mixed = table(Distribution::ParetoNormal).unwrap();
        assert_eq!(
            i64::from(mixed[2048]),
            (i64::from(normal[2048]) + 3 * i64::from(pareto[2048])) / 4
        );
        assert_eq!(table(Distribution::Uniform), None);
        for table in [normal, pareto, mixed] {
            assert!(table.is_sorted(), "a quantile function never falls");
        }
    }

    /// Sums and entries 0, 1, 410, 1024, 3072, 4000 and 4095 of the files iproute2 6.1 installs.
    #[test]
    fn tables_are_iproute2s() {
        for (distribution, sum, of_sizes, entries) in [
            (
                Distribution::Normal,
                -26_163,
                26_773_037,
                [-32_768, -28_307, -10_493, -5525, 5526, 16_285, 28_858],
            ),
            (
                Distribution::Pareto,
                -1_123_786,
                18_765_736,
                [-5461, -5460, -5071, -4362, 955, 21_783, 32_767],
            ),
            (
                Distribution::ParetoNormal,
                -848_968,
                20_139_576,
                [-12_305, -11_171, -6426, -4652, 2097, 20_408, 31_789],
            ),
        ] {
            let table = table(distribution).unwrap();
            let found = [0, 1, 410, 1024, 3072, 4000, 4095].map(|at: usize| table[at]);
            assert_eq!(found, entries, "{distribution:?}");
            assert_eq!(
                table.iter().map(|&entry| i64::from(entry)).sum::<i64>(),
                sum
            );
            let sizes = table.iter().map(|entry| i64::from(entry.unsigned_abs()));
            assert_eq!(sizes.sum::<i64>(), of_sizes);
        }
    }
}
