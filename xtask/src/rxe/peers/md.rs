//! MD RAID 1 of an own disk and one that is reached over the network: what replicates is the kernel's RAID, the other guest only has a
//! disk to offer.
//!
//! There is no bitmap of what was written, which makes it as fast as it can be: after an outage all would have to be copied.

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;

use super::contender::SOON;

/// Makes the array `device` of two disks that are both empty.
pub(super) fn create(guests: &Guests, device: &str, own: &str, remote: &str) -> Result<()> {
    let options = "--run --level=1 --raid-devices=2 --assume-clean --bitmap=none --metadata=1.2";
    guests.a.run(&format!("mdadm --create {device} {options} {own} {remote}"), SOON)?;
    whole(guests, device)
}

/// Takes it away, if it still has both of its disks: else it was not measured as what it is called.
pub(super) fn stop(guests: &Guests, device: &str) -> Result<()> {
    whole(guests, device)?;
    guests.a.run(&format!("mdadm --stop {device}"), SOON).map(drop)
}

fn whole(guests: &Guests, device: &str) -> Result<()> {
    let name = device.rsplit('/').next().unwrap_or(device);
    let script =
        format!("test \"$(cat /sys/block/{name}/md/degraded)\" = 0 || {{ cat /proc/mdstat; exit 1; }}");
    guests.a.run(&script, SOON).map(drop)
}
