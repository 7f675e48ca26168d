//! The id of a dataset as text: 32 hexadecimal digits.

use crate::base::DatasetId;

/// Digits of an id.
const DIGITS: usize = 32;

/// The id that `text` is.
///
/// # Errors
/// Says what was read and what is allowed.
pub fn parse_dataset_id(text: &str) -> Result<DatasetId, String> {
    let refuse = || {
        format!(
            "{text:?} is no id of a dataset: {DIGITS} hexadecimal digits, not all 0, as `mirrorbus dataset-id` prints them"
        )
    };
    if text.len() != DIGITS || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(refuse());
    }
    let number = u128::from_str_radix(text, 16).map_err(|_| refuse())?;
    // Zeros are what a file that was never written has.
    if number == 0 { Err(refuse()) } else { Ok(DatasetId::from_bytes(number.to_be_bytes())) }
}

/// A new id: random, so that it is nobody else's.
///
/// # Errors
/// The kernel has no randomness to give.
pub fn new_dataset_id() -> std::io::Result<DatasetId> {
    crate::node::random_bytes().map(DatasetId::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text() {
        let id = new_dataset_id().unwrap();
        assert_eq!(parse_dataset_id(&id.to_string()), Ok(id));
        assert_ne!(id, new_dataset_id().unwrap());
        let id = parse_dataset_id("000102030405060708090A0b0c0d0e0f").unwrap();
        assert_eq!(id.to_bytes()[..4], [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in
            ["", "00", &"0".repeat(32), &"g".repeat(32), &"1".repeat(33), "+0102030405060708090a0b0c0d0e0f0"]
        {
            assert!(parse_dataset_id(text).unwrap_err().contains("32"), "{text}");
        }
        assert!(parse_dataset_id(&"é".repeat(16)).is_err());
    }
}
