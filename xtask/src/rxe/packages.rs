//! What comes from Debian: the kernel and the guests' programs, downloaded and unpacked, not installed.
//!
//! Only QEMU is installed. What the guests need is taken as a whole from the packages, whatever this machine has:
//! apt is told that nothing is installed, so that it finds every package that the wanted ones need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Context, Failure, Result};
use crate::install;
use crate::shell::{program, run};

use super::extra::Extra;
use super::{kernel, modules};

/// Names the kernel's package by depending on it. The `cloud` kernels have no soft-RoCE.
const KERNEL: &str = "linux-image-amd64";

/// What the guests have beside the project's programs: a shell, its small tools, `rdma`, the verbs libraries with the
/// soft-RoCE provider, and programs that show RDMA at work.
const USERLAND: &[&str] = &[
    "busybox-static",
    "dash",
    "iproute2",
    "ibverbs-providers",
    "ibverbs-utils",
    "librdmacm1",
    "rdmacm-utils",
];

/// The kernel, ready to start.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As an ELF file.
    pub(crate) image: PathBuf,
    /// Its modules, in the order of loading.
    pub(crate) modules: Vec<PathBuf>,
    /// Those that the replicated disks of a comparison need beside, in the order of loading.
    pub(crate) peers: Vec<PathBuf>,
}

/// The kernel, from the cache if the package has not changed.
pub(crate) fn kernel(cache: &Path) -> Result<Kernel> {
    let package = kernel_package()?;
    let version = field(&package, "Version")?;
    let place = cache.join(format!("kernel/{package}_{}", version.replace([':', '/'], "_")));
    let (list, stamp) = (place.join("modules"), place.join("wanted"));
    let wanted = [modules::WANTED, modules::PEERS].concat().join("\n");
    if !list.exists() || fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        println!("downloading {package} {version}: the guests' kernel; it is not installed");
        let unpacked = unpack(&place, "kernel", |folder| apt_get(&["download", &package], Some(folder)))?;
        prepare(&unpacked, &place)?;
        write(&stamp, wanted.as_bytes())?;
        fs::remove_dir_all(&unpacked).context(|| format!("removing {}", unpacked.display()))?;
    }
    let listed = |list: &Path| -> Result<Vec<PathBuf>> {
        let order = fs::read_to_string(list).context(|| format!("reading {}", list.display()))?;
        Ok(order.lines().map(|name| place.join(format!("{name}.ko"))).collect())
    };
    let (modules, peers) = (listed(&list)?, listed(&place.join("modules.peers"))?);
    Ok(Kernel { image: place.join("vmlinux"), modules, peers })
}

/// Puts the kernel, the modules that are needed and, last, their list into `place`.
fn prepare(unpacked: &Path, place: &Path) -> Result<()> {
    let found = modules::find(&unpacked.join("lib/modules"))?;
    let read = |name: &str| {
        let path = found.get(name).ok_or_else(|| Failure::new(format!("the kernel has no module {name}")))?;
        fs::read(path).context(|| format!("reading {}", path.display()))
    };
    let depends = |name: &str| modules::depends(&read(name)?);
    let order = modules::in_order(modules::WANTED, &depends)?;
    let all = modules::in_order(&[modules::WANTED, modules::PEERS].concat(), &depends)?;
    for name in &all {
        write(&place.join(format!("{name}.ko")), &read(name)?)?;
    }
    let boot = unpacked.join("boot");
    let entries = fs::read_dir(&boot).context(|| format!("listing {}", boot.display()))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let vmlinuz =
        paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    let vmlinuz = vmlinuz.ok_or_else(|| Failure::new(format!("no vmlinuz in {}", boot.display())))?;
    let bytes = fs::read(&vmlinuz).context(|| format!("reading {}", vmlinuz.display()))?;
    write(&place.join("vmlinux"), &kernel::decompressed(&bytes)?)?;
    // Those of the boot come first in both.
    write(&place.join("modules.peers"), all[order.len()..].join("\n").as_bytes())?;
    write(&place.join("modules"), order.join("\n").as_bytes())
}

