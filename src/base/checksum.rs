//! CRC32C (Castagnoli), the checksum of every frame and file format here: x86-64 and aarch64 compute it in hardware.
//!
//! It detects accidents, not attackers: where those are feared the connection is encrypted.

/// CRC32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// CRC32C of the concatenation of what gave `crc` and `bytes`.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vector_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), crc32c(b"123456789"));
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
