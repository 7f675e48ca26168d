//! Comparing what the two nodes have stored, while it is served.
//!
//! ```text
//!  pieces of a volume ─▶ digest here, digest there ─▶ equal ─▶ next
//!                                    └▶ not ─▶ halves ─▶ … ─▶ block by block ─▶ bad here, bad there, written meanwhile
//! ```
//!
//! Digests are of what is in the files of each node, which is compared with the records' checksums on the way. So one that differs comes
//! down to blocks that do not match on one side, and that side is mended from the other, never the other way round; where neither
//! matches, nothing is touched. A block whose LSN is another on the other side, or that is not in the files yet, is looked at again when
//! both have become durable.
//!
//! Memory is bounded: a piece is some megabytes, of which a quarter of one lies in memory, and lists have limits.

mod walk;

use std::time::Duration;

use super::config::CommandError;
use super::health::CheckKind;
use super::pair::Pair;
use super::peer::PeerError;
use super::primary::Mode;
use super::ranges::{BadRange, Side};
use super::state::Role;
use super::stored::{BlockLook, BlockState};
use super::throttle::Throttle;
use crate::base::clock::Instant;
use walk::Walk;

/// How long both nodes may take to become durable before each.
const SETTLE_TIME: Duration = Duration::from_secs(2);
const SETTLE_NAP: Duration = Duration::from_millis(5);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Volumes.
    pub volumes: u64,
    /// Bytes read on this node.
    pub bytes: u64,
    /// Blocks that are not the same and good on both.
    pub differing_blocks: u64,
    /// Of those, how many are now.
    pub repaired_blocks: u64,
    /// Blocks that are good on neither.
    pub unrecoverable_blocks: u64,
    /// Blocks that were written again each time they were looked at.
    pub moving_blocks: u64,
    /// Where they are, as many as are told.
    pub ranges: Vec<BadRange>,
    /// How long it took.
    pub took: Duration,
}

fn told(error: &PeerError) -> CommandError {
    CommandError::Refused(format!("the comparison ended: {error}"))
}

impl Pair {
    /// Compares one volume, or all.
    pub(super) fn verify(&self, volume: Option<&str>, repairs: bool) -> Result<Verified, CommandError> {
        let began = Instant::now();
        self.check_peer()?;
        let engine = &self.engine;
        let (mut ids, total) = engine.stored_volumes();
        if let Some(name) = volume {
            let state = engine.shared.lock();
            ids = vec![state.volumes.find(name)?.id];
        }
        let check = engine.health.begin(CheckKind::Verify, total)?;
        let pass = u64::from_le_bytes(crate::node::random_bytes().map_err(super::OpenError::from)?);
        let mut walk = Walk::new(self, pass, ids.len() as u64);
        let mut throttle = Throttle::new(engine);
        for id in ids {
            let mut block = 0;
            while let Some(next) = walk.piece(id, block)? {
                block = next.0;
                check.add(next.1);
                throttle.rest();
                engine.check_running()?;
            }
        }
        walk.look_again()?;
        let outcomes = if repairs { walk.repair() } else { Vec::new() };
        let mut found = walk.judge(&outcomes);
        found.took = began.elapsed();
        Ok(found)
    }

    /// Whether there is a peer with the same log.
    fn check_peer(&self) -> Result<(), CommandError> {
        let state = self.engine.shared.lock();
        let is_there = match &state.role {
            Role::Primary(primary) => matches!(primary.mode, Mode::SettingIn | Mode::Mirrored),
            Role::Secondary(secondary) => secondary.words().is_some() && secondary.resync.is_none(),
            Role::Undecided | Role::Failed { .. } => false,
        };
        if is_there {
            return Ok(());
        }
        let text = format!(
            "there is no peer in step to compare with ({}: {}); `mirrorbus scrub` looks at this node alone",
            state.reason.code, state.reason.text
        );
        Err(CommandError::Refused(text))
    }
}

/// What two looks at a block say.
enum Compared {
    Equal,
    /// It was written meanwhile, or is not in the files yet.
    Moving,
    Bad(Side),
}

