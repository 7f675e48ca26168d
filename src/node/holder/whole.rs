//! What an application behind the holder does with the copy while owners may come and go.

use std::io;
use std::sync::Arc;

use super::state::Shared;
use super::{Content, Holder};
use crate::base::{Generation, Medium};
use crate::memory::{Mapping, VolatileSlice};

impl Shared {
    /// Brings `memory`, the copy, to stable storage; keeps in mind that it failed.
    pub(super) fn sync_copy(&self, memory: &Mapping) -> io::Result<()> {
        if self.url.medium() == Medium::Rdma && memory.is_durable_backing() {
            memory.touch_all();
        }
        memory.sync().inspect_err(|error| {
            if error.kind() != io::ErrorKind::Unsupported {
                self.remember_failed_sync(&mut self.lock(), error.to_string());
            }
        })
    }
}

impl Holder {
    /// The copy, if it is whole, and the generation that it is of.
    pub(crate) fn whole_copy(&self) -> Option<(Arc<Mapping>, Generation)> {
        let state = self.shared.lock();
        (state.content == Content::Complete).then(|| (state.memory.clone(), state.generation))
    }

    /// Runs `action` on the copy if it is whole and of this generation. Nobody attaches or fences meanwhile, nor does the copy move to
    /// other memory: `action` must be short, and must not ask the holder. It may write what no owner stores to.
    pub(crate) fn change_copy<T>(
        &self,
        generation: Generation,
        action: impl FnOnce(VolatileSlice<'_>) -> T,
    ) -> Option<T> {
        let state = self.shared.lock();
        let same = state.content == Content::Complete && state.generation == generation;
        same.then(|| action(state.memory.slice()))
    }

    /// Whether the copy outlives the power once it is synced, by what is known now.
    pub(crate) fn outlives_power(&self) -> bool {
        let state = self.shared.lock();
        state.memory.is_durable_backing() && state.sync_failed.is_none()
    }

    /// Returns when all that was written into the copy before is on stable storage.
    ///
    /// # Errors
    /// As [`Mapping::sync`]; nothing becomes `Durable` any more then.
    pub(crate) fn sync_copy(&self) -> io::Result<()> {
        let memory = self.memory();
        self.shared.sync_copy(&memory)
    }
}
