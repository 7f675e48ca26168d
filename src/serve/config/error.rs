//! What is wrong with a configuration, and where.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::FILE_BYTES_MAX;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {file}: {call} failed: {error}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The call.
        call: &'static str,
        /// What it said.
        error: std::io::Error,
    },
    /// A directory, a pipe.
    #[error("configuration {file} is no regular file: give the path of the TOML file itself", file = file.display())]
    NotRegular {
        /// The file.
        file: PathBuf,
    },
    /// Longer than any configuration.
    #[error("configuration {file} has more than {FILE_BYTES_MAX} bytes: is it a configuration?", file = file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
    },
    /// Something in it.
    #[error("{file}:{line}:{column}: {key}: {why}", file = file.display())]
    Mistake {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What the mistake is in: a key, or `TOML` where it is not even one.
        key: String,
        /// What was read and what is allowed.
        why: String,
    },
}

/// A mistake at a place of the text.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) offset: usize,
    pub(super) key: String,
    pub(super) why: String,
}

impl Mistake {
    pub(super) fn new(span: Range<usize>, key: &str, why: impl Into<String>) -> Self {
        Self { offset: span.start, key: key.to_owned(), why: why.into() }
    }

    /// What the TOML reader says about `text`.
    pub(super) fn of_toml(error: &toml::de::Error, text: &str) -> Self {
        let offset = error.span().map_or(0, |span| span.start);
        let key = key_at(text, offset).unwrap_or("TOML").to_owned();
        Self { offset, key, why: error.message().replace('\n', "; ") }
    }

    pub(super) fn in_file(self, file: &Path, text: &str) -> ConfigError {
        let (line, column) = place(text, self.offset);
        ConfigError::Mistake { file: file.into(), line, column, key: self.key, why: self.why }
    }
}

/// Line and column of a byte of `text`, both counted from 1.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = before(text, offset);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// The key that the line with `offset` sets, or the table that it begins.
fn key_at(text: &str, offset: usize) -> Option<&str> {
    let before = before(text, offset);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let key = line.split_once('=').map_or(line, |(key, _)| key).trim();
    let is_key = |letter: char| letter.is_ascii_alphanumeric() || "_-.[]".contains(letter);
    (!key.is_empty() && key.chars().all(is_key)).then_some(key)
}

/// The text before a byte of it, or before the character in which that lies.
fn before(text: &str, offset: usize) -> &str {
    let end = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}
