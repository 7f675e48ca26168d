//! The two halves of a connection that its phases share: the authenticated line, and what waits on either end of it.
//!
//! Knows records, heartbeats and silence; knows nothing of how a connection begins or ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{FrameReader, LENGTH_LEN, Piece};
use super::message::{Incoming, encode_heartbeat, encode_hello};
use super::noise::{RECORD_OVERHEAD, RecordError, RecordOpener, RecordSealer};
use super::opening::Opened;
use super::{CloseReason, ControlError, EVENTS_MAX, Event, Hello, MESSAGE_BYTES_MAX};

/// Plain bytes of the largest record: channel and body.
const PLAIN_MAX: usize = 1 + MESSAGE_BYTES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Initiator,
    Responder,
}

/// An authenticated line to the peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) sealer: RecordSealer,
    pub(super) opener: RecordOpener,
    pub(super) reader: FrameReader,
    pub(super) beat: Duration,
    pub(super) beat_at: Instant,
    pub(super) heard_at: Instant,
    pub(super) silent: bool,
}

/// What stays the same in all phases.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) side: Side,
    pub(super) hello: Hello,
    pub(super) outgoing: Vec<u8>,
    pub(super) plain: Vec<u8>,
    pub(super) events: VecDeque<Event>,
    #[cfg(any(test, fuzzing))]
    pub(super) hello_override: Option<Vec<u8>>,
}

/// Whether a record asked for the end.
pub(super) enum Close {
    No,
    Came(CloseReason),
}

impl Shell {
    pub(super) fn new(side: Side, hello: Hello) -> Self {
        Self {
            side,
            hello,
            outgoing: Vec::new(),
            plain: Vec::new(),
            events: VecDeque::new(),
            #[cfg(any(test, fuzzing))]
            hello_override: None,
        }
    }

    pub(super) fn seal_hello(&mut self, sealer: &mut RecordSealer) -> Result<(), RecordError> {
        #[cfg(any(test, fuzzing))]
        if let Some(plain) = &self.hello_override {
            return sealer.seal_record(plain, &mut self.outgoing);
        }
        sealer.seal_record(&encode_hello(&self.hello), &mut self.outgoing)
    }

    /// The peer's first record decrypted: it is who it claims to be.
    pub(super) fn establish(
        &mut self,
        opened: Opened,
        peer: Hello,
        now: Instant,
    ) -> Result<Link, ControlError> {
        let Opened { mut secured, version, intake, .. } = opened;
        if self.side == Side::Responder {
            self.seal_hello(&mut secured.sealer)?;
        }
        let beat = self.hello.beat_towards(&peer);
        self.events.push_back(Event::Established { version, peer, session: secured.session });
        Ok(Link {
            sealer: secured.sealer,
            opener: secured.opener,
            reader: intake.into_reader(),
            beat,
            beat_at: now + beat,
            heard_at: now,
            silent: false,
        })
    }

    /// One record, if it is complete.
    pub(super) fn receive(
        &mut self,
        link: &mut Link,
        bytes: &mut &[u8],
        now: Instant,
    ) -> Result<Option<Close>, ControlError> {
        // An event for the message, one for being heard, and the end must fit.
        if self.events.len() + 3 > EVENTS_MAX {
            return Err(ControlError::Undrained { max: EVENTS_MAX });
        }
        let piece = Piece::Frame { max: PLAIN_MAX + RECORD_OVERHEAD - LENGTH_LEN, what: "record" };
        let Some(record) = link.reader.take(bytes, piece)? else { return Ok(None) };
        self.plain.clear();
        link.opener.open_record(&record, &mut self.plain)?;
        link.heard_at = now;
        if std::mem::take(&mut link.silent) {
            self.events.push_back(Event::PeerHeard);
        }
        match Incoming::decode(&self.plain)? {
            Incoming::Hello(_) => Err(ControlError::Protocol { why: "a second greeting".into() }),
            Incoming::Heartbeat => Ok(Some(Close::No)),
            Incoming::Close(reason) => Ok(Some(Close::Came(reason))),
            Incoming::Application(channel, body) => {
                self.events.push_back(Event::Message { channel, body: body.to_vec() });
                Ok(Some(Close::No))
            }
        }
    }

    pub(super) fn beat(&mut self, link: &mut Link, now: Instant) -> Result<(), RecordError> {
        if !link.silent && link.heard_at + self.hello.silence() <= now {
            link.silent = true;
            self.events.push_back(Event::PeerSilent);
        }
        if link.beat_at <= now {
            link.beat_at = now + link.beat;
            // What waits will show the peer that this side lives.
            if self.outgoing.is_empty() {
                link.sealer.seal_record(&encode_heartbeat(), &mut self.outgoing)?;
            }
        }
        Ok(())
    }
}
