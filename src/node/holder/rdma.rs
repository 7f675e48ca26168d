//! A holder's RDMA: a thread that lets queues in, and the proof that a revocation took effect.
//!
//! The thread answers each request at once. Memory is registered without the lock of the state, since that may take long,
//! and counts only when it is added under it, where the session is looked at once more; queue pairs are made under it. So a
//! revocation finds everything that reaches memory, and nothing is made behind its back. It is the only thread that makes
//! any; others only take away.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::state::{Owner, Shared};
use crate::fabric::ExportedWindow;
use crate::fabric::verbs::{
    Arrival, ConnectRequest, Device, DeviceEvent, Export, Exported, Listener, VerbsError,
};
use crate::memory::{Mapping, VolatileSlice};
use crate::node::stream::timespec;

/// Arrivals looked at before the devices are.
const ARRIVALS_MAX: usize = 64;
/// Bytes of the copy that are looked at twice after a revocation: all of a small copy, evenly spread pieces of a large
/// one. The proof is what the device answered; this would find one that lies, for the time of two passes.
const LOOK_BYTES_MAX: usize = 64 << 20;
/// Bytes in a piece.
const PIECE_BYTES: usize = 64 << 10;

/// Listens where the control connections come in.
///
/// # Errors
/// Why there is no RDMA at that address.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<Listener> {
    Listener::bind(address).map_err(|error| match error {
        VerbsError::Call { errno, .. } if errno == libc::EADDRINUSE => {
            std::io::Error::new(std::io::ErrorKind::AddrInUse, error)
        }
        other => std::io::Error::other(other),
    })
}

/// Starts the thread.
///
/// # Errors
/// No thread left.
pub(super) fn start(listener: Listener, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("mirrorbus-rdma".into()).spawn(move || run(listener, &shared))
}

fn run(mut listener: Listener, shared: &Shared) {
    let mut deaf: Vec<Arc<Device>> = Vec::new();
    while !shared.stopping.load(Ordering::SeqCst) {
        // What has arrived was taken by now: a peer that showed up is not called late.
        let (mut devices, until) = with_export(shared, |owner| {
            let export = owner.export.as_mut()?;
            let until = export.expire(Instant::now());
            Some((export.devices().cloned().collect::<Vec<_>>(), until))
        })
        .unwrap_or_default();
        deaf.retain(|gone| devices.iter().any(|device| Arc::ptr_eq(device, gone)));
        devices.retain(|device| !deaf.iter().any(|gone| Arc::ptr_eq(device, gone)));
        wait(&listener, shared, &devices, until);
        for _ in 0..ARRIVALS_MAX {
            match listener.next_arrival() {
                Ok(Some(arrival)) => take(shared, arrival),
                Ok(None) => break,
                Err(error) => {
                    log::error!("no RDMA connection is let in any more: {error}");
                    return;
                }
            }
        }
        for device in devices {
            if let Err(error) = look_at(shared, &device) {
                log::error!("{error}: the events of {} are not heard any more", device.name());
                with_export(shared, |owner| {
                    owner.export.as_mut().map(|export| export.handle(&device, DeviceEvent::DeviceFatal))
                });
                deaf.push(device);
            }
        }
    }
}

fn with_export<T>(shared: &Shared, action: impl FnOnce(&mut Owner) -> Option<T>) -> Option<T> {
    shared.lock().owner.as_mut().and_then(action)
}

fn wait(listener: &Listener, shared: &Shared, devices: &[Arc<Device>], until: Option<Instant>) {
    let mut fds = vec![
        PollFd::new(&shared.rdma_wake, PollFlags::IN),
        PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
    ];
    fds.extend(devices.iter().map(|device| PollFd::from_borrowed_fd(device.events_fd(), PollFlags::IN)));
    let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
    // An interrupted sleep is a short one.
    let _ = rustix::event::poll(&mut fds, timeout.as_ref());
    let mut counter = [0; 8];
    let _ = rustix::io::read(&shared.rdma_wake, &mut counter);
}

fn take(shared: &Shared, arrival: Arrival) {
    match arrival {
        Arrival::Request(request) => admit(shared, request),
        Arrival::Established(key) => {
            with_export(shared, |owner| owner.export.as_mut().map(|export| export.established(key)));
        }
        Arrival::Ended(key) => {
            with_export(shared, |owner| owner.export.as_mut().map(|export| export.ended(key)));
        }
        Arrival::Stranger => log::info!("an RDMA connection was turned away: it speaks another protocol"),
    }
}

/// Lets in who has a token of the session in force; the token is forgotten.
fn admit(shared: &Shared, request: ConnectRequest) {
    let exported = match to_register(shared, &request).map(|windows| Exported::new(&request, &windows)) {
        None => None,
        Some(Ok(exported)) => Some(exported),
        Some(Err(error)) => {
            log::warn!("a queue over RDMA was not opened: {error}");
            return request.reject(&error.to_peer());
        }
    };
    let mut state = shared.lock();
    let Some(owner) = state.owner_of(request.session()) else {
        return request.reject("its session is unknown or over");
    };
    if owner.windows.iter().any(|window| window.is_revoked()) {
        return request.reject("its session was revoked");
    }
    let Some(place) = request.proven(&owner.tokens) else {
        return request.reject("it has no token of its session, or one that was used before");
    };
    let token = owner.tokens.swap_remove(place);
    let Some(export) = owner.export.as_mut() else {
        return request.reject("its session is not over RDMA");
    };
    exported.into_iter().for_each(|exported| export.add(exported));
    if let Err(why) = export.accept(request, &token) {
        log::warn!("a queue over RDMA was not opened: {why}");
    }
}

/// What is to be registered before an asker that has a token can be let in.
fn to_register(shared: &Shared, request: &ConnectRequest) -> Option<Vec<Arc<ExportedWindow>>> {
    let mut state = shared.lock();
    let owner = state.owner_of(request.session())?;
    let windows = owner.export.as_ref()?.lacks(request)?;
    request.proven(&owner.tokens)?;
    Some(windows.to_vec())
}

fn look_at(shared: &Shared, device: &Arc<Device>) -> Result<(), VerbsError> {
    while let Some(event) = device.next_event()? {
        with_export(shared, |owner| owner.export.as_mut().map(|export| export.handle(device, event)));
    }
    Ok(())
}

/// Takes everything away and looks twice at the copy.
///
/// # Errors
/// A step that the system refused, or bytes that changed although every step was done.
pub(super) fn revoke(export: &mut Export, copy: &Mapping) -> Result<(), String> {
    let connections = export.connections();
    export.revoke().map_err(|error| error.to_string())?;
    if connections > 0 && look(copy.slice()) != look(copy.slice()) {
        return Err("bytes of the copy changed after every key to it was taken back".into());
    }
    Ok(())
}

fn look(copy: VolatileSlice<'_>) -> u32 {
    let step = PIECE_BYTES * copy.len().div_ceil(LOOK_BYTES_MAX).max(1);
    (0..copy.len()).step_by(step).fold(0, |digest: u32, at| {
        let piece = copy.subslice(at, PIECE_BYTES.min(copy.len() - at)).map_or(0, |piece| piece.crc32c());
        digest.rotate_left(5) ^ piece
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MapOptions;

    #[test]
    fn a_changed_byte_is_seen() {
        let copy = Mapping::anonymous(3 * PIECE_BYTES + 5, MapOptions::default()).unwrap();
        let before = look(copy.slice());
        assert_eq!(look(copy.slice()), before);
        copy.slice().write(3 * PIECE_BYTES + 4, &[1]);
        assert_ne!(look(copy.slice()), before);
    }
}
