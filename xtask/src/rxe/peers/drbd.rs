//! DRBD, protocol C: a write is acknowledged when the peer has written it to its disk. Over TCP; the kernel's own has no RDMA.

use std::time::Instant;

use crate::failure::{Failure, Result};
use crate::rxe::guest::Guest;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;

use super::contender::{Contender, SOON, block_device};
use super::disks;

/// The resource in each guest.
#[derive(Debug)]
pub(super) struct Drbd;

impl Drbd {
    /// Makes the metadata, and the resource on top of the disk.
    fn attach(guest: &Guest, peer: &Guest) -> Result<()> {
        let (own, other, disk) = (guest.address(), peer.address(), disks::DRBD);
        let script = format!(
            "set -e\nmkdir -p /var/lib/drbd /var/lock /run/lock\n\
             drbdmeta --force 0 v08 {disk} internal create-md\n\
             drbdsetup-84 new-resource disk\ndrbdsetup-84 new-minor disk 0 0\n\
             drbdsetup-84 attach 0 {disk} {disk} internal\n\
             drbdsetup-84 connect disk ipv4:{own}:7789 ipv4:{other}:7789 --protocol=C\n"
        );
        guest.run(&script, SOON).map(drop)
    }

    /// Waits until both have this in what DRBD says of itself.
    fn until(guests: &Guests, what: &str) -> Result<()> {
        let until = Instant::now() + SOON;
        for guest in guests.both() {
            while !guest.run("cat /proc/drbd", SOON)?.contains(what) {
                if Instant::now() > until {
                    let state = guest.run("cat /proc/drbd", SOON)?;
                    return Err(Failure::new(format!("guest {}: no {what} in {state}", guest.name)));
                }
            }
        }
        Ok(())
    }
}

impl Contender for Drbd {
    fn name(&self) -> &'static str {
        "DRBD"
    }

    fn about(&self) -> &'static str {
        "DRBD 8.4 of the kernel, protocol C, over TCP"
    }

    fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        Self::attach(&guests.a, &guests.b)?;
        Self::attach(&guests.b, &guests.a)?;
        Self::until(guests, "cs:Connected")?;
        // Both disks are empty, and so the same.
        guests.a.run("drbdsetup-84 new-current-uuid --clear-bitmap 0 && drbdsetup-84 primary 0", SOON)?;
        Self::until(guests, "ds:UpToDate/UpToDate C")
    }

    fn engine(&self) -> String {
        block_device("/dev/drbd0")
    }

    fn tear_down(&mut self, guests: &Guests) -> Result<()> {
        // What the peer lacks at the end of a run would make its figures those of one disk.
        Self::until(guests, "ds:UpToDate/UpToDate C")?;
        guests.both().into_iter().try_for_each(|guest| guest.run("drbdsetup-84 down disk", SOON).map(drop))
    }
}
