//! What went wrong, as a number for programs and a text for people.

use std::fmt::Display;

use mirrorbus::epoch::EpochError;
use mirrorbus::memory::TrackError;
use mirrorbus::mirror::{StoreError, WaitError};
use mirrorbus::node::{CallError, FenceError, HolderError, OpenError, ReconnectError, RefusalCode};
use mirrorbus::store::{self, CommandError, IoError, VolumeError};

/// What a function returns: 0, or one of these, which are all negative. mirrorbus_error_text() says more.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "it is the name in C")]
pub enum mirrorbus_code {
    /// It was done.
    MIRRORBUS_OK = 0,
    /// An argument that cannot be: a null pointer, an unknown number, text that is none, a size that the struct never had.
    MIRRORBUS_E_INVALID = -1,
    /// The handle is null, was closed, or never was one of this kind.
    MIRRORBUS_E_HANDLE = -2,
    /// Another thread is in a call with this handle that allows no second. Nothing was done.
    MIRRORBUS_E_BUSY = -3,
    /// This process was forked after the library was used: only the parent may go on with it. Nothing was done.
    MIRRORBUS_E_FORKED = -4,
    /// Offset and length lie outside of the region or volume, or do not fit in 64 bits. Nothing was done.
    MIRRORBUS_E_RANGE = -5,
    /// No room just now: poll or wait, then try again. Nothing was done.
    MIRRORBUS_E_WOULD_BLOCK = -6,
    /// The deadline passed. What was waited for may come yet.
    MIRRORBUS_E_TIMEOUT = -7,
    /// The link to the holder is lost: reconnect, or open anew.
    MIRRORBUS_E_LINK_LOST = -8,
    /// The ticket is of another lane, or of before a reconnection.
    MIRRORBUS_E_STALE = -9,
    /// The pair cannot give that, whatever is done.
    MIRRORBUS_E_UNSUPPORTED = -10,
    /// The other side, or this one in the state that it is in, says no.
    MIRRORBUS_E_REFUSED = -11,
    /// The key file is none, or others may read it.
    MIRRORBUS_E_KEY = -12,
    /// The operating system refused something.
    MIRRORBUS_E_SYSTEM = -13,
    /// Stable storage failed. What was Visible stays so.
    MIRRORBUS_E_SYNC = -14,
    /// No room on a disk of the pair.
    MIRRORBUS_E_NO_SPACE = -15,
    /// This node does not serve the volume (any more): open it again, where it is served.
    MIRRORBUS_E_ROLE = -16,
    /// Stored data does not match its checksum.
    MIRRORBUS_E_DAMAGED = -17,
    /// There is no such volume.
    MIRRORBUS_E_NOT_FOUND = -18,
    /// As many handles of this kind are open as can be; or as many memories of epochs are tracked by a handler of SIGSEGV as can be.
    MIRRORBUS_E_LIMIT = -19,
    /// A bug of this library was caught. The handles of the call can be closed, and nothing else.
    MIRRORBUS_E_INTERNAL = -20,
    /// The program was built for another version of this library.
    MIRRORBUS_E_VERSION = -21,
    /// The copies differ, or are of different regions, though they were said to be the same.
    MIRRORBUS_E_DIFFERENT = -22,
    /// More changed in one epoch than the ring takes. Nothing was cut, and what changed is found again: commit more often, or open with a larger
    /// ring.
    MIRRORBUS_E_TOO_LARGE = -23,
    /// A reconnection dropped the epoch that was cut: cut another, which has all that it changed.
    MIRRORBUS_E_DROPPED = -24,
    /// The holder has epochs of another owner, which were left as they are: close, and open anew.
    MIRRORBUS_E_SUPERSEDED = -25,
}

/// A call that did not do what it was to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: mirrorbus_code,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: mirrorbus_code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn of(code: mirrorbus_code, error: &dyn Display) -> Self {
        Self::new(code, error.to_string())
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(mirrorbus_code::MIRRORBUS_E_INVALID, text)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::WouldBlock { .. } => mirrorbus_code::MIRRORBUS_E_WOULD_BLOCK,
            StoreError::Timeout { .. } => mirrorbus_code::MIRRORBUS_E_TIMEOUT,
            StoreError::OutOfRange { .. } => mirrorbus_code::MIRRORBUS_E_RANGE,
            StoreError::LinkLost { .. } => mirrorbus_code::MIRRORBUS_E_LINK_LOST,
            _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
        };
        Self::of(code, &error)
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        let code = match error {
            WaitError::Deadline { .. } | WaitError::FetchDeadline { .. } => {
                mirrorbus_code::MIRRORBUS_E_TIMEOUT
            }
            WaitError::LinkLost { .. } => mirrorbus_code::MIRRORBUS_E_LINK_LOST,
            WaitError::StaleTicket { .. } => mirrorbus_code::MIRRORBUS_E_STALE,
            WaitError::Unsupported(_) => mirrorbus_code::MIRRORBUS_E_UNSUPPORTED,
            WaitError::SyncFailed(_) => mirrorbus_code::MIRRORBUS_E_SYNC,
            _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
        };
        Self::of(code, &error)
    }
}

