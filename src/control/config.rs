//! What a side says of itself when a connection opens, checked when it is made and when it arrives.

use std::time::Duration;

use super::preface::{VERSIONS, VersionRange};

/// Shortest interval that can be asked for; keeps a peer from asking for a storm of heartbeats.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longest interval that can be asked for.
pub const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Bytes in [`Hello::opaque`].
pub const OPAQUE_BYTES_MAX: usize = 256;

/// Heartbeats that fit into the silence which the receiver of them tolerates.
pub(super) const HEARTBEATS_PER_SILENCE: u32 = 3;

/// The first message of each side, authenticated and encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    capabilities: u64,
    heartbeat: Duration,
    silence: Duration,
    opaque: Vec<u8>,
}

/// A [`Hello`] that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// An interval out of bounds.
    #[error("{name} of {value:?} is not within {min:?} and {max:?}")]
    Interval {
        /// `heartbeat` or `silence`.
        name: &'static str,
        /// What was given.
        value: Duration,
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// Too many opaque bytes.
    #[error("{len} opaque bytes in the greeting, the limit is {max}")]
    Opaque {
        /// What was given.
        len: usize,
        /// The bound.
        max: usize,
    },
}

impl Hello {
    /// A greeting. `heartbeat`: this side sends something at least that often. `silence`: this side calls the peer
    /// silent when it heard nothing for that long; the peer sends heartbeats three times as often as that, if its own
    /// interval is longer. Keep `silence` above what the largest message takes on the line. Both count in whole
    /// milliseconds. The capability bits and the opaque bytes are the application's.
    ///
    /// # Errors
    /// When an interval or the opaque bytes are out of bounds.
    pub fn new(
        capabilities: u64,
        heartbeat: Duration,
        silence: Duration,
        opaque: Vec<u8>,
    ) -> Result<Self, HelloError> {
        for (name, value, min) in [
            ("heartbeat", heartbeat, INTERVAL_MIN),
            ("silence", silence, INTERVAL_MIN * HEARTBEATS_PER_SILENCE),
        ] {
            if value < min || value > INTERVAL_MAX {
                return Err(HelloError::Interval { name, value, min, max: INTERVAL_MAX });
            }
        }
        if opaque.len() > OPAQUE_BYTES_MAX {
            return Err(HelloError::Opaque { len: opaque.len(), max: OPAQUE_BYTES_MAX });
        }
        let whole = |interval: Duration| Duration::from_millis(u64::from(milliseconds(interval)));
        Ok(Self { capabilities, heartbeat: whole(heartbeat), silence: whole(silence), opaque })
    }

    /// The application's capability bits.
    #[must_use]
    pub const fn capabilities(&self) -> u64 {
        self.capabilities
    }

    /// How often that side sends something.
    #[must_use]
    pub const fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// After what time without a message that side calls its peer silent.
    #[must_use]
    pub const fn silence(&self) -> Duration {
        self.silence
    }

    /// The application's bytes, at most [`OPAQUE_BYTES_MAX`].
    #[must_use]
    pub fn opaque(&self) -> &[u8] {
        &self.opaque
    }

    /// How often a side with this greeting sends heartbeats to a peer with that one.
    pub(super) fn beat_towards(&self, peer: &Self) -> Duration {
        self.heartbeat.min(peer.silence / HEARTBEATS_PER_SILENCE).max(INTERVAL_MIN)
    }
}

/// A checked interval in whole milliseconds.
pub(super) fn milliseconds(interval: Duration) -> u32 {
    u32::try_from(interval.as_millis()).expect("an hour of milliseconds fits")
}

/// How to open a connection.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    pub(super) versions: VersionRange,
    pub(super) hello: Hello,
}

impl ConnectionConfig {
    /// Opens with this greeting and all versions that this build speaks.
    #[must_use]
    pub const fn new(hello: Hello) -> Self {
        Self { versions: VERSIONS, hello }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let ms = Duration::from_millis;
        let hello = Hello::new(5, ms(1000), ms(90), vec![0; 256]).unwrap();
        assert!(Hello::new(5, ms(9), ms(90), vec![]).unwrap_err().to_string().contains("heartbeat of 9ms"));
        assert!(Hello::new(5, ms(10), ms(29), vec![]).unwrap_err().to_string().contains("silence of 29ms"));
        assert!(Hello::new(5, ms(10), ms(3_600_001), vec![]).is_err());
        assert!(Hello::new(5, ms(10), ms(30), vec![0; 257]).unwrap_err().to_string().contains("257"));
        let other = Hello::new(0, ms(500), ms(6000), vec![]).unwrap();
        assert_eq!(hello.beat_towards(&other), ms(1000));
        assert_eq!(
            other.beat_towards(&hello),
            ms(30),
            "the peer's silence asks for more than the own interval"
        );
    }
}