/// The directory with the guests' programs and libraries. Downloaded once; `rm -r target/rxe` renews it.
pub(crate) fn userland(cache: &Path, extra: Extra) -> Result<PathBuf> {
    let place = cache.join("userland");
    let stamp = place.join("complete");
    let had = fs::read_to_string(&stamp).unwrap_or_default();
    let had: Vec<_> = had.lines().collect();
    let mut wanted = [USERLAND, extra.packages()].concat();
    if wanted.iter().all(|package| had.contains(package)) {
        return Ok(place.join("root"));
    }
    // What another command wanted stays, so that the two do not take turns at downloading.
    wanted.extend(had.iter().filter(|package| Extra::is_known(package)));
    wanted.sort_unstable();
    wanted.dedup();
    println!("downloading {}: what the guests run; nothing of it is installed", wanted.join(" "));
    if place.exists() {
        fs::remove_dir_all(&place).context(|| format!("removing {}", place.display()))?;
    }
    unpack(&place, "root", |folder| {
        let archives = format!("Dir::Cache::archives={}", folder.display());
        let options = ["-o", "Dir::State::status=/dev/null", "-o", &archives, "-o", "Debug::NoLocking=1"];
        let install = ["install", "--download-only", "--no-install-recommends", "--yes"];
        apt_get(&[&install, &options[..], &wanted].concat(), None)
    })?;
    write(&stamp, wanted.join("\n").as_bytes())?;
    Ok(place.join("root"))
}

/// Lets `download` put packages into a directory, and unpacks them into `place/name`.
fn unpack(place: &Path, name: &str, download: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let (packages, target) = (place.join("packages"), place.join(name));
    fs::create_dir_all(packages.join("partial")).context(|| format!("making {}", packages.display()))?;
    fs::create_dir_all(&target).context(|| format!("making {}", target.display()))?;
    // Lists that are older than the last update name files that the mirror has no more.
    download(&packages).or_else(|_| {
        install::update_package_lists()?;
        download(&packages)
    })?;
    for entry in fs::read_dir(&packages).context(|| format!("listing {}", packages.display()))? {
        let path = entry.context(|| format!("listing {}", packages.display()))?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        // The C library is this machine's, for which the project's programs were linked.
        if file.ends_with(".deb") && !file.starts_with("libc6_") {
            quietly(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&target))?;
        }
    }
    fs::remove_dir_all(&packages).context(|| format!("removing {}", packages.display()))?;
    Ok(target)
}

fn kernel_package() -> Result<String> {
    let named = || {
        let output =
            program("apt-cache", &["depends", KERNEL]).output().context(|| "apt-cache".to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned)))
    };
    if let Some(name) = named()? {
        return Ok(name);
    }
    install::update_package_lists()?;
    named()?.ok_or_else(|| {
        Failure::new(format!("apt knows no {KERNEL}: the guests' kernel is Debian's, for amd64"))
    })
}

/// A field of the newest version of a package.
fn field(package: &str, name: &str) -> Result<String> {
    let output = program("apt-cache", &["show", "--no-all-versions", package]).output();
    let output = output.context(|| "apt-cache".to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let prefix = format!("{name}: ");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    value.map(str::to_owned).ok_or_else(|| Failure::new(format!("apt knows no {name} of {package}")))
}

fn apt_get(arguments: &[&str], folder: Option<&Path>) -> Result<()> {
    // It would change to a user who may not write here, and warn about not doing so.
    let mut command = program("apt-get", &["--quiet=2", "-o", "APT::Sandbox::User=root"]);
    command.args(arguments);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    run(&mut command)
}

fn quietly(command: &mut Command) -> Result<()> {
    let what = || format!("{command:?}");
    let line = what();
    let output = command.output().context(|| line.clone())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{line}: {}", String::from_utf8_lossy(&output.stderr))))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).context(|| format!("writing {}", path.display()))
}
