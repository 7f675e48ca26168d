//! Moving the holder's copy to pages that the owner does not have.
//!
//! The generation was raised, so an owner that keeps the contract stops within the few stores that its processor had
//! begun; but this side copies while they end. One pass could then catch a later store and miss an earlier one, which
//! breaks the prefix rule. So the copy is read twice: when both readings agree, every byte was constant from its first
//! reading to its second, and the copy is what the memory held at the moment between the two passes (a double collect).
//! Equal readings show that only if no byte went to another value and back between them: the last stores of an owner
//! that stops could do it only within one pass over the whole region, an owner that goes on against the contract at
//! will. Stores acknowledged before are in the copy in any case, by the fences (`fencing`).

use super::fencing;
use crate::memory::VolatileSlice;

/// Passes over the memory before giving up on an owner that keeps writing.
const PASSES_MAX: u32 = 16;
const CHUNK_BYTES: usize = 64 * 1024;

/// The owner kept writing through all passes, although its grant was void.
#[derive(Debug, thiserror::Error)]
#[error(
    "the owner kept storing through {passes} passes after its grant was revoked: every acknowledged store is in the \
     new copy, but of the others it may hold a later one without an earlier one"
)]
pub struct SnapshotError {
    passes: u32,
}

/// Copies `source`, which an owner may still be writing, to `target`. `owner_dead` is asked once: a dead owner needs no
/// second reading.
///
/// # Errors
/// The owner never stopped. `target` holds every acknowledged store all the same.
pub fn take_snapshot(
    source: VolatileSlice<'_>,
    target: VolatileSlice<'_>,
    owner_dead: impl FnOnce() -> bool,
) -> Result<(), SnapshotError> {
    assert_eq!(source.len(), target.len(), "a snapshot has the size of its source");
    let dead = owner_dead();
    target.copy_from(0, source);
    if dead { Ok(()) } else { read_until_equal(source, target, fencing::between_readings) }
}

/// Reads again and again, `between` the readings, until one finds what the one before found.
fn read_until_equal(
    source: VolatileSlice<'_>,
    target: VolatileSlice<'_>,
    mut between: impl FnMut(),
) -> Result<(), SnapshotError> {
    for _ in 0..PASSES_MAX {
        between();
        if copy_differences(source, target) == 0 {
            return Ok(());
        }
    }
    Err(SnapshotError { passes: PASSES_MAX })
}

/// Brings `target` up to `source`; returns how many chunks differed.
fn copy_differences(source: VolatileSlice<'_>, target: VolatileSlice<'_>) -> usize {
    let mut ours = vec![0; CHUNK_BYTES];
    let mut theirs = vec![0; CHUNK_BYTES];
    let mut differing = 0;
    for offset in (0..source.len()).step_by(CHUNK_BYTES) {
        let len = CHUNK_BYTES.min(source.len() - offset);
        source.read(offset, &mut theirs[..len]);
        target.read(offset, &mut ours[..len]);
        if ours[..len] != theirs[..len] {
            target.write(offset, &theirs[..len]);
            differing += 1;
        }
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MapOptions, Mapping};
    #[cfg(not(miri))]
    use std::sync::atomic::{AtomicBool, Ordering};

    fn memory(len: usize) -> Mapping {
        Mapping::anonymous(len, MapOptions::default()).unwrap()
    }

    #[test]
    fn a_still_source_is_copied() {
        let len = if cfg!(miri) { 5000 } else { 200_000 };
        let (source, target) = (memory(len), memory(len));
        source.slice().write(len - 10, b"0123456789");
        take_snapshot(source.slice(), target.slice(), || false).unwrap();
        assert_eq!(source.slice().to_vec(), target.slice().to_vec());
    }

    /// Miri takes a second for a few pages.
    const LEN: usize = if cfg!(miri) { 4096 } else { 1 << 20 };

    /// An owner that counts up at both ends, first at the low address: a prefix has low == high or low == high + 1.
    struct Counter<'a> {
        source: &'a Mapping,
        count: u64,
    }

    impl Counter<'_> {
        fn store(&mut self) {
            self.count += 1;
            self.source.slice().write(0, &self.count.to_le_bytes());
            self.source.slice().write(LEN - 8, &self.count.to_le_bytes());
        }
    }

    fn ends(copy: &Mapping) -> (u64, u64) {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            copy.slice().read(at, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        (word(0), word(LEN - 8))
    }

    /// The owner stores between the readings by this thread's hand: on one processor a thread of its own might stand
    /// still as long as they last.
    #[test]
    fn an_owner_that_stores_before_every_reading_is_an_error() {
        let (source, target) = (memory(LEN), memory(LEN));
        let mut owner = Counter { source: &source, count: 0 };
        let error = read_until_equal(source.slice(), target.slice(), || owner.store()).unwrap_err();
        assert!(error.to_string().contains("16 passes"), "{error}");
        assert_eq!(owner.count, u64::from(PASSES_MAX));
    }

    #[test]
    fn one_that_stops_in_time_is_copied() {
        let (source, target) = (memory(LEN), memory(LEN));
        let mut owner = Counter { source: &source, count: 0 };
        let stops = u64::from(PASSES_MAX) - 1;
        let mut store = || {
            if owner.count < stops {
                owner.store();
            }
        };
        read_until_equal(source.slice(), target.slice(), &mut store).unwrap();
        assert_eq!(ends(&target), (stops, stops));
    }

    /// Two threads race here on purpose, as two processes do: Miri takes no such thing.
    #[cfg(not(miri))]
    #[test]
    fn what_is_copied_beside_an_owner_that_stops_is_a_prefix() {
        let (source, target) = (memory(LEN), memory(LEN));
        for _ in 0..50 {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut owner = Counter { source: &source, count: 0 };
                    while !stop.load(Ordering::Relaxed) {
                        owner.store();
                    }
                });
                let result = (0..20).find_map(|_| {
                    std::thread::yield_now();
                    take_snapshot(source.slice(), target.slice(), || false).ok()
                });
                let (low, high) = ends(&target);
                let prefix = low == high || low == high + 1;
                stop.store(true, Ordering::Relaxed);
                assert!(result.is_none() || prefix, "low {low}, high {high}");
            });
            // It has stopped.
            take_snapshot(source.slice(), target.slice(), || false).unwrap();
            let (low, high) = ends(&target);
            assert_eq!(low, high);
        }
    }
}