const fn code_of_call(error: &CallError) -> mirrorbus_code {
    match error {
        CallError::Timeout => mirrorbus_code::MIRRORBUS_E_TIMEOUT,
        CallError::Ended(_) => mirrorbus_code::MIRRORBUS_E_LINK_LOST,
        CallError::Refused { code: RefusalCode::Unsupported, .. } => mirrorbus_code::MIRRORBUS_E_UNSUPPORTED,
        CallError::Refused { code: RefusalCode::SyncFailed, .. } => mirrorbus_code::MIRRORBUS_E_SYNC,
        _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::of(code_of_call(&error), &error)
    }
}

impl From<ReconnectError> for Failure {
    fn from(error: ReconnectError) -> Self {
        let code = match &error {
            ReconnectError::Call(call) => code_of_call(call),
            // A lane that another thread is closing.
            ReconnectError::LanesMissing { .. } => mirrorbus_code::MIRRORBUS_E_BUSY,
            _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
        };
        Self::of(code, &error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Call(call) => code_of_call(call),
            OpenError::Different { .. } | OpenError::OtherRegion { .. } => {
                mirrorbus_code::MIRRORBUS_E_DIFFERENT
            }
            _ => mirrorbus_code::MIRRORBUS_E_SYSTEM,
        };
        Self::of(code, &error)
    }
}

impl From<HolderError> for Failure {
    fn from(error: HolderError) -> Self {
        let code = match &error {
            HolderError::Interval(_) => mirrorbus_code::MIRRORBUS_E_INVALID,
            HolderError::File { .. } => mirrorbus_code::MIRRORBUS_E_REFUSED,
            _ => mirrorbus_code::MIRRORBUS_E_SYSTEM,
        };
        Self::of(code, &error)
    }
}

impl From<FenceError> for Failure {
    fn from(error: FenceError) -> Self {
        let code = match &error {
            FenceError::Unsupported(_) => mirrorbus_code::MIRRORBUS_E_UNSUPPORTED,
            FenceError::Deadline => mirrorbus_code::MIRRORBUS_E_TIMEOUT,
            FenceError::Truncated(_) => mirrorbus_code::MIRRORBUS_E_DAMAGED,
            _ => mirrorbus_code::MIRRORBUS_E_SYSTEM,
        };
        Self::of(code, &error)
    }
}

impl From<EpochError> for Failure {
    fn from(error: EpochError) -> Self {
        let text = error.to_string();
        let code = match error {
            EpochError::Track(TrackError::TooMany { .. }) => mirrorbus_code::MIRRORBUS_E_LIMIT,
            EpochError::Layout { .. } => mirrorbus_code::MIRRORBUS_E_INVALID,
            EpochError::Unsupported(_)
            | EpochError::Track(TrackError::Wrong { .. } | TrackError::NoMethod(_)) => {
                mirrorbus_code::MIRRORBUS_E_UNSUPPORTED
            }
            EpochError::Track(_) | EpochError::Map(_) | EpochError::Lock(_) | EpochError::System(_) => {
                mirrorbus_code::MIRRORBUS_E_SYSTEM
            }
            EpochError::Open(error) => Self::from(error).code,
            EpochError::Holder(error) => Self::from(error).code,
            EpochError::Fence(error) => Self::from(error).code,
            EpochError::Reconnect(error) => Self::from(error).code,
            EpochError::Wait { error, .. } => Self::from(error).code,
            // A shipment waits for room in the lane until its deadline.
            EpochError::Store(StoreError::WouldBlock { .. }) | EpochError::NoRoom { .. } => {
                mirrorbus_code::MIRRORBUS_E_TIMEOUT
            }
            EpochError::Store(error) => Self::from(error).code,
            EpochError::TooLarge { .. } => mirrorbus_code::MIRRORBUS_E_TOO_LARGE,
            EpochError::Dropped(_) => mirrorbus_code::MIRRORBUS_E_DROPPED,
            EpochError::Superseded { .. } => mirrorbus_code::MIRRORBUS_E_SUPERSEDED,
            _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
        };
        Self::new(code, text)
    }
}

