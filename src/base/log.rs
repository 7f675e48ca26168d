//! Names of what is in the log: positions, generations, phases, volumes and their blocks.

use std::fmt;

/// A byte position in the endless log of a dataset, and the stable name of what lies there: data keeps its LSN for life, on
/// both nodes. Higher means later. Nothing lies at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// No position reaches it: at 10 GB/s for 29 years. The bit above is free for those who keep many LSNs.
    pub const MAX: Self = Self(1 << 63);

    /// The position `bytes` later.
    ///
    /// # Panics
    /// When it is beyond [`MAX`](Self::MAX). What a disk or a peer says is checked before it is added to.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        match self.0.checked_add(bytes) {
            Some(sum) if sum <= Self::MAX.0 => Self(sum),
            _ => panic!("the log has no positions left"),
        }
    }

    /// Bytes from `earlier` to here.
    ///
    /// # Panics
    /// When `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        match self.0.checked_sub(earlier.0) {
            Some(bytes) => bytes,
            None => panic!("an earlier position is lower"),
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One writer's uninterrupted part of a dataset's log. Each restart and each new configuration begins another. The first is
    /// 1; 0 stands for none. Not to be taken for a grant's [`Generation`](super::Generation).
    LogGeneration(u64)
}
number! {
    /// A writing phase: a stretch of the log whose end both nodes remember, so that a returning one knows where to go on.
    Phase(u64)
}
number! {
    /// A volume of a dataset. Numbers are not given twice.
    VolumeId(u32)
}
number! {
    /// A block of a volume, counted from 0, in the volume's own block size.
    BlockNumber(u64)
}

/// Bytes of a volume's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockSize {
    /// 512 bytes.
    Small,
    /// 4096 bytes.
    Large,
}

impl BlockSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The power of two.
    #[must_use]
    pub const fn shift(self) -> u8 {
        match self {
            Self::Small => 9,
            Self::Large => 12,
        }
    }

    /// The size with this power of two; `None` when there is none.
    #[must_use]
    pub const fn from_shift(shift: u8) -> Option<Self> {
        match shift {
            9 => Some(Self::Small),
            12 => Some(Self::Large),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_add_and_never_wrap() {
        assert_eq!(Lsn(5).plus(7), Lsn(12));
        assert_eq!(Lsn(12).since(Lsn(5)), 7);
        assert_eq!(Lsn(4096).to_string(), "0x1000");
        assert!(std::panic::catch_unwind(|| Lsn::MAX.plus(1)).is_err());
        assert!(std::panic::catch_unwind(|| Lsn(1).plus(u64::MAX)).is_err());
        assert!(std::panic::catch_unwind(|| Lsn(1).since(Lsn(2))).is_err());
    }

    #[test]
    fn block_sizes_are_two() {
        let found: Vec<_> = (0..=255).filter_map(BlockSize::from_shift).map(BlockSize::bytes).collect();
        assert_eq!(found, [512, 4096]);
    }
}
