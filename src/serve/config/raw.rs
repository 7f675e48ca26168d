//! The file as it is written: keys and kinds of values are right, and nothing else is. Each value has its place.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use toml::Spanned;

/// A text with its place.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) node: Spanned<Node>,
    #[serde(default)]
    pub(super) dataset: Vec<Dataset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Text,
    pub(super) admin: Text,
    pub(super) metrics: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dataset {
    pub(super) name: Text,
    pub(super) id: Text,
    pub(super) directory: Text,
    pub(super) key: Text,
    pub(super) listen: Text,
    pub(super) peer: Text,
    pub(super) region: Spanned<Size>,
    pub(super) segment: Option<Spanned<Size>>,
    pub(super) durability: Option<Text>,
    pub(super) reads: Option<Text>,
    pub(super) lock: Option<Spanned<Lock>>,
    #[serde(default)]
    pub(super) nbd: Vec<Text>,
    #[serde(rename = "on-promote")]
    pub(super) on_promote: Option<Spanned<Vec<Text>>>,
    #[serde(rename = "on-demote")]
    pub(super) on_demote: Option<Spanned<Vec<Text>>>,
    #[serde(rename = "hook-seconds")]
    pub(super) hook_seconds: Option<Spanned<i64>>,
    #[serde(rename = "hold-seconds")]
    pub(super) hold_seconds: Option<Spanned<i64>>,
    #[serde(rename = "after-hold")]
    pub(super) after_hold: Option<Text>,
    #[serde(rename = "silence-ms")]
    pub(super) silence_ms: Option<Spanned<i64>>,
    pub(super) tls: Option<Tls>,
    pub(super) mediator: Option<Mediator>,
    pub(super) etcd: Option<Etcd>,
    #[serde(default)]
    pub(super) volume: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) client_ca: Option<Text>,
    pub(super) required: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mediator {
    pub(super) address: Text,
    pub(super) key: Text,
    pub(super) preferred: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Etcd {
    pub(super) endpoints: Spanned<Vec<Text>>,
    pub(super) prefix: Option<Text>,
    pub(super) ca: Option<Text>,
    pub(super) certificate: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) user: Option<Text>,
    pub(super) password: Option<Text>,
    pub(super) preferred: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: Text,
    pub(super) size: Spanned<Size>,
    pub(super) block: Option<Spanned<Size>>,
}

/// Bytes: a number, or a text with a unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Size {
    Number(i64),
    Text(String),
}

/// Whether to lock: yes, no, or a word.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lock {
    Truth(bool),
    Text(String),
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"256MiB\" or 4096")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Size, E> {
        Ok(Size::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        Ok(Size::Text(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct LockVisitor;

impl Visitor<'_> for LockVisitor {
    type Value = Lock;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or \"try\"")
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Lock, E> {
        Ok(Lock::Truth(truth))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Lock, E> {
        Ok(Lock::Text(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Lock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LockVisitor)
    }
}
