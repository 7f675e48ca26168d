//! Pre-shared keys and tokens: 32 secret bytes each, on the heap so that moves leave no copies, wiped when dropped.
//!
//! Nothing here prints a secret: `Debug` shows counts. While a handshake runs, the Noise implementation holds a copy
//! of the key it uses which it does not wipe; that lasts [`HANDSHAKE_TIME_MAX`](super::HANDSHAKE_TIME_MAX) at most.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Keys in one set: the one in use and, while rotating, one more.
pub const KEYS_MAX: usize = 2;
/// Bytes of a key or token.
pub(crate) const SECRET_LEN: usize = 32;

/// 32 secret bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Box<[u8; SECRET_LEN]>);

impl Secret {
    fn new(bytes: &[u8; SECRET_LEN]) -> Self {
        let mut secret = Self(Box::new([0; SECRET_LEN]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    pub(super) fn bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

/// One or two pre-shared keys. An initiator uses the first; a responder accepts any.
///
/// Text form: one key per line, 64 hexadecimal digits; what follows `#` is a comment; empty lines do not count.
///
/// # Rotation
/// No connection is refused at any step, in whatever order the machines are visited within one:
/// 1. Append the new key as *second* line on every machine, and let each process load its file anew. All initiators
///    still use the old key, all responders accept both.
/// 2. When the last machine has it, swap the lines everywhere: the new key *first*. Initiators use the new one as they
///    load the file; responders accept both.
/// 3. When the last machine has swapped, remove the old key everywhere. Connections that stand are not affected.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Secret>,
}

/// A key text that cannot be used. Shows no part of any key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyTextError {
    /// A line is no key.
    #[error(
        "line {line}: {found} characters, of which {digits} hexadecimal; a key is 64 hexadecimal digits (`mirrorbus keygen FILE` makes one)"
    )]
    Line {
        /// Counted from 1.
        line: usize,
        /// Characters of the line without comment and blanks.
        found: usize,
        /// Hexadecimal digits among them.
        digits: usize,
    },
    /// Bytes that are no text.
    #[error("line {line} is no UTF-8 text: a key file holds text (`mirrorbus keygen FILE` makes one)")]
    Encoding {
        /// Counted from 1.
        line: usize,
    },
    /// No key, or too many.
    #[error("{found} keys, 1 or 2 are allowed: the key in use first and, while rotating, one more")]
    Count {
        /// Keys found.
        found: usize,
    },
    /// The same key twice.
    #[error("both keys are the same: a rotation needs a new one (`mirrorbus keygen FILE` makes one)")]
    Same,
    /// A key of zeros only.
    #[error("key {number} is all zeros, which anyone would try (`mirrorbus keygen FILE` makes one)")]
    Zero {
        /// Counted from 1.
        number: usize,
    },
}

impl KeySet {
    /// The set of these keys, the one in use first.
    ///
    /// # Errors
    /// When there are not 1 or 2, both are the same, or one is all zeros.
    pub fn from_bytes(keys: &[[u8; SECRET_LEN]]) -> Result<Self, KeyTextError> {
        Self::from_secrets(keys.iter().map(Secret::new).collect())
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// See [`KeyTextError`].
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let mut keys = Vec::with_capacity(KEYS_MAX + 1);
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            keys.push(decode(line).ok_or_else(|| KeyTextError::Line {
                line: index + 1,
                found: line.chars().count(),
                digits: line.chars().filter(char::is_ascii_hexdigit).count(),
            })?);
            if keys.len() > KEYS_MAX {
                return Err(KeyTextError::Count { found: keys.len() });
            }
        }
        Self::from_secrets(keys)
    }

    fn from_secrets(keys: Vec<Secret>) -> Result<Self, KeyTextError> {
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(KeyTextError::Count { found: keys.len() });
        }
        if let Some(index) = keys.iter().position(|key| *key.bytes() == [0; SECRET_LEN]) {
            return Err(KeyTextError::Zero { number: index + 1 });
        }
        if keys.len() == KEYS_MAX && keys[0] == keys[1] {
            return Err(KeyTextError::Same);
        }
        Ok(Self { keys })
    }

    /// The text form, which [`KeySet::parse`] reads. Wiped when dropped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(KEYS_MAX * (2 * SECRET_LEN + 1)));
        for key in &self.keys {
            for byte in key.bytes() {
                for nibble in [byte >> 4, byte & 15] {
                    text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
                }
            }
            text.push('\n');
        }
        text
    }

    /// 1, or 2 while rotating.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn first(&self) -> &Secret {
        &self.keys[0]
    }

    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.keys.clone()
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}

fn decode(line: &str) -> Option<Secret> {
    if line.len() != 2 * SECRET_LEN || !line.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = Secret::new(&[0; SECRET_LEN]);
    for (byte, pair) in secret.0.iter_mut().zip(line.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
    }
    Some(secret)
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        other => panic!("{other} passed the check for hexadecimal digits"),
    }
}

/// 32 random bytes that admit one data stream to a session. Whoever makes one takes them from the system's generator
/// and sends them over the control connection only.
#[derive(Clone)]
pub struct Token(Secret);

impl Token {
    /// The token with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SECRET_LEN]) -> Self {
        Self(Secret::new(bytes))
    }

    /// The bytes, to put them into a control message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        self.0.bytes()
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    #[test]
    fn text_survives() {
        let text = format!("# made on Monday\n\n  {A} # in use\r\n{}\n", "ab".repeat(32));
        let keys = KeySet::parse(&text).unwrap();
        assert_eq!(keys.count(), 2);
        assert_eq!(keys.first().bytes()[1], 0x11);
        assert_eq!(keys.first().bytes()[31], 0xff);
        assert_eq!(*keys.to_text(), format!("{}\n{}\n", A.to_lowercase(), "ab".repeat(32)));
        let again = KeySet::parse(&keys.to_text()).unwrap();
        assert!(again.keys == keys.keys);
    }

    #[test]
    fn mistakes_are_named_without_the_key() {
        let short = &A[..62];
        let error = KeySet::parse(&format!("#\n{short}")).unwrap_err();
        assert_eq!(error, KeyTextError::Line { line: 2, found: 62, digits: 62 });
        assert!(!error.to_string().contains(short));
        let umlaut = format!("{}ä", &A[..62]);
        assert_eq!(
            KeySet::parse(&umlaut).unwrap_err(),
            KeyTextError::Line { line: 1, found: 63, digits: 62 }
        );
        assert_eq!(KeySet::parse("# none\n").unwrap_err(), KeyTextError::Count { found: 0 });
        let three = format!("{A}\n{}\n{}\n", "ab".repeat(32), "cd".repeat(32));
        assert_eq!(KeySet::parse(&three).unwrap_err(), KeyTextError::Count { found: 3 });
        assert_eq!(KeySet::parse(&format!("{A}\n{}", A.to_lowercase())).unwrap_err(), KeyTextError::Same);
        assert_eq!(KeySet::from_bytes(&[[1; 32], [0; 32]]).unwrap_err(), KeyTextError::Zero { number: 2 });
        assert_eq!(KeySet::from_bytes(&[]).unwrap_err(), KeyTextError::Count { found: 0 });
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", KeySet::parse(A).unwrap(), Token::from_bytes(&[0xab; 32]));
        assert_eq!(shown, "KeySet { count: 1, .. } Token(..)");
    }
}
