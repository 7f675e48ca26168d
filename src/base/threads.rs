//! Threads. In tests those that are made in a simulated world are of that world.

use std::num::NonZero;
use std::sync::LazyLock;
#[cfg(not(test))]
pub(crate) use std::thread::{Builder, JoinHandle, yield_now};

/// Whether there was one processor only for the first who asked: who spins there keeps back what it waits for. A simulated world has several.
pub(crate) fn is_alone() -> bool {
    static ALONE: LazyLock<bool> = LazyLock::new(|| {
        std::thread::available_parallelism().is_ok_and(|count| count == NonZero::<usize>::MIN)
    });
    #[cfg(test)]
    if crate::sim::scheduler::is_simulated() {
        return false;
    }
    *ALONE
}

#[cfg(test)]
pub(crate) use tests_only::{Builder, JoinHandle, yield_now};

#[cfg(test)]
mod tests_only {
    use std::io;
    use std::thread;

    use crate::sim::scheduler::{self, TaskId};

    #[derive(Debug, Default)]
    pub(crate) struct Builder {
        name: String,
    }

    #[derive(Debug)]
    pub(crate) enum JoinHandle<T> {
        Real(thread::JoinHandle<T>),
        Simulated(TaskId),
    }

    impl Builder {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self { name }
        }

        /// # Errors
        /// The system's.
        pub(crate) fn spawn(self, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
            if scheduler::is_simulated() {
                return Ok(JoinHandle::Simulated(scheduler::spawn(&self.name, work)));
            }
            thread::Builder::new().name(self.name).spawn(work).map(JoinHandle::Real)
        }
    }

    impl JoinHandle<()> {
        /// # Errors
        /// It panicked.
        pub(crate) fn join(self) -> thread::Result<()> {
            match self {
                Self::Real(handle) => handle.join(),
                Self::Simulated(task) => {
                    scheduler::join(task);
                    Ok(())
                }
            }
        }
    }

    pub(crate) fn yield_now() {
        if scheduler::is_simulated() {
            scheduler::look_again();
        } else {
            thread::yield_now();
        }
    }
}
