//! The locks of a store. A release has parking_lot's, and `std`'s where a panic is to be noticed. In tests whoever runs in a simulated world lets
//! others run there while he waits; all else is as it is.

#[cfg(not(test))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(test)]
pub(crate) use tests_only::{Condvar, Mutex, MutexGuard};

/// Locks that tell of a panic under them.
pub(crate) mod poisoning {
    #[cfg(test)]
    pub(crate) use super::tests_only::{MutexGuard, Poisoning as Mutex};
    #[cfg(not(test))]
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

#[cfg(test)]
mod tests_only {
    use std::ops::{Deref, DerefMut};
    use std::sync::{LockResult, TryLockError, TryLockResult};
    use std::time::Duration;

    use crate::sim::scheduler;

    /// A lock for which a simulated thread lets others run.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        guard: Option<parking_lot::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        fn key(&self) -> usize {
            std::ptr::from_ref(&self.0).addr()
        }

        fn guard<'a>(&'a self, guard: parking_lot::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            MutexGuard { mutex: self, guard: Some(guard) }
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            if !scheduler::is_simulated() {
                return self.guard(self.0.lock());
            }
            scheduler::may_lose_turn();
            self.lock_simulated()
        }

        fn lock_simulated(&self) -> MutexGuard<'_, T> {
            loop {
                match self.0.try_lock() {
                    Some(guard) => return self.guard(guard),
                    None => scheduler::wait(self.key(), None),
                };
            }
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().map(|guard| self.guard(guard))
        }

        pub(crate) fn try_lock_for(&self, within: Duration) -> Option<MutexGuard<'_, T>> {
            if !scheduler::is_simulated() {
                return self.0.try_lock_for(within).map(|guard| self.guard(guard));
            }
            let end = scheduler::after(within);
            loop {
                if let Some(guard) = self.0.try_lock() {
                    return Some(self.guard(guard));
                }
                if !scheduler::wait(self.key(), Some(end)) {
                    return None;
                }
            }
        }
    }

    impl<'a, T> MutexGuard<'a, T> {
        fn take(&mut self) {
            self.guard = None;
            scheduler::wake(self.mutex.key(), 1);
        }

        pub(crate) fn unlocked<R>(guard: &mut Self, work: impl FnOnce() -> R) -> R {
            guard.take();
            let result = work();
            *guard = guard.mutex.lock();
            result
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            if self.guard.is_some() {
                self.take();
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.guard.as_ref().expect("it is locked")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().expect("it is locked")
        }
    }

    /// The same with the names of `std`'s.
    #[derive(Debug, Default)]
    pub(crate) struct Poisoning<T>(Mutex<T>);

    impl<T> Poisoning<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            Ok(self.0.lock())
        }

        pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            self.0.try_lock().ok_or(TryLockError::WouldBlock)
        }
    }

    /// Where one waits for a change of what a lock protects.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub(crate) const fn new() -> Self {
            Self(parking_lot::Condvar::new())
        }

        fn key(&self) -> usize {
            std::ptr::from_ref(self).addr()
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
            scheduler::wake(self.key(), 1);
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
            scheduler::wake(self.key(), usize::MAX);
        }

        /// Whether it was told in time.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, most: Duration) -> bool {
            if !scheduler::is_simulated() {
                let inner = guard.guard.as_mut().expect("it is locked");
                return !self.0.wait_for(inner, most).timed_out();
            }
            let end = scheduler::after(most);
            guard.take();
            let told = scheduler::wait(self.key(), Some(end));
            guard.guard = guard.mutex.lock_simulated().guard.take();
            told
        }
    }
}
