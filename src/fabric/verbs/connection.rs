//! An owner's end of one connection: what a queue and its watch share.
//!
//! ```text
//!  resolve address ─▶ resolve route ─▶ (queue pair INIT) connect ─▶ answer ─▶ (RTR, RTS) establish
//! ```
//!
//! Each step is asked for and then waited for on the connection's own channel, until one deadline.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::connection_id::{ConnectionId, Terms};
use super::event_channel::{Event, EventChannel, EventKind};
use super::life::QueueLife;
use super::{DeviceEvent, QueuePair, QueuePairState, VerbsError};
use crate::base::Deadline;
use crate::fabric::QueueError;

/// An end of a connection. Dropping it tells the peer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) life: QueueLife,
    pub(super) queue_pair: QueuePair,
    id: ConnectionId,
    channel: Arc<EventChannel>,
}

/// An id on its way to its peer.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) id: ConnectionId,
    channel: Arc<EventChannel>,
}

impl Route {
    /// Finds the device and the way to `target`.
    pub(super) fn to(target: SocketAddr, deadline: &mut Deadline) -> Result<Self, VerbsError> {
        let channel = EventChannel::new()?;
        let id = ConnectionId::new(channel.clone(), 0)?;
        let route = Self { id, channel };
        route.id.resolve_address(target, left_ms(deadline, "resolving the address")?)?;
        route.wait_for(EventKind::AddressResolved, "resolving the address", deadline)?;
        route.id.resolve_route(left_ms(deadline, "resolving the route")?)?;
        route.wait_for(EventKind::RouteResolved, "resolving the route", deadline)?;
        Ok(route)
    }

    /// Connects `queue_pair`, which is in RESET, and says `private`. `check` judges the peer's answer: its queue pair and
    /// what it said.
    pub(super) fn connect<T>(
        self,
        queue_pair: QueuePair,
        private: &[u8],
        deadline: &mut Deadline,
        check: impl FnOnce(u32, &[u8]) -> Result<T, String>,
    ) -> Result<(Connection, T), VerbsError> {
        let step = "connecting";
        let limits = queue_pair.domain().device().limits();
        queue_pair.advance(&self.id, QueuePairState::Init, 0)?;
        let reads_out = limits.reads_out_max.min(READS_MAX);
        let terms = Terms { queue_pair: queue_pair.number(), reads_out, reads_in: 0, private };
        self.id.connect(terms)?;
        let answer = self.wait_for(EventKind::ConnectResponse, step, deadline)?;
        let checked = check(answer.queue_pair, &answer.private).map_err(|why| VerbsError::Peer { why })?;
        queue_pair.advance(&self.id, QueuePairState::ReadyToReceive, 0)?;
        queue_pair.advance(&self.id, QueuePairState::ReadyToSend, reads_out.min(answer.reads_out_max))?;
        self.id.establish()?;
        let life = QueueLife::new()?;
        Ok((Connection { life, queue_pair, id: self.id, channel: self.channel }, checked))
    }

    fn wait_for(
        &self,
        wanted: EventKind,
        step: &'static str,
        deadline: &mut Deadline,
    ) -> Result<Event, VerbsError> {
        loop {
            if let Some(event) = self.channel.next()? {
                match event.kind {
                    kind if kind == wanted => return Ok(event),
                    EventKind::Rejected => return Err(rejected(&event)),
                    EventKind::Harmless(_) => {}
                    kind => {
                        return Err(VerbsError::Connect {
                            step,
                            event: kind.to_string(),
                            status: event.status,
                        });
                    }
                }
                continue;
            }
            let left = deadline.remaining().ok_or(VerbsError::Deadline { step })?;
            let mut fds = [PollFd::from_borrowed_fd(self.channel.fd(), PollFlags::IN)];
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            // An interrupted sleep is a short one.
            let _ = rustix::event::poll(&mut fds, Some(&timeout));
        }
    }
}

/// Reads that a queue has under way: enough to keep a line busy while pulling.
pub(super) const READS_MAX: u8 = 16;

/// The peer's port has no listener, or its kernel could not be asked: the connection manager's own reason.
const INVALID_SERVICE_ID: i32 = 8;
/// The peer's program turned it down.
const CONSUMER_DEFINED: i32 = 28;

fn rejected(event: &Event) -> VerbsError {
    let said = super::private_data::read_rejection(&event.private);
    let why = match event.status {
        CONSUMER_DEFINED if !said.is_empty() => said,
        INVALID_SERVICE_ID => "nobody listens for RDMA connections at that port".to_owned(),
        status => format!("reason {status} of the connection manager"),
    };
    VerbsError::Rejected { why }
}

fn left_ms(deadline: &mut Deadline, step: &'static str) -> Result<i32, VerbsError> {
    let left = deadline.remaining().ok_or(VerbsError::Deadline { step })?;
    Ok(i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1))
}

impl Connection {
    /// Ends the queue for `cause`: everything in flight fails at once.
    pub(super) fn fail(&self, cause: QueueError) -> QueueError {
        // The cause is there before anything that follows from it is seen.
        let cause = self.life.fail(cause);
        if let Err(error) = self.queue_pair.stop() {
            log::debug!("{error}");
        }
        cause
    }

    /// What the connection manager has to say; returns the cause when that ended the queue.
    pub(super) fn look(&self) -> Option<QueueError> {
        loop {
            let cause = match self.channel.next() {
                Ok(None) => return None,
                Ok(Some(event)) if event.kind.ends_connection() => {
                    QueueError::PeerGone { why: event.kind.to_string() }
                }
                Ok(Some(_)) => continue,
                Err(error) => QueueError::System { call: "rdma_get_cm_event", error: error.to_string() },
            };
            return Some(self.fail(cause));
        }
    }

    /// The port of the device that it goes through.
    pub(super) fn port(&self) -> u8 {
        self.id.device_port()
    }

    /// Whether a device's event is about this one.
    pub(super) fn concerns(&self, event: DeviceEvent) -> bool {
        event.concerns(self.queue_pair.number(), self.port())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.id.disconnect();
    }
}
