//! The first 32 bytes of every stream, each way. Frozen: every version, past and future, reads and writes this form.
//!
//! ```text
//!  0        8    9    10         12         14        16               32
//!  ├────────┼────┼────┼──────────┼──────────┼─────────┼────────────────┤
//!  │MIRRORBS│kind│ref.│versionmin│versionmax│ zero    │ session        │   little-endian
//!  └────────┴────┴────┴──────────┴──────────┴─────────┴────────────────┘
//! ```
//!
//! `kind`: 1 control, 2 data. `ref.`: refusal code, zero from an initiator. `session`: of the control connection that
//! a data stream belongs to; zero otherwise and in replies.

use std::fmt;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ControlError;
use crate::base::SessionId;

/// Bytes of a preface.
pub const PREFACE_LEN: usize = 32;
/// What this build speaks.
pub const VERSIONS: VersionRange = VersionRange { min: 1, max: 1 };

const MAGIC: [u8; 8] = *b"MIRRORBS";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    kind: u8,
    refusal: u8,
    version_min: U16,
    version_max: U16,
    reserved: U16,
    session: [u8; 16],
}
const _: () = assert!(size_of::<Wire>() == PREFACE_LEN, "the preface is frozen");

/// Versions of the protocol from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl VersionRange {
    /// The highest version that both ranges hold.
    #[must_use]
    pub const fn common(self, other: Self) -> Option<u16> {
        let min = if self.min > other.min { self.min } else { other.min };
        let max = if self.max < other.max { self.max } else { other.max };
        if min <= max { Some(max) } else { None }
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.min, self.max)
    }
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrefaceKind {
    /// A control connection: see [`Connection`](super::Connection).
    Control,
    /// A data stream of a queue: see [`DataHandshake`](super::DataHandshake).
    Data,
}

impl PrefaceKind {
    const fn code(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Data => 2,
        }
    }
}

/// Why a responder says no before anyone is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The version ranges do not meet.
    Version,
    /// No key or token fits.
    Authentication,
    /// The session that a data stream names is not known, or expects no stream.
    UnknownSession,
    /// Too many handshakes are going on.
    Busy,
}

impl RefusalCode {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Authentication => 2,
            Self::UnknownSession => 3,
            Self::Busy => 4,
        }
    }

    pub(super) fn from_code(code: u8) -> Result<Self, ControlError> {
        match code {
            1 => Ok(Self::Version),
            2 => Ok(Self::Authentication),
            3 => Ok(Self::UnknownSession),
            4 => Ok(Self::Busy),
            other => Err(ControlError::Preface { why: format!("refusal {other} is not known") }),
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "no common version",
            Self::Authentication => "no common key",
            Self::UnknownSession => "it knows no such session, or the session expects no further stream",
            Self::Busy => "too many handshakes are going on; try again",
        })
    }
}

/// A checked preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preface {
    pub(super) kind: PrefaceKind,
    pub(super) refusal: Option<RefusalCode>,
    pub(super) versions: VersionRange,
    pub(super) session: Option<SessionId>,
}

impl Preface {
    /// Reads and checks the first bytes of a stream.
    ///
    /// # Errors
    /// [`ControlError::NotMirrorbus`] or [`ControlError::Preface`].
    pub fn parse(bytes: &[u8; PREFACE_LEN]) -> Result<Self, ControlError> {
        let wire: &Wire = zerocopy::transmute_ref!(bytes);
        if wire.magic != MAGIC {
            return Err(ControlError::NotMirrorbus { found: wire.magic });
        }
        let malformed = |why: String| Err(ControlError::Preface { why });
        let kind = match wire.kind {
            1 => PrefaceKind::Control,
            2 => PrefaceKind::Data,
            other => return malformed(format!("kind {other}, 1 (control) and 2 (data) are known")),
        };
        let versions = VersionRange { min: wire.version_min.get(), max: wire.version_max.get() };
        if versions.min == 0 || versions.min > versions.max {
            return malformed(format!("version range {versions}"));
        }
        if wire.reserved.get() != 0 {
            return malformed(format!("reserved field {:#06x}, must be zero", wire.reserved.get()));
        }
        let refusal = if wire.refusal == 0 { None } else { Some(RefusalCode::from_code(wire.refusal)?) };
        let session = (wire.session != [0; 16]).then(|| SessionId::from_bytes(wire.session));
        if kind == PrefaceKind::Control && session.is_some() {
            return malformed("a control stream that names a session".into());
        }
        Ok(Self { kind, refusal, versions, session })
    }

    /// What the stream is for: decides which core is fed with it.
    #[must_use]
    pub const fn kind(&self) -> PrefaceKind {
        self.kind
    }

    /// The session that a data stream belongs to.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The bytes with which a listener refuses a stream of this kind without starting a handshake, e.g. because too
    /// many are going on.
    #[must_use]
    pub fn refuse(kind: PrefaceKind, code: RefusalCode) -> [u8; PREFACE_LEN] {
        Self { kind, refusal: Some(code), versions: VERSIONS, session: None }.to_bytes()
    }

    pub(super) fn to_bytes(self) -> [u8; PREFACE_LEN] {
        zerocopy::transmute!(Wire {
            magic: MAGIC,
            kind: self.kind.code(),
            refusal: self.refusal.map_or(0, RefusalCode::code),
            version_min: self.versions.min.into(),
            version_max: self.versions.max.into(),
            reserved: 0.into(),
            session: self.session.map_or([0; 16], SessionId::to_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let preface = Preface {
            kind: PrefaceKind::Data,
            refusal: None,
            versions: VersionRange { min: 1, max: 0x0203 },
            session: Some(SessionId::from_bytes([9; 16])),
        };
        let mut golden = *b"MIRRORBS\x02\x00\x01\x00\x03\x02\x00\x00................";
        golden[16..].fill(9);
        assert_eq!(preface.to_bytes(), golden);
        assert_eq!(Preface::parse(&golden).unwrap(), preface);
    }

    #[test]
    fn each_field_is_checked() {
        let good = Preface::refuse(PrefaceKind::Control, RefusalCode::Busy);
        assert_eq!(Preface::parse(&good).unwrap().refusal, Some(RefusalCode::Busy));
        for (at, value, word) in [
            (0, b'X', "something else"),
            (8, 3, "kind"),
            (9, 77, "refusal"),
            (10, 0, "range"),
            (13, 0, ""),
            (14, 1, "reserved"),
            (20, 1, "session"),
        ] {
            let mut bad = good;
            bad[at] = value;
            match Preface::parse(&bad) {
                Err(error) => assert!(error.to_string().contains(word), "{at}: {error}"),
                Ok(_) => assert_eq!(at, 13, "the high byte of the newest version was zero already"),
            }
        }
    }

    #[test]
    fn highest_common_version() {
        let range = |min, max| VersionRange { min, max };
        assert_eq!(range(1, 3).common(range(2, 9)), Some(3));
        assert_eq!(range(2, 9).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 3)), None);
        assert_eq!(range(4, 4).common(range(4, 4)), Some(4));
    }
}
