//! Ranges of blocks that are not what they should be, for whoever asked.

/// Ranges that are told; of further ones only the number of blocks is.
const RANGES_MAX: usize = 4096;

/// Whose data is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This node's does not match its checksum.
    Here,
    /// The peer's does not.
    Peer,
    /// Neither does.
    Both,
    /// Both match their checksums, and are not the same.
    Neither,
    /// The two nodes' maps have it at different positions, though nothing is on its way.
    Maps,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not to be repaired.
    Found,
    /// It is whole again.
    Repaired,
    /// It is not.
    Unrepaired,
    /// There is no good copy on either node.
    Unrecoverable,
}

/// Blocks next to each other of which the same can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRange {
    /// The volume.
    pub volume: String,
    /// The first block.
    pub first_block: u64,
    /// How many.
    pub blocks: u64,
    /// Whose data is bad.
    pub side: Side,
    /// What became of it.
    pub outcome: Outcome,
    /// Of the first block, in words.
    pub why: String,
}

/// Ranges as they are found, in order.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<BadRange>);

impl Ranges {
    pub(super) fn add(
        &mut self,
        volume: &str,
        first_block: u64,
        blocks: u64,
        side: Side,
        outcome: Outcome,
        why: &str,
    ) {
        let follows = |last: &&mut BadRange| {
            last.volume == volume
                && last.first_block + last.blocks == first_block
                && (last.side, last.outcome) == (side, outcome)
        };
        let is_full = self.0.len() == RANGES_MAX;
        match self.0.last_mut().filter(follows) {
            Some(last) => last.blocks += blocks,
            None if is_full => {}
            None => self.0.push(BadRange {
                volume: volume.to_owned(),
                first_block,
                blocks,
                side,
                outcome,
                why: why.to_owned(),
            }),
        }
    }

    pub(super) fn into_vec(self) -> Vec<BadRange> {
        self.0
    }
}
