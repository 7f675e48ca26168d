//! `cargo xtask install`: the libraries for C and the programs, built and put where a system has them.
//!
//! ```text
//! PREFIX/bin                  mirrorbus, mirrorbus-bench
//! PREFIX/include              mirrorbus.h
//! PREFIX/lib                  libmirrorbus.so → .so.0 → .so.VERSION, libmirrorbus.a, pkgconfig/mirrorbus.pc, systemd/system
//! PREFIX/share                man/man1, bash-completion, zsh, fish
//! ```
//!
//! Nothing is written outside of these folders, and nothing is asked of the system: what was there is replaced, file by file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::install;
use crate::shell::{cargo, root, run as run_program};

/// What the loader looks for; ffi/build.rs gives the library this name.
const SONAME: &str = "libmirrorbus.so.0";

/// What a program links besides `libmirrorbus.a`: the system's libraries that Rust's own needs.
const PRIVATE: &str = "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";
/// And those of the verbs fabric.
const PRIVATE_RDMA: &str = "-lrdmacm -libverbs";

/// What is installed, for cargo.
pub(crate) const PACKAGES: [&str; 6] =
    ["--package", "mirrorbus", "--package", "mirrorbus-bench", "--package", "mirrorbus-ffi"];

/// What it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the system has such things: programs in PREFIX/bin, and so on
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// Put everything below this folder, as packages are made; programs will look for it at PREFIX all the same
    #[arg(long)]
    destdir: Option<PathBuf>,
    /// Leave RDMA out, and with it the libraries of verbs
    #[arg(long)]
    without_rdma: bool,
    /// How it is built: `release`, or `dev` as tests are
    #[arg(long, default_value = "release")]
    profile: String,
}

impl Arguments {
    /// What tests build programs with: as they are built themselves.
    pub(crate) fn for_tests(prefix: PathBuf) -> Self {
        Self { prefix, destdir: None, without_rdma: false, profile: "dev".to_owned() }
    }
}

/// What cargo made.
#[derive(Debug, Default)]
struct Built {
    programs: Vec<PathBuf>,
    shared: Option<PathBuf>,
    archive: Option<PathBuf>,
}

/// Builds and installs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.prefix.is_absolute() {
        return Err(Failure::new(format!("--prefix {}: it has to be absolute", arguments.prefix.display())));
    }
    if arguments.without_rdma {
        install::c_compiler()?
    } else {
        install::verbs()?
    }
    let built = build(arguments)?;
    let place = Place::new(arguments);
    place.libraries(&built, arguments.without_rdma)?;
    for program in &built.programs {
        place.file(program, "bin", 0o755)?;
    }
    place.pages(&built.programs)?;
    place.units()?;
    println!("installed in {}", place.root.display());
    Ok(())
}

fn build(arguments: &Arguments) -> Result<Built> {
    let mut command = cargo(&["build", "--lib", "--bins", "--profile", &arguments.profile]);
    command.args(PACKAGES).args(["--message-format=json-render-diagnostics"]);
    if arguments.without_rdma {
        command.args(["--no-default-features", "--features", "mirrorbus/cli,mirrorbus-bench/program"]);
    }
    println!("$ cargo build --lib --bins --profile {} {}", arguments.profile, PACKAGES.join(" "));
    let output = command.stderr(Stdio::inherit()).output().context(|| "cargo".to_owned())?;
    if !output.status.success() {
        return Err(Failure::new(format!("cargo build: {}", output.status)));
    }
    let built = sorted(&String::from_utf8_lossy(&output.stdout))?;
    if built.shared.is_none() || built.archive.is_none() || built.programs.len() != 2 {
        return Err(Failure::new(format!("cargo did not make what is to be installed: {built:?}")));
    }
    Ok(built)
}

/// What is to be installed of cargo's messages, one a line.
fn sorted(messages: &str) -> Result<Built> {
    let mut built = Built::default();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context(|| format!("cargo said {line}"))?;
        let name = message["target"]["name"].as_str();
        if let Some(path) = message["executable"].as_str() {
            built.programs.extend(
                ["mirrorbus", "mirrorbus-bench"]
                    .iter()
                    .filter(|wanted| name == Some(wanted))
                    .map(|_| path.into()),
            );
        }
        let files = message["filenames"].as_array().map(Vec::as_slice).unwrap_or_default();
        for path in files.iter().filter_map(Value::as_str).filter(|_| name == Some("mirrorbus")) {
            match Path::new(path).extension().and_then(|end| end.to_str()) {
                Some("so") => built.shared = Some(path.into()),
                Some("a") => built.archive = Some(path.into()),
                _ => {}
            }
        }
    }
    Ok(built)
}

/// Where things go.
struct Place {
    /// As programs will see it.
    prefix: PathBuf,
    /// As it is now.
    root: PathBuf,
}

impl Place {
    fn new(arguments: &Arguments) -> Self {
        let prefix = arguments.prefix.clone();
        let below = prefix.strip_prefix("/").unwrap_or(&prefix);
        let root = arguments.destdir.as_ref().map_or_else(|| prefix.clone(), |destdir| destdir.join(below));
        Self { root, prefix }
    }

