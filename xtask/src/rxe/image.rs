//! Packs what a guest has into one file, which the kernel unpacks into its memory: there is no disk.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Context, Failure, Result};
use crate::shell::{program, run};

use super::artifacts::Artifact;
use super::cpio::Archive;
use super::extra::Extra;
use super::libraries;
use super::packages::Kernel;

/// Where the guests' loader and the verbs library look for libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Programs of the packages that the guests have, beside the small tools of busybox.
const TOOLS: &[&str] = &["rdma", "ibv_devices", "ibv_devinfo", "ibv_rc_pingpong", "rping"];

/// The library that keeps a program from syncing.
const UNSYNCED: &str = "usr/lib/unsynced.so";

/// What QEMU starts.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

/// Writes the image for `kernel`, the unpacked packages in `userland` and the project's programs.
pub(crate) fn build(
    cache: &Path,
    kernel: &Kernel,
    userland: &Path,
    artifacts: &[Artifact],
    extra: Extra,
) -> Result<Image> {
    let initrd = cache.join("initrd");
    let file = File::create(&initrd).context(|| format!("making {}", initrd.display()))?;
    let mut packer = Packer { archive: Archive::new(BufWriter::new(file)), userland };
    packer.base(extra)?;
    packer.modules(&kernel.modules, "etc/modules")?;
    if extra == Extra::Peers {
        packer.modules(&kernel.peers, "etc/modules.peers")?;
    }
    // Before the tools: of a library that both need, the first counts, and these were linked for this machine's.
    for artifact in artifacts {
        let stripped = cache.join("stripped").join(&artifact.name);
        strip(&artifact.path, &stripped)?;
        packer.program(&stripped, &artifact.name, &[])?;
    }
    packer.tools(TOOLS)?;
    packer.tools(extra.tools())?;
    packer.verbs()?;
    packer.archive.file(UNSYNCED, 0o755, &read(&unsynced(cache)?)?)?;
    packer.archive.finish()?;
    Ok(Image { kernel: kernel.image.clone(), initrd })
}

/// Copies a program without symbols and what else only a debugger reads, which is most of it: each start of a guest unpacks it.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().expect("it has a folder");
    fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
    let what = || format!("strip {}", from.display());
    let status = program("strip", &["--strip-all", "-o"]).arg(to).arg(from).status().context(what)?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{}: {status}", what()))) }
}

/// Compiles the library that keeps a program from syncing.
fn unsynced(cache: &Path) -> Result<PathBuf> {
    let (source, library) = (cache.join("unsynced.c"), cache.join("unsynced.so"));
    fs::write(&source, include_bytes!("unsynced.c")).context(|| format!("writing {}", source.display()))?;
    run(program("cc", &["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source))?;
    Ok(library)
}

struct Packer<'a, W> {
    archive: Archive<W>,
    userland: &'a Path,
}

impl<W: Write> Packer<'_, W> {
    /// The first process, the shell and the small tools.
    fn base(&mut self, extra: Extra) -> Result<()> {
        for directory in ["proc", "sys", "dev", "tmp", "run", "root", "lib64", "usr/bin"] {
            self.archive.directory(directory)?;
        }
        self.archive.link("lib", "usr/lib")?;
        self.archive.link("bin", "usr/bin")?;
        self.archive.file("init", 0o755, include_bytes!("init.sh"))?;
        self.archive.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        )?;
        self.archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
        self.archive.file(
            "etc/hosts",
            0o644,
            b"127.0.0.1 localhost\n10.77.0.1 guest1\n10.77.0.2 guest2\n",
        )?;
        // Busybox's own shell would take its small tools before any program of the same name.
        let dash = self.find("dash")?;
        self.program(&dash, "sh", &[])?;
        let busybox = self.find("busybox")?;
        self.program(&busybox, "busybox", &[])?;
        let list = Command::new(&busybox).arg("--list").output();
        let list = list.context(|| format!("{} --list", busybox.display()))?;
        let ours = |tool: &str| tool != "sh" && !extra.tools().contains(&tool);
        for tool in String::from_utf8_lossy(&list.stdout).lines().filter(|&tool| ours(tool)) {
            self.archive.link(&format!("usr/bin/{tool}"), "busybox")?;
        }
        Ok(())
    }

    /// Modules, and the list of them in the order of loading.
    fn modules(&mut self, modules: &[PathBuf], list: &str) -> Result<()> {
        let mut names = String::new();
        for path in modules {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            self.archive.file(&format!("usr/lib/modules/{name}.ko"), 0o644, &read(path)?)?;
            names += &format!("{name}\n");
        }
        self.archive.file(list, 0o644, names.as_bytes())
    }

    fn tools(&mut self, tools: &[&str]) -> Result<()> {
        let libraries = self.userland.join(LIBRARIES);
        // fio is linked with Ceph's, which have a folder of their own.
        let search = [libraries.join("ceph"), libraries, self.userland.join("lib/x86_64-linux-gnu")];
        for tool in tools {
            let path = self.find(tool)?;
            self.program(&path, tool, &search)?;
        }
        Ok(())
    }

    /// The provider of soft-RoCE, which the verbs library loads by its configuration.
    fn verbs(&mut self) -> Result<()> {
        let search = [self.userland.join(LIBRARIES), self.userland.join("lib/x86_64-linux-gnu")];
        let configuration = "etc/libibverbs.d/rxe.driver";
        self.archive.file(configuration, 0o644, &read(&self.userland.join(configuration))?)?;
        let folder = self.userland.join(LIBRARIES).join("libibverbs");
        let entries = fs::read_dir(&folder).context(|| format!("listing {}", folder.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("librxe-") {
                self.archive.file(&format!("{LIBRARIES}/libibverbs/{name}"), 0o755, &read(&path)?)?;
                self.libraries(&path, &search)?;
            }
        }
        Ok(())
    }

    /// A program, with the libraries that it needs.
    fn program(&mut self, path: &Path, name: &str, search: &[PathBuf]) -> Result<()> {
        self.archive.file(&format!("usr/bin/{name}"), 0o755, &read(path)?)?;
        self.libraries(path, search)
    }

    fn libraries(&mut self, path: &Path, search: &[PathBuf]) -> Result<()> {
        for library in libraries::of(path, search)? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let folder = if name.starts_with("ld-linux") { "lib64" } else { LIBRARIES };
            self.archive.file(&format!("{folder}/{name}"), 0o755, &read(&library)?)?;
        }
        Ok(())
    }

    /// A program of the unpacked packages.
    fn find(&self, name: &str) -> Result<PathBuf> {
        let places = ["usr/bin", "usr/sbin", "bin", "sbin", "lib/drbd"]
            .map(|folder| self.userland.join(folder).join(name));
        let found = places.into_iter().find(|path| path.is_file());
        found.ok_or_else(|| Failure::new(format!("the packages have no program {name}")))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("reading {}", path.display()))
}
