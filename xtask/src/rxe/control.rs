//! Whether a ratio means anything: told by its *control*, the ratio of two things that are equal, measured in the same rounds.

use super::ratio::Ratio;

/// The fewest rounds of which there is an interval.
const ROUNDS_MIN: usize = 6;

/// What a control must keep within: numbers by which it may be off 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Its median.
    pub(crate) median: f64,
    /// Its interval.
    pub(crate) spread: f64,
}

impl Tolerance {
    /// Why ratios with this control mean nothing, if they do.
    pub(crate) fn void(self, control: Ratio, rounds: usize) -> Option<String> {
        let Ratio { median, low, high } = control;
        // A ratio that is no number lies in no range.
        let near_one = |ratio: f64, tolerance: f64| (1.0 - tolerance..=1.0 + tolerance).contains(&ratio);
        if rounds < ROUNDS_MIN {
            return Some(format!("{rounds} rounds have no interval, {ROUNDS_MIN} do"));
        }
        if !near_one(median, self.median) {
            return Some(format!("its control is {median:.3}, more than {:.0} % off", self.median * 100.0));
        }
        if !near_one(low, self.spread) || !near_one(high, self.spread) {
            let most = self.spread * 100.0;
            return Some(format!(
                "its control reaches from {low:.3} to {high:.3}, more than {most:.0} % off"
            ));
        }
        None
    }
}
