//! Requests: how they are read, and which are refused before the export hears of them.

use super::errno::{Errno, Refusal};
use super::wire::{Fields, PAYLOAD_BYTES_MAX, REQUEST_BYTES, REQUEST_MAGIC, command_flag as flag};

/// The commands that this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    Cache,
    WriteZeroes,
    BlockStatus,
}

impl Command {
    const fn of(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            2 => Some(Self::Disconnect),
            3 => Some(Self::Flush),
            4 => Some(Self::Trim),
            5 => Some(Self::Cache),
            6 => Some(Self::WriteZeroes),
            7 => Some(Self::BlockStatus),
            _ => None,
        }
    }

    /// The flags that it may have. FUA is accepted with all of them, as the protocol demands.
    const fn flags(self) -> u16 {
        flag::FUA
            | match self {
                Self::Read => flag::DF,
                Self::Write | Self::Disconnect | Self::Flush | Self::Trim | Self::Cache => 0,
                Self::WriteZeroes => flag::NO_HOLE | flag::FAST_ZERO,
                Self::BlockStatus => flag::REQ_ONE,
            }
    }

    const fn changes(self) -> bool {
        match self {
            Self::Write | Self::Trim | Self::WriteZeroes => true,
            Self::Read | Self::Disconnect | Self::Flush | Self::Cache | Self::BlockStatus => false,
        }
    }
}

/// What the connection allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Of the export, now.
    pub(super) size: u64,
    pub(super) read_only: bool,
    pub(super) structured: bool,
    /// Whether any metadata context was selected.
    pub(super) contexts: bool,
}

