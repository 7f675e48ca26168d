//! A median with its interval.

/// Probability with which the interval contains the true median.
const CONFIDENCE: f64 = 0.95;

/// A median of ratios, with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The median of `values`, and the narrowest pair of order statistics around it that contains the true median with
/// at least [`CONFIDENCE`]; with fewer than six values no pair does, and the extremes are given.
///
/// # Panics
/// When there are none.
pub(crate) fn median(mut values: Vec<f64>) -> Ratio {
    assert!(!values.is_empty(), "no median of nothing");
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let upper = values[count / 2];
    let median = if count % 2 == 1 { upper } else { f64::midpoint(values[count / 2 - 1], upper) };
    // P(fewer than k of n fall below the true median) is a binomial tail; drop ranks while both tails together
    // stay within what the confidence leaves. Logarithms, since 2^-n is 0 for some thousand rounds.
    #[allow(clippy::cast_precision_loss, reason = "some thousand rounds")]
    let binomial = |rank: usize| ((count - rank) as f64 / (rank + 1) as f64).ln();
    #[allow(clippy::cast_precision_loss, reason = "some thousand rounds")]
    let mut logarithm = -(count as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    let mut dropped = 0;
    while dropped + 1 < count.div_ceil(2) && 2.0 * (tail + logarithm.exp()) <= 1.0 - CONFIDENCE {
        tail += logarithm.exp();
        logarithm += binomial(dropped);
        dropped += 1;
    }
    let low = dropped.saturating_sub(1);
    Ratio { median, low: values[low], high: values[count - 1 - low] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp, reason = "the values are given, not computed")]
    fn median_and_interval_are_those_of_the_tables() {
        let ranks = |count: u32| {
            let ratio = median((1..=count).rev().map(f64::from).collect());
            (ratio.low, ratio.median, ratio.high)
        };
        // Ranks of the 95 % sign-test interval, as statistical tables print them.
        assert_eq!(ranks(6), (1.0, 3.5, 6.0));
        assert_eq!(ranks(9), (2.0, 5.0, 8.0));
        assert_eq!(ranks(20), (6.0, 10.5, 15.0));
        assert_eq!(ranks(25), (8.0, 13.0, 18.0));
        assert_eq!(ranks(50), (18.0, 25.5, 33.0));
        assert_eq!(ranks(3), (1.0, 2.0, 3.0));
        let (low, median, high) = ranks(7000);
        assert!(median == 3500.5 && low > 3410.0 && low < 3425.0 && high == 7001.0 - low, "{low} {high}");
        assert_eq!(ranks(1), (1.0, 1.0, 1.0));
    }

    #[test]
    fn the_interval_covers_the_true_median_as_often_as_it_says() {
        let mut state = 88_172_645_463_325_252u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX)
        };
        let covered = (0..2000)
            .filter(|_| {
                let ratio = median((0..20).map(|_| uniform().powi(3)).collect());
                (ratio.low..=ratio.high).contains(&0.125)
            })
            .count();
        assert!((1880..1960).contains(&covered), "{covered} of 2000, expected 95.9 %");
    }
}
