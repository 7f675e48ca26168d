//! What guests have on request only, beyond what every test needs.

/// One such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    /// No more than every test needs.
    Nothing,
    /// Debian's package of bare RDMA measurements.
    Perftest,
    /// fio.
    Fio,
    /// The replicated disks that ours is compared with, and fio.
    Peers,
}

impl Extra {
    const ALL: [Self; 4] = [Self::Nothing, Self::Perftest, Self::Fio, Self::Peers];

    /// Debian's packages.
    pub(crate) const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Perftest => &["perftest"],
            Self::Fio => &["fio"],
            Self::Peers => &["drbd-utils", "fio", "mdadm", "nbd-client", "nbd-server"],
        }
    }

    /// Programs of these packages. They come in place of busybox's of the same name.
    pub(crate) const fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Perftest => &["ib_write_lat", "ib_write_bw"],
            Self::Fio => &["fio"],
            // The kernel's DRBD is of the series 8.4, which has a program of its own.
            Self::Peers => &["drbdmeta", "drbdsetup-84", "fio", "mdadm", "nbd-client", "nbd-server"],
        }
    }

    /// Whether some request asks for this package.
    pub(crate) fn is_known(package: &str) -> bool {
        Self::ALL.iter().any(|extra| extra.packages().contains(&package))
    }
}
