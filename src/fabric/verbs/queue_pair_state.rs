//! The life of a queue pair, as transitions that are checked before the device is asked.
//!
//! ```text
//!  Reset ──▶ Init ──▶ ReadyToReceive ──▶ ReadyToSend
//!    │         │             │                │
//!    └─────────┴─────────────┴────────────────┴──▶ Error ──▶ destroyed
//! ```
//!
//! Nothing leads out of `Error`: a queue pair is never revived, another is made. The device could reset it; but what was
//! in flight has an unknown outcome, which only a reconnection can clear up.

use super::VerbsError;

/// Where a queue pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuePairState {
    /// Made.
    Reset,
    /// Knows its port and what a peer may do.
    Init,
    /// Knows its peer, and carries out what that asks.
    ReadyToReceive,
    /// Sends too.
    ReadyToSend,
    /// Stopped, by the device or by us: everything in flight fails, nothing of the peer is carried out.
    Error,
    /// One that Mirrorbus never asks for, by the device's number.
    Other(u32),
}

impl std::fmt::Display for QueuePairState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset => f.write_str("RESET"),
            Self::Init => f.write_str("INIT"),
            Self::ReadyToReceive => f.write_str("RTR"),
            Self::ReadyToSend => f.write_str("RTS"),
            Self::Error => f.write_str("ERR"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}

impl QueuePairState {
    /// `to`, when that may follow this.
    ///
    /// # Errors
    /// [`VerbsError::BadTransition`], which names both.
    pub fn go(self, to: Self) -> Result<Self, VerbsError> {
        let allowed = match self {
            Self::Reset => matches!(to, Self::Init | Self::Error),
            Self::Init => matches!(to, Self::ReadyToReceive | Self::Error),
            Self::ReadyToReceive => matches!(to, Self::ReadyToSend | Self::Error),
            // Stopping what is stopped is no mistake: two may have the reason to.
            Self::ReadyToSend | Self::Error | Self::Other(_) => matches!(to, Self::Error),
        };
        if allowed { Ok(to) } else { Err(VerbsError::BadTransition { from: self, to }) }
    }
}

#[cfg(test)]
mod tests {
    use super::QueuePairState::{Error, Init, Other, ReadyToReceive, ReadyToSend, Reset};

    #[test]
    fn only_the_drawn_transitions_are_allowed() {
        let all = [Reset, Init, ReadyToReceive, ReadyToSend, Error, Other(4)];
        let drawn = [(Reset, Init), (Init, ReadyToReceive), (ReadyToReceive, ReadyToSend)];
        for from in all {
            for to in all {
                let expected = to == Error || drawn.contains(&(from, to));
                assert_eq!(from.go(to).is_ok(), expected, "{from} to {to}");
            }
        }
        let error = Error.go(ReadyToSend).unwrap_err().to_string();
        assert!(error.contains("from ERR to RTS"), "{error}");
    }
}
