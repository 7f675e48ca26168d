//! A holder's listener for RDMA connections.
//!
//! Everybody who reaches the port can ask. A request costs an id of the connection manager until it is answered, and each is
//! answered as soon as it is looked at: so none waits here, and the kernel keeps at most [`BACKLOG`] that were not looked at.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::VerbsError;
use super::connection_id::ConnectionId;
use super::event_channel::{EventChannel, EventKind};
use super::private_data::{self, RequestClaim};
use crate::base::SessionId;
use crate::control::{QUEUE_PROOF_BYTES, Token, find_request};

/// Requests that the kernel keeps until they are looked at; it turns down what comes beyond.
const BACKLOG: i32 = 64;

/// What the listener has to say.
#[derive(Debug)]
pub enum Arrival {
    /// Somebody asks for a queue.
    Request(ConnectRequest),
    /// The peer of the accepted connection with this key is there.
    Established(u64),
    /// The accepted connection with this key has ended.
    Ended(u64),
    /// Somebody was turned away who does not even speak the protocol.
    Stranger,
}

/// Somebody asks for a queue.
#[derive(Debug)]
pub struct ConnectRequest {
    pub(super) id: ConnectionId,
    pub(super) key: u64,
    /// The asker's queue pair, as the connection manager names it.
    pub(super) queue_pair: u32,
    claim: RequestClaim,
}

impl ConnectRequest {
    /// The session that it claims to belong to.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.claim.session
    }

    /// The proof that it gave.
    #[must_use]
    pub const fn proof(&self) -> &[u8; QUEUE_PROOF_BYTES] {
        &self.claim.proof
    }

    /// Which of `tokens` it proved to have.
    #[must_use]
    pub fn proven(&self, tokens: &[Token]) -> Option<usize> {
        find_request(tokens, self.claim.session, self.queue_pair, &self.claim.proof)
    }

    /// Turns it down, with a reason that the asker sees.
    pub fn reject(self, why: &str) {
        log::info!("an RDMA connection was turned down: {why}");
        if let Err(error) = self.id.reject(private_data::rejection(why)) {
            log::debug!("{error}");
        }
    }
}

/// Listens for RDMA connections.
#[derive(Debug)]
pub struct Listener {
    id: ConnectionId,
    channel: Arc<EventChannel>,
    next_key: u64,
}

impl Listener {
    /// Listens at `address`; port 0 takes any.
    ///
    /// # Errors
    /// No RDMA device has the address, the port is taken, or the kernel has no RDMA connection manager.
    pub fn bind(address: SocketAddr) -> Result<Self, VerbsError> {
        let channel = EventChannel::new()?;
        let id = ConnectionId::new(channel.clone(), 0)?;
        id.bind(address)?;
        if id.context().is_none() && !address.ip().is_unspecified() {
            return Err(VerbsError::NoDevice { address: address.to_string() });
        }
        id.listen(BACKLOG)?;
        Ok(Self { id, channel, next_key: 1 })
    }

    /// The port it listens at.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.id.port()
    }

    /// What there is to say, if there is anything. Never waits.
    ///
    /// # Errors
    /// The kernel cannot be asked any more.
    pub fn next_arrival(&mut self) -> Result<Option<Arrival>, VerbsError> {
        while let Some(event) = self.channel.next()? {
            match (event.kind, event.request) {
                (EventKind::ConnectRequest, Some(mut id)) => {
                    let key = self.next_key;
                    self.next_key += 1;
                    id.set_key(key);
                    let Some(claim) = private_data::read_request(&event.private) else {
                        let _ = id.reject(private_data::rejection(
                            "this is a Mirrorbus holder: no request of its protocol",
                        ));
                        return Ok(Some(Arrival::Stranger));
                    };
                    let request = ConnectRequest { id, key, queue_pair: event.queue_pair, claim };
                    return Ok(Some(Arrival::Request(request)));
                }
                (EventKind::Established, _) => return Ok(Some(Arrival::Established(event.key))),
                (
                    EventKind::Disconnected
                    | EventKind::Rejected
                    | EventKind::DeviceRemoval
                    | EventKind::Failed(_),
                    _,
                ) if event.key != 0 => {
                    log::debug!("RDMA connection {}: {} ({})", event.key, event.kind, event.status);
                    return Ok(Some(Arrival::Ended(event.key)));
                }
                (EventKind::DeviceRemoval, _) => {
                    log::error!(
                        "the RDMA device was removed: no owner can connect until the holder is restarted"
                    );
                }
                (kind, _) => log::debug!("RDMA connection {}: {kind}", event.key),
            }
        }
        Ok(None)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.fd()
    }
}
