//! The input: which files of which directory trees are streamed.
//!
//! Regular files only; symbolic links are not followed, a file with two names counts once, and directories that say
//! that they are caches (`CACHEDIR.TAG`, which cargo puts into `target`) or repositories (`.git`) are left out. When
//! there is more than asked for, the smallest files are taken first, so that there are many; but of a tree with very
//! many files only one in so many, in order of size, so that opening them is not most of the work.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::plan::{PATH_BYTES_MAX, Plan, SourceFile, mix};

/// Entries of directories that are looked at: far more than a toolchain has, and a bound for `--tree /`.
const ENTRIES_MAX: usize = 1 << 20;

/// Files that are streamed: some seconds of opening and closing on a slow machine.
const FILES_MAX: usize = 2048;

/// Where the input comes from.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) roots: Vec<PathBuf>,
    /// In words.
    pub(super) what: String,
}

/// The trees that were asked for, or else what this machine has.
///
/// # Errors
/// Says what was looked for.
pub(super) fn find(asked: &[PathBuf]) -> Result<Trees, String> {
    if !asked.is_empty() {
        if let Some(bad) = asked.iter().find(|root| !root.is_dir()) {
            return Err(format!("--tree {}: no such directory", bad.display()));
        }
        return Ok(Trees { roots: asked.to_vec(), what: list(asked) });
    }
    let mut roots = Vec::new();
    let mut words = Vec::new();
    if let Some(project) = project() {
        words.push(format!("the project's source ({})", project.display()));
        roots.push(project);
    }
    match toolchain() {
        Some(library) => {
            words.push(format!("the Rust toolchain's library files ({})", library.display()));
            roots.push(library);
        }
        None => {
            let usual = ["/usr/lib", "/lib", "/usr/share"].map(PathBuf::from);
            let found = usual.into_iter().find(|root| root.is_dir());
            let found =
                found.ok_or("no Rust toolchain and no /usr/lib here: name a directory with --tree")?;
            words.push(format!("{}, since no Rust toolchain was found", found.display()));
            roots.push(found);
        }
    }
    Ok(Trees { roots, what: words.join(" and ") })
}

fn list(roots: &[PathBuf]) -> String {
    roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The project's directory, when cargo runs this program or it is the current one.
fn project() -> Option<PathBuf> {
    let candidates =
        [std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from), std::env::current_dir().ok()];
    candidates.into_iter().flatten().find(|directory| {
        let manifest = std::fs::read_to_string(directory.join("Cargo.toml"));
        manifest.is_ok_and(|text| text.lines().any(|line| line.trim() == r#"name = "mirrorbus""#))
    })
}

fn toolchain() -> Option<PathBuf> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).args(["--print", "sysroot"]).output().ok()?;
    let root = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(PathBuf::from(root.trim()).join("lib")).filter(|library| library.is_dir())
}

/// Chooses files of `trees`, `bytes_max` bytes at most, in an order that `seed` gives.
///
/// # Errors
/// Nothing fits.
pub(super) fn choose(trees: &Trees, bytes_max: u64, seed: u64) -> Result<Plan, String> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut left = ENTRIES_MAX;
    for root in &trees.roots {
        let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
        walk(&root, &mut found, &mut seen, &mut left);
    }
    found.sort_by(|a, b| (a.bytes, &a.path).cmp(&(b.bytes, &b.path)));
    let mut sum = 0;
    let available = found.len();
    let mut files: Vec<_> = found
        .into_iter()
        .step_by(available.div_ceil(FILES_MAX).max(1))
        .take_while(|file| {
            sum += file.bytes;
            sum <= bytes_max
        })
        .collect();
    if files.iter().all(|file| file.bytes == 0) {
        return Err(format!("none of {available} files in {} fits in {bytes_max} bytes", list(&trees.roots)));
    }
    // By path first, so that the order is the seed's alone.
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut keyed: Vec<_> =
        files.into_iter().enumerate().map(|(index, file)| (mix(seed ^ mix(index as u64)), file)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    Ok(Plan { seed, files: keyed.into_iter().map(|(_, file)| file).collect() })
}

fn walk(root: &Path, found: &mut Vec<SourceFile>, seen: &mut HashSet<(u64, u64)>, left: &mut usize) {
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        // What cannot be read is no input.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        if directory.join("CACHEDIR.TAG").exists() || directory.file_name().is_some_and(|name| name == ".git")
        {
            continue;
        }
        for entry in entries.flatten() {
            let Some(rest) = left.checked_sub(1) else {
                log::warn!("more than {ENTRIES_MAX} directory entries: the rest is left out");
                return;
            };
            *left = rest;
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() {
                directories.push(path);
            } else if metadata.is_file()
                && path.as_os_str().len() <= PATH_BYTES_MAX
                && seen.insert((metadata.dev(), metadata.ino()))
                && File::open(&path).is_ok()
            {
                found.push(SourceFile { path, bytes: metadata.len() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn the_smallest_files_are_taken_and_caches_left_out() {
        let scratch = Scratch::new("trees").expect("a directory");
        for (path, bytes) in [("a", 100), ("sub/b", 10), ("sub/c", 1000), (".git/d", 1), ("target/e", 1)] {
            let path = scratch.path(path);
            std::fs::create_dir_all(path.parent().expect("within")).expect("made");
            std::fs::write(path, vec![1; bytes]).expect("written");
        }
        std::fs::write(scratch.path("target/CACHEDIR.TAG"), "").expect("written");
        std::fs::hard_link(scratch.path("a"), scratch.path("again")).expect("linked");
        std::os::unix::fs::symlink("/etc", scratch.path("link")).expect("linked");
        let trees = find(&[scratch.path("")]).expect("a directory");
        let sizes = |bytes_max| {
            let plan = choose(&trees, bytes_max, 1).expect("fits");
            let mut sizes: Vec<_> = plan.files.iter().map(|file| file.bytes).collect();
            sizes.sort_unstable();
            sizes
        };
        assert_eq!(sizes(1 << 20), [10, 100, 1000]);
        assert_eq!(sizes(1109), [10, 100]);
        assert!(choose(&trees, 9, 1).expect_err("nothing fits").contains("none of 3 files"));
        assert!(find(&[scratch.path("nowhere")]).expect_err("none").contains("nowhere"));
        assert_eq!(choose(&trees, 1 << 20, 5), choose(&trees, 1 << 20, 5));
    }

    #[test]
    fn of_very_many_files_some_of_every_size_are_taken() {
        let scratch = Scratch::new("many").expect("a directory");
        for file in 0..FILES_MAX + 2 {
            std::fs::write(scratch.path(&file.to_string()), vec![1; file]).expect("written");
        }
        let trees = find(&[scratch.path("")]).expect("a directory");
        let plan = choose(&trees, 1 << 30, 1).expect("fits");
        assert_eq!(plan.files.len(), FILES_MAX / 2 + 1);
        assert!(plan.files.iter().any(|file| file.bytes == FILES_MAX as u64));
    }
}
