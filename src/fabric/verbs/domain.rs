//! A protection domain: what may be used together. One per session and device, so that no queue pair of one session can
//! reach memory that was registered for another.

use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{ibv_alloc_pd, ibv_dealloc_pd, ibv_pd};

use super::{Device, VerbsError};

/// A protection domain.
#[derive(Debug)]
pub struct ProtectionDomain {
    raw: NonNull<ibv_pd>,
    device: Arc<Device>,
}

// SAFETY: the library takes a lock of its own wherever threads may meet.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl ProtectionDomain {
    /// A new one.
    ///
    /// # Errors
    /// The device has no more.
    pub fn new(device: Arc<Device>) -> Result<Arc<Self>, VerbsError> {
        // SAFETY: the device is open.
        let raw = unsafe { ibv_alloc_pd(device.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_alloc_pd"))?;
        Ok(Arc::new(Self { raw, device }))
    }

    pub(super) const fn as_ptr(&self) -> *mut ibv_pd {
        self.raw.as_ptr()
    }

    /// Its device.
    #[must_use]
    pub const fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        // SAFETY: made by the library, freed once; everything that was made of it held it, and is gone.
        let returned = unsafe { ibv_dealloc_pd(self.as_ptr()) };
        if let Err(error) = VerbsError::check("ibv_dealloc_pd", returned) {
            log::warn!("{error}");
        }
    }
}
