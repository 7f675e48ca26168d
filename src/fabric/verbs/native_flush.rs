//! Whether a device has a flush of its own: an InfiniBand extension of 2021 by which a write is made visible, or brought
//! into persistent memory, without a read behind it.
//!
//! It is asked for and told, not used: no function of the bindings posts one, and no kernel that this was tested on has a
//! soft-RoCE with it. A read behind the write gives the same visibility; persistence is what the holder's sync is for.

use std::mem::offset_of;

use rdma_sys::{ibv_context, ibv_device_attr_ex, verbs_context};

use super::{Device, VerbsError};

/// `IB_UVERBS_DEVICE_FLUSH_GLOBAL` of the kernel's ib_user_verbs.h.
const GLOBAL: u64 = 1 << 38;
/// `IB_UVERBS_DEVICE_FLUSH_PERSISTENT`.
const PERSISTENT: u64 = 1 << 39;

/// What a device says of its own flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NativeFlush {
    /// It has none, or the library is too old to ask.
    None,
    /// To where every processor of the peer sees it.
    Visible,
    /// To persistent memory too.
    Persistent,
}

impl NativeFlush {
    const fn of(flags: u64) -> Self {
        match (flags & GLOBAL != 0, flags & PERSISTENT != 0) {
            (_, true) => Self::Persistent,
            (true, false) => Self::Visible,
            (false, false) => Self::None,
        }
    }
}

impl Device {
    /// What the device says of a flush of its own, which this version does not use.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn native_flush(&self) -> Result<NativeFlush, VerbsError> {
        let context: *mut ibv_context = self.as_ptr();
        // SAFETY: the context is open.
        let extended = unsafe { (*context).abi_compat }.addr() == usize::MAX;
        if !extended {
            return Ok(NativeFlush::None);
        }
        let whole = context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast::<verbs_context>();
        // SAFETY: a context that says it is extended is the last part of this struct.
        let size = unsafe { (*whole).sz };
        // The struct grows at its front: how much of it a library has is told by its size.
        if size < size_of::<verbs_context>() - offset_of!(verbs_context, query_device_ex) {
            return Ok(NativeFlush::None);
        }
        // SAFETY: the library has this part, see above.
        let Some(query) = (unsafe { (*whole).query_device_ex }) else { return Ok(NativeFlush::None) };
        // SAFETY: all zeroes is a value of this struct of numbers.
        let mut attributes: ibv_device_attr_ex = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open and the struct is ours, of the size that is told.
        let returned =
            unsafe { query(context, std::ptr::null(), &raw mut attributes, size_of::<ibv_device_attr_ex>()) };
        VerbsError::check("ibv_query_device_ex", returned)?;
        Ok(NativeFlush::of(attributes.device_cap_flags_ex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_read() {
        assert_eq!(NativeFlush::of(!(GLOBAL | PERSISTENT)), NativeFlush::None);
        assert_eq!(NativeFlush::of(GLOBAL | 1), NativeFlush::Visible);
        assert_eq!(NativeFlush::of(PERSISTENT | GLOBAL), NativeFlush::Persistent);
    }
}
