//! The disks below, which are memory: one in each guest for each contender that the kernel replicates, all of the same size.

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;

use super::contender::SOON;

/// Below DRBD.
pub(super) const DRBD: &str = "/dev/ram0";
/// Below MD RAID 1 over NVMe.
pub(super) const NVME: &str = "/dev/ram1";
/// Below MD RAID 1 over NBD.
pub(super) const NBD: &str = "/dev/ram2";

/// KiB of each: what is written to, and room for what its owner keeps there.
const KIBIBYTES: u32 = 64 << 10;

/// Loads the modules of all contenders, in the order in which they need each other; with them come the disks.
pub(super) fn make(guests: &Guests) -> Result<()> {
    let script = format!(
        "for module in $(cat /etc/modules.peers); do\n\
         case $module in brd) options='rd_nr=3 rd_size={KIBIBYTES}';; nbd) options=nbds_max=1;; *) options=;; esac\n\
         insmod /lib/modules/$module.ko $options || exit 1\n\
         done\n\
         test -b {NBD}"
    );
    guests.both().into_iter().try_for_each(|guest| guest.run(&script, SOON).map(drop))
}
