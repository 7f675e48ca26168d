//! MD RAID 1 over NVMe over RDMA: the disk of guest `b` is a namespace of the kernel's target, which is told of by files alone.

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;

use super::contender::{Contender, SOON, block_device};
use super::{disks, md};

const ARRAY: &str = "/dev/md0";
const TARGET: &str = "/sys/kernel/config/nvmet";

/// The array in guest `a`.
#[derive(Debug)]
pub(super) struct Nvme;

impl Contender for Nvme {
    fn name(&self) -> &'static str {
        "MD over NVMe"
    }

    fn about(&self) -> &'static str {
        "MD RAID 1 of a local disk and one over NVMe over RDMA, no bitmap"
    }

    fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        let (address, disk) = (guests.b.address(), disks::NVME);
        let offer = format!(
            "set -e\ngrep -q ' /sys/kernel/config ' /proc/mounts || mount -t configfs configfs /sys/kernel/config\n\
             cd {TARGET}\nmkdir subsystems/peer\necho 1 >subsystems/peer/attr_allow_any_host\n\
             mkdir subsystems/peer/namespaces/1\necho -n {disk} >subsystems/peer/namespaces/1/device_path\n\
             echo 1 >subsystems/peer/namespaces/1/enable\n\
             mkdir ports/1\ncd ports/1\necho rdma >addr_trtype\necho ipv4 >addr_adrfam\n\
             echo {address} >addr_traddr\necho 4420 >addr_trsvcid\n\
             ln -s {TARGET}/subsystems/peer subsystems/peer\n"
        );
        guests.b.run(&offer, SOON)?;
        let connect = format!(
            "echo -n transport=rdma,traddr={address},trsvcid=4420,nqn=peer,hostnqn=owner >/dev/nvme-fabrics || exit 1\n\
             until test -b /dev/nvme0n1; do sleep 0.1; done"
        );
        guests.a.run(&connect, SOON)?;
        md::create(guests, ARRAY, disk, "/dev/nvme0n1")
    }

    fn engine(&self) -> String {
        block_device(ARRAY)
    }

    fn tear_down(&mut self, guests: &Guests) -> Result<()> {
        md::stop(guests, ARRAY)?;
        guests.a.run("echo 1 >/sys/class/nvme/nvme0/delete_controller", SOON)?;
        let withdraw = format!(
            "cd {TARGET} && rm ports/1/subsystems/peer && rmdir ports/1 && \
             rmdir subsystems/peer/namespaces/1 && rmdir subsystems/peer"
        );
        guests.b.run(&withdraw, SOON).map(drop)
    }
}
