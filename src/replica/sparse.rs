//! Bytes of which much may be zero, without that: a segment's table, which a flush after each record leaves with a slot in each block.
//!
//! ```text
//!  zeroes u32   others u32   others × 64 bytes   …
//! ```
//!
//! Both in units of 64 bytes, little-endian: so many of zeroes, and behind them so many of anything. The last one ends with the bytes.

/// What is left out is left out in these.
pub const UNIT_BYTES: usize = 64;
const FRONT_BYTES: usize = 8;

/// `bytes` without what is zero, and a few more at most where nothing is; nothing when they would be more than `most`, as soon as that shows.
///
/// # Panics
/// When they are no whole units.
#[must_use]
pub fn pack_sparse(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    assert!(bytes.len().is_multiple_of(UNIT_BYTES), "{} bytes are no whole units", bytes.len());
    let is_zero = |unit: &[u8]| unit.iter().all(|byte| *byte == 0);
    let (mut packed, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let zeroes = rest.chunks_exact(UNIT_BYTES).take_while(|unit| is_zero(unit)).count();
        rest = &rest[zeroes * UNIT_BYTES..];
        let others = rest.chunks_exact(UNIT_BYTES).take_while(|unit| !is_zero(unit)).count();
        if packed.len() + FRONT_BYTES + others * UNIT_BYTES > most {
            return None;
        }
        for count in [zeroes, others] {
            packed.extend_from_slice(&u32::try_from(count).expect("less than 2^38 bytes").to_le_bytes());
        }
        let (others, behind) = rest.split_at(others * UNIT_BYTES);
        packed.extend_from_slice(others);
        rest = behind;
    }
    Some(packed)
}

/// What was [packed](pack_sparse); nothing when that is no such thing, or of more than `most` bytes: no memory is taken before that is known.
#[must_use]
pub fn unpack_sparse(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let (mut len, mut rest) = (0_usize, packed);
    while !rest.is_empty() {
        let (zeroes, others, behind) = first_stretch(rest)?;
        len = len.checked_add(zeroes)?.checked_add(others.len())?;
        if len > most {
            return None;
        }
        rest = behind;
    }
    let (mut bytes, mut at, mut rest) = (vec![0; len], 0, packed);
    while let Some((zeroes, others, behind)) = first_stretch(rest) {
        at += zeroes;
        bytes[at..at + others.len()].copy_from_slice(others);
        at += others.len();
        rest = behind;
    }
    Some(bytes)
}

/// How many bytes are zero at first, what is behind them, and what is packed behind that; nothing when this is no such thing.
fn first_stretch(packed: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let (front, rest) = packed.split_first_chunk::<FRONT_BYTES>()?;
    let [zeroes, others] = [0, 4].map(|at| {
        let count = u32::from_le_bytes(front[at..at + 4].try_into().expect("four bytes"));
        usize::try_from(count).ok()?.checked_mul(UNIT_BYTES)
    });
    let (zeroes, (others, rest)) = (zeroes?, rest.split_at_checked(others?)?);
    (zeroes > 0 || !others.is_empty()).then_some((zeroes, others, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit of each of these.
    fn units(of: &[u8]) -> Vec<u8> {
        of.iter().flat_map(|byte| [*byte; UNIT_BYTES]).collect()
    }

    fn front(zeroes: u32, others: u32) -> Vec<u8> {
        [zeroes.to_le_bytes(), others.to_le_bytes()].concat()
    }

    #[test]
    fn what_is_zero_is_left_out() {
        for (bytes, packed) in [
            (units(&[]), vec![]),
            (units(&[1]), [front(0, 1), units(&[1])].concat()),
            (units(&[0, 0, 0]), front(3, 0)),
            (units(&[0, 5]), [front(1, 1), units(&[5])].concat()),
            (
                units(&[5, 6, 0, 0, 7, 0]),
                [front(0, 2), units(&[5, 6]), front(2, 1), units(&[7]), front(1, 0)].concat(),
            ),
        ] {
            assert_eq!(pack_sparse(&bytes, packed.len()), Some(packed.clone()));
            assert!(packed.is_empty() || pack_sparse(&bytes, packed.len() - 1).is_none());
            assert_eq!(unpack_sparse(&packed, bytes.len()), Some(bytes));
        }
    }

    #[test]
    fn a_slot_in_each_block_takes_little_more_than_itself() {
        let table: Vec<u8> =
            (0..1000).flat_map(|_| [vec![0; 63 * UNIT_BYTES], vec![9; UNIT_BYTES]].concat()).collect();
        let packed = pack_sparse(&table, table.len()).expect("less than that");
        assert_eq!(packed.len(), 1000 * (FRONT_BYTES + UNIT_BYTES));
        assert_eq!(unpack_sparse(&packed, table.len()), Some(table));
    }

    #[test]
    fn whatever_is_zero_comes_back_as_it_was() {
        for bits in 0_u32..1 << 12 {
            let bytes = units(&std::array::from_fn::<_, 12, _>(|at| 7 * u8::from(bits >> at & 1 == 1)));
            let packed = pack_sparse(&bytes, bytes.len() + FRONT_BYTES);
            let packed = packed.unwrap_or_else(|| panic!("{bits:012b} takes too much"));
            assert_eq!(unpack_sparse(&packed, bytes.len()), Some(bytes));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_memory_is_taken_for_it() {
        let whole = [front(2, 1), units(&[3])].concat();
        assert_eq!(unpack_sparse(&whole, 3 * UNIT_BYTES), Some(units(&[0, 0, 3])));
        assert_eq!(unpack_sparse(&whole, 3 * UNIT_BYTES - 1), None, "longer than may be");
        for cut in 1..whole.len() {
            assert_eq!(unpack_sparse(&whole[..cut], 1 << 20), None, "{cut} bytes of it");
        }
        assert_eq!(unpack_sparse(&front(0, 0), 1 << 20), None, "it says nothing");
        assert_eq!(unpack_sparse(&front(u32::MAX, 0), 1 << 30), None);
        assert_eq!(unpack_sparse(&front(u32::MAX, u32::MAX), usize::MAX), None);
    }
}
