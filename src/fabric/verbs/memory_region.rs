//! Memory that a device may read or write: registered with the least access that its use needs.
//!
//! Never with relaxed ordering: a device could then make a later write visible before an earlier one, and the copy at the
//! holder would not be a prefix at every moment.

use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{ibv_access_flags, ibv_dereg_mr, ibv_mr, ibv_reg_mr};

use super::{ProtectionDomain, VerbsError};
use crate::fabric::Access;
use crate::memory::Mapping;

/// What a registration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionUse {
    /// This side's device reads it, to write it to the peer.
    Source,
    /// And writes what it read from the peer into it.
    SourceAndTarget,
    /// The peer reaches it.
    Exported(Access),
}

impl RegionUse {
    const fn flags(self) -> u32 {
        const WRITE_HERE: u32 = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0;
        const READ: u32 = ibv_access_flags::IBV_ACCESS_REMOTE_READ.0;
        const WRITE: u32 = ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0;
        match self {
            Self::Source => 0,
            Self::SourceAndTarget => WRITE_HERE,
            Self::Exported(Access::Read) => READ,
            // A device that may write for the peer must be allowed to write at all.
            Self::Exported(Access::ReadWrite) => WRITE_HERE | READ | WRITE,
        }
    }
}

/// A registration. Its pages are pinned while it lives.
#[derive(Debug)]
pub struct MemoryRegion {
    raw: Option<NonNull<ibv_mr>>,
    local_key: u32,
    remote_key: u32,
    memory: Arc<Mapping>,
    domain: Arc<ProtectionDomain>,
}

// SAFETY: the library takes a lock of its own wherever threads may meet.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    /// Registers all of `memory`, which fills and pins it.
    ///
    /// # Errors
    /// [`VerbsError::Memlock`] when more would be pinned than the process may; else why the system refused.
    pub fn new(
        domain: Arc<ProtectionDomain>,
        memory: Arc<Mapping>,
        purpose: RegionUse,
    ) -> Result<Self, VerbsError> {
        let asked = memory.len();
        let device = domain.device();
        if asked as u64 > device.limits().region_bytes_max {
            let most = usize::try_from(device.limits().region_bytes_max).unwrap_or(usize::MAX);
            let device = device.name().to_owned();
            return Err(VerbsError::Limit { device, what: "bytes in a memory region", asked, most });
        }
        let start = std::ptr::with_exposed_provenance_mut(memory.address());
        let flags = purpose.flags().cast_signed();
        // SAFETY: the mapping stays where it is as long as it lives, and is held until the region is deregistered.
        let raw = unsafe { ibv_reg_mr(domain.as_ptr(), start, asked, flags) };
        let Some(raw) = NonNull::new(raw) else {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            return Err(VerbsError::register(asked, memory.kind().to_string(), errno));
        };
        // SAFETY: filled in by the library, alive until it is deregistered.
        let region = unsafe { raw.as_ref() };
        let (local_key, remote_key) = (region.lkey, region.rkey);
        Ok(Self { raw: Some(raw), local_key, remote_key, memory, domain })
    }

    /// The key by which this side's requests name it.
    #[must_use]
    pub const fn local_key(&self) -> u32 {
        self.local_key
    }

    /// The key by which the peer's requests name it.
    #[must_use]
    pub const fn remote_key(&self) -> u32 {
        self.remote_key
    }

    /// The address of its first byte.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.memory.address() as u64
    }

    /// Its memory.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    /// The domain it belongs to.
    #[must_use]
    pub const fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// Takes the keys back: on return no request that names one is carried out, and none is being carried out.
    ///
    /// # Errors
    /// The system refused: the keys may still be good, and this may be tried again.
    pub fn deregister(&mut self) -> Result<(), VerbsError> {
        let Some(raw) = self.raw else { return Ok(()) };
        // SAFETY: registered by us, and not deregistered yet: it is forgotten below when this succeeds.
        VerbsError::check("ibv_dereg_mr", unsafe { ibv_dereg_mr(raw.as_ptr()) })?;
        self.raw = None;
        Ok(())
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        if let Err(error) = self.deregister() {
            // The device may still reach the memory: better to lose it than to give it to somebody else.
            log::error!("{error}: {} bytes stay mapped until the process ends", self.memory.len());
            std::mem::forget(self.memory.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_the_least() {
        assert_eq!(RegionUse::Source.flags(), 0);
        assert_eq!(RegionUse::SourceAndTarget.flags(), 1);
        assert_eq!(RegionUse::Exported(Access::Read).flags(), 4);
        assert_eq!(RegionUse::Exported(Access::ReadWrite).flags(), 1 | 2 | 4);
    }
}
