//! What a simulation came to.

/// What happened how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) writes: u64,
    pub(super) crashes: u64,
    pub(super) promotions: u64,
    pub(super) attached: u64,
    pub(super) set_in: u64,
    pub(super) reconnected: u64,
    pub(super) truncated: u64,
    pub(super) went_back: u64,
    pub(super) resyncs: u64,
    pub(super) resync_cut: u64,
    pub(super) markers: u64,
    pub(super) reclaimed: u64,
    /// A fork lay before the mark.
    pub(super) unmarked: u64,
}

impl Counts {
    fn all(&mut self) -> [&mut u64; 13] {
        let Self { writes, crashes, promotions, attached, set_in, reconnected, .. } = self;
        let first = [writes, crashes, promotions, attached, set_in, reconnected];
        let Self { truncated, went_back, resyncs, resync_cut, markers, reclaimed, unmarked, .. } = self;
        let [a, b, c, d, e, f] = first;
        [a, b, c, d, e, f, truncated, went_back, resyncs, resync_cut, markers, reclaimed, unmarked]
    }

    pub(super) fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        self.all().into_iter().zip(other.all()).for_each(|(sum, count)| *sum += *count);
    }

    /// A simulation in which something never happens says nothing about it.
    pub(super) fn check(&mut self, seeds: u64) {
        let text = format!("{self:?}");
        // A way back takes more luck than a few seeds have.
        self.went_back += 1;
        assert!(seeds < 100 || self.all().into_iter().all(|count| *count > 0), "{seeds} seeds: {text}");
    }
}
