//! Reads the payload of each entry from the files themselves.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::log_format::{DIGEST_BYTES, Entry, Kind};
use super::plan::{Plan, SourceFile};

/// Bytes hashed at a time.
const HASH_BYTES: usize = 256 << 10;

/// The sources of a plan; keeps the file open that was read last.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    plan: &'a Plan,
    open: Option<(u32, File, u64)>,
}

impl<'a> Sources<'a> {
    /// The files of `plan`.
    pub(super) const fn new(plan: &'a Plan) -> Self {
        Self { plan, open: None }
    }

    /// Puts the payload of `entry` into `payload`.
    ///
    /// # Errors
    /// The file cannot be read, or has not the length any more that it had when the plan was made.
    pub(super) fn payload(&mut self, entry: &Entry, payload: &mut Vec<u8>) -> io::Result<()> {
        let source = &self.plan.files[entry.file as usize];
        payload.clear();
        match entry.kind {
            Kind::File { .. } => {
                payload.extend_from_slice(&digest(source)?);
                payload.extend_from_slice(source.path.as_os_str().as_encoded_bytes());
            }
            Kind::Data { offset } => {
                payload.resize(entry.payload_bytes, 0);
                self.read_at(entry.file, offset, payload).map_err(|error| named(source, error))?;
            }
        }
        Ok(())
    }

    fn read_at(&mut self, number: u32, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let open = self.open.take().filter(|(open, ..)| *open == number);
        let (file, at) = match open {
            Some((_, file, at)) => (file, at),
            None => (File::open(&self.plan.files[number as usize].path)?, 0),
        };
        if at != offset {
            (&file).seek(SeekFrom::Start(offset))?;
        }
        (&file).read_exact(target)?;
        self.open = Some((number, file, offset + target.len() as u64));
        Ok(())
    }
}

/// BLAKE3 of the file as it is on disk now.
fn digest(source: &SourceFile) -> io::Result<[u8; DIGEST_BYTES]> {
    let hash = || {
        let mut file = File::open(&source.path)?;
        let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; HASH_BYTES], 0);
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
        if bytes != source.bytes {
            let why = format!("it had {} bytes when the demonstration began, now {bytes}", source.bytes);
            return Err(io::Error::other(why));
        }
        Ok(*hasher.finalize().as_bytes())
    };
    hash().map_err(|error| named(source, error))
}

fn named(source: &SourceFile, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", source.path.display()))
}
