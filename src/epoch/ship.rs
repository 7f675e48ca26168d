//! Bringing a cut epoch into the peer's ring: room, then the body in pieces, then the commit record.

use std::collections::VecDeque;
use std::time::Duration;

use super::EpochError;
use super::applied::Applied;
use super::body::Body;
use super::layout::{EpochLayout, LogId, Position, words};
use super::record::{COMMIT_BYTES, Commit, epoch_bytes};
use crate::base::{Deadline, Level};
use crate::memory::VolatileSlice;
use crate::mirror::{Lane, StoreError, Ticket, WaitError};

/// Bytes of one store of the body.
const PIECE: usize = 256 << 10;
/// Stores after which the oldest of them is waited for when the lane is full.
const STORES_MAX: usize = 16;
/// Shortest and longest pause between two looks at how far the holder has come.
const LOOK: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(2));

/// An epoch on its way. It goes on where it was after each error.
#[derive(Debug)]
pub(super) struct Shipment {
    pub(super) commit: Commit,
    pub(super) body: Body,
    /// Bytes of the body that the lane has taken.
    taken: usize,
    /// Whether the lane has the commit record.
    committed: bool,
}

impl Shipment {
    /// The epoch behind `last`, by the owner of this incarnation.
    pub(super) fn new(last: Applied, incarnation: u64, body: Body) -> Self {
        let commit = Commit {
            position: last.position,
            number: last.number + 1,
            body: body.len(),
            ranges: body.ranges(),
            body_crc: body.crc(),
            incarnation,
            before: last.incarnation,
        };
        Self { commit, body, taken: 0, committed: false }
    }

    /// Ships what is left, and waits until the peer has it at `level`.
    pub(super) fn ship(
        &mut self,
        lane: &mut Lane,
        local: VolatileSlice<'_>,
        layout: EpochLayout,
        log: LogId,
        level: Level,
        deadline: &mut Deadline,
    ) -> Result<(), EpochError> {
        let epoch = self.commit.number;
        if self.taken == 0 && !self.committed {
            self.find_room(lane, local, layout, deadline)?;
        }
        let mut tickets = VecDeque::with_capacity(STORES_MAX);
        while self.taken < self.commit.body {
            let at = Position(self.commit.body_position().0 + self.taken as u64);
            let (place, left) = layout.place(at);
            let end = self.commit.body.min(self.taken + PIECE.min(left));
            let piece = &self.body.bytes()[self.taken..end];
            store(lane, place, piece, &mut tickets, deadline).map_err(|error| self.failed(level, error))?;
            self.taken = end;
        }
        if !self.committed {
            let record = self.commit.encode(log);
            let place = layout.place(self.commit.position).0;
            store(lane, place, &record, &mut tickets, deadline).map_err(|error| self.failed(level, error))?;
            self.committed = true;
        }
        let mut flush = |level| lane.flush(level, Deadline::at(deadline.instant()));
        // A holder that makes nothing durable is to have it all the same.
        let brought = if level == Level::Durable { flush(Level::Visible).map(|_| ()) } else { Ok(()) };
        let waited = brought.and_then(|()| flush(level));
        waited.map(|_| ()).map_err(|error| EpochError::Wait { epoch, level, error })
    }

    fn failed(&self, level: Level, error: Failed) -> EpochError {
        match error {
            Failed::Store(error) => error.into(),
            Failed::Wait(error) => EpochError::Wait { epoch: self.commit.number, level, error },
        }
    }

