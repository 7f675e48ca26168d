//! What the key-value file stands on: a file of ours in place of the library's own, for two reasons.
//!
//! *A length is durable before anything counts on it.* The library's header may reach the disk before the length that it speaks of, and
//! the library does not open a file that is shorter than its header says.
//!
//! *Off means off.* The library writes when it is closed, even after an error. What was found to be damaged is left as it was found.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Turns a backend off for good.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(super) fn turn_off(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::other("the checkpoint is not written any more after an error"));
        }
        Ok(())
    }
}

/// Any backend, with both.
#[derive(Debug)]
pub(super) struct Careful<B> {
    inner: B,
    switch: Switch,
}

impl<B> Careful<B> {
    pub(super) const fn new(inner: B, switch: Switch) -> Self {
        Self { inner, switch }
    }
}

impl<B: StorageBackend> StorageBackend for Careful<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.inner.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.switch.check()?;
        let grows = len > self.inner.len()?;
        self.inner.set_len(len)?;
        if grows { self.inner.sync_data(false) } else { Ok(()) }
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        self.switch.check()?;
        self.inner.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.switch.check()?;
        self.inner.write(offset, data)
    }
}

/// A file, which is given room when it grows, so that a full disk is found before anything was changed.
#[derive(Debug)]
pub(super) struct OnFile(pub(super) File);

impl StorageBackend for OnFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        if crate::sim::scheduler::is_dying() {
            return Ok(());
        }
        let before = self.0.metadata()?.len();
        #[cfg(test)]
        if crate::sim::scheduler::is_simulated() {
            crate::sim::files::wrote(&self.0, before.min(len)..before.max(len));
            return self.0.set_len(len);
        }
        if len <= before {
            return self.0.set_len(len);
        }
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), before, len - before) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP) => return self.0.set_len(len),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn sync_data(&self, _: bool) -> io::Result<()> {
        #[cfg(test)]
        if crate::sim::scheduler::is_dying() {
            return Ok(());
        }
        #[cfg(test)]
        if let Some(synced) = crate::sim::files::sync_at_once(&self.0) {
            return synced;
        }
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if crate::sim::scheduler::is_dying() {
            return Ok(());
        }
        #[cfg(test)]
        crate::sim::files::wrote(&self.0, offset..offset + data.len() as u64);
        self.0.write_all_at(data, offset)
    }
}
