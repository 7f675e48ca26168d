//! What is said to the gateway and what it says, as JSON. What comes from there is a stranger's: nothing of it is asserted.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::base64;
use crate::cluster::Entry;

/// An etcd in one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) cluster_id: u64,
    /// Rises with each write.
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
    /// Rises with each election of a leader.
    #[serde(deserialize_with = "number")]
    pub(super) raft_term: u64,
}

/// What a register holds, and since which revision: 0 for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) entry: Option<Entry>,
    pub(super) revision: u64,
}

/// Why an answer says nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not of etcd's language.
    Answer(String),
    /// It is, and what is kept at the key is no register of this dataset.
    Register(String),
}

/// A refusal.
#[derive(Debug, Deserialize)]
pub(super) struct Fault {
    /// Of gRPC.
    pub(super) code: u32,
    #[serde(alias = "message", default)]
    error: Option<Value>,
}

impl Fault {
    /// Reads one; `None` if it is none.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        // It has both names for the text, which is no field twice.
        let mut value: Value = serde_json::from_slice(body).ok()?;
        let fields = value.as_object_mut()?;
        if fields.contains_key("error") {
            fields.remove("message");
        }
        serde_json::from_value(value).ok()
    }

    /// In words, and not more than a line of them.
    pub(super) fn text(&self) -> String {
        let text = self.error.as_ref().and_then(Value::as_str).unwrap_or("it does not say why");
        text.chars().filter(|letter| !letter.is_control()).take(200).collect()
    }
}

#[derive(Deserialize)]
struct RangeAnswer {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(deserialize_with = "number")]
    mod_revision: u64,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct TxnAnswer {
    header: Header,
    /// It is left out where it is false.
    #[serde(default)]
    succeeded: bool,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: String,
}

/// A register as etcd keeps it.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The key says it as well; one that was copied is found out.
    dataset: String,
    entry: Entry,
}

/// Asks for what is at the key. That etcd asks a majority first, so that nothing older than the last write is told, is how it reads unless it is
/// told otherwise.
pub(super) fn range(key: &str) -> Value {
    json!({ "key": base64::encode(key.as_bytes()), "limit": 1, "serializable": false })
}

/// What a range found.
pub(super) fn read_range(body: &[u8], key: &str, dataset: &str) -> Result<Found, Unreadable> {
    let answer: RangeAnswer =
        serde_json::from_slice(body).map_err(|error| Unreadable::Answer(error.to_string()))?;
    let header = answer.header;
    let Some(found) = answer.kvs.first() else { return Ok(Found { header, entry: None, revision: 0 }) };
    if found.key != base64::encode(key.as_bytes()) || answer.kvs.len() > 1 || found.mod_revision == 0 {
        return Err(Unreadable::Answer("it has another key than was asked for".into()));
    }
    let value =
        base64::decode(&found.value).ok_or_else(|| Unreadable::Answer("a value is no base64".into()))?;
    let stored: Stored =
        serde_json::from_slice(&value).map_err(|error| Unreadable::Register(error.to_string()))?;
    if stored.dataset != dataset {
        return Err(Unreadable::Register(format!("it is that of dataset {:?}", stored.dataset)));
    }
    Ok(Found { header, entry: Some(stored.entry), revision: found.mod_revision })
}

/// Writes a register, if it is as it was at `revision`.
pub(super) fn txn(key: &str, dataset: &str, entry: &Entry, revision: u64) -> Value {
    let key = base64::encode(key.as_bytes());
    let stored = json!(Stored { dataset: dataset.to_owned(), entry: entry.clone() });
    let value = base64::encode(stored.to_string().as_bytes());
    json!({
        "compare": [{ "target": "MOD", "result": "EQUAL", "key": key, "mod_revision": revision.to_string() }],
        "success": [{ "request_put": { "key": key, "value": value } }],
    })
}

/// Whether a txn wrote.
pub(super) fn read_txn(body: &[u8]) -> Result<(Header, bool), String> {
    let answer: TxnAnswer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok((answer.header, answer.succeeded))
}

/// Asks for a token.
pub(super) fn authenticate(user: &str, password: &str) -> Value {
    json!({ "name": user, "password": password })
}

/// The token.
pub(super) fn read_token(body: &[u8]) -> Result<String, String> {
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let is_sound =
        (1..=4096).contains(&answer.token.len()) && answer.token.bytes().all(|byte| byte.is_ascii_graphic());
    is_sound.then_some(answer.token).ok_or_else(|| "it is no token".into())
}

/// A number of 64 bits: the gateway writes these as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| serde::de::Error::custom("a number was expected"))
}

#[cfg(test)]
#[path = "language_tests.rs"]
mod tests;
