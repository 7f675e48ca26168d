//! Gets the tools that a command needs and the machine lacks, saying which and why.
//!
//! System packages come from apt; where there is none the failure names the package. Cargo's tools come from the
//! registry, with the versions their authors locked.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

use crate::failure::{Failure, Result};
use crate::shell::{cargo, program, run, succeeds};

/// A C compiler: some dependencies have parts in C, and Rust links through it.
pub(crate) fn c_compiler() -> Result<()> {
    system("cc", &["gcc", "libc6-dev"], "dependencies have parts in C, and Rust links through the C compiler")
}

/// What the feature `rdma` builds with.
pub(crate) fn verbs() -> Result<()> {
    c_compiler()?;
    system("pkg-config", &["pkg-config"], "the verbs bindings find their libraries by it")?;
    system_by(
        "pkg-config --exists libibverbs librdmacm",
        &["libibverbs-dev", "librdmacm-dev"],
        "the verbs fabric speaks to RDMA devices by these libraries",
    )?;
    system("cmake", &["cmake"], "the crate ibverbs prepares its headers with it")?;
    system_by(
        // Not libclang-cpp, which is another library and comes with other packages.
        "ls -d /usr/lib/llvm-*/lib/* /usr/lib/*/* | grep -q '/libclang\\(-[0-9.]*\\)\\?\\.so'",
        &["libclang-dev"],
        "the verbs bindings are made from C headers by it",
    )
}

/// A C++ compiler, for the fuzzing engine.
pub(crate) fn cpp_compiler() -> Result<()> {
    c_compiler()?;
    system("c++", &["g++"], "the fuzzing engine, libFuzzer, is C++")
}

/// Valgrind, which counts instructions and looks at how memory is used.
pub(crate) fn valgrind() -> Result<()> {
    let why = "callgrind counts the instructions of a store, and memcheck looks at programs in C";
    system("valgrind", &["valgrind", "libc6-dbg"], why)
}

/// What programs in C and C++ are built with that use the library, in tests.
pub(crate) fn c_programs() -> Result<()> {
    c_compiler()?;
    system("c++", &["g++"], "an example of the C library is in C++, which has to understand the header")?;
    system("pkg-config", &["pkg-config"], "programs in C find the installed library by it")?;
    system_by("readelf --version && nm --version", &["binutils"], "they tell what a library exports")?;
    system_by(
        "pkg-config --exists sqlite3",
        &["libsqlite3-dev"],
        "an example keeps SQLite's files in a region",
    )?;
    valgrind()
}

/// A C compiler for 64-bit Arm.
pub(crate) fn arm_compiler() -> Result<()> {
    let packages = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
    system("aarch64-linux-gnu-gcc", &packages, "ring and blake3 compile parts in C, also for a check")
}

/// The nightly toolchain with Miri; the fuzzing engine needs it too.
pub(crate) fn nightly() -> Result<()> {
    if succeeds("cargo", &["+nightly", "miri", "--version"]) {
        return Ok(());
    }
    println!(
        "installing the nightly toolchain: Miri and the fuzzing engine's instrumentation exist there only"
    );
    let arguments =
        ["toolchain", "install", "nightly", "--profile", "minimal", "-c", "miri", "-c", "rust-src"];
    run(&mut program("rustup", &arguments))
}

/// The standard library of another target.
pub(crate) fn target(triple: &str) -> Result<()> {
    run(&mut program("rustup", &["target", "add", triple]))
}

/// A subcommand of cargo, such as `deny`.
pub(crate) fn cargo_tool(subcommand: &str, why: &str) -> Result<()> {
    if succeeds("cargo", &[subcommand, "--version"]) {
        return Ok(());
    }
    let package = format!("cargo-{subcommand}");
    println!("installing {package}: {why}");
    // It runs for seconds: making it fast would take minutes more than it saves.
    run(cargo(&["install", &package, "--locked", "--debug"]).env("CARGO_PROFILE_DEV_DEBUG", "0"))
}

/// The clients of NBD that its server is tested with.
pub(crate) fn nbd_clients() -> Result<()> {
    system("nbdinfo", &["libnbd-bin"], "nbdinfo and nbdcopy are clients of the NBD server under test")?;
    system_by(
        "/usr/bin/python3 -c 'import nbd'",
        &["python3-libnbd"],
        "a test calls every command of the NBD server by it",
    )?;
    system_by(
        "qemu-img --version && qemu-io --version",
        &["qemu-utils"],
        "they convert and compare disk images over NBD",
    )?;
    system("fio", &["fio"], "it verifies what it wrote over NBD")?;
    system("nbdkit", &["nbdkit"], "its nbd plugin stands on top of the NBD server under test")?;
    system_by("command -v nbd-client", &["nbd-client"], "it speaks the oldest form of the protocol")?;
    system("certtool", &["gnutls-bin"], "it makes the certificates for NBD under TLS")
}

/// The servers of NBD that the block store is compared with, and the client.
pub(crate) fn nbd_servers() -> Result<()> {
    system("fio", &["fio"], "it is the client of all that are compared")?;
    system("nbdkit", &["nbdkit"], "its memory plugin is what the volume is compared with")?;
    let why = "two of them mirror as the volume does, for comparison";
    system("qemu-storage-daemon", &["qemu-system-common"], why)
}

