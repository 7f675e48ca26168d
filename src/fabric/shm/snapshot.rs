//! Moving the holder's copy to pages that the owner does not have.
//!
//! The generation was raised, so an owner that keeps the contract stops within one store; but it may be in the
//! middle of that one, and this side copies while it ends. One pass could then catch a later store and miss an
//! earlier one, which breaks the prefix rule. So the copy is read twice: when both readings agree, every byte was
//! constant from its first reading to its second, and the copy is what the memory held at the moment between the two
//! passes (a double collect). Stores acknowledged before are in it by the fences (`fencing`).

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
    if dead {
        return Ok(());
    }
    for _ in 0..PASSES_MAX {
        fencing::between_readings();
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
    use std::sync::atomic::{AtomicBool, Ordering};

    fn memory(len: usize) -> Mapping {
        Mapping::anonymous(len, MapOptions::default()).unwrap()
    }

    #[test]
    fn a_still_source_is_copied() {
        let (source, target) = (memory(200_000), memory(200_000));
        source.slice().write(199_990, b"0123456789");
        take_snapshot(source.slice(), target.slice(), || false).unwrap();
        assert_eq!(source.slice().to_vec(), target.slice().to_vec());
    }

    /// Ends the writer also when the test fails: the scope would wait for it for ever.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Snapshots until one meets the writer on every pass: on a busy machine the writer may stand still for two.
    fn never_still(source: &Mapping, target: &Mapping) -> SnapshotError {
        (0..10_000)
            .find_map(|_| take_snapshot(source.slice(), target.slice(), || false).err())
            .expect("the writer writes between any two passes at some time")
    }

    #[test]
    fn a_writer_that_never_stops_is_an_error_and_one_that_stops_is_a_prefix() {
        let (source, target) = (memory(1 << 20), memory(1 << 20));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Counts up at both ends, first at the low address: a prefix has low == high or low == high + 1.
                for count in 1u64.. {
                    source.slice().write(0, &count.to_le_bytes());
                    source.slice().write((1 << 20) - 8, &count.to_le_bytes());
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let stopping = Stop(&stop);
            let error = never_still(&source, &target);
            assert!(error.to_string().contains("16 passes"), "{error}");
            drop(stopping);
            // It may be stopping while this copies.
            take_snapshot(source.slice(), target.slice(), || false).unwrap();
        });
        let bytes = target.slice().to_vec();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (low, high) = (word(0), word((1 << 20) - 8));
        assert!(low == high || low == high + 1, "low {low}, high {high}");
    }
}