    fn libraries(&self, built: &Built, without_rdma: bool) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let (Some(shared), Some(archive)) = (&built.shared, &built.archive) else {
            return Err(Failure::new("no libraries were built".to_owned()));
        };
        let real = format!("libmirrorbus.so.{version}");
        self.bytes(&read(shared)?, "lib", &real, 0o755)?;
        self.link(&real, "lib", SONAME)?;
        self.link(SONAME, "lib", "libmirrorbus.so")?;
        self.bytes(&read(archive)?, "lib", "libmirrorbus.a", 0o644)?;
        self.file(&root().join("ffi/mirrorbus.h"), "include", 0o644)?;
        let mut private = PRIVATE.to_owned();
        if !without_rdma {
            private = format!("{PRIVATE_RDMA} {private}");
        }
        let template = read(&root().join("ffi/mirrorbus.pc.in"))?;
        let text = String::from_utf8_lossy(&template)
            .replace("@PREFIX@", &self.prefix.display().to_string())
            .replace("@VERSION@", version)
            .replace("@PRIVATE@", &private);
        self.bytes(text.as_bytes(), "lib/pkgconfig", "mirrorbus.pc", 0o644)
    }

    /// Has each program write its pages and completions.
    fn pages(&self, programs: &[PathBuf]) -> Result<()> {
        // A folder that nobody else may write to: all that is found in it is installed.
        let made = root().join("target/pages");
        let _ = fs::remove_dir_all(&made);
        let result = programs.iter().try_for_each(|program| self.pages_of(program, &made));
        let _ = fs::remove_dir_all(&made);
        result
    }

    fn pages_of(&self, program: &Path, made: &Path) -> Result<()> {
        run_program(std::process::Command::new(program).arg("pages").arg(made))?;
        for page in listed(&made.join("man"))? {
            self.file(&page, "share/man/man1", 0o644)?;
        }
        for completion in listed(&made.join("completions"))? {
            let name = completion.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(command) = name.strip_suffix(".bash") {
                let folder = "share/bash-completion/completions";
                self.bytes(&read(&completion)?, folder, command, 0o644)?;
            } else if name.ends_with(".fish") {
                self.file(&completion, "share/fish/vendor_completions.d", 0o644)?;
            } else {
                self.file(&completion, "share/zsh/site-functions", 0o644)?;
            }
        }
        Ok(())
    }

    /// The units, with the programs where they will be.
    fn units(&self) -> Result<()> {
        let program = self.prefix.join("bin/mirrorbus").display().to_string();
        for unit in listed(&root().join("docs/systemd"))? {
            let text = String::from_utf8_lossy(&read(&unit)?).replace("/usr/bin/mirrorbus", &program);
            let name = unit.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            self.bytes(text.as_bytes(), "lib/systemd/system", name, 0o644)?;
        }
        Ok(())
    }

    fn file(&self, source: &Path, folder: &str, mode: u32) -> Result<()> {
        let name = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.bytes(&read(source)?, folder, name, mode)
    }

    /// A file whole or as it was: who has the old one open or mapped keeps it.
    fn bytes(&self, bytes: &[u8], folder: &str, name: &str, mode: u32) -> Result<()> {
        let folder = self.folder(folder)?;
        let (path, new) = (folder.join(name), folder.join(format!(".{name}.new")));
        let what = || format!("writing {}", path.display());
        fs::write(&new, bytes).context(what)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).context(what)?;
        fs::rename(&new, &path).context(what)
    }

    fn link(&self, target: &str, folder: &str, name: &str) -> Result<()> {
        let folder = self.folder(folder)?;
        let (path, new) = (folder.join(name), folder.join(format!(".{name}.new")));
        let what = || format!("linking {}", path.display());
        let _ = fs::remove_file(&new);
        symlink(target, &new).context(what)?;
        fs::rename(&new, &path).context(what)
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("reading {}", path.display()))
}

/// The files of a folder, in order.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("listing {}", folder.display());
    let entries = fs::read_dir(folder).context(what)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .context(what)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_the_rust_library_of_the_same_name() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"mirrorbus"},"filenames":["/t/libmirrorbus.rlib","/t/libmirrorbus.rmeta"],"executable":null}
{"reason":"compiler-artifact","target":{"name":"mirrorbus"},"filenames":["/t/libmirrorbus.so","/t/libmirrorbus.a"],"executable":null}
{"reason":"compiler-artifact","target":{"name":"mirrorbus"},"filenames":["/t/mirrorbus"],"executable":"/t/mirrorbus"}
{"reason":"compiler-artifact","target":{"name":"store-loop"},"filenames":["/t/store-loop"],"executable":"/t/store-loop"}
{"reason":"build-finished","success":true}"#;
        let built = sorted(messages).unwrap();
        assert_eq!(built.programs, [PathBuf::from("/t/mirrorbus")]);
        assert_eq!(built.shared.as_deref(), Some(Path::new("/t/libmirrorbus.so")));
        assert_eq!(built.archive.as_deref(), Some(Path::new("/t/libmirrorbus.a")));
        assert!(sorted("cargo broke").is_err());
    }

    #[test]
    fn below_a_folder_for_packages_paths_stay_those_of_the_system() {
        let arguments = Arguments {
            prefix: "/usr".into(),
            destdir: Some("/tmp/package".into()),
            without_rdma: false,
            profile: "dev".into(),
        };
        let place = Place::new(&arguments);
        assert_eq!((place.root, place.prefix), ("/tmp/package/usr".into(), "/usr".into()));
        assert!(run(&Arguments { prefix: "usr".into(), ..arguments }).is_err());
    }
}
