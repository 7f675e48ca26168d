//! What etcd says, and what anybody else might.

use proptest::prelude::*;

use super::*;
use crate::cluster::Configuration;

const KEY: &str = "/mirrorbus/00112233445566778899aabbccddeeff";
const DATASET: &str = "00112233445566778899aabbccddeeff";
/// As etcd 3.4 says it.
const HEADER: &str = r#""header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952","revision":"9","raft_term":"2"}"#;

fn entry() -> Entry {
    let configuration = Configuration {
        id: 7,
        members: vec!["alpha".into(), "beta".into()],
        primary: "beta".into(),
        floor: 3,
    };
    Entry { configuration: Some(configuration), nonce: Some(u64::MAX), locked: None }
}

/// A range's answer with this for the value.
fn answer(value: &str) -> String {
    let key = base64::encode(KEY.as_bytes());
    format!(
        r#"{{{HEADER},"kvs":[{{"key":"{key}","create_revision":"2","mod_revision":"8","version":"3","value":"{value}"}}],"count":"1"}}"#
    )
}

fn found(body: &str) -> Result<Found, Unreadable> {
    read_range(body.as_bytes(), KEY, DATASET)
}

#[test]
fn a_register_is_read_as_it_was_written() {
    let written = txn(KEY, DATASET, &entry(), 8);
    assert_eq!(written["compare"][0]["mod_revision"], "8");
    let found = found(&answer(written["success"][0]["request_put"]["value"].as_str().unwrap())).unwrap();
    assert_eq!((found.entry, found.revision), (Some(entry()), 8));
    let Header { cluster_id, revision, raft_term } = found.header;
    assert_eq!((cluster_id, revision, raft_term), (324_952_591_200_643_719, 9, 2));
}

#[test]
fn a_key_that_is_not_there_is_told_without_any() {
    let nothing = found(&format!("{{{HEADER}}}")).unwrap();
    assert_eq!((nothing.entry, nothing.revision), (None, 0));
    assert_eq!(range(KEY)["serializable"], false);
}

#[test]
fn what_is_no_answer() {
    let other = answer("e30=").replace(&base64::encode(KEY.as_bytes()), "Zm9v");
    let twice = answer("e30=").replace("\"kvs\":[", "\"kvs\":[{\"key\":\"Zm9v\",\"mod_revision\":\"1\"},");
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "not found",
        "{\"header\":{}}",
        "{\"header\":{\"cluster_id\":\"x\",\"revision\":\"9\",\"raft_term\":\"2\"}}",
        "{\"header\":{\"cluster_id\":\"-1\",\"revision\":\"9\",\"raft_term\":\"2\"}}",
        "{\"header\":{\"cluster_id\":\"1\",\"revision\":\"18446744073709551616\",\"raft_term\":\"2\"}}",
        &format!("{{{HEADER},\"kvs\":7}}"),
        &other,
        &twice,
        &answer("e30=").replace("\"mod_revision\":\"8\",", ""),
        &answer("e30=").replace("\"mod_revision\":\"8\"", "\"mod_revision\":\"0\""),
        &answer("not base64"),
        &"[".repeat(60_000),
    ] {
        assert!(matches!(found(body), Err(Unreadable::Answer(_))), "{body:.200}");
    }
    assert!(read_txn(b"{\"succeeded\":true}").is_err());
    assert!(read_txn(b"").is_err());
}

#[test]
fn what_is_no_register() {
    let other = json!(Stored { dataset: "0".repeat(32), entry: entry() }).to_string();
    for value in ["", "{}", "hello", "\u{0}\u{1}", &other, "{\"dataset\":7}"] {
        let body = answer(&base64::encode(value.as_bytes()));
        assert!(matches!(found(&body), Err(Unreadable::Register(_))), "{value:?}");
    }
}

#[test]
fn whether_a_txn_wrote() {
    let body = format!("{{{HEADER},\"succeeded\":true,\"responses\":[{{\"response_put\":{{}}}}]}}");
    assert!(read_txn(body.as_bytes()).unwrap().1);
    let (header, written) = read_txn(format!("{{{HEADER}}}").as_bytes()).unwrap();
    assert_eq!((header.revision, written), (9, false));
}

#[test]
fn a_refusal_has_its_text_under_either_name() {
    for body in [
        r#"{"error":"etcdserver: permission denied","message":"etcdserver: permission denied","code":7}"#,
        r#"{"message":"etcdserver: permission denied","code":7}"#,
    ] {
        let fault = Fault::parse(body.as_bytes()).unwrap();
        assert_eq!((fault.code, fault.text().as_str()), (7, "etcdserver: permission denied"));
    }
    let long = format!("{{\"code\":8,\"error\":\"{}\"}}", "x\\n".repeat(9999));
    assert_eq!(Fault::parse(long.as_bytes()).unwrap().text(), "x".repeat(200));
    assert!(Fault::parse(b"<html>").is_none() && Fault::parse(b"{\"code\":-1}").is_none());
}

#[test]
fn a_token_is_one_word() {
    assert_eq!(read_token(b"{\"token\":\"abc.7\"}").unwrap(), "abc.7");
    for body in ["{\"token\":\"a\\r\\nx: y\"}", "{\"token\":\"\"}", "{\"token\":7}", "{}"] {
        assert!(read_token(body.as_bytes()).is_err(), "{body}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_range(&bytes, KEY, DATASET);
        let _ = read_txn(&bytes);
        let _ = read_token(&bytes);
        let _ = Fault::parse(&bytes).map(|fault| fault.text());
    }

    #[test]
    fn edits_of_an_answer(at in 0..400_usize, new in "\\PC{0,4}") {
        let written = txn(KEY, DATASET, &entry(), 8);
        let mut body = answer(written["success"][0]["request_put"]["value"].as_str().unwrap());
        let at = at.min(body.len() - 4);
        body.replace_range(at..at + 4, &new);
        if let Ok(found) = found(&body) {
            // Whatever came of it, it is a register or none.
            prop_assert!(found.entry.is_some() == (found.revision > 0));
        }
    }
}
