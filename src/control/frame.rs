//! Cuts a stream of bytes into prefaces and length-prefixed frames, however the bytes come split.
//!
//! Holds at most one incomplete piece, and never more of it than has arrived: a length that a peer announces allocates
//! nothing. What does not belong to the current piece stays with the caller.

use super::ControlError;

/// What the reader is to cut next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Exactly this many bytes.
    Exact(usize),
    /// A `u16` length and that many bytes, at most `max`; the length is not part of what is returned.
    Frame {
        /// The bound.
        max: usize,
        /// What the frame is called in the error.
        what: &'static str,
    },
}

/// Bytes of the piece that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    partial: Vec<u8>,
}

/// Length prefix of a frame.
pub(super) const LENGTH_LEN: usize = 2;

impl FrameReader {
    /// Takes from the front of `input` what the piece needs; returns the piece when it is complete.
    pub(super) fn take(&mut self, input: &mut &[u8], piece: Piece) -> Result<Option<Vec<u8>>, ControlError> {
        let (head, total) = match piece {
            Piece::Exact(len) => (0, Some(len)),
            Piece::Frame { max, what } => {
                self.fill(input, LENGTH_LEN);
                (LENGTH_LEN, self.frame_total(max, what)?)
            }
        };
        let Some(total) = total else { return Ok(None) };
        self.fill(input, total);
        if self.partial.len() < total {
            return Ok(None);
        }
        assert_eq!(self.partial.len(), total, "a piece is never overfilled");
        let mut piece = std::mem::take(&mut self.partial);
        piece.drain(..head);
        Ok(Some(piece))
    }

    /// Bytes of a piece that has begun.
    pub(super) fn partial_len(&self) -> usize {
        self.partial.len()
    }

    fn frame_total(&self, max: usize, what: &'static str) -> Result<Option<usize>, ControlError> {
        let Some(length) = self.partial.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let len = usize::from(u16::from_le_bytes(*length));
        if len > max {
            return Err(ControlError::Oversize { what, len, max });
        }
        Ok(Some(LENGTH_LEN + len))
    }

    fn fill(&mut self, input: &mut &[u8], target: usize) {
        let count = target.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(count);
        self.partial.extend_from_slice(taken);
        *input = rest;
    }
}

/// Appends a frame with this content.
pub(super) fn push_frame(out: &mut Vec<u8>, content: &[u8]) {
    let len = u16::try_from(content.len()).expect("frames that this side makes fit their length");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Piece = Piece::Frame { max: 4, what: "frame" };

    #[test]
    fn byte_by_byte_and_at_once() {
        let stream = [1, 2, 3, 0, 7, 8, 9, 0, 0];
        let mut reader = FrameReader::default();
        let mut found = Vec::new();
        for byte in stream {
            let mut input = &[byte][..];
            while !input.is_empty() {
                let piece = if found.is_empty() { Piece::Exact(2) } else { FRAME };
                found.extend(reader.take(&mut input, piece).unwrap());
            }
        }
        assert_eq!(found, [vec![1, 2], vec![7, 8, 9], vec![]]);
        let mut input = &stream[..];
        assert_eq!(reader.take(&mut input, Piece::Exact(2)).unwrap(), Some(vec![1, 2]));
        assert_eq!(reader.take(&mut input, FRAME).unwrap(), Some(vec![7, 8, 9]));
        assert_eq!(input, [0, 0], "the rest stays with the caller");
    }

    #[test]
    fn an_announced_length_is_refused_before_its_bytes_come() {
        let error = FrameReader::default().take(&mut &[5, 0][..], FRAME).unwrap_err();
        assert_eq!(error, ControlError::Oversize { what: "frame", len: 5, max: 4 });
    }
}
