//! The RDMA devices of this machine, for people who want to know what there is: `mirrorbus doctor` prints them.
//!
//! Nothing here is used for carrying stores; the fabric finds its device by the address it connects to.

use std::io;
use std::net::Ipv6Addr;
use std::path::Path;

use super::port;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// As `ibv_devices` names it, such as `mlx5_0` or `rxe_eth0`.
    pub name: String,
    /// Its ports, from 1 on.
    pub ports: Vec<PortInfo>,
    /// Its address table; `Err` says why it cannot be read, as while a port is down.
    pub gids: Result<Vec<GidInfo>, String>,
}

/// A port of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// From 1 on.
    pub number: u8,
    /// What it says; `Err` why it cannot be asked.
    pub state: Result<PortState, String>,
    /// `Ethernet` for RoCE, or `InfiniBand`; empty where the kernel does not say.
    pub link_layer: String,
    /// The network card that carries it, if it has one.
    pub netdev: Option<String>,
}

/// What a port says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortState {
    /// `ACTIVE`, `DOWN`, `INIT`, `ARMED`, `ACTIVE_DEFER` or `NOP`.
    pub state: &'static str,
    /// Bytes that a packet carries now; 0 where it does not say.
    pub active_mtu: u32,
    /// Bytes that a packet could carry.
    pub max_mtu: u32,
}

impl PortState {
    /// Whether it carries packets.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == "ACTIVE"
    }
}

/// An entry of a device's address table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GidInfo {
    /// The port that it belongs to.
    pub port: u32,
    /// Its place in the table of that port.
    pub index: u32,
    /// The address; that of a RoCE port is its card's IP address.
    pub address: Ipv6Addr,
    /// What is spoken with it.
    pub kind: GidKind,
    /// The network card that it came from.
    pub netdev: Option<String>,
}

/// What is spoken with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GidKind {
    /// InfiniBand.
    InfiniBand,
    /// RDMA in Ethernet frames, within one network segment.
    RoceV1,
    /// RDMA in UDP packets: what the connection manager and soft-RoCE speak.
    RoceV2,
}

impl std::fmt::Display for GidKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::InfiniBand => "InfiniBand",
            Self::RoceV1 => "RoCE v1",
            Self::RoceV2 => "RoCE v2",
        })
    }
}

/// The devices that programs can use.
///
/// # Errors
/// The kernel has no RDMA (`ENOSYS`), or the list cannot be had.
pub fn devices() -> io::Result<Vec<DeviceInfo>> {
    let list = ibverbs::devices()?;
    let sys = Path::new("/sys/class");
    let all = list.iter().filter_map(|device| {
        let name = device.name()?.to_str().ok()?.to_owned();
        let ports = ports(sys, &name);
        let gids =
            device.open().map(|context| context.gid_table().iter().map(|gid| entry(sys, gid)).collect());
        let gids = gids.map_err(|error| error.to_string());
        Some(DeviceInfo { name, ports, gids })
    });
    Ok(all.collect())
}

/// Registers `bytes` of memory with a device and gives them back: whether the limits allow it.
///
/// # Errors
/// What the device or the kernel said; `ENOMEM` mostly means `RLIMIT_MEMLOCK`.
pub fn try_registration(device: &str, bytes: usize) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no RDMA device {device}"));
    let list = ibverbs::devices()?;
    let named =
        list.iter().find(|other| other.name().is_some_and(|name| name.to_bytes() == device.as_bytes()));
    let context = named.ok_or_else(missing)?.open()?;
    let domain = context.alloc_pd()?;
    // Dropped before the domain, which may not have any left.
    domain.allocate::<u8>(bytes).map(drop)
}

fn ports(sys: &Path, device: &str) -> Vec<PortInfo> {
    let directory = sys.join("infiniband").join(device).join("ports");
    let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let mut numbers: Vec<u8> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let info = |number: u8| {
        let port = directory.join(number.to_string());
        PortInfo {
            number,
            state: port::query(device, number).map(said).map_err(|error| error.to_string()),
            link_layer: word(&port.join("link_layer")).unwrap_or_default(),
            netdev: word(&port.join("gid_attrs/ndevs/0")).filter(|name| !name.is_empty()),
        }
    };
    numbers.into_iter().map(info).collect()
}

fn said(attributes: port::Attributes) -> PortState {
    let state = match attributes.state {
        1 => "DOWN",
        2 => "INIT",
        3 => "ARMED",
        4 => "ACTIVE",
        5 => "ACTIVE_DEFER",
        _ => "NOP",
    };
    PortState { state, active_mtu: mtu_bytes(attributes.active_mtu), max_mtu: mtu_bytes(attributes.max_mtu) }
}

/// Bytes of an `ibv_mtu`.
const fn mtu_bytes(code: u32) -> u32 {
    match code {
        1..=5 => 128 << code,
        _ => 0,
    }
}

fn entry(sys: &Path, gid: &ibverbs::GidEntry) -> GidInfo {
    let address = u128::from(gid.gid.subnet_prefix()) << 64 | u128::from(gid.gid.interface_id());
    GidInfo {
        port: gid.port_num,
        index: gid.gid_index,
        address: Ipv6Addr::from_bits(address),
        // `ibv_gid_type`, of which the crate exports the type and no names.
        kind: match gid.gid_type {
            1 => GidKind::RoceV1,
            2 => GidKind::RoceV2,
            _ => GidKind::InfiniBand,
        },
        netdev: netdev_of(sys, gid.ndev_ifindex),
    }
}

/// The name of a network card, by its number.
fn netdev_of(sys: &Path, index: u32) -> Option<String> {
    let cards = std::fs::read_dir(sys.join("net")).ok()?.flatten();
    let mut found =
        cards.filter(|card| word(&card.path().join("ifindex")).is_some_and(|text| text.parse() == Ok(index)));
    Some(found.next()?.file_name().to_string_lossy().into_owned())
}

fn word(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_library_are_read() {
        assert_eq!([1, 3, 5, 0, 6].map(mtu_bytes), [256, 1024, 4096, 0, 0]);
        let attributes = port::Attributes { state: 4, active_mtu: 3, max_mtu: 5 };
        let active = said(attributes);
        assert!(active.is_active());
        assert_eq!((active.active_mtu, active.max_mtu), (1024, 4096));
        assert!(!said(port::Attributes { state: 1, ..attributes }).is_active());
    }

    #[test]
    fn a_card_is_found_by_its_number() {
        let sys = Path::new("/sys/class");
        let index = word(&sys.join("net/lo/ifindex")).unwrap().parse().unwrap();
        assert_eq!(netdev_of(sys, index).as_deref(), Some("lo"));
        assert_eq!(netdev_of(sys, 0), None);
    }

    #[test]
    fn a_device_that_is_not_there_takes_no_registration() {
        assert!(try_registration("no-such-device", 4096).is_err());
    }
}
