//! RDMA: modules, devices, ports, addresses, and whether memory can be registered.
//!
//! Nothing here is a `FAIL`: where there is no RDMA, `shm` and `tcp` work all the same.

use std::path::Path;

use super::Finding;
use crate::cli::soft_roce::{MODULES, names};

/// Looks at all of it.
pub(super) fn look() -> Vec<Finding> {
    let sys = Path::new("/sys");
    let known = names(&sys.join("class/infiniband"));
    modules(sys, &known).into_iter().chain(devices(sys, &known)).collect()
}

/// What programs need of the kernel beside the card's own driver, and what soft-RoCE is.
fn modules(sys: &Path, known: &[String]) -> Option<Finding> {
    const WHAT: &str = "RDMA modules";
    let is_loaded = |module: &&str| sys.join("module").join(module).exists();
    let (loaded, missing): (Vec<_>, Vec<_>) = MODULES.into_iter().partition(is_loaded);
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let found = format!("loaded: {}; missing: {}", list(&loaded), list(&missing));
    // Without a device nothing is missing: the next line says what to do.
    if known.is_empty() && loaded.is_empty() {
        return None;
    }
    let needed: Vec<_> =
        missing.into_iter().filter(|module| ["ib_uverbs", "rdma_ucm"].contains(module)).collect();
    if needed.is_empty() {
        return Some(Finding::ok(WHAT, found));
    }
    let fix =
        format!("programs reach RDMA devices through {0}: as root, `modprobe -a {0}`", needed.join(" "));
    Some(Finding::warn(WHAT, found, fix))
}

#[cfg(not(feature = "rdma"))]
fn devices(_: &Path, known: &[String]) -> Vec<Finding> {
    let found = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    vec![Finding::warn(
        "RDMA devices",
        format!("{found}; this program was built without the rdma fabric"),
        "only rdma:// needs it: build with the feature `rdma`, which is on by default",
    )]
}

#[cfg(feature = "rdma")]
use with_verbs::devices;

#[cfg(feature = "rdma")]
mod with_verbs {
    use std::path::Path;

    use mirrorbus::base::format_bytes;
    use mirrorbus::fabric::verbs::{self, DeviceInfo, GidInfo, GidKind, PortInfo, PortState};
    use rustix::process::{Resource, getrlimit};

    use super::super::{Finding, State};
    use crate::cli::soft_roce::{MTU_MIN, card_mtu, devices_on};

    /// Where there is no RDMA card.
    const SOFT_ROCE: &str = "only rdma:// needs one; without an RDMA card, `mirrorbus soft-roce up --netdev CARD` as root \
                             makes one of software (CARD as `ip link` names it)";

    /// Bytes that are registered on trial: more than the usual default limit of 8 MiB.
    const TRIAL_BYTES: usize = 64 << 20;

    /// Bytes that a packet carries at most.
    const MTU_MAX: u32 = 4096;

    /// The devices that the library sees, of those that the kernel knows.
    pub(super) fn devices(sys: &Path, known: &[String]) -> Vec<Finding> {
        const WHAT: &str = "RDMA devices";
        let seen = match verbs::devices() {
            Ok(seen) => seen,
            Err(_) if known.is_empty() => Vec::new(),
            Err(error) => {
                let found = format!("{}, but the verbs library finds none: {error}", known.join(", "));
                return vec![Finding::warn(WHAT, found, "as root, `modprobe ib_uverbs`")];
            }
        };
        if seen.is_empty() && known.is_empty() {
            return vec![Finding::warn(WHAT, "none", SOFT_ROCE)];
        }
        let unseen: Vec<_> =
            known.iter().filter(|name| seen.iter().all(|device| device.name != **name)).cloned().collect();
        let names: Vec<_> = seen.iter().map(|device| device.name.clone()).collect();
        let mut findings = vec![if unseen.is_empty() {
            Finding::ok(WHAT, names.join(", "))
        } else {
            let found = format!("the kernel has {}, the verbs library finds {names:?}", known.join(", "));
            let fix = format!(
                "for {}: `modprobe ib_uverbs` as root, and install the device's provider (ibverbs-providers)",
                unseen.join(", ")
            );
            Finding::warn(WHAT, found, fix)
        }];
        for device in &seen {
            findings.extend(device.ports.iter().map(|port| self::port(sys, device, port)));
            findings.extend(gids(device));
            findings.push(registration(&device.name));
        }
        findings
    }

    fn port(sys: &Path, device: &DeviceInfo, port: &PortInfo) -> Finding {
        let what = format!("RDMA port {}/{}", device.name, port.number);
        let state = match &port.state {
            Ok(state) => state,
            Err(why) => {
                let fix = "`mirrorbus doctor` as a user who may open /dev/infiniband, or see `dmesg`";
                return Finding::warn(what, format!("cannot be asked: {why}"), fix);
            }
        };
        let PortState { state: name, active_mtu, max_mtu } = state;
        let card = port.netdev.as_deref();
        let on = card.map_or_else(String::new, |card| {
            let mtu = card_mtu(sys, card).map_or_else(String::new, |mtu| format!(" (MTU {mtu})"));
            format!(", on {card}{mtu}")
        });
        let found = format!("{name}, {}, active MTU {active_mtu} of {max_mtu}{on}", port.link_layer);
        let card = card.unwrap_or("CARD");
        if !state.is_active() {
            return Finding::warn(what, found, format!("`ip link set {card} up` as root; a cable, a switch"));
        }
        let soft = devices_on(sys, card).contains(&device.name);
        let mtu = if soft { format!("{MTU_MIN} or more, such as") } else { "such as".to_owned() };
        let fix = format!(
            "small packets cost speed: `ip link set {card} mtu 9000` ({mtu} 9000) on both sides and on the switch"
        );
        Finding::judged(*active_mtu >= MTU_MAX, State::Warn, what, found, fix)
    }

