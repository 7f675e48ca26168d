//! Which shared libraries a program needs, by asking `ldd`.

use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};
use crate::shell::program;

/// The libraries that `binary` loads, the loader itself among them. `search` are directories looked through first.
pub(crate) fn of(binary: &Path, search: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let what = || format!("ldd {}", binary.display());
    let path = std::env::join_paths(search).context(what)?;
    let output = program("ldd", &[]).arg(binary).env("LD_LIBRARY_PATH", path).output().context(what)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // A program without libraries makes ldd fail and say so.
    if !output.status.success() && !(text.clone() + &*errors).contains("not a dynamic executable") {
        return Err(Failure::new(format!("{}: {errors}", what())));
    }
    parse(&text).map_err(|missing| {
        Failure::new(format!("{} needs {missing}, which is not on this machine", binary.display()))
    })
}

/// The paths in what ldd prints; the name of the first library that was not found is an error.
fn parse(text: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        // `name => /path (0x…)`, `/path/of/the/loader (0x…)`, `linux-vdso.so.1 (0x…)`, `name => not found`
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place == "not found" {
            return Err(name.to_owned());
        }
        if let Some(path) = place.split(" (0x").next().filter(|path| path.starts_with('/')) {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\tlinux-vdso.so.1 (0x00007ffd)\n\
        \tlibibverbs.so.1 => /cache/usr/lib/libibverbs.so.1 (0x00007f1)\n\
        \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)\n\
        \t/lib64/ld-linux-x86-64.so.2 (0x00007f3)\n";

    #[test]
    fn the_paths_are_read() {
        let paths = parse(OUTPUT).unwrap();
        let expected = [
            "/cache/usr/lib/libibverbs.so.1",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
        assert!(parse("\tstatically linked\n").unwrap().is_empty());
        assert_eq!(parse("\tlibx.so.1 => not found\n").unwrap_err(), "libx.so.1");
    }

    #[test]
    fn a_program_of_this_machine_needs_the_c_library() {
        let paths = of(&std::env::current_exe().unwrap(), &[]).unwrap();
        assert!(paths.iter().any(|path| path.ends_with("libc.so.6")), "{paths:?}");
        assert!(of(Path::new("/no/such/program"), &[]).is_err());
    }
}
