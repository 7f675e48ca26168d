//! What the two sides say while connecting, drawn in docs/protocol.md. Decoding is pure: the sender may be anybody.
//!
//! ```text
//!  request, 56 bytes                      answer, 8 + 32·windows + 32 bytes
//!   0  magic "MBQ1"                        0  magic "MBQ1"
//!   4  zero                                4  u32 windows
//!   8  session, 16 bytes                   8  of each window: u32 id, u32 generation, u32 key, u32 access,
//!  24  proof, 32 bytes                        u64 address, u64 bytes
//!                                          …  proof, 32 bytes
//! ```

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::base::{Generation, SessionId};
use crate::control::{QUEUE_PROOF_BYTES, Token, check_answer, prove_answer, prove_request};
use crate::fabric::{Access, Grant, WindowId};

const MAGIC: [u8; 4] = *b"MBQ1";
/// Windows in one answer: what fits in the 196 bytes that the connection manager carries.
pub(super) const WINDOWS_MAX: usize = 4;
/// Bytes that a rejection carries.
pub(super) const REJECTION_BYTES_MAX: usize = 148;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RequestBody {
    magic: [u8; 4],
    zero: [u8; 4],
    session: [u8; 16],
    proof: [u8; QUEUE_PROOF_BYTES],
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AnswerHead {
    magic: [u8; 4],
    windows: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WindowBody {
    id: U32,
    generation: U32,
    key: U32,
    access: U32,
    address: U64,
    bytes: U64,
}

const _: () = assert!(
    size_of::<RequestBody>() == 56
        && size_of::<WindowBody>() == 32
        && size_of::<AnswerHead>() + WINDOWS_MAX * size_of::<WindowBody>() + QUEUE_PROOF_BYTES <= 196
);

/// A window with what the device needs to reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteWindow {
    /// What was granted.
    pub grant: Grant,
    /// The key of its memory.
    pub key: u32,
    /// The address of its first byte, at the peer.
    pub address: u64,
}

/// A request of somebody who may be anybody.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestClaim {
    pub(super) session: SessionId,
    pub(super) proof: [u8; QUEUE_PROOF_BYTES],
}

/// What the owner says.
pub(super) fn request(token: &Token, session: SessionId, queue_pair: u32) -> Vec<u8> {
    let proof = prove_request(token, session, queue_pair);
    RequestBody { magic: MAGIC, zero: [0; 4], session: session.to_bytes(), proof }.as_bytes().to_vec()
}

/// Reads what an owner says; what follows is padding.
pub(super) fn read_request(private: &[u8]) -> Option<RequestClaim> {
    let (body, _) = RequestBody::read_from_prefix(private).ok()?;
    (body.magic == MAGIC && body.zero == [0; 4])
        .then(|| RequestClaim { session: SessionId::from_bytes(body.session), proof: body.proof })
}

/// What the holder says.
pub(super) fn answer(
    token: &Token,
    session: SessionId,
    requester: u32,
    responder: u32,
    windows: &[RemoteWindow],
) -> Vec<u8> {
    let count = u32::try_from(windows.len()).expect("a session has few windows");
    let mut bytes = AnswerHead { magic: MAGIC, windows: count.into() }.as_bytes().to_vec();
    for window in windows {
        let body = WindowBody {
            id: window.grant.window.0.into(),
            generation: window.grant.generation.0.into(),
            key: window.key.into(),
            access: u32::from(window.grant.access == Access::ReadWrite).into(),
            address: window.address.into(),
            bytes: (window.grant.len as u64).into(),
        };
        bytes.extend_from_slice(body.as_bytes());
    }
    let proof = prove_answer(token, session, requester, responder, &bytes);
    bytes.extend_from_slice(&proof);
    bytes
}

