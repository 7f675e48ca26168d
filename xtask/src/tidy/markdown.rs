//! Rules `link` and `command`: what the documentation points at exists.

use std::path::{Path, PathBuf};

use super::Finding;

/// Checks one Markdown file. `exists` answers for paths from the project's root, `commands` are those of xtask.
pub(crate) fn check(
    path: &str,
    text: &str,
    exists: &dyn Fn(&Path) -> bool,
    commands: &[String],
    findings: &mut Vec<Finding>,
) {
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        let mut report = |rule, message| {
            findings.push(Finding { path: path.to_owned(), line: index + 1, rule, message });
        };
        for command in xtask_commands(line) {
            if !commands.iter().any(|known| known == command) {
                report(
                    "command",
                    format!("cargo xtask has no command {command:?} (it has {})", commands.join(" ")),
                );
            }
        }
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in links(line) {
            if !exists(&resolve(path, target)) {
                report("link", format!("{target:?} does not exist"));
            }
        }
    }
}

/// The targets of relative links, without their fragments.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let inline = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    let inline = inline.filter_map(|rest| rest.split([')', ' ']).next());
    let is_reference = line.starts_with('[') && !line.starts_with("[^");
    let reference = line.split_once("]: ").filter(|_| is_reference).map(|(_, rest)| rest.trim());
    inline
        .chain(reference)
        .map(|target| target.trim_matches(['<', '>']))
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty())
}

fn resolve(path: &str, target: &str) -> PathBuf {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut resolved = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            std::path::Component::ParentDir if resolved.pop() => {}
            std::path::Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}

/// Each command that a line tells the reader to give to xtask; `a|b` names two.
fn xtask_commands(line: &str) -> impl Iterator<Item = &str> {
    const CALL: &str = "cargo xtask ";
    line.match_indices(CALL).flat_map(|(at, _)| {
        let rest = &line[at + CALL.len()..];
        let end =
            rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-' || c == '|')).unwrap_or(rest.len());
        rest[..end].split('|').filter(|command| !command.is_empty() && !command.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        let exists =
            |path: &Path| ["docs/a.md", "README.md", "src"].iter().any(|known| Path::new(known) == path);
        check(path, text, &exists, &["demo".to_owned(), "test".to_owned()], &mut findings);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dead_links_are_found() {
        for (path, text) in [
            ("README.md", "\n[a](docs/b.md)"),
            ("docs/a.md", "\n[a](docs/a.md)"),
            ("docs/a.md", "\n[a](../../README.md)"),
            ("README.md", "\n[ref]: docs/gone.md"),
            ("README.md", "\n![x](pic.svg \"title\")"),
        ] {
            let found = findings(path, text);
            assert_eq!(found.len(), 1, "{path} {text:?}: {found:?}");
            assert!(found[0].starts_with(&format!("{path}:2: link: ")));
        }
    }

    #[test]
    fn live_and_foreign_links_pass() {
        for (path, text) in [
            (
                "README.md",
                "[a](docs/a.md#part) [b](./src) [c](#here) [d](https://x.example/y) [e](mailto:a@b.example)",
            ),
            ("docs/a.md", "[a](../README.md) [b](a.md)\n[ref]: ../src\n```\n[x](gone)\n```"),
        ] {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn unknown_commands_are_found() {
        assert_eq!(findings("README.md", "Run `cargo xtask demo`, `cargo xtask test --full`.").len(), 0);
        assert_eq!(findings("README.md", "```\ncargo xtask demo|test\ncargo xtask --help\n```").len(), 0);
        assert!(findings("README.md", "```\ncargo xtask fly\n```")[0].starts_with("README.md:2: command: "));
        assert_eq!(findings("README.md", "`cargo xtask demo|fly`").len(), 1);
    }
}
