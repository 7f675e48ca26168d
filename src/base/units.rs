//! Sizes as people write them.

/// Bytes in `text`: a number with an optional binary suffix K, M, G or T (powers of 1024).
///
/// # Errors
/// Says what was read when `text` is no such size or does not fit in 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let trimmed = text.trim().trim_end_matches("iB").trim_end_matches('B');
    let (digits, shift) = match trimmed.chars().last() {
        Some('k' | 'K') => (&trimmed[..trimmed.len() - 1], 10),
        Some('m' | 'M') => (&trimmed[..trimmed.len() - 1], 20),
        Some('g' | 'G') => (&trimmed[..trimmed.len() - 1], 30),
        Some('t' | 'T') => (&trimmed[..trimmed.len() - 1], 40),
        _ => (trimmed, 0),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no size: write 4096, 64K, 1M or 1G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} does not fit in 64 bits"))
}

/// `bytes` with the largest binary unit that keeps it at or above 1.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4) as usize;
    if bytes.is_multiple_of(1 << (10 * unit)) {
        return format!("{} {}", bytes >> (10 * unit), UNITS[unit]);
    }
    #[allow(clippy::cast_precision_loss, reason = "one decimal is printed")]
    let scaled = bytes as f64 / (1u64 << (10 * unit)) as f64;
    format!("{scaled:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64K"), Ok(65536));
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
        assert!(parse_bytes("20000000T").is_err());
        assert!(parse_bytes("").is_err() && parse_bytes("-1").is_err() && parse_bytes("1.5G").is_err());
        assert_eq!(format_bytes(1 << 30), "1 GiB");
        assert_eq!(format_bytes(1536), "1.5 KiB");
        assert_eq!(format_bytes(0), "0 B");
    }
}
