//! The numbers of failures that clients are told. They are the protocol's own, whatever the host's are.

use super::export::{ExportError, ExportErrorKind};

/// Why a request failed, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Errno {
    Permission = 1,
    Io = 5,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    Unsupported = 95,
    Shutdown = 108,
}

impl Errno {
    pub(super) const fn number(self) -> u32 {
        self as u32
    }
}

/// Why a request is not done, with a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(errno: Errno, text: impl Into<String>) -> Self {
        Self { errno, text: text.into() }
    }
}

impl From<ExportError> for Refusal {
    fn from(error: ExportError) -> Self {
        let errno = match error.kind {
            ExportErrorKind::NoSpace => Errno::NoSpace,
            ExportErrorKind::Io => Errno::Io,
            ExportErrorKind::ReadOnly => Errno::Permission,
            ExportErrorKind::OutOfRange => Errno::Invalid,
            ExportErrorKind::ShuttingDown => Errno::Shutdown,
            ExportErrorKind::Unsupported => Errno::Unsupported,
        };
        Self { errno, text: error.text }
    }
}
