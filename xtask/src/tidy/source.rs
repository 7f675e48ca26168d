//! One Rust file as the rules see it: its lines, the code apart from the comments, test regions, functions.

use std::ops::Range;

use super::mask::{is_word, split};

/// A Rust file that was read.
pub(crate) struct Source {
    /// Path from the project's root, with `/` between names.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// Its code: same length, comments and insides of literals blank.
    pub(crate) code: String,
    /// Its comments: same length, everything else blank.
    pub(crate) comments: String,
    line_starts: Vec<usize>,
    tests: Vec<Range<usize>>,
}

/// A module of tests in a file of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TestModule {
    /// Where modules of this name stand.
    Named(String),
    /// In this file, beside the one that declares it.
    At(String),
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from its `fn` to its closing brace, both included.
    pub(crate) lines: usize,
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let halves = split(text);
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: halves.code,
            comments: halves.comments,
            line_starts,
            tests: Vec::new(),
        };
        source.tests = source.find_tests();
        source
    }

    /// Declares the whole file test code: its `mod` line stands under `#[cfg(test)]`.
    pub(crate) fn declare_test(&mut self) {
        self.tests = std::iter::once(0..self.text.len()).collect();
    }

    /// The line, from 1, of a byte.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// The text of a line, counted from 1.
    pub(crate) fn line(&self, line: usize) -> &str {
        Self::cut(&self.text, &self.line_starts, line)
    }

    /// The code of a line, counted from 1.
    pub(crate) fn code_line(&self, line: usize) -> &str {
        Self::cut(&self.code, &self.line_starts, line)
    }

    fn cut<'a>(text: &'a str, starts: &[usize], line: usize) -> &'a str {
        let end = starts.get(line).copied().unwrap_or(text.len());
        text[starts[line - 1]..end].trim_end_matches('\n')
    }

    /// Whether a byte is in code that is compiled for tests only.
    pub(crate) fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Where `word` stands in the code, not as a part of a longer identifier.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        let edge = |neighbour: Option<&u8>| neighbour.is_none_or(|&byte| !is_word(byte));
        self.code.match_indices(word).map(|(offset, _)| offset).filter(move |&offset| {
            let before = offset.checked_sub(1).and_then(|at| bytes.get(at));
            let last = word.as_bytes()[word.len() - 1];
            edge(before) && (!is_word(last) || edge(bytes.get(offset + word.len())))
        })
    }

    /// Modules that stand in files of their own and are compiled for tests only: their names, or the files that `#[path]` names.
    pub(crate) fn test_modules(&self) -> Vec<TestModule> {
        self.words("mod")
            .filter(|&offset| self.is_test(offset))
            .filter_map(|offset| {
                let rest = self.code[offset + 3..].trim_start();
                let name: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
                let stands_elsewhere = rest[name.len()..].trim_start().starts_with(';');
                let module = || self.path_before(offset).map_or(TestModule::Named(name), TestModule::At);
                stands_elsewhere.then(module)
            })
            .collect()
    }

    /// What a `#[path = "…"]` directly before the offset says.
    fn path_before(&self, offset: usize) -> Option<String> {
        let line = self.text[..offset].trim_end().lines().next_back()?.trim();
        line.strip_prefix("#[path = \"")?.strip_suffix("\"]").map(str::to_owned)
    }

    /// Every function that has a body, in order.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for offset in self.words("fn") {
            let rest = self.code[offset + 2..].trim_start();
            let name: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
            if name.is_empty() {
                continue; // a function pointer's type
            }
            let item = self.item_from(offset);
            if !self.code[item.clone()].ends_with('}') {
                continue; // declared, without a body
            }
            let line = self.line_of(offset);
            functions.push(Function { name, line, lines: self.line_of(item.end - 1) - line + 1 });
        }
        functions
    }

    fn find_tests(&self) -> Vec<Range<usize>> {
        let mut tests = Vec::new();
        for (start, _) in self.code.match_indices("cfg(") {
            let inner: String =
                self.code[start + 4..].chars().filter(|c| !c.is_whitespace()).take(9).collect();
            let before = self.code[..start].trim_end();
            if !(inner.starts_with("test)") || inner.starts_with("all(test,")) {
                continue;
            }
            if before.ends_with("#![") {
                tests.push(0..self.code.len());
            } else if before.ends_with("#[") {
                // Past the attribute itself, whose brackets close before the item's.
                let close = self.code[start..].find(']').map_or(self.code.len(), |close| start + close + 1);
                tests.push(start..self.item_from(close).end);
            }
        }
        tests
    }

    /// From `start` to the `;` or the closing brace that ends the item there.
    fn item_from(&self, start: usize) -> Range<usize> {
        let mut braces = 0_usize;
        let mut others = 0_usize;
        for (at, byte) in self.code.bytes().enumerate().skip(start) {
            match byte {
                b'(' | b'[' => others += 1,
                b')' | b']' => others = others.saturating_sub(1),
                b'{' => braces += 1,
                b'}' if braces <= 1 => return start..at + 1,
                b'}' => braces -= 1,
                b';' if braces == 0 && others == 0 => return start..at + 1,
                _ => {}
            }
        }
        start..self.code.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_by_their_braces() {
        let source = Source::new(
            "a.rs",
            "trait T { fn none(&self, a: [u8; 3]); }\nfn one() { \"}\" }\nfn two(a: [u8; 2]) -> u8 {\n  // }\n  let f: fn(u8) = g;\n  match '}' { _ => { } }\n}\n",
        );
        let function = |name: &str, line, lines| Function { name: name.into(), line, lines };
        assert_eq!(source.functions(), [function("one", 2, 1), function("two", 3, 5)]);
    }

    #[test]
    fn test_code_is_known() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { } }\nfn c() {}\n#[cfg(all(test, loom))]\nmod far;\n#[cfg(not(test))]\nfn d() {}\n";
        let source = Source::new("a.rs", text);
        let is_test = |needle| source.is_test(text.find(needle).unwrap());
        assert!(
            !is_test("fn a") && is_test("fn b") && !is_test("fn c") && is_test("mod far") && !is_test("fn d")
        );
        assert_eq!(source.test_modules(), [TestModule::Named("far".to_owned())]);
        assert!(Source::new("b.rs", "//! x\n#![cfg(test)]\nfn a() {}").is_test(21));
    }

    #[test]
    fn words_are_whole_and_lines_count_from_one() {
        let source = Source::new("a.rs", "unsafe_code\nmy_unsafe\n unsafe {\n// unsafe\n");
        let lines: Vec<_> = source.words("unsafe").map(|offset| source.line_of(offset)).collect();
        assert_eq!(lines, [3]);
        assert_eq!(source.line(4), "// unsafe");
        assert_eq!(source.code_line(4).trim(), "");
    }
}
