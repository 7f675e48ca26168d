//! Which kernel modules are to be loaded, and in which order.
//!
//! A module names those that it needs in its `.modinfo` section, as `depends=a,b`. So no `depmod` has to run, and the
//! guest loads with a plain `insmod` for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};

/// What the guests load, beside what these need.
///
/// `crc32_generic` is asked for by name when `rdma_rxe` starts; no dependency says so. The variant with carry-less
/// multiplication would be slower under emulation. So does ext4 with `crc32c_generic`.
pub(crate) const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "virtio_blk",
    "crc32_generic",
    "crc32c_generic",
    "rdma_rxe",
    "rdma_ucm",
    "ib_uverbs",
    "ext4",
];

/// What the replicated disks of a comparison are made of, beside what these need; loaded only there.
pub(crate) const PEERS: &[&str] = &["brd", "drbd", "raid1", "nvmet", "nvmet_rdma", "nvme_rdma", "nbd"];

/// The modules below a directory, by name.
pub(crate) fn find(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).context(|| format!("listing {}", path.display()))? {
            let path = entry.context(|| format!("listing {}", path.display()))?.path();
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
                found.insert(canonical(name), path);
            }
        }
    }
    Ok(found)
}

/// `wanted` and all that they need, each after what it needs.
pub(crate) fn in_order(
    wanted: &[&str],
    depends: &impl Fn(&str) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let mut order = Vec::new();
    for name in wanted {
        add(&canonical(name), depends, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    depends: &impl Fn(&str) -> Result<Vec<String>>,
    above: &mut Vec<String>,
    order: &mut Vec<String>,
) -> Result<()> {
    if order.iter().any(|done| done == name) {
        return Ok(());
    }
    if above.iter().any(|outer| outer == name) {
        return Err(Failure::new(format!("the modules {} need each other", above.join(", "))));
    }
    above.push(name.to_owned());
    for needed in depends(name)? {
        add(&canonical(&needed), depends, above, order)?;
    }
    above.pop();
    order.push(name.to_owned());
    Ok(())
}

/// What a module's file says that it needs.
pub(crate) fn depends(file: &[u8]) -> Result<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let at = file.windows(KEY.len()).position(|window| window == KEY);
    let at = at.ok_or_else(|| Failure::new("a module does not say what it needs".to_owned()))?;
    let value = file[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    Ok(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Files are named with a hyphen or an underline, and mean the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(name: &str) -> Result<Vec<String>> {
        let needed: &[&str] = match name {
            "rdma_rxe" => &["ib-core", "udp_tunnel"],
            "udp_tunnel" | "ib_core" => &["base"],
            "base" => &[],
            "round" => &["trip"],
            "trip" => &["round"],
            _ => return Err(Failure::new(format!("no {name}"))),
        };
        Ok(needed.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn each_comes_once_and_after_what_it_needs() {
        let order = in_order(&["base", "rdma-rxe", "udp_tunnel"], &needs).unwrap();
        assert_eq!(order, ["base", "ib_core", "udp_tunnel", "rdma_rxe"]);
    }

    #[test]
    fn what_is_missing_or_circular_is_named() {
        assert!(in_order(&["absent"], &needs).unwrap_err().to_string().contains("no absent"));
        assert!(in_order(&["round"], &needs).unwrap_err().to_string().contains("round, trip"));
    }

    #[test]
    fn a_module_says_what_it_needs() {
        let file = b"\x7fELF...license=GPL\0depends=ib_core,udp-tunnel\0retpoline=Y\0";
        assert_eq!(depends(file).unwrap(), ["ib_core", "udp-tunnel"]);
        assert!(depends(b"license=GPL\0depends=\0name=x\0").unwrap().is_empty());
        assert!(depends(b"\x7fELF").is_err());
    }
}
