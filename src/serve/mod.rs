//! The doors by which programs of others reach a volume.
//!
//! * [`nbd`]: the network block device protocol, for virtual machines, the kernel and the tools of disk images.

pub mod nbd;
