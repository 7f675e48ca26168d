//! Who serves and with whom: what the mediator holds, and what a node was told.

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// The one that serves in the beginning.
    A,
    /// The other one.
    B,
}

impl Name {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The peer.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// As a member of a set.
    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of writes, a bit for each, in the order in which they were made.
pub(crate) type Writes = u8;

/// Behind the last of them.
pub(crate) fn end(log: Writes) -> u8 {
    u8::try_from(Writes::BITS - log.leading_zeros()).expect("eight at most")
}

/// To where two logs are the same.
pub(crate) const fn common(one: Writes, other: Writes) -> Writes {
    let parts = one ^ other;
    one & (parts & parts.wrapping_neg()).wrapping_sub(1)
}

/// A configuration. Its id is told by how many are later at the mediator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Config {
    /// A bit for each.
    pub members: u8,
    /// Who serves.
    pub primary: Name,
    /// Who has a log that ends before does not serve by itself.
    pub floor: u8,
}

impl Config {
    /// One node.
    #[must_use]
    pub const fn alone(name: Name, floor: u8) -> Self {
        Self { members: name.bit(), primary: name, floor }
    }

    /// Both.
    #[must_use]
    pub const fn both(primary: Name) -> Self {
        Self { members: 3, primary, floor: 0 }
    }

    /// Whether it is a member.
    #[must_use]
    pub const fn has(&self, name: Name) -> bool {
        self.members & name.bit() != 0
    }

    /// Whether it is the only one.
    #[must_use]
    pub const fn is_alone(&self, name: Name) -> bool {
        self.members == name.bit()
    }
}
