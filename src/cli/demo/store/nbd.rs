//! A small client of NBD, to write with a ledger: the oldest form of the negotiation, simple replies, several requests under way.
//!
//! Source: "The NBD protocol", `doc/proto.md` of the reference implementation. Everything on the wire is big-endian.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a server may take for one reply.
const PATIENCE: Duration = Duration::from_secs(30);

const GREETING: [u8; 16] = *b"NBDMAGICIHAVEOPT";
const OPTION_MAGIC: [u8; 8] = *b"IHAVEOPT";
const OPTION_EXPORT_NAME: u32 = 1;
/// Fixed newstyle, and no zeroes after the export's flags.
const CLIENT_FLAGS: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;

/// A connection to an export.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
}

impl Client {
    /// Opens `export` at the server whose socket is at `path`.
    ///
    /// # Errors
    /// Nobody is there, it has no such export, or it is no NBD server.
    pub(super) fn connect(path: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        if greeting[..16] != GREETING {
            return Err(io::Error::other("it is no NBD server"));
        }
        let name_bytes = u32::try_from(export.len()).map_err(io::Error::other)?;
        let mut hello = CLIENT_FLAGS.to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC);
        hello.extend(OPTION_EXPORT_NAME.to_be_bytes());
        hello.extend(name_bytes.to_be_bytes());
        hello.extend(export.as_bytes());
        stream.write_all(&hello)?;
        // Its size and its flags; a server that has no such export hangs up.
        stream.read_exact(&mut [0; 10])?;
        Ok(Self { stream })
    }

    /// Asks for a write, which [`reply`](Self::reply) acknowledges under `cookie`.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn send_write(&mut self, cookie: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.send(WRITE, cookie, offset, bytes.len(), bytes)
    }

    /// The cookie of the next request that is done; replies come in any order.
    ///
    /// # Errors
    /// It failed, or the connection broke.
    pub(super) fn reply(&mut self) -> io::Result<u64> {
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        let word = |at: usize| u32::from_be_bytes([reply[at], reply[at + 1], reply[at + 2], reply[at + 3]]);
        match (word(0), word(4)) {
            (REPLY_MAGIC, 0) => Ok(u64::from(word(8)) << 32 | u64::from(word(12))),
            (REPLY_MAGIC, error) => Err(io::Error::other(format!("the server answers with error {error}"))),
            (magic, _) => Err(io::Error::other(format!("{magic:#x} begins no reply"))),
        }
    }

    /// Reads at `offset`, with no other request under way.
    ///
    /// # Errors
    /// It failed, or the connection broke.
    pub(super) fn read(&mut self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        self.send(READ, offset, offset, target.len(), &[])?;
        let cookie = self.reply()?;
        if cookie != offset {
            return Err(io::Error::other(format!("a reply to {cookie:#x}, which was not asked")));
        }
        self.stream.read_exact(target)
    }

    fn send(&mut self, command: u16, cookie: u64, offset: u64, len: usize, data: &[u8]) -> io::Result<()> {
        let len = u32::try_from(len).map_err(io::Error::other)?;
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0; 2]);
        request.extend(command.to_be_bytes());
        request.extend(cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Whoever is gone needs no good-bye.
        let _ = self.send(DISCONNECT, 0, 0, 0, &[]);
    }
}
