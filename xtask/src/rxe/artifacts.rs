//! Builds the project's own programs for the guests, and finds them by what cargo reports.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::installation::{self, Arguments};
use crate::shell::{cargo, program, root, run};

/// Integration tests that run in guests too.
pub(crate) const TESTS: &[&str] = &["contract", "across", "epoch", "verbs"];

/// A program and its name in the guests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The programs and the tests. They are built as `cargo test` builds them, so that neither builds twice.
pub(crate) fn build() -> Result<Vec<Artifact>> {
    let mut tests = vec!["test", "--workspace", "--no-run"];
    TESTS.iter().for_each(|name| tests.extend(["--test", name]));
    let mut built = programs(&[])?;
    built.extend(executables(&report(&tests)?)?);
    // Itself, and the programs that cargo builds for the tests once more.
    built.retain(|artifact| artifact.name != "xtask");
    built.push(in_c("counter")?);
    built.sort_by(|one, other| one.name.cmp(&other.name));
    built.dedup_by(|one, other| one.name == other.name);
    for name in ["mirrorbus", "mirrorbus-bench"].iter().chain(TESTS) {
        if !built.iter().any(|artifact| artifact.name == *name) {
            return Err(Failure::new(format!("cargo built no {name}")));
        }
    }
    Ok(built)
}

/// An example in C, built as a user would, with the library in it.
fn in_c(name: &str) -> Result<Artifact> {
    let place = root().join("target/rxe/c");
    let prefix = place.join("usr");
    installation::run(&Arguments::for_tests(prefix.clone()))?;
    // Where there is no shared library of this name the linker takes the archive.
    let (lib, alone) = (prefix.join("lib"), place.join("alone"));
    let archive = alone.join("libmirrorbus.a");
    fs::create_dir_all(&alone).context(|| format!("making {}", alone.display()))?;
    fs::copy(lib.join("libmirrorbus.a"), &archive).context(|| format!("making {}", archive.display()))?;
    let variable = format!("--define-variable=libdir={}", alone.display());
    let mut flags = program("pkg-config", &["--static", &variable, "--cflags", "--libs", "mirrorbus"]);
    let flags = flags.env("PKG_CONFIG_PATH", lib.join("pkgconfig")).output();
    let flags = flags.context(|| "pkg-config".to_owned())?;
    if !flags.status.success() {
        let said = String::from_utf8_lossy(&flags.stderr);
        return Err(Failure::new(format!("pkg-config knows no mirrorbus: {said}")));
    }
    let path = place.join(name);
    let source = root().join(format!("ffi/examples/{name}.c"));
    let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
    run(program("cc", &["-std=c99", "-O1"]).arg(source).arg("-o").arg(&path).args(flags.split_whitespace()))?;
    Ok(Artifact { name: name.to_owned(), path })
}

/// The programs alone, as users have them: what they do is to be measured.
pub(crate) fn released() -> Result<Vec<Artifact>> {
    programs(&["--release"])
}

fn programs(profile: &[&str]) -> Result<Vec<Artifact>> {
    let mut built = executables(&report(&[&["build", "--workspace", "--bins"], profile].concat())?)?;
    built.retain(|artifact| artifact.name != "xtask");
    Ok(built)
}

fn report(arguments: &[&str]) -> Result<String> {
    println!("$ cargo {}", arguments.join(" "));
    let mut command = cargo(arguments);
    command.args(["--quiet", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = command.output().context(|| "cargo".to_owned())?;
    if !output.status.success() {
        return Err(Failure::new(format!("cargo {}: {}", arguments.join(" "), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The executables in cargo's messages, one a line.
fn executables(messages: &str) -> Result<Vec<Artifact>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context(|| format!("cargo said {line:?}"))?;
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            found.push(Artifact { name: name.to_owned(), path: PathBuf::from(path) });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_and_libraries_are_not() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"libc","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"contract","kind":["test"]},"executable":"/t/debug/deps/contract-1"}
{"reason":"build-finished","success":true}
"#;
        let expected = Artifact { name: "contract".to_owned(), path: "/t/debug/deps/contract-1".into() };
        assert_eq!(executables(messages).unwrap(), [expected]);
        assert!(executables("{broken").is_err());
    }
}