    /// Waits until the holder has applied enough.
    fn find_room(
        &self,
        lane: &mut Lane,
        local: VolatileSlice<'_>,
        layout: EpochLayout,
        deadline: &mut Deadline,
    ) -> Result<(), EpochError> {
        let (epoch, bytes) = (self.commit.number, epoch_bytes(self.commit.body));
        let mut pause = LOOK.0;
        loop {
            let used = self.commit.position.0.saturating_sub(local.load_word(words::FREE));
            let free = (layout.ring_bytes() as u64).saturating_sub(used);
            if bytes as u64 <= free {
                return Ok(());
            }
            let Some(left) = deadline.remaining() else {
                let applied = local.load_word(words::NUMBER);
                return Err(EpochError::NoRoom { epoch, bytes, free, applied });
            };
            std::thread::sleep(pause.min(left));
            pause = (2 * pause).min(LOOK.1);
            look(lane, deadline).map_err(|error| EpochError::Wait { epoch, level: Level::Posted, error })?;
            let found = local.load_word(words::HOLDS);
            if found != layout.ring_bytes() as u64 {
                return Err(other_ring(layout, found));
            }
        }
    }
}

/// Fetches the holder's words.
pub(super) fn look(lane: &mut Lane, deadline: &mut Deadline) -> Result<(), WaitError> {
    match lane.fetch(words::FREE, words::BYTES, Deadline::at(deadline.instant())) {
        Err(WaitError::FetchDeadline { .. }) => Ok(()),
        result => result,
    }
}

fn other_ring(layout: EpochLayout, found: u64) -> EpochError {
    let own = layout.ring_bytes();
    EpochError::Content(format!("its holder has a ring of {found} bytes, this owner one of {own}"))
}

/// Waits until the holder says what ring it has.
///
/// # Errors
/// It has another, or does not say before the deadline.
pub(super) fn check_ring(
    lane: &mut Lane,
    local: VolatileSlice<'_>,
    layout: EpochLayout,
    mut deadline: Deadline,
) -> Result<(), EpochError> {
    // What was pulled may be of the holder before, for a moment.
    let mut doubt = Deadline::within(Duration::from_secs(1));
    let mut pause = LOOK.0;
    loop {
        // This word only: the others are to be as old as the image that was pulled with them.
        match lane.fetch(words::HOLDS, 8, Deadline::at(deadline.instant())) {
            Ok(()) | Err(WaitError::FetchDeadline { .. }) => {}
            Err(error) => return Err(EpochError::Wait { epoch: 0, level: Level::Posted, error }),
        }
        let (own, found) = (layout.ring_bytes() as u64, local.load_word(words::HOLDS));
        let over = deadline.remaining().is_none();
        match found {
            _ if found == own => return Ok(()),
            0 if over => {
                let why = "its holder does not say that it applies epochs: start it as one of epochs";
                return Err(EpochError::Content(why.into()));
            }
            found if found != 0 && (over || doubt.remaining().is_none()) => {
                return Err(other_ring(layout, found));
            }
            _ => {}
        }
        std::thread::sleep(pause);
        pause = (2 * pause).min(LOOK.1);
    }
}

/// Why a piece was not taken.
enum Failed {
    Store(StoreError),
    Wait(WaitError),
}

/// Stores `bytes`, waiting for room in the lane.
fn store(
    lane: &mut Lane,
    place: usize,
    bytes: &[u8],
    tickets: &mut VecDeque<Ticket>,
    deadline: &mut Deadline,
) -> Result<(), Failed> {
    loop {
        match lane.try_store(place, bytes) {
            Ok(ticket) => {
                if tickets.len() == STORES_MAX {
                    tickets.pop_front();
                }
                tickets.push_back(ticket);
                return Ok(());
            }
            Err(StoreError::WouldBlock { in_flight }) => {
                let until = Deadline::at(deadline.instant());
                let waited = match tickets.pop_front() {
                    Some(ticket) => lane.wait(ticket, Level::Acked, until),
                    None => lane.flush(Level::Acked, until).map(|_| ()),
                };
                waited.map_err(Failed::Wait)?;
                if deadline.remaining().is_none() {
                    return Err(Failed::Store(StoreError::WouldBlock { in_flight }));
                }
            }
            Err(error) => return Err(Failed::Store(error)),
        }
    }
}

const _: () = assert!(PIECE > COMMIT_BYTES);
