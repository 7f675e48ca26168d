//! The medium `rdma`: RDMA cards and soft-RoCE, through the verbs library.

mod devices;
mod port;

pub use devices::{DeviceInfo, GidInfo, GidKind, PortInfo, PortState, devices, try_registration};
