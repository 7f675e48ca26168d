//! Opening a data stream: dial, prove the session's token, and make a queue of it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::call::CallError;
use super::session::Session;
use crate::base::{Deadline, FabricUrl, SessionId, Unsupported};
use crate::control::{DataCipher, DataHandshake, Token};
use crate::fabric::shm::{ShmPeer, ShmQueue};
use crate::fabric::tcp::TcpQueue;
#[cfg(feature = "rdma")]
use crate::fabric::verbs::QueueOptions;
use crate::fabric::{Grant, Queue};
use crate::memory::{MapOptions, Mapping};
use crate::mirror::LostReason;
use crate::node::cipher::StreamCipher;
use crate::node::message::Message;
use crate::node::stream::{dial, wait_ready};

/// First byte of a data stream's purpose: plain frames.
pub(crate) const PURPOSE_PLAIN: u8 = 1;
/// First byte of a data stream's purpose: sealed frames.
pub(crate) const PURPOSE_SEALED: u8 = 2;

/// Which windows of a session a queue reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The region's, which a lane needs.
    Region,
    /// All, for bulk transfers.
    All,
}

impl Reach {
    const fn windows(self, all: usize) -> usize {
        match self {
            Self::Region => 1,
            Self::All => all,
        }
    }
}

/// Makes the queues of one session.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) url: FabricUrl,
    pub(super) local: Arc<Mapping>,
    pub(super) grants: Vec<Grant>,
    pub(super) durable: Result<(), Unsupported>,
    /// The peer's memory, mapped once per session (shm).
    pub(super) peers: std::sync::OnceLock<Vec<Arc<ShmPeer>>>,
    /// Device and registered memory, once per session (rdma).
    #[cfg(feature = "rdma")]
    pub(super) rdma: Option<super::rdma::RdmaLink>,
}

impl Dialer {
    /// One more queue, into the windows that `reach` says.
    pub(super) fn queue(
        &self,
        session: &Session,
        reach: Reach,
        depth: usize,
        deadline: &mut Deadline,
    ) -> Result<Box<dyn Queue>, CallError> {
        match &self.url {
            FabricUrl::Tcp { encrypt, .. } => {
                let purpose = if *encrypt { PURPOSE_SEALED } else { PURPOSE_PLAIN };
                let (stream, cipher, leftover) = self.stream(session, purpose, deadline)?;
                let cipher = encrypt.then(|| Box::new(StreamCipher(cipher)) as _);
                let queue = TcpQueue::new(
                    stream,
                    self.local.clone(),
                    self.grants.clone(),
                    depth,
                    self.durable.clone(),
                    cipher,
                    leftover,
                );
                Ok(Box::new(queue))
            }
            #[cfg(feature = "rdma")]
            FabricUrl::Rdma { .. } => {
                let Some(link) = &self.rdma else { unreachable!("made with the attachment") };
                let all = &self.grants;
                let options = QueueOptions { depth, grants: all.clone(), durable: self.durable.clone() };
                let token = ask_token(session, deadline)?;
                let queue = link.queue(session, &token, &options, deadline)?;
                Ok(Box::new(queue))
            }
            #[cfg(not(feature = "rdma"))]
            FabricUrl::Rdma { .. } => unreachable!("dialing was refused"),
            FabricUrl::Shm { .. } | FabricUrl::ShmDevice { .. } => {
                let peers = match self.peers.get() {
                    Some(peers) => peers,
                    None => {
                        let peers = self.map_peers(session, deadline)?;
                        self.peers.get_or_init(|| peers)
                    }
                };
                Ok(Box::new(ShmQueue::new(
                    self.local.clone(),
                    peers[..reach.windows(peers.len())].to_vec(),
                    self.durable.clone(),
                )))
            }
        }
    }

    /// Nothing of its queues reaches the region afterwards by itself.
    pub(super) fn stop(&self) {
        #[cfg(feature = "rdma")]
        if let Some(link) = &self.rdma {
            link.stop();
        }
    }

    /// What ended one of its queues, where somebody watches them.
    pub(super) fn failure(&self) -> Option<LostReason> {
        #[cfg(feature = "rdma")]
        let failure = self.rdma.as_ref().and_then(super::rdma::RdmaLink::failure);
        #[cfg(not(feature = "rdma"))]
        let failure = None;
        failure
    }

