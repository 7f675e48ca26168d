//! What the turns say: each of ours against each of the others, and whether that means anything.
//!
//! The rules are those of the bench. A ratio is void when the control of its own kind, the other against itself, has its median or its
//! interval further from 1 than [`TOLERANCE`] has it: the run could not have told a difference of that size from none.

use super::Turns;
use super::contender::{Contender, Job, Sample, Side};
use crate::rxe::control::Tolerance;
use crate::rxe::ratio::{Ratio, median};

/// How far from 1 a control may be.
const TOLERANCE: Tolerance = Tolerance { median: 0.05, spread: 0.10 };

/// One job.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) job: Job,
    /// The medians of each contender.
    pub(super) medians: Vec<Sample>,
    pub(super) against: Vec<Against>,
}

/// One of the others.
#[derive(Debug)]
pub(super) struct Against {
    /// Which contender.
    pub(super) peer: usize,
    /// Theirs / theirs.
    pub(super) control: Ratios,
    /// Ours / theirs, for each of ours.
    pub(super) ours: Vec<(usize, Ratios)>,
}

/// Of two contenders, or of one to itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratios {
    pub(super) rate: Ratio,
    pub(super) p50: Ratio,
}

/// A kind of ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Of writes a second: above 1 the first of the two does more.
    Rate,
    /// Of median latencies: below 1 the first of the two is sooner.
    P50,
}

impl Job {
    /// What it is judged by: one at a time by its median, several by their rate.
    pub(super) const fn judged_by(self) -> Figure {
        if self.depth == 1 { Figure::P50 } else { Figure::Rate }
    }
}

impl Figure {
    pub(super) const fn of(self, ratios: &Ratios) -> Ratio {
        match self {
            Self::Rate => ratios.rate,
            Self::P50 => ratios.p50,
        }
    }
}

impl Outcome {
    /// Of one job's turns, which are in the order of the contenders.
    pub(super) fn of(job: Job, contenders: &[Box<dyn Contender>], turns: &[Turns]) -> Self {
        let sides: Vec<_> = contenders.iter().map(|contender| contender.side()).collect();
        let of = |side| (0..sides.len()).filter(|&index| sides[index] == side).collect::<Vec<_>>();
        let (ours, theirs) = (of(Side::Ours), of(Side::Theirs));
        let against = theirs.into_iter().map(|peer| {
            let (first, second) = (&turns[peer].first, &turns[peer].second);
            let ours = ours.iter().map(|&index| (index, Ratios::of(&turns[index].first, first)));
            Against { peer, control: Ratios::of(first, second), ours: ours.collect() }
        });
        let against = against.collect();
        let medians = turns.iter().map(|turns| {
            let figure = |of: fn(&Sample) -> f64| median(turns.first.iter().map(of).collect()).median;
            Sample { iops: figure(|sample| sample.iops), p50_us: figure(|sample| sample.p50_us) }
        });
        Self { job, medians: medians.collect(), against }
    }
}

impl Against {
    /// Why the ratios of this kind mean nothing, if they do.
    pub(super) fn void(&self, figure: Figure, rounds: usize) -> Option<String> {
        TOLERANCE.void(figure.of(&self.control), rounds)
    }
}

impl Ratios {
    fn of(ours: &[Sample], theirs: &[Sample]) -> Self {
        let ratio = |of: fn(&Sample) -> f64| {
            median(ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect())
        };
        Self { rate: ratio(|sample| sample.iops), p50: ratio(|sample| sample.p50_us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of a machine that gets slower all the time, at this speed.
    fn turns(speed: f64) -> Turns {
        let at = |place: f64| {
            let sample = |round: i32| {
                let iops = speed * 0.97_f64.powf(f64::from(round) + place);
                Sample { iops, p50_us: 1e6 / iops }
            };
            (0..20).map(sample).collect()
        };
        Turns { first: at(0.0), second: at(0.1) }
    }

    fn outcome(depth: u32) -> Outcome {
        let all = super::super::contenders();
        let turns: Vec<_> =
            [800.0, 1600.0, 400.0, 800.0, 1000.0, 3200.0, 1600.0].into_iter().map(turns).collect();
        Outcome::of(Job { depth }, &all, &turns)
    }

    #[test]
    fn drift_cancels() {
        let outcome = outcome(1);
        assert_eq!(outcome.against.iter().map(|against| against.peer).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        let drbd = &outcome.against[0];
        let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-9;
        assert!(close(drbd.ours[0].1.rate.median, 2.0) && close(drbd.ours[0].1.p50.median, 0.5));
        assert!(close(drbd.ours[1].1.rate.median, 4.0) && drbd.ours[1].0 == 1);
        assert!((drbd.control.rate.median - 1.0).abs() < 0.01, "{:?}", drbd.control);
        assert_eq!(drbd.void(Figure::P50, 20), None);
        assert!(drbd.void(Figure::P50, 5).is_some());
        assert_eq!((outcome.job.judged_by(), Job { depth: 16 }.judged_by()), (Figure::P50, Figure::Rate));
    }

    #[test]
    fn a_control_off_one_makes_its_own_kind_void() {
        let mut outcome = outcome(16);
        let against = &mut outcome.against[0];
        against.control.rate.median = 1.06;
        assert!(against.void(Figure::Rate, 20).unwrap().contains("1.060"));
        assert_eq!(against.void(Figure::P50, 20), None);
        against.control.rate.median = f64::NAN;
        assert!(against.void(Figure::Rate, 20).is_some());
        against.control.p50.high = 1.2;
        assert!(against.void(Figure::P50, 20).unwrap().contains("1.200"));
    }
}
