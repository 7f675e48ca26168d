//! A holder's RDMA: a thread that lets queues in, and the proof that a revocation took effect.
//!
//! The thread answers each request at once, under the lock of the state: so a revocation finds every registration, and none
//! is made behind its back. It is the only one that makes registrations; others only take them away.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::state::{Owner, Shared};
use crate::fabric::verbs::{Arrival, ConnectRequest, Device, Export, Listener};
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
    Listener::bind(address).map_err(std::io::Error::other)
}

/// Starts the thread.
///
/// # Errors
/// No thread left.
pub(super) fn start(listener: Listener, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("mirrorbus-rdma".into()).spawn(move || run(listener, &shared))
}

fn run(mut listener: Listener, shared: &Shared) {
    while !shared.stopping.load(Ordering::SeqCst) {
        let (devices, until) = with_export(shared, |owner| {
            let export = owner.export.as_mut()?;
            let until = export.expire(Instant::now());
            Some((export.devices().cloned().collect::<Vec<_>>(), until))
        })
        .unwrap_or_default();
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
        devices.iter().for_each(|device| look_at(shared, device));
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
    if let Err(why) = export.accept(request, &token) {
        log::warn!("a queue over RDMA was not opened: {why}");
    }
}

fn look_at(shared: &Shared, device: &Arc<Device>) {
    loop {
        match device.next_event() {
            Ok(None) => return,
            Ok(Some(event)) => {
                with_export(shared, |owner| owner.export.as_mut().map(|export| export.handle(device, event)));
            }
            Err(error) => return log::warn!("{error}"),
        }
    }
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
