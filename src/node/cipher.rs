//! The control room's record cipher, as the tcp fabric takes it.

use crate::control::DataCipher;
use crate::fabric::tcp::RecordCipher;

/// Seals and opens the records of one data stream.
#[derive(Debug)]
pub(super) struct StreamCipher(pub(super) DataCipher);

impl RecordCipher for StreamCipher {
    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.0.seal_record(plain, out).map_err(|error| error.to_string())
    }

    fn open(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.0.open_record(record, out).map_err(|error| error.to_string())
    }
}
