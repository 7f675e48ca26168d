//! The holder's side: a copy that is a whole epoch, always.
//!
//! The copy proper is a [`Holder`]'s, in memory or in a file. One thread, `mirrorbus-epoch`, looks at the ring and applies what is whole:
//! over shared memory and RDMA nobody says that something came, so it looks, often while epochs come and seldom when none do.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::EpochError;
use super::applied::read_applied;
use super::applier::{Applier, Copy, Step};
use super::layout::EpochLayout;
use super::link::check_url;
use super::log::read_head;
use crate::base::{Deadline, Generation};
use crate::memory::{MapOptions, Mapping, VolatileSlice};
use crate::node::{FenceError, Holder, HolderConfig, HolderGate, KeySet};

/// Shortest and longest pause between two looks.
const LOOK: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// Keeps a copy of an owner's memory that is a whole epoch at every moment that anybody can tell. Ends when dropped.
pub struct EpochHolder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    holder: Holder,
    layout: EpochLayout,
    /// Who has this applies, or reads what is applied.
    applier: Mutex<Applier>,
    ending: Mutex<bool>,
    end: Condvar,
}

/// How far a holder of epochs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochStatus {
    /// The epoch that the copy holds; `None` before an owner's first push is complete.
    pub epoch: Option<u64>,
    /// Why no further one is applied, if something is wrong with what the owner wrote.
    pub trouble: Option<String>,
}

/// An owner's memory as of one epoch.
pub struct EpochCopy {
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
    /// The epoch; 0 is the content of the push.
    pub epoch: u64,
}

impl EpochCopy {
    /// Its bytes.
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        self.mapping.slice().subslice(self.offset, self.len).expect("the layout's size")
    }
}

impl fmt::Debug for EpochCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochCopy({} bytes, epoch {})", self.len, self.epoch)
    }
}

impl Copy for Holder {
    fn look(&self) -> Option<(Arc<Mapping>, Generation)> {
        self.whole_copy()
    }

    fn change<T>(&self, generation: Generation, action: impl FnOnce(VolatileSlice<'_>) -> T) -> Option<T> {
        self.change_copy(generation, action)
    }

    fn outlives_power(&self) -> bool {
        self.outlives_power()
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_copy()
    }
}

impl EpochHolder {
    /// Starts a holder of `layout`, whatever size `config` says. What a holder before left in the file is brought to its last whole epoch
    /// first. After a power loss the file needs `accept_uncertain`, as any holder's does; what is in it is a whole epoch all the
    /// same: the last that was `Durable`, or a later one.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub fn start(config: HolderConfig, layout: EpochLayout, keys: KeySet) -> Result<Self, EpochError> {
        Self::begin(config, layout, |config| Ok(Holder::start(config, keys)?))
    }

