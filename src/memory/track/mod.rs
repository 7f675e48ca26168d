//! Which pages of a memory were stored to, by ordinary stores through a pointer.
//!
//! ```text
//!             the first store to a page            collect
//!  protected ───────────────────────────▶ written ─────────▶ protected, and told
//! ```
//!
//! No method sees each store: after the first one a page is open, and what was stored there later is found only when the pages are
//! collected. A page is **protected again before it is told**, so whoever copies it afterwards misses nothing: what is
//! stored before the copy is in it, what is stored after it is told next time, and what is stored meanwhile is both.
//!
//! | Method | Needs | A system call may write into the memory | Found out in |
//! |---|---|---|---|
//! | [`TrackingMethod::WpAsync`] | Linux 6.9 | yes | the kernel |
//! | [`TrackingMethod::SoftDirty`] | `CONFIG_MEM_SOFT_DIRTY` | yes, but not while pages of **any** memory are collected | the kernel, for the whole process |
//! | [`TrackingMethod::Mprotect`] | nothing | after [`TrackedMemory::prepare`] | a signal handler |
//!
//! Soft-dirty bits are cleared for the whole process, so every memory that is tracked so is read-only for the moment in which one of them is
//! collected, made, or tried: a `recv` of another thread into memory A that is under way while memory B is collected may fail with EFAULT.
//! Ordinary stores wait for that moment.

mod fault;
mod mprotect;
mod probe;
mod runs;
mod soft_dirty;
#[cfg(all(test, not(miri)))]
mod tests;
mod tracked;
mod wp_async;

pub use probe::TrackingMethod;
pub use runs::Runs;
pub use tracked::{TrackError, TrackedMemory};

use std::io;
use std::ops::Range;

/// A method at work on one memory, whose pages are all protected when it begins.
trait Tracker: Send {
    /// Adds every page that was stored to since the last time, each protected again.
    ///
    /// # Errors
    /// What was added is protected; of the rest nothing is known.
    fn collect(&mut self, found: &mut Runs) -> io::Result<()>;

    /// Lets the kernel store into `range`, in bytes, until the next collection; its pages count as stored to.
    fn prepare(&self, range: Range<usize>) -> io::Result<()>;
}