const fn code_of_volume(error: &VolumeError) -> mirrorbus_code {
    match error {
        VolumeError::UnknownName(_) | VolumeError::UnknownId(_) => mirrorbus_code::MIRRORBUS_E_NOT_FOUND,
        VolumeError::Name { .. } | VolumeError::Size { .. } => mirrorbus_code::MIRRORBUS_E_INVALID,
        VolumeError::TooMany(_) => mirrorbus_code::MIRRORBUS_E_LIMIT,
        _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
    }
}

impl From<VolumeError> for Failure {
    fn from(error: VolumeError) -> Self {
        Self::of(code_of_volume(&error), &error)
    }
}

const fn code_of_io(error: &IoError) -> mirrorbus_code {
    match error {
        IoError::OutOfRange { .. } => mirrorbus_code::MIRRORBUS_E_RANGE,
        IoError::StrangeMark { .. } => mirrorbus_code::MIRRORBUS_E_INVALID,
        IoError::NoSpace(_) => mirrorbus_code::MIRRORBUS_E_NO_SPACE,
        IoError::RoleChanged | IoError::Stopping => mirrorbus_code::MIRRORBUS_E_ROLE,
        IoError::Deleted => mirrorbus_code::MIRRORBUS_E_NOT_FOUND,
        IoError::Failed(_) => mirrorbus_code::MIRRORBUS_E_SYNC,
        IoError::Damaged(_) => mirrorbus_code::MIRRORBUS_E_DAMAGED,
        IoError::Medium(_) => mirrorbus_code::MIRRORBUS_E_SYSTEM,
        // Nobody is gone but by a deadline.
        IoError::Gone | IoError::HeldTooLong { .. } => mirrorbus_code::MIRRORBUS_E_TIMEOUT,
        IoError::Volume(volume) => code_of_volume(volume),
        _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
    }
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Self {
        let text = match &error {
            IoError::Gone => "the deadline passed: it may be done yet".to_owned(),
            other => other.to_string(),
        };
        Self::new(code_of_io(&error), text)
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::Io(io) => code_of_io(io),
            CommandError::Volume(volume) => code_of_volume(volume),
            CommandError::Peer(call) => code_of_call(call),
            _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
        };
        Self::of(code, &error)
    }
}

impl From<store::OpenError> for Failure {
    fn from(error: store::OpenError) -> Self {
        let code = match &error {
            store::OpenError::System(_)
            | store::OpenError::Map(_)
            | store::OpenError::Lock(_)
            | store::OpenError::Holder(_) => mirrorbus_code::MIRRORBUS_E_SYSTEM,
            store::OpenError::Places { .. } | store::OpenError::Silence { .. } => {
                mirrorbus_code::MIRRORBUS_E_INVALID
            }
            store::OpenError::Lost { .. } | store::OpenError::Replay(_) => {
                mirrorbus_code::MIRRORBUS_E_DAMAGED
            }
            _ => mirrorbus_code::MIRRORBUS_E_REFUSED,
        };
        Self::of(code, &error)
    }
}

impl mirrorbus_code {
    /// Its name in C, with the end that C wants.
    pub(crate) const fn name(number: i32) -> &'static std::ffi::CStr {
        match number {
            0 => c"MIRRORBUS_OK",
            -1 => c"MIRRORBUS_E_INVALID",
            -2 => c"MIRRORBUS_E_HANDLE",
            -3 => c"MIRRORBUS_E_BUSY",
            -4 => c"MIRRORBUS_E_FORKED",
            -5 => c"MIRRORBUS_E_RANGE",
            -6 => c"MIRRORBUS_E_WOULD_BLOCK",
            -7 => c"MIRRORBUS_E_TIMEOUT",
            -8 => c"MIRRORBUS_E_LINK_LOST",
            -9 => c"MIRRORBUS_E_STALE",
            -10 => c"MIRRORBUS_E_UNSUPPORTED",
            -11 => c"MIRRORBUS_E_REFUSED",
            -12 => c"MIRRORBUS_E_KEY",
            -13 => c"MIRRORBUS_E_SYSTEM",
            -14 => c"MIRRORBUS_E_SYNC",
            -15 => c"MIRRORBUS_E_NO_SPACE",
            -16 => c"MIRRORBUS_E_ROLE",
            -17 => c"MIRRORBUS_E_DAMAGED",
            -18 => c"MIRRORBUS_E_NOT_FOUND",
            -19 => c"MIRRORBUS_E_LIMIT",
            -20 => c"MIRRORBUS_E_INTERNAL",
            -21 => c"MIRRORBUS_E_VERSION",
            -22 => c"MIRRORBUS_E_DIFFERENT",
            -23 => c"MIRRORBUS_E_TOO_LARGE",
            -24 => c"MIRRORBUS_E_DROPPED",
            -25 => c"MIRRORBUS_E_SUPERSEDED",
            _ => c"unknown",
        }
    }
}
