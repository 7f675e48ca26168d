//! Handles: numbers in the clothes of pointers, looked up before anything is believed of them.
//!
//! ```text
//!  63    56 55             16 15       0          a slot's word:  63            24 │ 23  │  22  │ 21    0
//!  ├─ kind ┼── generation ───┼─ index ──┤                         ├─ generation ──┼ live ┼ spoilt ┼ users ┤
//! ```
//!
//! A slot that is used again has another generation, so that a closed handle is never taken for a newer one; what was never a handle has
//! the wrong kind, index or generation. Nothing is read through such a value.
//!
//! Who is in a call counts as a user of the slot. Handles that one thread may use at a time ([`Table::alone`]) have one user at most, and
//! a second one is told; closing takes that there is none. So no thread is ever waited for, and nothing ends under a call.
//!
//! A call that ends by a panic spoils the handles that it used: nobody knows what their promises are worth. They can be closed.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::codes::{Failure, mirrorbus_code};

const INDEX_BITS: u32 = 16;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const GENERATION_BITS: u32 = 40;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const KIND_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;

/// As many users as this are one who is alone.
const USERS_MASK: u64 = (1 << 22) - 1;
const SPOILT: u64 = 1 << 22;
const LIVE: u64 = 1 << 23;
const SLOT_GENERATION_SHIFT: u32 = 24;

/// The handles of one kind: at most `N` at a time.
pub(crate) struct Table<T, const N: usize> {
    /// What a handle begins with: no two kinds have the same, and it is no address that a program can have.
    kind: u8,
    /// What the kind is called.
    name: &'static str,
    slots: [Slot<T>; N],
    free: Mutex<Free>,
}

/// Which slots nobody has.
struct Free {
    /// Those from here on were never used.
    fresh: usize,
    returned: Vec<usize>,
}

/// On a cache line of its own: threads that have a handle each are not in each other's way.
#[repr(align(64))]
struct Slot<T> {
    word: AtomicU64,
    value: UnsafeCell<Option<Box<T>>>,
}

// SAFETY: a value is reached by one thread at a time where it is not `Sync` (`alone`), else by several that share it (`shared`, which asks
// for `Sync`), and is moved in and out while nobody is in a call with it; the word orders these.
unsafe impl<T: Send, const N: usize> Sync for Table<T, N> {}

impl<T: Send, const N: usize> Table<T, N> {
    pub(crate) const fn new(kind: u8, name: &'static str) -> Self {
        assert!(N <= 1 << INDEX_BITS, "an index has 16 bits");
        Self {
            kind,
            name,
            slots: [const {
                Slot { word: AtomicU64::new(1 << SLOT_GENERATION_SHIFT), value: UnsafeCell::new(None) }
            }; N],
            free: Mutex::new(Free { fresh: 0, returned: Vec::new() }),
        }
    }

    /// Whether one more fits, before what it is for is made.
    pub(crate) fn check_room(&self) -> Result<(), Failure> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.fresh < N || !free.returned.is_empty() { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> Failure {
        let text = format!("{N} handles of a {} are open, the most there can be: close one first", self.name);
        Failure::new(mirrorbus_code::MIRRORBUS_E_LIMIT, text)
    }

    /// A handle of `value`.
    pub(crate) fn insert(&self, value: T) -> Result<u64, Failure> {
        let index = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match free.returned.pop() {
                Some(index) => index,
                None if free.fresh < N => {
                    free.fresh += 1;
                    free.fresh - 1
                }
                None => return Err(self.full()),
            }
        };
        let slot = &self.slots[index];
        let generation = slot.word.load(Ordering::Acquire) >> SLOT_GENERATION_SHIFT;
        // SAFETY: the slot is not live, and the list of free ones gave it to nobody else.
        unsafe { *slot.value.get() = Some(Box::new(value)) };
        slot.word.store(generation << SLOT_GENERATION_SHIFT | LIVE, Ordering::Release);
        Ok(u64::from(self.kind) << KIND_SHIFT | (generation & GENERATION_MASK) << INDEX_BITS | index as u64)
    }

    /// The slot that a handle names, and what its word is while it does and nobody uses it.
    #[inline]
    fn find(&self, handle: u64) -> Result<(&Slot<T>, u64), Failure> {
        let index = index_of(handle);
        let generation = handle >> INDEX_BITS & GENERATION_MASK;
        match self.slots.get(index) {
            Some(slot) if handle >> KIND_SHIFT == u64::from(self.kind) => {
                Ok((slot, generation << SLOT_GENERATION_SHIFT | LIVE))
            }
            _ => Err(self.strange(handle)),
        }
    }

    #[cold]
    fn strange(&self, handle: u64) -> Failure {
        let what = if handle == 0 { "a null pointer" } else { "closed, or never was one" };
        Failure::new(mirrorbus_code::MIRRORBUS_E_HANDLE, format!("the handle of a {} is {what}", self.name))
    }

