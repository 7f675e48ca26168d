//! Why a request was refused: a code for programs, beside the words for people.

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The sizes differ.
    Size,
    /// Another owner is connected.
    Busy,
    /// The holder has a whole copy that a push would destroy.
    Occupied,
    /// The holder has no whole copy to pull or compare.
    Nothing,
    /// The holder's life, or the grant that was resumed, is over.
    NotResumable,
    /// The holder has no memory, disk or thread left.
    Resources,
    /// The request makes no sense in this state.
    OutOfOrder,
    /// A sync failed.
    SyncFailed,
    /// The medium does not allow it, or nobody is there to do it.
    Unsupported,
    /// The holder's application takes no owner now.
    NotNow,
    /// A code that this version does not know.
    Other(u16),
}

impl RefusalCode {
    const KNOWN: [(Self, u16); 10] = [
        (Self::Size, 1),
        (Self::Busy, 2),
        (Self::Occupied, 3),
        (Self::Nothing, 4),
        (Self::NotResumable, 5),
        (Self::Resources, 6),
        (Self::OutOfOrder, 7),
        (Self::SyncFailed, 8),
        (Self::Unsupported, 9),
        (Self::NotNow, 10),
    ];

    pub(super) fn code(self) -> u16 {
        match self {
            Self::Other(code) => code,
            known => Self::KNOWN.iter().find(|(name, _)| *name == known).map_or(0, |(_, code)| *code),
        }
    }

    pub(super) fn from_code(code: u16) -> Self {
        Self::KNOWN.iter().find(|(_, known)| *known == code).map_or(Self::Other(code), |(name, _)| *name)
    }
}