/// Reads and checks what a holder says.
pub(super) fn read_answer(
    private: &[u8],
    token: &Token,
    session: SessionId,
    requester: u32,
    responder: u32,
) -> Result<Vec<RemoteWindow>, String> {
    let short = || format!("an answer of {} bytes is too short", private.len());
    let (head, rest) = AnswerHead::read_from_prefix(private).map_err(|_| short())?;
    let count = head.windows.get() as usize;
    if head.magic != MAGIC || count > WINDOWS_MAX {
        return Err(format!("an answer that begins {:02x?} is none of this protocol", head.as_bytes()));
    }
    let list = count * size_of::<WindowBody>();
    let proof =
        rest.get(list..).and_then(|rest| rest.first_chunk::<QUEUE_PROOF_BYTES>()).ok_or_else(short)?;
    let said = &private[..size_of::<AnswerHead>() + list];
    if !check_answer(token, session, requester, responder, said, proof) {
        return Err("the answer is not from the holder that gave the token".into());
    }
    let bodies = <[WindowBody]>::ref_from_bytes(&rest[..list]).map_err(|_| short())?;
    bodies.iter().map(window).collect()
}

fn window(body: &WindowBody) -> Result<RemoteWindow, String> {
    let len = usize::try_from(body.bytes.get()).map_err(|_| format!("a window of {} bytes", body.bytes))?;
    body.address.get().checked_add(body.bytes.get()).ok_or("a window beyond the end of memory")?;
    let access = if body.access.get() == 1 { Access::ReadWrite } else { Access::Read };
    let (window, generation) = (WindowId(body.id.get()), Generation(body.generation.get()));
    let grant = Grant { window, generation, len, access };
    Ok(RemoteWindow { grant, key: body.key.get(), address: body.address.get() })
}

/// Why a request is turned down, as it travels.
pub(super) fn rejection(why: &str) -> &[u8] {
    let mut end = why.len().min(REJECTION_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    &why.as_bytes()[..end]
}

/// Reads why a request was turned down; the connection manager pads with zeroes.
pub(super) fn read_rejection(private: &[u8]) -> String {
    let end = private.iter().position(|byte| *byte == 0).unwrap_or(private.len());
    String::from_utf8_lossy(&private[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: SessionId = SessionId::from_bytes([3; 16]);

    fn token() -> Token {
        Token::from_bytes(&[9; 32])
    }

    fn windows() -> Vec<RemoteWindow> {
        let grant = |id| Grant {
            window: WindowId(id),
            generation: Generation(5),
            len: 1 << 20,
            access: Access::ReadWrite,
        };
        (1..3).map(|id| RemoteWindow { grant: grant(id), key: 77 + id, address: 0x7f00_0000_0000 }).collect()
    }

    #[test]
    fn both_survive_the_way_with_padding() {
        let mut sent = request(&token(), SESSION, 17);
        assert_eq!(sent.len(), 56);
        sent.extend_from_slice(&[0; 20]);
        let claim = read_request(&sent).unwrap();
        let found = crate::control::find_request(&[token()], claim.session, 17, &claim.proof);
        assert_eq!((claim.session, found), (SESSION, Some(0)));
        let mut sent = answer(&token(), SESSION, 17, 21, &windows());
        sent.extend_from_slice(&[0; 60]);
        assert_eq!(read_answer(&sent, &token(), SESSION, 17, 21).unwrap(), windows());
        assert!(read_answer(&sent, &token(), SESSION, 17, 22).unwrap_err().contains("not from the holder"));
    }

    #[test]
    fn a_rejection_is_cut_at_a_character() {
        let why = "ä".repeat(100);
        assert_eq!(rejection(&why).len(), 148);
        let mut padded = rejection("no").to_vec();
        padded.resize(148, 0);
        assert_eq!(read_rejection(&padded), "no");
    }

    proptest! {
        #[test]
        fn what_anybody_sends_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_request(&bytes);
            let mut marked = MAGIC.to_vec();
            marked.extend_from_slice(&bytes);
            let _ = read_request(&marked);
            prop_assert!(read_answer(&marked, &token(), SESSION, 1, 2).is_err());
            let _ = read_rejection(&bytes);
        }
    }
}
