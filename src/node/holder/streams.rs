//! Data streams that finished their handshake: memory is offered over them, or a receiver thread serves them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::service::TOKENS_MAX;
use super::state::Shared;
use crate::base::{FabricUrl, SessionId};
use crate::control::{DataCipher, Token};
use crate::fabric::shm::{OwnerProcess, offer};
use crate::fabric::tcp::Receiver;
use crate::node::cipher::StreamCipher;
use crate::node::owner::{PURPOSE_PLAIN, PURPOSE_SEALED};

/// Queues of one owner, beyond which it is refused another.
pub(super) const RECEIVERS_MAX: usize = 256;
/// Those that were promised before may still come.
const RECEIVERS_HARD_MAX: usize = RECEIVERS_MAX + TOKENS_MAX;

/// A thread that serves one tcp queue.
#[derive(Debug)]
pub(super) struct ReceiverThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    socket: OwnedFd,
}

impl ReceiverThread {
    /// Tells it to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Waits for its end.
    pub(super) fn join(self) {
        let _ = self.thread.join();
    }

    /// Whether it still serves.
    pub(super) fn runs(&self) -> bool {
        !self.thread.is_finished()
    }
}

/// A stream whose peer proved a token of `session`.
#[derive(Debug)]
pub(super) struct ProvenStream {
    pub(super) session: SessionId,
    pub(super) token: Token,
    pub(super) purpose: Vec<u8>,
    pub(super) socket: OwnedFd,
    pub(super) cipher: DataCipher,
    pub(super) leftover: Vec<u8>,
}

impl Shared {
    /// Puts a stream to its use.
    ///
    /// # Errors
    /// Why it was dropped.
    pub(super) fn take_stream(&self, stream: ProvenStream) -> Result<(), String> {
        let mut state = self.lock();
        let owner = state.owner_of(stream.session).ok_or("its session is over")?;
        let place = owner.tokens.iter().position(|token| token.as_bytes() == stream.token.as_bytes());
        owner.tokens.swap_remove(place.ok_or("its token was used before")?);
        if let Some((page, _)) = &owner.page {
            let process =
                OwnerProcess::of(stream.socket.as_fd()).map_err(|error| format!("its process: {error}"))?;
            owner.processes.push(process);
            for window in &owner.windows {
                offer(stream.socket.as_fd(), window, page).map_err(|error| error.to_string())?;
            }
            return Ok(());
        }
        let must_seal = matches!(self.url, FabricUrl::Tcp { encrypt: true, .. });
        let cipher = match stream.purpose.as_slice() {
            [PURPOSE_SEALED] => Some(Box::new(StreamCipher(stream.cipher)) as _),
            [PURPOSE_PLAIN] if !must_seal => None,
            [PURPOSE_PLAIN] => {
                return Err("this holder takes encrypted streams only: connect with ?encrypt=1".into());
            }
            other => return Err(format!("its purpose {other:02x?} is unknown")),
        };
        owner.receivers.retain(ReceiverThread::runs);
        if owner.receivers.len() >= RECEIVERS_HARD_MAX {
            return Err(format!("{RECEIVERS_HARD_MAX} queues are open, more than an owner may have"));
        }
        let socket = stream.socket.try_clone().map_err(|error| error.to_string())?;
        let mut receiver =
            Receiver::new(stream.socket, owner.windows.clone(), self.config.spin, cipher, stream.leftover);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = stop.clone();
            std::thread::Builder::new()
                .name("mirrorbus-recv".into())
                .spawn(move || {
                    let end = receiver.run(&stop);
                    log::debug!("a data stream ended: {end:?}");
                })
                .map_err(|error| error.to_string())?
        };
        owner.receivers.push(ReceiverThread { thread, stop, socket });
        Ok(())
    }
}
