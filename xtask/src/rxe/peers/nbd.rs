//! MD RAID 1 over NBD: the disk of guest `b` is served by nbd-server, and is a block device of guest `a` by the kernel's client.

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;

use super::contender::{Contender, SOON, block_device};
use super::{disks, md};

const ARRAY: &str = "/dev/md1";
const DEVICE: &str = "/dev/nbd0";

/// The array in guest `a`, and the server of guest `b`.
#[derive(Debug)]
pub(super) struct Nbd;

impl Contender for Nbd {
    fn name(&self) -> &'static str {
        "MD over NBD"
    }

    fn about(&self) -> &'static str {
        "MD RAID 1 of a local disk and one over NBD, over TCP, no bitmap"
    }

    fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        let (address, disk) = (guests.b.address(), disks::NBD);
        let serve = format!(
            "printf '[generic]\\nuser = root\\ngroup = root\\n[disk]\\nexportname = {disk}\\n' >/tmp/nbd.conf\n\
             nbd-server -C /tmp/nbd.conf -p /tmp/nbd.pid\n\
             until [ -s /tmp/nbd.pid ]; do sleep 0.05; done"
        );
        // It goes into the background, into a session of its own before it says which process it is: what is still in that of the script
        // ends with it.
        guests.b.run(&serve, SOON)?;
        // It may not listen yet.
        let connect = format!(
            "left=50; until nbd-client {address} -N disk {DEVICE} -b 4096; do\n\
             left=$((left - 1)); [ $left -gt 0 ] || exit 1; sleep 0.2\ndone"
        );
        guests.a.run(&connect, SOON)?;
        md::create(guests, ARRAY, disk, DEVICE)
    }

    fn engine(&self) -> String {
        block_device(ARRAY)
    }

    fn tear_down(&mut self, guests: &Guests) -> Result<()> {
        md::stop(guests, ARRAY)?;
        guests.a.run(&format!("nbd-client -d {DEVICE}"), SOON)?;
        guests.b.run("kill $(cat /tmp/nbd.pid)", SOON).map(drop)
    }
}
