//! Splits Rust text into what the compiler reads and what only people read.
//!
//! [`split`] gives two texts of the same length and with the same line breaks as the input: one holds the code, the
//! other the comments, and each is blank where the other, or the inside of a literal, was. A rule that looks for a
//! word in the code therefore never trips over a string or a comment, and an offset means the same in all three.
//!
//! It knows line and nested block comments, strings with escapes, raw, byte and C strings, raw identifiers, and
//! tells a character literal from a lifetime. It does not parse: macros are read as the tokens they are.

/// The two halves of a source text.
pub(crate) struct Split {
    /// Code; comments and the insides of literals are blank.
    pub(crate) code: String,
    /// Comments; everything else is blank.
    pub(crate) comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Separates the code of `text` from its comments.
pub(crate) fn split(text: &str) -> Split {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut comments = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (kind, end) = next_piece(bytes, at);
        assert!(end > at && end <= bytes.len(), "the scanner moves forward, within the text");
        for &byte in &bytes[at..end] {
            let blank = if byte == b'\n' { b'\n' } else { b' ' };
            code.push(if kind == Kind::Code { byte } else { blank });
            comments.push(if kind == Kind::Comment { byte } else { blank });
        }
        at = end;
    }
    let utf8 = |bytes| String::from_utf8(bytes).expect("pieces begin and end at character boundaries");
    Split { code: utf8(code), comments: utf8(comments) }
}

fn next_piece(bytes: &[u8], at: usize) -> (Kind, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let len = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        return (Kind::Comment, at + len);
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, at + block_comment(rest));
    }
    if rest[0] == b'"' {
        return (Kind::Literal, at + quoted(rest, b'"'));
    }
    if rest[0] == b'\'' {
        return match character(rest) {
            Some(len) => (Kind::Literal, at + len),
            None => (Kind::Code, at + 1),
        };
    }
    if is_word(rest[0]) {
        let word = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
        if matches!(&rest[..word], b"r" | b"br" | b"cr")
            && let Some(len) = raw_string(&rest[word..])
        {
            return (Kind::Literal, at + word + len);
        }
        return (Kind::Code, at + word);
    }
    (Kind::Code, at + 1)
}

/// Whether a byte can be part of an identifier. Bytes of non-ASCII characters count, so that none is cut in two.
pub(crate) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of the literal that `rest` starts with, escapes respected, both quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        if rest[at] == b'\\' {
            at += 2;
        } else if rest[at] == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a character literal, or `None` when the quote begins a lifetime or a label.
fn character(rest: &[u8]) -> Option<usize> {
    match rest.get(1)? {
        b'\\' => Some(quoted(rest, b'\'')),
        &first => {
            let width = match first {
                0xF0.. => 4,
                0xE0.. => 3,
                0xC0.. => 2,
                _ => 1,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
        }
    }
}

/// Length from the first `#` or quote after the `r`, or `None` when it is a raw identifier or no literal at all.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let body = hashes + 1;
    let close = rest[body..].windows(end.len()).position(|window| window == end);
    Some(close.map_or(rest.len(), |close| body + close + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_leave_the_code() {
        let text = r####"let a = "{ // x"; // one {
/* two /* nested */ { */ let b = '{'; let c = '\''; let d: &'static str = r#"raw " { "#;
let e = b"{"; let r#type = br"{\"; let f = '"'; let g = "\"{"; 'outer: loop {}"####;
        let split = split(text);
        assert_eq!(split.code.len(), text.len());
        assert_eq!(split.code.lines().count(), text.lines().count());
        assert_eq!(split.code.matches('{').count(), 1, "{}", split.code);
        for kept in ["let a =", "let b =", "&'static str", "r#type", "'outer: loop {}", "let g"] {
            assert!(split.code.contains(kept), "{kept} is code: {}", split.code);
        }
        for gone in ["one", "two", "nested", "raw"] {
            assert!(!split.code.contains(gone), "{gone} is no code");
        }
        assert!(split.comments.contains("// one {") && split.comments.contains("/* two /* nested */ { */"));
        assert!(!split.comments.contains("raw"));
    }

    #[test]
    fn characters_beyond_ascii_are_not_cut() {
        let split = split("let ä = 'ß'; // „Ö“\nlet x = \"→\";");
        assert!(split.code.starts_with("let ä = "));
        assert!(split.comments.contains("„Ö“"));
        assert!(!split.code.contains('→'));
    }

    #[test]
    fn what_is_never_closed_ends_with_the_text() {
        for text in ["\"open", "/* open", "r#\"open\"", "'\\", "\"\\", "'"] {
            assert_eq!(split(text).code.len(), text.len());
        }
    }
}
