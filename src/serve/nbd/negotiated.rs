//! What comes of a negotiation.

use std::sync::Arc;

use super::export::Export;
use super::wire::{FIXED_NEWSTYLE, NO_ZEROES};

/// Longest data of an option that is read and thrown away, so that the client can be told.
pub(super) const OPTION_SKIPPED_BYTES_MAX: u32 = 1 << 20;

/// Whether clients may, or must, use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// There is no TLS.
    Off,
    /// The client decides.
    Allowed,
    /// Nothing but STARTTLS and ABORT is answered before it.
    Required,
}

/// What a client chose.
pub struct Chosen {
    /// The export.
    pub export: Arc<dyn Export>,
    /// Its name, as the client gave it.
    pub name: String,
    /// Replies are structured.
    pub structured: bool,
    /// Block status tells what is stored: `base:allocation` was selected.
    pub allocation: bool,
    /// Block status tells what the peer lacks: `mirrorbus:unreplicated` was selected.
    pub unreplicated: bool,
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen")
            .field("name", &self.name)
            .field("structured", &self.structured)
            .field("allocation", &self.allocation)
            .field("unreplicated", &self.unreplicated)
            .finish_non_exhaustive()
    }
}

/// Why there is no export to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeEnd {
    /// It said so.
    #[error("the client ended the negotiation")]
    Aborted,
    /// Flags of a later protocol.
    #[error("client flags {flags:#x}: this server offers {} only", FIXED_NEWSTYLE | NO_ZEROES)]
    ClientFlags {
        /// As the client sent them.
        flags: u32,
    },
    /// No option.
    #[error("what should be an option does not begin with IHAVEOPT")]
    NotAnOption,
    /// Far too long.
    #[error("option {number} with {bytes} bytes of data, at most {OPTION_SKIPPED_BYTES_MAX} are read")]
    TooLong {
        /// The option.
        number: u32,
        /// Its data.
        bytes: u32,
    },
    /// An option of the fixed newstyle by a client that did not say that it speaks it.
    #[error("option {number} by a client that did not set FIXED_NEWSTYLE")]
    NotFixed {
        /// The option.
        number: u32,
    },
    /// EXPORT_NAME has no other way of saying no.
    #[error("EXPORT_NAME was refused: {why}")]
    ExportName {
        /// Why.
        why: &'static str,
    },
}

/// What [`Handshake::handle`](super::Handshake::handle) did.
#[derive(Debug)]
pub enum Progress {
    /// It needs more bytes than there are.
    More,
    /// It took so many bytes, and goes on.
    Took(usize),
    /// It took so many bytes; after what is to be sent the client speaks TLS.
    StartTls(usize),
    /// It took so many bytes; after what is to be sent the client sends requests.
    Begin(usize, Chosen),
    /// The connection is to be closed after what is to be sent.
    End(HandshakeEnd),
}