fn compare(ours: &BlockLook, theirs: &BlockLook) -> Compared {
    if ours.lsn != theirs.lsn {
        return Compared::Moving;
    }
    match (ours.state, theirs.state) {
        (BlockState::Hole, BlockState::Hole) => Compared::Equal,
        (BlockState::Good, BlockState::Good) if ours.digest == theirs.digest => Compared::Equal,
        (BlockState::Good, BlockState::Good) => Compared::Bad(Side::Neither),
        (BlockState::Bad, BlockState::Good) => Compared::Bad(Side::Here),
        (BlockState::Good, BlockState::Bad) => Compared::Bad(Side::Peer),
        (BlockState::Bad, BlockState::Bad) => Compared::Bad(Side::Both),
        (BlockState::Moving, _) | (_, BlockState::Moving) => Compared::Moving,
        // Of equal LSNs, which are 0 for holes only.
        (BlockState::Hole, BlockState::Good | BlockState::Bad)
        | (BlockState::Good | BlockState::Bad, BlockState::Hole) => Compared::Moving,
    }
}

impl Pair {
    /// Has what was written so far become durable on both nodes, as far as that is done in time.
    fn settle(&self) {
        let engine = &self.engine;
        let began = Instant::now();
        let mut wanted = None;
        while began.elapsed() < SETTLE_TIME {
            let mut state = engine.shared.lock();
            let epoch = state.epoch;
            let primary = match &mut state.role {
                // Nothing more comes to the disks before the operator decides.
                Role::Primary(primary) if matches!(primary.mode, Mode::Held { .. }) => return,
                Role::Primary(primary) => primary,
                Role::Secondary(secondary) => {
                    // The primary pads its log when nothing comes.
                    let end = *wanted.get_or_insert(secondary.applied);
                    if secondary.durable.min(secondary.primary_durable) >= end {
                        return;
                    }
                    engine.shared.wait(&mut state, SETTLE_NAP);
                    continue;
                }
                Role::Undecided | Role::Failed { .. } => return,
            };
            let end = *wanted.get_or_insert_with(|| primary.log.pad());
            primary.push();
            primary.ask_peer();
            if primary.log.own_durable() < end {
                drop(state);
                match engine.destage_to(epoch, end) {
                    Ok(true) => {}
                    Ok(false) => engine.shared.wait(&mut engine.shared.lock(), SETTLE_NAP),
                    Err(_) => return,
                }
            } else if primary.log.peer_durable() >= end {
                return;
            } else {
                engine.shared.wait(&mut state, SETTLE_NAP);
            }
        }
    }

    /// Whether both nodes are durable to the end of the log.
    fn is_idle(&self) -> bool {
        match &self.engine.shared.lock().role {
            Role::Primary(primary) => {
                primary.log.own_durable().min(primary.log.peer_durable()) >= primary.log.end()
            }
            Role::Secondary(secondary) => {
                secondary.durable.min(secondary.primary_durable) >= secondary.applied
            }
            Role::Undecided | Role::Failed { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_that_does_not_match_is_named() {
        let look = |lsn, state, digest| BlockLook { lsn, state, digest };
        let side = |ours: BlockLook, theirs: BlockLook| match compare(&ours, &theirs) {
            Compared::Equal => "equal".to_owned(),
            Compared::Moving => "moving".to_owned(),
            Compared::Bad(side) => format!("{side:?}"),
        };
        use BlockState::{Bad, Good, Hole, Moving};
        for (ours, theirs, expected) in [
            (look(0, Hole, 0), look(0, Hole, 0), "equal"),
            (look(9, Good, 1), look(9, Good, 1), "equal"),
            (look(9, Good, 1), look(9, Good, 2), "Neither"),
            (look(9, Bad, 0), look(9, Good, 1), "Here"),
            (look(9, Good, 1), look(9, Bad, 0), "Peer"),
            (look(9, Bad, 0), look(9, Bad, 0), "Both"),
            (look(9, Bad, 0), look(8, Bad, 0), "moving"),
            (look(9, Good, 1), look(0, Hole, 0), "moving"),
            (look(9, Moving, 0), look(9, Bad, 0), "moving"),
        ] {
            assert_eq!(side(ours, theirs), expected, "{ours:?} {theirs:?}");
        }
    }
}