    /// [`start`](Self::start) with an application behind it, which says who may attach and answers questions.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(
        config: HolderConfig,
        layout: EpochLayout,
        keys: KeySet,
        gate: Arc<dyn HolderGate>,
    ) -> Result<Self, EpochError> {
        Self::begin(config, layout, |config| Ok(Holder::start_with(config, keys, gate)?))
    }

    fn begin(
        mut config: HolderConfig,
        layout: EpochLayout,
        start: impl FnOnce(HolderConfig) -> Result<Holder, EpochError>,
    ) -> Result<Self, EpochError> {
        check_url(&config.url)?;
        config.size = layout.region_bytes();
        let holder = start(config)?;
        let shared = Arc::new(Shared {
            holder,
            layout,
            applier: Mutex::new(Applier::new(layout)),
            ending: Mutex::new(false),
            end: Condvar::new(),
        });
        shared.lock().apply_all(&shared.holder, || false);
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("mirrorbus-epoch".into());
        let thread = Some(thread.spawn(move || of_thread.run())?);
        Ok(Self { shared, thread })
    }

    /// The holder below: its address, its status, what changes. To fence it, and to take over, use
    /// [`take_over`](Self::take_over).
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.shared.holder
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> EpochStatus {
        let applier = self.shared.lock();
        let epoch = self.shared.whole().ok().map(|(_, epoch)| epoch);
        EpochStatus { epoch, trouble: applier.trouble().map(str::to_owned) }
    }

    /// A copy of the copy as it is now: a whole epoch, in memory of its own.
    ///
    /// # Errors
    /// There is none yet, an epoch is in it in part and cannot be finished, its file was cut short, or no memory.
    pub fn snapshot(&self) -> Result<EpochCopy, EpochError> {
        let fresh = Mapping::anonymous(self.shared.layout.image_bytes(), MapOptions::default())?;
        let holder = &self.shared.holder;
        // Nobody applies meanwhile; a push would replace it under our hands, and is seen by the generation.
        let mut applier = self.shared.lock();
        loop {
            self.shared.settle(&mut applier)?;
            let before = holder.whole_copy().map(|(_, generation)| generation);
            let (found, epoch) = self.shared.whole()?;
            fresh.slice().copy_from(0, found.slice());
            // What is not there any more was read as zeroes.
            found.mapping.check_whole()?;
            if before.is_some() && before == holder.whole_copy().map(|(_, generation)| generation) {
                return Ok(EpochCopy { len: fresh.len(), mapping: Arc::new(fresh), offset: 0, epoch });
            }
        }
    }

    /// Takes the owner's access away and applies what is whole; the rest is dropped. On return the copy is the last epoch that was
    /// acknowledged, or a later one whose commit record had come; it changes only when a new owner attaches, which
    /// a [`HolderGate`] may refuse.
    ///
    /// # Errors
    /// As [`Holder::fence`]; its deadline too when what is whole could not be applied in time: the owner is fenced then, call again.
    /// [`EpochError::Content`] when there is nothing whole, or an epoch is in the image in part and cannot be finished.
    pub fn take_over(&self, mut deadline: Deadline) -> Result<EpochCopy, EpochError> {
        self.shared.holder.fence(Deadline::at(deadline.instant()))?;
        let mut applier = self.shared.lock();
        if !applier.apply_all(&self.shared.holder, || deadline.remaining().is_none()) {
            return Err(FenceError::Deadline.into());
        }
        self.shared.settle(&mut applier)?;
        let (copy, _) = self.shared.whole()?;
        copy.mapping.check_whole()?;
        Ok(copy)
    }

    /// Ends it: the owner is told, threads are joined, a file keeps the copy.
    pub fn stop(self) {
        drop(self);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Applier> {
        self.applier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finishes the epoch that is in the image in part, if one is.
    fn settle(&self, applier: &mut Applier) -> Result<(), EpochError> {
        if !applier.between_epochs() {
            applier.apply_all(&self.holder, || false);
        }
        if applier.between_epochs() {
            return Ok(());
        }
        let why = applier.trouble().unwrap_or("its log is not there any more");
        Err(EpochError::Content(format!("an epoch is in it in part: {why}")))
    }

    /// The image as it is, and its epoch.
    fn whole(&self) -> Result<(EpochCopy, u64), EpochError> {
        let (mapping, _) = self.holder.whole_copy().ok_or_else(|| {
            EpochError::Content(format!(
                "it is {:?}: no owner's push is complete",
                self.holder.status().content
            ))
        })?;
        let log = read_head(mapping.slice(), self.layout).map_err(EpochError::Content)?;
        let applied = read_applied(mapping.slice(), self.layout, log).map_err(EpochError::Content)?;
        let epoch = applied.number;
        let (offset, len) = (self.layout.image_offset(), self.layout.image_bytes());
        Ok((EpochCopy { mapping, offset, len, epoch }, epoch))
    }

    /// Looks until the end.
    fn run(&self) {
        let mut pause = LOOK.0;
        loop {
            let idle = self.lock().step(&self.holder) == Step::Nothing;
            pause = if idle { (pause * 2).min(LOOK.1) } else { LOOK.0 };
            let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
            if *ending {
                return;
            }
            if idle {
                let waited = self.end.wait_timeout(ending, pause).unwrap_or_else(PoisonError::into_inner);
                if *waited.0 {
                    return;
                }
            }
        }
    }
}

impl Drop for EpochHolder {
    fn drop(&mut self) {
        *self.shared.ending.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.end.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for EpochHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochHolder({:?}, {:?})", self.shared.layout, self.status())
    }
}