    fn map_peers(&self, session: &Session, deadline: &mut Deadline) -> Result<Vec<Arc<ShmPeer>>, CallError> {
        if let FabricUrl::ShmDevice { device, .. } = &self.url {
            let grant = self.grants[0];
            let memory = Mapping::device(device, grant.len, MapOptions::default())
                .map_err(|error| CallError::Ended(error.to_string()))?;
            let peer = ShmPeer::device(Arc::new(memory), grant);
            return Ok(vec![peer.map_err(|error| CallError::Ended(error.to_string()))?]);
        }
        let (stream, _cipher, leftover) = self.stream(session, PURPOSE_PLAIN, deadline)?;
        if !leftover.is_empty() {
            return Err(CallError::Confused(format!(
                "{} bytes came before the offer of memory",
                leftover.len()
            )));
        }
        let mut peers = Vec::with_capacity(self.grants.len());
        for grant in &self.grants {
            wait_readable(&stream, deadline)?;
            let peer =
                ShmPeer::receive(stream.as_fd()).map_err(|error| CallError::Ended(error.to_string()))?;
            if peer.grant() != *grant {
                return Err(CallError::Confused(format!(
                    "{:?} was offered, {grant:?} granted",
                    peer.grant()
                )));
            }
            peers.push(peer);
        }
        Ok(peers)
    }

    fn stream(
        &self,
        session: &Session,
        purpose: u8,
        deadline: &mut Deadline,
    ) -> Result<(OwnedFd, DataCipher, Vec<u8>), CallError> {
        let token = ask_token(session, deadline)?;
        let stream =
            dial(&self.url, deadline).map_err(|error| CallError::Ended(format!("data stream: {error}")))?;
        rustix::io::ioctl_fionbio(&stream, true).map_err(|error| CallError::Ended(error.to_string()))?;
        let (cipher, leftover) = shake_hands(&stream, session.id(), &token, purpose, deadline)?;
        Ok((stream, cipher, leftover))
    }
}

/// What admits one more queue to the session.
fn ask_token(session: &Session, deadline: &mut Deadline) -> Result<Token, CallError> {
    match session.call(deadline, |request| Message::OpenQueue { request })? {
        Message::Token { token, .. } => Ok(Token::from_bytes(&token)),
        other => Err(CallError::Confused(format!("{other:?}"))),
    }
}

fn wait_readable(stream: &OwnedFd, deadline: &mut Deadline) -> Result<(), CallError> {
    let until = deadline.instant();
    while !wait_ready(stream.as_fd(), false, stream.as_fd(), Some(until)) {
        deadline.remaining().ok_or(CallError::Timeout)?;
    }
    Ok(())
}

fn shake_hands(
    stream: &OwnedFd,
    session: SessionId,
    token: &Token,
    purpose: u8,
    deadline: &mut Deadline,
) -> Result<(DataCipher, Vec<u8>), CallError> {
    let ended = |why: String| CallError::Ended(format!("data stream: {why}"));
    let mut handshake = DataHandshake::initiate(session, token, &[purpose], Instant::now())
        .map_err(|error| ended(error.to_string()))?;
    let mut output = Vec::new();
    let mut input = [0; 1024];
    loop {
        handshake.poll_transmit(&mut output);
        while !output.is_empty() {
            match rustix::net::send(stream, &output, SendFlags::NOSIGNAL) {
                Ok(count) => drop(output.drain(..count)),
                // A handshake is smaller than any socket's buffer: this is a peer that takes nothing at all.
                Err(Errno::AGAIN) => drop(deadline.remaining().ok_or(CallError::Timeout)?),
                Err(error) => return Err(ended(error.to_string())),
            }
        }
        if handshake.is_done() {
            return Ok(handshake.finish());
        }
        wait_readable(stream, deadline)?;
        let result = match rustix::net::recv(stream, &mut input, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => handshake.handle_eof(),
            Ok((_, count)) => handshake.handle_bytes(&input[..count], Instant::now()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => return Err(ended(error.to_string())),
        };
        result.map_err(|error| ended(error.to_string()))?;
    }
}
