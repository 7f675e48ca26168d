//! Messages survive their bytes, and no bytes do harm.

use super::*;
use proptest::prelude::*;

fn examples() -> Vec<Message> {
    let attach = AttachRequest {
        mode: AttachMode::Resume,
        region: [1; 16],
        size: 1 << 30,
        prior_session: [2; 16],
        life: [3; 16],
        generation: 4,
        staging: 5,
    };
    let granted =
        Granted { generation: 9, region: [1; 16], life: [3; 16], size: 7, staging: 0, not_durable: None };
    vec![
        Message::Attach { request: 1, attach },
        Message::OpenQueue { request: 2 },
        Message::Digest { request: 3, first: 4, count: 5 },
        Message::Complete { request: 4 },
        Message::Sync { request: 5 },
        Message::Apply { request: 6, last: true, ranges: vec![ByteRange { offset: 1, len: 2 }] },
        Message::Ask { request: 7, body: vec![] },
        Message::Ask { request: 7, body: b"who serves?".to_vec() },
        Message::Answer { request: 7, body: b"I do".to_vec() },
        Message::Granted { request: 7, granted: granted.clone() },
        Message::Granted { request: 7, granted: Granted { not_durable: Some("memory".into()), ..granted } },
        Message::Token { request: 8, token: [7; 32] },
        Message::Digests { request: 9, digests: vec![[1; 32], [2; 32]] },
        Message::Done { request: 10 },
        Message::Refused { request: 11, code: RefusalCode::Busy, why: "busy".into() },
        Message::Refused { request: 11, code: RefusalCode::NotNow, why: "it serves itself".into() },
        Message::Revoked { why: "fenced".into() },
    ]
}

#[test]
fn each_message_survives_its_bytes_and_no_truncation_does_harm() {
    for message in examples() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
        for end in 0..bytes.len() {
            if let Ok(shorter) = Message::decode(&bytes[..end]) {
                assert_ne!(shorter, message);
            }
        }
    }
}

#[test]
fn the_largest_list_fits_in_a_control_message() {
    let ranges = vec![ByteRange { offset: 0, len: 0 }; APPLY_RANGES_MAX];
    assert!(Message::Apply { request: 0, last: false, ranges }.encode().len() < 60 * 1024);
    assert!(Message::Digests { request: 0, digests: vec![[0; 32]; DIGESTS_MAX] }.encode().len() < 60 * 1024);
}

#[test]
fn a_question_has_a_bound() {
    let ask = |len| Message::Ask { request: 0, body: vec![7; len] };
    let answer = |len| Message::Answer { request: 0, body: vec![7; len] };
    for message in [ask(REQUEST_BYTES_MAX), answer(REQUEST_BYTES_MAX)] {
        let bytes = message.encode();
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        assert_eq!(Message::decode(&bytes), Ok(message));
    }
    for message in [ask(REQUEST_BYTES_MAX + 1), answer(REQUEST_BYTES_MAX + 1)] {
        let error = Message::decode(&message.encode()).unwrap_err().to_string();
        assert!(error.contains("longer than a question"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }
}
