//! Rules `header`, `file-size` and `function-size`: what a reader can hold in mind.

use super::Finding;
use super::source::Source;

/// Lines of a file, all of them.
const FILE_LINES_MAX: usize = 400;

/// Lines of a function, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that may be longer, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Checks one file.
pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.starts_with("//!") {
        let message = "the file does not begin with `//!`: what it is, its invariants, why".to_owned();
        findings.push(Finding::new(source, 1, "header", message));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(path, _)| *path == source.path) {
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}: split it by idea");
        findings.push(Finding::new(source, FILE_LINES_MAX + 1, "file-size", message));
    }
    for function in source.functions() {
        if function.lines > FUNCTION_LINES_MAX {
            let message =
                format!("{} has {} lines, at most {FUNCTION_LINES_MAX}", function.name, function.lines);
            findings.push(Finding::new(source, function.line, "function-size", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Source::new("src/a.rs", text), &mut findings);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_missing_header_is_found() {
        assert_eq!(findings("//! What it is.\n"), Vec::<String>::new());
        assert!(findings("// What it is.\n")[0].starts_with("src/a.rs:1: header: "));
        assert!(findings("use a;\n//! late\n")[0].starts_with("src/a.rs:1: header: "));
    }

    #[test]
    fn a_long_file_is_found() {
        let file = |lines: usize| "//!\n".repeat(lines);
        assert_eq!(findings(&file(FILE_LINES_MAX)), Vec::<String>::new());
        assert!(findings(&file(FILE_LINES_MAX + 1))[0].starts_with("src/a.rs:401: file-size: 401 lines"));
    }

    #[test]
    fn a_long_function_is_found() {
        let function = |inner: usize| format!("//! A.\nfn long() {{\n{}}}\n", "  g(); // }\n".repeat(inner));
        assert_eq!(findings(&function(FUNCTION_LINES_MAX - 2)), Vec::<String>::new());
        assert!(
            findings(&function(FUNCTION_LINES_MAX - 1))[0]
                .starts_with("src/a.rs:2: function-size: long has 71")
        );
    }
}