/// A request, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) number: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Request {
    /// `None` when it does not begin as a request does: then nobody knows where the next one begins.
    pub(super) fn parse(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.u32()?;
        let (flags, number) = (fields.u16()?, fields.u16()?);
        let (cookie, offset, len) = (fields.u64()?, fields.u64()?, fields.u32()?);
        (magic == REQUEST_MAGIC).then_some(Self { flags, number, cookie, offset, len })
    }

    /// Bytes that follow it, whether it is refused or not.
    pub(super) fn payload_bytes(&self) -> u32 {
        if Command::of(self.number) == Some(Command::Write) { self.len } else { 0 }
    }

    pub(super) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The command, if it may be carried out.
    #[inline]
    pub(super) fn check(&self, terms: &Terms) -> Result<Command, Refusal> {
        let Some(command) = Command::of(self.number) else {
            return Err(Refusal::new(Errno::Invalid, format!("command {} is not known here", self.number)));
        };
        if matches!(command, Command::Disconnect | Command::Flush) {
            // Their range and flags are reserved and mean nothing.
            return Ok(command);
        }
        let end = self.offset.checked_add(u64::from(self.len));
        let is_plain = self.flags & !command.flags() == 0
            && self.len > 0
            && end.is_some_and(|end| end <= terms.size)
            && !(command.changes() && terms.read_only)
            && !(matches!(command, Command::Read | Command::Write) && self.len > PAYLOAD_BYTES_MAX)
            && (!self.has(flag::DF) || terms.structured)
            && (command != Command::BlockStatus || terms.contexts);
        if is_plain { Ok(command) } else { Err(self.refusal(command, terms)) }
    }

    /// Why it may not be carried out: the first reason in the order that clients expect.
    #[cold]
    fn refusal(&self, command: Command, terms: &Terms) -> Refusal {
        let Self { flags, offset, len, .. } = *self;
        if command.changes() && terms.read_only {
            return Refusal::new(Errno::Permission, "the export is read only");
        }
        if flags & !command.flags() != 0 || (self.has(flag::DF) && !terms.structured) {
            let text = format!("flags {flags:#x} with {command:?}, which takes {:#x}", command.flags());
            return Refusal::new(Errno::Invalid, text);
        }
        if command == Command::BlockStatus && !terms.contexts {
            return Refusal::new(Errno::Invalid, "no metadata context was selected for this export");
        }
        if matches!(command, Command::Read | Command::Write) && len > PAYLOAD_BYTES_MAX {
            // Of one that should not have been split, the size is what is wrong.
            let errno = if self.has(flag::DF) { Errno::Overflow } else { Errno::Invalid };
            return Refusal::new(errno, format!("{len} bytes at once, at most {PAYLOAD_BYTES_MAX}"));
        }
        if len == 0 {
            return Refusal::new(Errno::Invalid, format!("{command:?} of 0 bytes"));
        }
        let errno = match command {
            Command::Write | Command::WriteZeroes => Errno::NoSpace,
            Command::Read
            | Command::Disconnect
            | Command::Flush
            | Command::Trim
            | Command::Cache
            | Command::BlockStatus => Errno::Invalid,
        };
        let text = format!("{len} bytes at {offset} are beyond the end, which is at {}", terms.size);
        Refusal::new(errno, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Terms = Terms { size: 1 << 40, read_only: false, structured: true, contexts: true };

    fn request(flags: u16, number: u16, offset: u64, len: u32) -> Request {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&number.to_be_bytes());
        bytes[8..16].copy_from_slice(&7_u64.to_be_bytes());
        bytes[16..24].copy_from_slice(&offset.to_be_bytes());
        bytes[24..].copy_from_slice(&len.to_be_bytes());
        Request::parse(&bytes).expect("it begins as a request does")
    }

    fn errno(request: Request, terms: &Terms) -> u32 {
        request.check(terms).map_or_else(|refusal| refusal.errno.number(), |_| 0)
    }

    #[test]
    fn fields_are_where_they_belong() {
        let found = request(0x0102, 6, 0x0304_0506_0708_090a, 0x0b0c_0d0e);
        let expected =
            Request { flags: 0x0102, number: 6, cookie: 7, offset: 0x0304_0506_0708_090a, len: 0x0b0c_0d0e };
        assert_eq!(found, expected);
        assert_eq!(Request::parse(&[0; REQUEST_BYTES]), None);
        assert_eq!((request(0, 1, 0, 9).payload_bytes(), request(0, 0, 0, 9).payload_bytes()), (9, 0));
    }

    #[test]
    fn each_command_takes_its_flags_only() {
        for (number, taken) in [(0, 1 | 4), (1, 1), (4, 1), (5, 1), (6, 1 | 2 | 16), (7, 1 | 8)] {
            for bit in 0..16 {
                let flag = 1 << bit;
                let expected = if flag & taken != 0 { 0 } else { 22 };
                assert_eq!(errno(request(flag, number, 0, 512), &ALL), expected, "{number} {flag:#x}");
            }
        }
        // Reserved fields mean nothing.
        assert_eq!(errno(request(0xffff, 2, 9, 9), &ALL), 0);
        assert_eq!(errno(request(0xffff, 3, u64::MAX, 9), &ALL), 0);
        assert_eq!(errno(request(0, 8, 0, 512), &ALL), 22);
        assert_eq!(errno(request(0, 999, 0, 512), &ALL), 22);
    }

    #[test]
    fn ranges_are_checked() {
        for (number, beyond) in [(0, 22), (1, 28), (4, 22), (5, 22), (6, 28), (7, 22)] {
            let end = ALL.size;
            assert_eq!(errno(request(0, number, end - 512, 512), &ALL), 0, "{number}");
            assert_eq!(errno(request(0, number, end - 512, 513), &ALL), beyond, "{number}");
            assert_eq!(errno(request(0, number, end, 1), &ALL), beyond, "{number}");
            assert_eq!(errno(request(0, number, u64::MAX, 2), &ALL), beyond, "{number}");
            assert_eq!(errno(request(0, number, 0, 0), &ALL), 22, "{number}");
        }
    }

    #[test]
    fn terms_are_kept() {
        let read_only = Terms { read_only: true, ..ALL };
        for (number, expected) in [(0, 0), (1, 1), (4, 1), (5, 0), (6, 1), (7, 0)] {
            assert_eq!(errno(request(0, number, 0, 1), &read_only), expected, "{number}");
        }
        assert_eq!(errno(request(0, 7, 0, 1), &Terms { contexts: false, ..ALL }), 22);
        assert_eq!(errno(request(4, 0, 0, 1), &Terms { structured: false, ..ALL }), 22);
        let most = PAYLOAD_BYTES_MAX;
        assert_eq!(errno(request(0, 0, 0, most), &ALL), 0);
        assert_eq!(errno(request(0, 0, 0, most + 1), &ALL), 22);
        assert_eq!(errno(request(4, 0, 0, most + 1), &ALL), 75);
        assert_eq!(errno(request(0, 1, 0, most + 1), &ALL), 22);
        assert_eq!(errno(request(0, 4, 0, u32::MAX), &ALL), 0);
    }
}
