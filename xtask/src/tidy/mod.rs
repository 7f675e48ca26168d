//! `cargo xtask tidy`: the house rules that no compiler knows.
//!
//! Each rule is a function from one file to findings, in a file of its own, tested on texts that break it. This file
//! walks the tree and prints `path:line: rule: message`.

mod layers;
mod markdown;
mod mask;
mod size;
mod source;
mod unsafety;
mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::failure::{Context, Failure, Result};
use source::{Source, TestModule};

/// Where Rust files are looked for, from the project's root.
const RUST: &[&str] = &["src", "bench", "ffi", "examples", "tests", "xtask", "fuzz", "build.rs"];

/// Where Markdown files are looked for.
const MARKDOWN: &[&str] = &["README.md", "CHANGELOG.md", "docs"];

/// Directories that hold what was made, not what was written.
const MADE: &[&str] = &["target", "corpus", "artifacts", "coverage"];

/// A rule broken at a place.
#[derive(Debug)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    message: String,
}

impl Finding {
    fn new(source: &Source, line: usize, rule: &'static str, message: String) -> Self {
        Self { path: source.path.clone(), line, rule, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
    }
}

/// Checks the project at `root`; `commands` are those of xtask, which the documentation may name.
pub(crate) fn run(root: &Path, commands: &[String]) -> Result<()> {
    let mut sources = Vec::new();
    for path in files(root, RUST, "rs")? {
        sources.push(Source::new(&path, &read(root, &path)?));
    }
    let markdown = files(root, MARKDOWN, "md")?;
    if !sources.iter().any(|source| source.path == "src/lib.rs") {
        return Err(Failure::new(format!("{} is not the project's root: no src/lib.rs", root.display())));
    }
    let mut findings = check_sources(&mut sources);
    for path in &markdown {
        let exists = |target: &Path| root.join(target).exists();
        markdown::check(path, &read(root, path)?, &exists, commands, &mut findings);
    }
    findings.iter().for_each(|finding| eprintln!("{finding}"));
    if findings.is_empty() {
        println!("tidy: {} Rust files and {} Markdown files keep the rules", sources.len(), markdown.len());
        return Ok(());
    }
    Err(Failure::new(format!("tidy: {} findings", findings.len())))
}

fn check_sources(sources: &mut [Source]) -> Vec<Finding> {
    let tests: BTreeSet<String> = sources.iter().flat_map(test_paths).collect();
    let mut findings = Vec::new();
    for source in sources {
        let stem = source.path.trim_end_matches(".rs");
        if tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/"))) {
            source.declare_test();
        }
        layers::check(source, &mut findings);
        unsafety::check(source, &mut findings);
        size::check(source, &mut findings);
        words::check(source, &mut findings);
    }
    findings
}

/// Paths, without `.rs`, of the modules that this file declares for tests only.
fn test_paths(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let inside = match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    let path = |module: &TestModule| match module {
        TestModule::Named(name) => format!("{inside}/{name}"),
        TestModule::At(file) => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    source.test_modules().iter().map(path).collect()
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).context(|| format!("reading {path}"))
}

/// Files below `starts` whose names end in `.ext`, sorted, as paths from the root.
fn files(root: &Path, starts: &[&str], ext: &str) -> Result<Vec<String>> {
    let mut pending: Vec<String> = starts.iter().map(|&start| start.to_owned()).collect();
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        if full.is_dir() {
            for entry in fs::read_dir(&full).context(|| format!("listing {path}"))? {
                let entry = entry.context(|| format!("listing {path}"))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !MADE.contains(&name.as_str()) {
                    pending.push(format!("{path}/{name}"));
                }
            }
        } else if full.is_file() && full.extension().is_some_and(|found| found == ext) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_module_in_a_file_of_its_own_may_reach_up() {
        let top = Source::new("src/memory/mod.rs", "//! M.\n#[cfg(test)]\nmod world;\nmod other;\n");
        let reach = "//! R.\nuse crate::node::Region;\n";
        let mut sources = [
            top,
            Source::new("src/memory/world.rs", reach),
            Source::new("src/memory/world/deep.rs", reach),
            Source::new("src/memory/other.rs", reach),
        ];
        let found: Vec<_> = check_sources(&mut sources).iter().map(|finding| finding.path.clone()).collect();
        assert_eq!(found, ["src/memory/other.rs"]);
    }

    #[test]
    fn a_test_module_may_say_where_it_stands() {
        let declare = |path: &str| format!("//! M.\n#[cfg(test)]\n#[path = \"{path}\"]\nmod tests;\n");
        let reach = "//! R.\nuse crate::node::Region;\n";
        let mut sources = [
            Source::new("src/memory/map.rs", &declare("map_tests.rs")),
            Source::new("src/memory/map_tests.rs", reach),
            Source::new("src/memory/map/tests.rs", reach),
        ];
        let found: Vec<_> = check_sources(&mut sources).iter().map(|finding| finding.path.clone()).collect();
        assert_eq!(found, ["src/memory/map/tests.rs"], "only where it says");
    }

    #[test]
    fn this_project_is_found_and_walked() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let paths = files(root, RUST, "rs").unwrap();
        for path in ["src/lib.rs", "src/memory/volatile.rs", "xtask/src/tidy/mod.rs"] {
            assert!(paths.iter().any(|found| found == path), "{path} is walked");
        }
        assert!(run(Path::new("/nonexistent"), &[]).is_err());
    }
}
