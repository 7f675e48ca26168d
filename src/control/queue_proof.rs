//! How two sides prove to each other, in what an RDMA connection carries while it is made, that they belong to one
//! session.
//!
//! The requester got a token over the control connection. With it both sides key a hash over what they say: the session,
//! the numbers of the queue pairs as the *other* side's driver reports them, and, in the answer, the windows granted. So
//! what is recorded admits no other queue pair, and keys to memory come from the holder that gave the token. The token
//! itself never travels there, and is forgotten once it admitted a queue.

use super::key::Token;
use crate::base::SessionId;

/// Bytes of a proof.
pub const QUEUE_PROOF_BYTES: usize = 32;

const REQUEST: &[u8] = b"mirrorbus queue request 1";
const ANSWER: &[u8] = b"mirrorbus queue answer 1";

fn keyed(token: &Token, context: &[u8], session: SessionId) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(token.as_bytes());
    hasher.update(context);
    hasher.update(&session.to_bytes());
    hasher
}

fn request_hash(token: &Token, session: SessionId, requester: u32) -> blake3::Hash {
    keyed(token, REQUEST, session).update(&requester.to_le_bytes()).finalize()
}

fn answer_hash(
    token: &Token,
    session: SessionId,
    requester: u32,
    responder: u32,
    windows: &[u8],
) -> blake3::Hash {
    let mut hasher = keyed(token, ANSWER, session);
    hasher.update(&requester.to_le_bytes()).update(&responder.to_le_bytes()).update(windows).finalize()
}

/// What the requester says: that it has the token, and that its queue pair has this number.
#[must_use]
pub fn prove_request(token: &Token, session: SessionId, requester: u32) -> [u8; QUEUE_PROOF_BYTES] {
    *request_hash(token, session, requester).as_bytes()
}

/// Which of `tokens` a request's proof was made with. Compares in constant time.
#[must_use]
pub fn find_request(
    tokens: &[Token],
    session: SessionId,
    requester: u32,
    proof: &[u8; QUEUE_PROOF_BYTES],
) -> Option<usize> {
    tokens.iter().position(|token| request_hash(token, session, requester) == *proof)
}

/// What the responder says: that it has the token too, and that these are the windows that it grants.
#[must_use]
pub fn prove_answer(
    token: &Token,
    session: SessionId,
    requester: u32,
    responder: u32,
    windows: &[u8],
) -> [u8; QUEUE_PROOF_BYTES] {
    *answer_hash(token, session, requester, responder, windows).as_bytes()
}

/// Whether an answer's proof is good. Compares in constant time.
#[must_use]
pub fn check_answer(
    token: &Token,
    session: SessionId,
    requester: u32,
    responder: u32,
    windows: &[u8],
    proof: &[u8; QUEUE_PROOF_BYTES],
) -> bool {
    answer_hash(token, session, requester, responder, windows) == *proof
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_its_session_and_queue_pair_only() {
        let tokens = [Token::from_bytes(&[1; 32]), Token::from_bytes(&[2; 32])];
        let (session, other) = (SessionId::from_bytes([3; 16]), SessionId::from_bytes([4; 16]));
        let proof = prove_request(&tokens[1], session, 17);
        assert_eq!(find_request(&tokens, session, 17, &proof), Some(1));
        assert_eq!(find_request(&tokens, session, 18, &proof), None);
        assert_eq!(find_request(&tokens, other, 17, &proof), None);
        assert_eq!(find_request(&tokens[..1], session, 17, &proof), None);
        let answer = prove_answer(&tokens[1], session, 17, 21, b"windows");
        assert!(check_answer(&tokens[1], session, 17, 21, b"windows", &answer));
        assert!(!check_answer(&tokens[0], session, 17, 21, b"windows", &answer));
        assert!(!check_answer(&tokens[1], session, 17, 22, b"windows", &answer));
        assert!(!check_answer(&tokens[1], session, 17, 21, b"Windows", &answer));
        assert_ne!(proof, answer, "an answer cannot be made of a request");
    }
}
