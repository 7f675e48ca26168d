//! A port's attributes, asked of the device now: state and MTU change while a program runs.
//!
//! The crate `ibverbs` keeps what it asks of a port to itself, and refuses a device whose port is not active; for someone
//! who wants to know why nothing works that is the wrong moment. So this asks the library directly.

use std::ffi::CStr;
use std::io;

use rdma_sys::{
    ___ibv_query_port, ibv_close_device, ibv_context, ibv_device, ibv_free_device_list, ibv_get_device_list,
    ibv_get_device_name, ibv_open_device, ibv_port_attr,
};

/// What a port says of itself, in the numbers of the verbs library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `ibv_port_state`: 4 is active.
    pub(super) state: u32,
    /// `ibv_mtu`: 1 is 256 bytes, each further one twice as much.
    pub(super) active_mtu: u32,
    /// The same, at most.
    pub(super) max_mtu: u32,
}

/// Asks port `port` of the device `name`.
///
/// # Errors
/// There is no such device or port, or it cannot be opened.
pub(super) fn query(name: &str, port: u8) -> io::Result<Attributes> {
    let context = Context::open(name)?;
    // What the library leaves out is 0 then: an older one fills less.
    // SAFETY: the structure consists of integers, for which zeroes are a value.
    let mut attributes: ibv_port_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the context is open until it is dropped, and the structure is of the size that the function takes.
    let code = unsafe { ___ibv_query_port(context.0, port, &raw mut attributes) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let ibv_port_attr { state, active_mtu, max_mtu, .. } = attributes;
    Ok(Attributes { state, active_mtu, max_mtu })
}

/// An open device, closed on drop.
struct Context(*mut ibv_context);

impl Context {
    fn open(name: &str) -> io::Result<Self> {
        let list = List::new()?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no RDMA device {name}"));
        let device = list.find(name).ok_or_else(missing)?;
        // SAFETY: the device is one of the list, which is not freed yet.
        let context = unsafe { ibv_open_device(device) };
        // An open device outlives the list.
        if context.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(context)) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was opened by `open` and is closed here only; nothing was made from it. An error leaves a
        // descriptor open, which nobody can do anything about.
        let _ = unsafe { ibv_close_device(self.0) };
    }
}

/// The library's list of devices, freed on drop.
struct List {
    first: *mut *mut ibv_device,
    count: usize,
}

impl List {
    fn new() -> io::Result<Self> {
        let mut count = 0;
        // SAFETY: `count` is written before the function returns.
        let first = unsafe { ibv_get_device_list(&raw mut count) };
        if first.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { first, count: usize::try_from(count).unwrap_or(0) })
    }

    fn find(&self, name: &str) -> Option<*mut ibv_device> {
        (0..self.count).find_map(|at| {
            // SAFETY: the list has `count` places, and lives as long as `self`.
            let place = unsafe { self.first.add(at) };
            // SAFETY: as above; the library filled each place.
            let device = unsafe { *place };
            // SAFETY: the device is one of the list, which the library filled.
            let letters = unsafe { ibv_get_device_name(device) };
            if letters.is_null() {
                return None;
            }
            // SAFETY: a device's name ends with a 0 and lives as long as the list.
            let found = unsafe { CStr::from_ptr(letters) };
            (found.to_bytes() == name.as_bytes()).then_some(device)
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: it is the library's list, and is freed here only.
        unsafe { ibv_free_device_list(self.first) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = query("no-such-device", 1).unwrap_err();
        assert!(
            error.kind() == io::ErrorKind::NotFound || error.raw_os_error().is_some(),
            "without RDMA in the kernel the list itself fails: {error}"
        );
    }
}
