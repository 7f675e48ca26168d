//! What the tests build and run with: an installation of their own, compilers, and programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// How often a program is begun under valgrind, at most.
const VALGRIND_TRIES: u32 = 10;

/// An installation below the tests' own folder.
pub(crate) struct Installed {
    pub(crate) prefix: PathBuf,
    /// Where programs are built.
    pub(crate) work: PathBuf,
}

impl Installed {
    /// A key file.
    pub(crate) fn key(&self) -> String {
        self.work.join("test.key").display().to_string()
    }
}

/// How a program is built and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compiled {
    /// With the shared library, as pkg-config says.
    Shared,
    /// With the archive.
    Static,
    /// With the shared library, and AddressSanitizer.
    Sanitized,
    /// With the shared library, under valgrind.
    Valgrind,
}

/// A program that was built.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    how: Compiled,
}

/// Runs a program that has to succeed; what it says.
pub(crate) fn said_by(command: &mut Command) -> String {
    let output = output_of(command);
    checked(command, output)
}

fn checked(command: &Command, output: Output) -> String {
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

fn output_of(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Installed once, by the cargo that runs these tests and as they were built.
pub(crate) fn installed() -> &'static Installed {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        // target/PROFILE/deps/programs-HASH
        let folder = test.parent().and_then(Path::parent).unwrap();
        let profile = match folder.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => "dev",
            other => other,
        };
        let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("programs");
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).unwrap();
        let prefix = work.join("usr");
        let mut cargo = Command::new(env!("CARGO"));
        // What it has put into our environment some build scripts look at: their crates would be built anew.
        let outer = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "OUT_DIR" || outer.iter().any(|beginning| text.starts_with(beginning)) {
                cargo.env_remove(&name);
            }
        }
        let cargo = cargo
            .args(["run", "--quiet", "--package", "xtask", "--", "install", "--profile", profile, "--prefix"])
            .arg(&prefix)
            .env("CARGO_TARGET_DIR", folder.parent().unwrap())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
        said_by(cargo);
        let installed = Installed { prefix, work };
        said_by(Command::new(installed.prefix.join("bin/mirrorbus")).args(["keygen", &installed.key()]));
        installed
    })
}

/// What pkg-config says.
fn flags(arguments: &[&str]) -> Vec<String> {
    let path = installed().prefix.join("lib/pkgconfig");
    let mut command = Command::new("pkg-config");
    let said = said_by(command.args(arguments).env("PKG_CONFIG_PATH", path));
    said.split_whitespace().map(str::to_owned).collect()
}

/// Builds an example by nothing but what pkg-config says.
pub(crate) fn compile(source: &str, how: Compiled) -> Program {
    let (name, _) = source.split_once('.').unwrap();
    let name = format!("{name}-{how:?}").to_lowercase();
    let path = installed().work.join(&name);
    let (compiler, standard) =
        if source.ends_with(".cpp") { ("c++", "-std=c++17") } else { ("cc", "-std=c99") };
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"]);
    if how == Compiled::Sanitized {
        command.args(["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]);
    }
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(source));
    command.arg("-o").arg(&path);
    if how == Compiled::Static {
        // Where there is no shared library of this name the linker takes the archive.
        let alone = installed().work.join("alone");
        std::fs::create_dir_all(&alone).unwrap();
        std::fs::copy(installed().prefix.join("lib/libmirrorbus.a"), alone.join("libmirrorbus.a")).unwrap();
        let variable = format!("--define-variable=libdir={}", alone.display());
        command.args(flags(&["--static", &variable, "--cflags", "--libs", "mirrorbus"]));
    } else {
        let others: &[&str] = if source.starts_with("sqlite") { &["sqlite3"] } else { &[] };
        command.args(flags(&[&["--cflags", "--libs", "mirrorbus"], others].concat()));
    }
    said_by(&mut command);
    Program { name, path, how }
}

/// Runs it to its end, which has to be a good one; what it says.
pub(crate) fn run(program: &Program, arguments: &[&str]) -> String {
    if program.how != Compiled::Valgrind {
        return said_by(with_library(&mut Command::new(&program.path)).args(arguments));
    }
    let mut valgrind = Command::new("valgrind");
    with_library(&mut valgrind).args(["--quiet", "--error-exitcode=9"]).arg(&program.path).args(arguments);
    patiently(&mut valgrind)
}

/// Runs what has one side of it under valgrind.
fn patiently(command: &mut Command) -> String {
    // On a busy machine keys are not agreed on in time: they take ten times as long as elsewhere.
    let is_late =
        |output: &Output| String::from_utf8_lossy(&output.stderr).contains("handshake was not done");
    let mut tries = 1;
    let mut output = output_of(command);
    while is_late(&output) && tries < VALGRIND_TRIES {
        output = output_of(command);
        tries += 1;
    }
    checked(command, output)
}

/// The two sides of an example, each a program of its own as on two machines: what the holder said, and the owner.
pub(crate) fn run_apart(
    hold: &Program,
    own: &Program,
    url: &str,
    (word, more): (&str, &[&str]),
) -> (String, String) {
    let key = installed().key();
    let mut command = match hold.how {
        Compiled::Valgrind => Command::new("valgrind"),
        _ => Command::new(&hold.path),
    };
    if hold.how == Compiled::Valgrind {
        command.args(["--quiet", "--error-exitcode=9"]).arg(&hold.path);
    }
    let mut holder =
        Held(with_library(&mut command).args(["hold", url, &key]).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(holder.0.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
    let mut owner = Command::new(&own.path);
    let said = patiently(with_library(&mut owner).args([word, address, &key]).args(more));
    let held = lines.map(|line| line.unwrap() + "\n").collect();
    let status = holder.0.wait().unwrap();
    assert!(status.success(), "{status}: {held}");
    (held, said)
}

/// A process that ends with the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that finds the installed library.
pub(crate) fn with_library(command: &mut Command) -> &mut Command {
    command.env("LD_LIBRARY_PATH", installed().prefix.join("lib"))
}