    #[cold]
    fn busy(&self) -> Failure {
        let text = format!("another thread is in a call with this {}", self.name);
        Failure::new(mirrorbus_code::MIRRORBUS_E_BUSY, text)
    }

    /// Why a slot whose word is this one cannot be used as was asked.
    #[cold]
    fn refusal(&self, handle: u64, idle: u64, word: u64) -> Failure {
        if word & !USERS_MASK == idle {
            return self.busy();
        }
        if word & !USERS_MASK == idle | SPOILT {
            let text = format!("a bug of the library was caught in a call with this {}: close it", self.name);
            return Failure::new(mirrorbus_code::MIRRORBUS_E_HANDLE, text);
        }
        self.strange(handle)
    }

    /// The value, for this thread alone.
    #[inline]
    pub(crate) fn alone(&self, handle: u64) -> Result<Alone<'_, T>, Failure> {
        let (slot, idle) = self.find(handle)?;
        match slot.word.compare_exchange(idle, idle | USERS_MASK, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Alone { slot, idle }),
            Err(word) => Err(self.refusal(handle, idle, word)),
        }
    }

    /// A look at the value, spoilt or not, by this thread alone.
    pub(crate) fn peek<R>(&self, handle: u64, look: impl FnOnce(&T) -> R) -> Result<R, Failure> {
        let (slot, idle) = self.find(handle)?;
        let take =
            |from| slot.word.compare_exchange(from, from | USERS_MASK, Ordering::Acquire, Ordering::Relaxed);
        match take(idle).or_else(|_| take(idle | SPOILT)) {
            Ok(idle) => Ok(look(&Alone { slot, idle })),
            Err(word) => Err(self.refusal(handle, idle | (word & SPOILT), word)),
        }
    }

    /// Ends the handle; what it was for.
    pub(crate) fn close(&self, handle: u64) -> Result<Box<T>, Failure> {
        let (slot, idle) = self.find(handle)?;
        // Neither live nor of this generation: from here on the handle is closed for everybody.
        let next = (idle >> SLOT_GENERATION_SHIFT).wrapping_add(1) << SLOT_GENERATION_SHIFT;
        let close = |from| slot.word.compare_exchange(from, next, Ordering::Acquire, Ordering::Relaxed);
        if let Err(word) = close(idle).or_else(|_| close(idle | SPOILT)) {
            return Err(self.refusal(handle, idle | (word & SPOILT), word));
        }
        // SAFETY: there was no user, and there is none to come until the slot is live again, which it is by way of the list below.
        let value = unsafe { (*slot.value.get()).take() };
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.returned.push(index_of(handle));
        value.ok_or_else(|| self.strange(handle))
    }
}

impl<T: Send + Sync, const N: usize> Table<T, N> {
    /// The value, together with other threads.
    #[inline]
    pub(crate) fn shared(&self, handle: u64) -> Result<Shared<'_, T>, Failure> {
        let (slot, idle) = self.find(handle)?;
        let mut word = idle;
        loop {
            match slot.word.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(Shared { slot }),
                Err(found) if found & !USERS_MASK == idle && found & USERS_MASK < USERS_MASK - 1 => {
                    word = found
                }
                Err(found) => return Err(self.refusal(handle, idle, found)),
            }
        }
    }
}

/// Which slot a handle names.
#[inline]
fn index_of(handle: u64) -> usize {
    usize::from_ne_bytes((handle & INDEX_MASK).to_ne_bytes())
}

/// A handle as programs in C have it.
pub(crate) fn pointer<T>(handle: u64) -> *mut T {
    std::ptr::without_provenance_mut(usize::from_ne_bytes(handle.to_ne_bytes()))
}

/// What a live slot has.
fn value<T>(slot: &Slot<T>) -> *mut Option<Box<T>> {
    slot.value.get()
}

/// One of several users of a handle.
pub(crate) struct Shared<'a, T> {
    slot: &'a Slot<T>,
}

impl<T> Deref for Shared<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while this user counts nobody closes the slot, and none that is shared gives its value out alone.
        let value = unsafe { &*value(self.slot) };
        value.as_deref().expect("a live slot has a value")
    }
}

impl<T> Drop for Shared<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.slot.word.fetch_or(SPOILT, Ordering::Relaxed);
        }
        self.slot.word.fetch_sub(1, Ordering::Release);
    }
}

/// The one user of a handle.
pub(crate) struct Alone<'a, T> {
    slot: &'a Slot<T>,
    /// The slot's word when this is over.
    idle: u64,
}

impl<T> Deref for Alone<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the only user, and nobody closes the slot meanwhile.
        let value = unsafe { &*value(self.slot) };
        value.as_deref().expect("a live slot has a value")
    }
}

impl<T> DerefMut for Alone<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only user, and nobody closes the slot meanwhile.
        let value = unsafe { &mut *value(self.slot) };
        value.as_deref_mut().expect("a live slot has a value")
    }
}

impl<T> Drop for Alone<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let spoilt = if std::thread::panicking() { SPOILT } else { 0 };
        self.slot.word.store(self.idle | spoilt, Ordering::Release);
    }
}