    /// A line for each address, and one that says so where none can be used.
    fn gids(device: &DeviceInfo) -> Vec<Finding> {
        let gids = match &device.gids {
            Ok(gids) => gids,
            Err(why) => {
                let fix = "the table counts only while the first port is active: see its line";
                return vec![Finding::warn(format!("RDMA addresses of {}", device.name), why, fix)];
            }
        };
        let mut findings: Vec<_> = gids.iter().map(|gid| self::gid(device, gid)).collect();
        let ethernet = device.ports.iter().any(|port| port.link_layer == "Ethernet");
        // Of IPv6 the link's own address alone is not one that a URL can have.
        let usable = |gid: &GidInfo| gid.kind == GidKind::RoceV2 && !gid.address.is_unicast_link_local();
        if ethernet && !gids.iter().any(usable) {
            findings.push(Finding::warn(
                format!("RDMA addresses of {}", device.name),
                "none is a RoCE v2 address that others can reach",
                "give the network card an IP address: `ip address add ADDRESS/BITS dev CARD`, as root",
            ));
        }
        findings
    }

    fn gid(device: &DeviceInfo, gid: &GidInfo) -> Finding {
        let what = format!("RDMA address {}/{}, index {}", device.name, gid.port, gid.index);
        let on = gid.netdev.as_deref().map_or_else(String::new, |card| format!(", on {card}"));
        let plain = gid.address.to_ipv4_mapped().map_or_else(String::new, |ip| format!(" ({ip})"));
        Finding::ok(what, format!("{}{plain}, {}{on}", gid.address, gid.kind))
    }

    /// Registered memory stays where it is and counts against the limit for locked memory, once for each registration.
    fn registration(device: &str) -> Finding {
        let what = format!("RDMA registration on {device}");
        let trial = format_bytes(TRIAL_BYTES as u64);
        let limit = getrlimit(Resource::Memlock);
        let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), format_bytes);
        let limits = format!("RLIMIT_MEMLOCK soft {}, hard {}", text(limit.current), text(limit.maximum));
        match verbs::try_registration(device, TRIAL_BYTES) {
            Ok(()) => Finding::ok(what, format!("{trial} were registered; {limits}")),
            Err(error) => Finding::warn(
                what,
                format!("{trial} cannot be registered: {error}; {limits}"),
                "a device pins what it reaches, whatever --mlock says: `ulimit -l unlimited`, `USER - memlock \
                 unlimited` in /etc/security/limits.d, or LimitMEMLOCK=infinity in the systemd unit",
            ),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn device(state: &'static str, active_mtu: u32, gids: Vec<GidInfo>) -> DeviceInfo {
            let state = Ok(PortState { state, active_mtu, max_mtu: 4096 });
            let netdev = Some("no-such-card".to_owned());
            let port = PortInfo { number: 1, state, link_layer: "Ethernet".to_owned(), netdev };
            DeviceInfo { name: "rxe0".to_owned(), ports: vec![port], gids: Ok(gids) }
        }

        fn gid_of(address: &str, kind: GidKind) -> GidInfo {
            GidInfo { port: 1, index: 1, address: address.parse().expect("an address"), kind, netdev: None }
        }

        fn port_of(device: &DeviceInfo) -> Finding {
            port(Path::new("/sys"), device, &device.ports[0])
        }

        #[test]
        fn a_port_is_judged_by_its_state_and_its_mtu() {
            let good = port_of(&device("ACTIVE", 4096, Vec::new()));
            assert_eq!((good.state, &*good.fix), (State::Ok, ""));
            assert!(good.found.contains("ACTIVE, Ethernet, active MTU 4096 of 4096"), "{good}");
            let down = port_of(&device("DOWN", 4096, Vec::new()));
            assert!(down.state == State::Warn && down.fix.contains("ip link set no-such-card up"), "{down}");
            let small = port_of(&device("ACTIVE", 1024, Vec::new()));
            assert!(small.state == State::Warn && small.fix.contains("mtu 9000"), "{small}");
        }

        #[test]
        fn a_table_without_an_address_of_use_is_told() {
            let lines = |gids| self::gids(&device("ACTIVE", 4096, gids));
            let good = lines(vec![gid_of("::ffff:10.77.0.1", GidKind::RoceV2)]);
            assert_eq!(good.len(), 1);
            assert!(good[0].found.contains("(10.77.0.1), RoCE v2"), "{}", good[0]);
            for useless in [gid_of("fe80::1", GidKind::RoceV2), gid_of("::ffff:10.77.0.1", GidKind::RoceV1)] {
                let lines = lines(vec![useless]);
                assert!(
                    lines[1].state == State::Warn && lines[1].fix.contains("ip address add"),
                    "{lines:?}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_matter_where_there_is_a_device() {
        let nowhere = Path::new("/no/such/sys");
        assert_eq!(modules(nowhere, &[]), None);
        let finding = modules(nowhere, &["mlx5_0".to_owned()]).expect("a device");
        assert!(finding.fix.contains("modprobe -a ib_uverbs rdma_ucm"), "{finding}");
    }

    #[test]
    fn without_a_device_the_way_to_one_is_told() {
        let lines = devices(Path::new("/no/such/sys"), &[]);
        assert!(lines.iter().all(|line| line.what.starts_with("RDMA")), "{lines:?}");
        if std::fs::read_dir("/sys/class/infiniband").is_err() && cfg!(feature = "rdma") {
            assert!(lines[0].fix.contains("soft-roce up"), "{lines:?}");
        }
    }
}