/// etcd, which nodes have for their arbiter in tests. These start one of their own, at ports that are free: the service that comes with the
/// package is in nobody's way, and is of use to nobody, so it is turned off if it was installed just now.
pub(crate) fn etcd() -> Result<()> {
    let was_there = succeeds("etcd", &["--version"]);
    system("etcd", &["etcd-server"], "nodes ask it in tests which of them goes on")?;
    if !was_there && Path::new("/run/systemd/system").exists() {
        println!("turning off the service etcd, which its package has started: tests start their own");
        run(&mut as_root("systemctl", &["disable", "--now", "etcd"]))?;
    }
    Ok(())
}

/// What the demonstration of the block store works with.
pub(crate) fn disk_images() -> Result<()> {
    system(
        "qemu-img",
        &["qemu-utils"],
        "the demonstration copies a disk image over NBD with it, and compares",
    )?;
    system_by(
        "PATH=$PATH:/usr/sbin:/sbin; mke2fs -V && e2fsck -V",
        &["e2fsprogs"],
        "the demonstration makes that image with mke2fs, and has its filesystem checked",
    )
}

/// What the tests of whole nodes look at them with.
pub(crate) fn node_tests() -> Result<()> {
    system_by(
        "command -v mkfs.ext4 && command -v e2fsck",
        &["e2fsprogs"],
        "a file system goes through a pair",
    )?;
    system_by(
        "command -v mkfs.xfs && command -v xfs_repair",
        &["xfsprogs"],
        "a file system goes through a pair",
    )?;
    system_by("command -v strace", &["strace"], "a test sees by it that a flush syncs on both nodes")?;
    system_by(
        "command -v mount && command -v losetup && command -v fallocate && command -v setpriv",
        &["mount", "util-linux"],
        "tests fill a small disk, and mount file systems that are on volumes",
    )?;
    system("nbdfuse", &["libnbd-bin"], "it makes a file of a volume, and a loop device a disk of that")?;
    system_by(
        "/usr/bin/python3 -c 'import sqlite3'",
        &["python3"],
        "SQLite is on a volume when its node is killed",
    )?;
    system_by(
        "ls /usr/lib/postgresql/*/bin/initdb && ls /usr/lib/postgresql/*/bin/pgbench && getent passwd postgres",
        &["postgresql", "postgresql-contrib"],
        "PostgreSQL is on a volume when its node is killed",
    )
}

/// QEMU, xz and the tools of `.deb` files, for machines with soft-RoCE.
pub(crate) fn emulator() -> Result<()> {
    system("qemu-system-x86_64", &["qemu-system-x86"], "it emulates two machines with soft-RoCE")?;
    system("xz", &["xz-utils"], "the guests' kernel is compressed with it")?;
    system("dpkg-deb", &["dpkg"], "the guests' programs are unpacked from Debian's packages")?;
    system("strip", &["binutils"], "the guests have little memory for what only a debugger reads")?;
    let why = "its cache filter is a disk that loses with a guest's power what was not flushed";
    system_by("nbdkit --filter=cache --dump-plugin null", &["nbdkit"], why)?;
    system_by("PATH=$PATH:/usr/sbin:/sbin; mke2fs -V", &["e2fsprogs"], "it formats the guests' disks")
}

/// What soft-RoCE on this host itself takes.
pub(crate) fn soft_roce() -> Result<()> {
    system("modprobe", &["kmod"], "it loads the soft-RoCE module")?;
    system_by("command -v ip && command -v rdma", &["iproute2"], "they make a soft-RoCE device")?;
    let packages = ["ibverbs-utils", "ibverbs-providers"];
    system_by("command -v ibv_devinfo", &packages, "the verbs library with its soft-RoCE provider")
}

/// Asks the mirrors which versions of the packages there are.
pub(crate) fn update_package_lists() -> Result<()> {
    static UPDATED: Once = Once::new();
    let mut updated = Ok(());
    UPDATED.call_once(|| updated = apt(&["update", "--quiet"]));
    updated
}

fn system(name: &str, packages: &[&str], why: &str) -> Result<()> {
    system_by(&format!("{name} --version"), packages, why)
}

/// Installs packages unless `check`, a command of the shell, succeeds.
fn system_by(check: &str, packages: &[&str], why: &str) -> Result<()> {
    let there = || succeeds("sh", &["-c", check]);
    if there() {
        return Ok(());
    }
    let list = packages.join(" ");
    println!("installing {list}: {why}");
    update_package_lists().and_then(|()| {
        apt(&[&["install", "--yes", "--quiet", "--no-install-recommends"], packages].concat())
    })?;
    if there() {
        return Ok(());
    }
    Err(Failure::new(format!("{list} is installed, yet `{check}` fails")))
}

/// apt-get, as root.
fn apt(arguments: &[&str]) -> Result<()> {
    if !succeeds("apt-get", &["--version"]) || !(is_root() || succeeds("sudo", &["-n", "true"])) {
        let what = arguments.join(" ");
        let way_out = "cannot be done here (needs apt-get, as root or with sudo): do it and run this again";
        return Err(Failure::new(format!("apt-get {what} {way_out}")));
    }
    run(as_root("apt-get", arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    succeeds("sh", &["-c", "test \"$(id -u)\" = 0"])
}

fn as_root(name: &str, arguments: &[&str]) -> Command {
    if is_root() { program(name, arguments) } else { program("sudo", &[&[name], arguments].concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed() {
        assert!(system("cargo", &["no-such-package"], "never").is_ok());
        assert!(c_compiler().is_ok(), "these tests were linked by it");
    }
}
