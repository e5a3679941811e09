//! Offset and drift between the clocks of two hosts, from the packets that crossed between them.
//!
//! Each packet gives an apparent one-way delay d(t) = delay + offset + drift * t. The true delay has a
//! floor that queueing only adds to, so the lower edge of the points is the clock: the line under all
//! points that comes closest to them. It is one edge of their lower convex hull (Moon, Skelly, Towsley,
//! "Estimation and removal of clock skew from network delay measurements", INFOCOM 1999, who state it
//! as a linear program; the hull solves it in O(n log n)). With both directions the floors of the delays
//! cancel except for their asymmetry: offset = (forward line - reverse line) / 2, and half the sum of the
//! two floors bounds the error, as the offset cannot make a delay negative (Paxson, "On calibrating
//! measurements of packet transit times", SIGMETRICS 1998).

/// One packet: when it left by the sender's clock and arrived by the receiver's, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// Departure, sender's clock.
    pub left_ns: u64,
    /// Arrival, receiver's clock.
    pub arrived_ns: u64,
}

/// Clock of host b minus clock of host a.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockOffset {
    /// b - a at `at_ns`, ns.
    pub offset_ns: f64,
    /// Change of the offset in parts per million.
    pub drift_ppm: f64,
    /// The moment of `offset_ns`, by the clock of a.
    pub at_ns: u64,
    /// The true offset lies within +- this, whatever the asymmetry of the path, ns.
    pub uncertainty_ns: f64,
    /// Packets a to b and b to a.
    pub packets: (usize, usize),
}

/// Packets in each direction below which nothing is estimated.
pub const LEAST: usize = 8;

/// Estimates offset and drift from packets in both directions; `None` with fewer than [`LEAST`] in
/// either, or when they show a negative round trip, which no offset explains.
#[must_use]
pub fn estimate(forward: &[Crossing], reverse: &[Crossing]) -> Option<ClockOffset> {
    if forward.len() < LEAST || reverse.len() < LEAST {
        return None;
    }
    let origin = forward.iter().map(|one| one.left_ns).min()?;
    let back = reverse.iter().map(|one| one.left_ns).min()?;
    // Both on the time axis of their own sender; over seconds to hours the offset itself shifts the
    // axis of the reverse direction by less than drift * offset.
    let there = lower_line(forward, origin)?;
    let here = lower_line(reverse, back)?;
    let drift = (there.slope - here.slope) / 2.0;
    let middle = span(forward) / 2.0;
    let (up, down) = (there.at(middle), here.at(span(reverse) / 2.0));
    let floor = up + down;
    if floor < 0.0 {
        return None;
    }
    Some(ClockOffset {
        offset_ns: (up - down) / 2.0,
        drift_ppm: drift * 1e6,
        at_ns: origin + middle as u64,
        uncertainty_ns: floor / 2.0,
        packets: (forward.len(), reverse.len()),
    })
}

#[derive(Debug, Clone, Copy)]
struct Line {
    intercept: f64,
    slope: f64,
}

impl Line {
    fn at(&self, time: f64) -> f64 {
        self.intercept + self.slope * time
    }
}

fn span(points: &[Crossing]) -> f64 {
    let least = points.iter().map(|one| one.left_ns).min().unwrap_or(0);
    let most = points.iter().map(|one| one.left_ns).max().unwrap_or(0);
    (most - least) as f64
}

/// The line under all points (departure, apparent delay) with the least sum of distances: the edge of the
/// lower hull over the mean departure.
fn lower_line(points: &[Crossing], origin: u64) -> Option<Line> {
    let mut points: Vec<(f64, f64)> = points
        .iter()
        .map(|one| {
            let delay = i128::from(one.arrived_ns) - i128::from(one.left_ns);
            ((one.left_ns - origin) as f64, delay as f64)
        })
        .collect();
    points.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    points.dedup_by(|next, kept| next.0 == kept.0);
    let mean = points.iter().map(|point| point.0).sum::<f64>() / points.len() as f64;
    let hull = lower_hull(&points);
    let edge = hull
        .windows(2)
        .find(|edge| edge[0].0 <= mean && mean <= edge[1].0);
    let line = match edge {
        Some(edge) => {
            let slope = (edge[1].1 - edge[0].1) / (edge[1].0 - edge[0].0);
            Line {
                intercept: edge[0].1 - slope * edge[0].0,
                slope,
            }
        }
        None => Line {
            intercept: hull.first()?.1,
            slope: 0.0,
        },
    };
    Some(line)
}

/// Andrew's monotone chain, lower half; points sorted by x with distinct x.
fn lower_hull(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for &point in points {
        while let [.., a, b] = hull[..] {
            let turn = (b.0 - a.0) * (point.1 - a.1) - (b.1 - a.1) * (point.0 - a.0);
            if turn > 0.0 {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets every ms for `seconds`, with a floor and a queue that comes and goes.
    fn crossings(
        seconds: u64,
        floor_ns: u64,
        offset: impl Fn(f64) -> f64,
        seed: u64,
    ) -> Vec<Crossing> {
        let mut random = seed;
        (0..seconds * 1000)
            .map(|at| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let queue = (random >> 40) % 5_000_000 * u64::from(at % 7 != 0);
                let left_ns = 5_000_000_000_000 + at * 1_000_000;
                let clock = offset(at as f64 * 1e6);
                let arrived = (left_ns + floor_ns + queue) as f64 + clock;
                Crossing {
                    left_ns,
                    arrived_ns: arrived as u64,
                }
            })
            .collect()
    }

    #[test]
    fn finds_offset_and_drift() {
        // b is 3.7 s ahead and gains 40 ppm; paths of 2 ms and 2 ms.
        let offset = |t: f64| 3.7e9 + 40e-6 * t;
        let forward = crossings(20, 2_000_000, offset, 1);
        let reverse = crossings(20, 2_000_000, |t| -offset(t), 2);
        let found = estimate(&forward, &reverse).expect("an estimate");
        let truth = offset((found.at_ns - 5_000_000_000_000) as f64);
        assert!(
            (found.offset_ns - truth).abs() < 20_000.0,
            "{} against {truth}",
            found.offset_ns
        );
        assert!((found.drift_ppm - 40.0).abs() < 1.0, "{}", found.drift_ppm);
        assert!(found.uncertainty_ns >= (found.offset_ns - truth).abs());
    }

    #[test]
    fn asymmetry_stays_within_the_uncertainty() {
        let forward = crossings(5, 9_000_000, |_| -1e9, 3);
        let reverse = crossings(5, 1_000_000, |_| 1e9, 4);
        let found = estimate(&forward, &reverse).expect("an estimate");
        assert!(
            (found.offset_ns + 1e9).abs() <= found.uncertainty_ns,
            "{found:?}"
        );
        assert!(found.uncertainty_ns < 5_100_000.0, "{found:?}");
    }

    #[test]
    fn one_clock_has_no_offset() {
        let forward = crossings(2, 50_000, |_| 0.0, 5);
        let reverse = crossings(2, 50_000, |_| 0.0, 6);
        let found = estimate(&forward, &reverse).expect("an estimate");
        assert!(
            found.offset_ns.abs() < 25_000.0 && found.drift_ppm.abs() < 25.0,
            "{found:?}"
        );
    }

    #[test]
    fn too_little_or_impossible_is_none() {
        let some = crossings(1, 1000, |_| 0.0, 7);
        assert_eq!(estimate(&some[..3], &some), None);
        let impossible = crossings(1, 1000, |_| -1e6, 8);
        assert_eq!(estimate(&impossible, &impossible), None);
    }
}
