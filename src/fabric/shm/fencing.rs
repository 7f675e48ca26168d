//! The pair of generation and store: why an acknowledged store is in the copy that the holder takes.
//!
//! ```text
//!  owner                         holder
//!  1. store the bytes            a. raise the generation
//!  2. full fence                 b. full fence
//!  3. read the generation        c. read the bytes (take the copy)
//!     unchanged → acknowledge
//! ```
//!
//! Of two full fences one comes first in the single order of all of them. If 2 is before b, then c sees the bytes. If
//! b is before 2, then 3 sees the raised generation and nothing is acknowledged. The functions here are what runs;
//! loom runs them too, over its own words, and explores every interleaving (`loom_` test).

use crate::base::sync::{Ordering, fence};

/// A word in memory that both sides see.
pub trait Word {
    /// Reads it, in no order with anything but fences.
    fn read(&self) -> u64;
    /// Writes it, in no order with anything but fences.
    fn write(&self, value: u64);
}

impl Word for std::sync::atomic::AtomicU64 {
    #[inline]
    fn read(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    #[inline]
    fn write(&self, value: u64) {
        self.store(value, Ordering::Relaxed);
    }
}

/// Owner, after its stores: whether they may be acknowledged, the word still being what was granted.
#[inline]
#[must_use]
pub fn still_granted(word: &impl Word, granted: u64) -> bool {
    fence(Ordering::SeqCst);
    word.read() == granted
}

/// Holder, before it reads its copy: from here on nothing stored under the old word is acknowledged unless the
/// holder sees it.
pub fn raise(word: &impl Word, raised: u64) {
    word.write(raised);
    fence(Ordering::SeqCst);
}

/// Owner, before each store: whoever sees it sees the stores before it. Costs no instruction on x86-64, where stores
/// keep their order anyway.
#[inline]
pub fn after_earlier_stores() {
    fence(Ordering::Release);
}

/// Holder, between two readings of its copy: the second begins after the first has ended.
pub fn between_readings() {
    fence(Ordering::Acquire);
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;

    impl Word for AtomicU64 {
        fn read(&self) -> u64 {
            self.load(Ordering::Relaxed)
        }

        fn write(&self, value: u64) {
            self.store(value, Ordering::Relaxed);
        }
    }

    #[test]
    fn loom_two_equal_readings_are_a_prefix() {
        loom::model(|| {
            let bytes = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let owner = {
                let bytes = bytes.clone();
                loom::thread::spawn(move || {
                    for byte in &*bytes {
                        after_earlier_stores();
                        byte.store(7, Ordering::Relaxed);
                    }
                })
            };
            let read = || [bytes[0].load(Ordering::Relaxed), bytes[1].load(Ordering::Relaxed)];
            let first = read();
            between_readings();
            let second = read();
            assert!(first != second || first != [0, 7], "the second store is there without the first");
            owner.join().unwrap();
        });
    }

    #[test]
    fn loom_an_acknowledged_store_is_in_the_copy() {
        loom::model(|| {
            let word = Arc::new(AtomicU64::new(1));
            let bytes = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let owner = {
                let (word, bytes) = (word.clone(), bytes.clone());
                loom::thread::spawn(move || {
                    let mut acknowledged = 0;
                    for (index, byte) in bytes.iter().enumerate() {
                        byte.store(7, Ordering::Relaxed);
                        if !still_granted(&*word, 1) {
                            break;
                        }
                        acknowledged = index + 1;
                    }
                    acknowledged
                })
            };
            raise(&*word, 2);
            let copy = [bytes[0].load(Ordering::Relaxed), bytes[1].load(Ordering::Relaxed)];
            let acknowledged = owner.join().unwrap();
            for (index, byte) in copy.iter().enumerate().take(acknowledged) {
                assert_eq!(*byte, 7, "store {index} was acknowledged and is not in the copy");
            }
        });
    }
}
