//! What is said over the admin socket.

use serde::{Deserialize, Serialize};

use super::{
    AdminError, ErrorCode, Event, NodeStatus, ScrubReport, StopReport, SwitchReport, VerifyReport,
    VolumeStatus,
};

/// What is asked. One line of JSON; keys that mean nothing are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How is it?
    Status {},
    /// Which volumes are there?
    VolumeList {
        /// Of one dataset, or of all.
        #[serde(default)]
        dataset: Option<String>,
    },
    /// Make a volume.
    VolumeCreate {
        /// Where.
        dataset: String,
        /// What it is called.
        name: String,
        /// Its size: whole blocks.
        bytes: u64,
        /// Its blocks: 512 or 4096 bytes.
        block_bytes: u32,
    },
    /// Give a volume another size.
    VolumeResize {
        /// Where.
        dataset: String,
        /// Which.
        name: String,
        /// The new size.
        bytes: u64,
    },
    /// End a volume and all in it.
    VolumeDelete {
        /// Where.
        dataset: String,
        /// Which.
        name: String,
    },
    /// Become primary.
    Promote {
        /// Of what.
        dataset: String,
        /// Even if what was acknowledged and not flushed may be lost.
        #[serde(default)]
        flushed_only: bool,
    },
    /// Go on without the peer.
    Alone {
        /// With what.
        dataset: String,
    },
    /// Let a new and empty node take the peer's place.
    ReplacePeer {
        /// Of what.
        dataset: String,
    },
    /// Give the mediator this node's configuration.
    Seed {
        /// Of what.
        dataset: String,
    },
    /// Hand the service over to the other node.
    Switch {
        /// Of what; may be left out where there is one only.
        #[serde(default)]
        dataset: Option<String>,
    },
    /// May this node be stopped now?
    CanStop {
        /// As for one dataset, or for all.
        #[serde(default)]
        dataset: Option<String>,
    },
    /// Compare all that is stored with its checksums.
    Scrub {
        /// Of what.
        dataset: String,
        /// Write what is bad again from the peer's data.
        #[serde(default = "yes")]
        repair: bool,
    },
    /// Compare what both nodes have stored.
    Verify {
        /// Of what.
        dataset: String,
        /// Of one volume, or of all.
        #[serde(default)]
        volume: Option<String>,
        /// Write what is bad on one node again from the other's data.
        #[serde(default)]
        repair: bool,
    },
    /// What happened?
    Events {
        /// After the event of this number.
        #[serde(default)]
        since: u64,
        /// And tell what happens from now on, until the connection is closed.
        #[serde(default)]
        follow: bool,
    },
    /// End in good order.
    Stop {},
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// It is done.
    Done {},
    /// So it is.
    Status(Box<NodeStatus>),
    /// These are the volumes.
    Volumes {
        /// By dataset.
        datasets: Vec<DatasetVolumes>,
    },
    /// The other node serves.
    Switched(SwitchReport),
    /// It may, or not.
    CanStop(StopReport),
    /// This was found.
    Scrubbed(ScrubReport),
    /// This was found.
    Verified(VerifyReport),
    /// This happened.
    Events {
        /// Oldest first.
        events: Vec<Event>,
        /// What to ask for next: the number of the last, or what was asked for when there is none.
        next: u64,
    },
    /// It was not done.
    Error(AdminError),
}

/// The volumes of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetVolumes {
    /// The dataset's name.
    pub dataset: String,
    /// Its volumes.
    pub volumes: Vec<VolumeStatus>,
}

impl Request {
    /// The request that `line` is.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] with what is wrong, and what is allowed.
    pub fn decode(line: &[u8]) -> Result<Self, AdminError> {
        let refuse = |why: String| AdminError::new(ErrorCode::BadRequest, format!("no request: {why}"));
        let request: Self = serde_json::from_slice(line).map_err(|error| refuse(error.to_string()))?;
        match &request {
            Self::VolumeCreate { block_bytes, .. } if ![512, 4096].contains(block_bytes) => {
                Err(refuse(format!("block_bytes is {block_bytes}: 512 or 4096")))
            }
            Self::VolumeCreate { bytes: 0, .. } | Self::VolumeResize { bytes: 0, .. } => {
                Err(refuse("bytes is 0: at least one block".into()))
            }
            _ => Ok(request),
        }
    }

    /// As a line, with its end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }

    /// Whether carrying it out may take long.
    #[must_use]
    pub const fn may_take_long(&self) -> bool {
        match self {
            Self::Status {} | Self::VolumeList { .. } | Self::Events { .. } | Self::Stop {} => false,
            Self::VolumeCreate { .. }
            | Self::VolumeResize { .. }
            | Self::VolumeDelete { .. }
            | Self::Promote { .. }
            | Self::Alone { .. }
            | Self::ReplacePeer { .. }
            | Self::Seed { .. }
            | Self::Switch { .. }
            | Self::CanStop { .. }
            | Self::Scrub { .. }
            | Self::Verify { .. } => true,
        }
    }
}

impl Reply {
    /// The reply that `line` is.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }

    /// As a line, with its end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        line(self)
    }
}

impl From<Result<(), AdminError>> for Reply {
    fn from(result: Result<(), AdminError>) -> Self {
        match result {
            Ok(()) => Self::Done {},
            Err(error) => Self::Error(error),
        }
    }
}

const fn yes() -> bool {
    true
}

/// `value` as a line. JSON writes a line's end within a text as `\n`, so there is one in the end only.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("texts, numbers and lists can be written as JSON");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_text() {
        let name = || "a\n\"b\"".to_owned();
        for request in [
            Request::Status {},
            Request::VolumeList { dataset: None },
            Request::VolumeCreate { dataset: name(), name: name(), bytes: u64::MAX, block_bytes: 512 },
            Request::VolumeResize { dataset: name(), name: name(), bytes: 1 },
            Request::VolumeDelete { dataset: name(), name: name() },
            Request::Promote { dataset: name(), flushed_only: true },
            Request::Alone { dataset: name() },
            Request::ReplacePeer { dataset: name() },
            Request::Seed { dataset: name() },
            Request::Switch { dataset: Some(name()) },
            Request::CanStop { dataset: Some(name()) },
            Request::Scrub { dataset: name(), repair: false },
            Request::Verify { dataset: name(), volume: Some(name()), repair: true },
            Request::Events { since: u64::MAX, follow: true },
            Request::Stop {},
        ] {
            let line = request.encode();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(Request::decode(&line), Ok(request));
        }
        let scrub = r#"{"request":"scrub","dataset":"a"}"#;
        let repairs = Request::Scrub { dataset: "a".into(), repair: true };
        assert_eq!(Request::decode(scrub.as_bytes()), Ok(repairs));
        let events = r#"{"request":"events"}"#;
        assert_eq!(Request::decode(events.as_bytes()), Ok(Request::Events { since: 0, follow: false }));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (line, words) in [
            ("", "EOF"),
            ("status", "expected value"),
            ("{}", "missing field `request`"),
            (r#"{"request":"frobnicate"}"#, "unknown variant `frobnicate`, expected one of `status`"),
            (r#"{"request":"status","verbose":true}"#, "unknown field `verbose`"),
            (r#"{"request":"promote"}"#, "missing field `dataset`"),
            (r#"{"request":"promote","dataset":"a","flushed":true}"#, "unknown field `flushed`"),
            (r#"{"request":"promote","dataset":7}"#, "invalid type: integer `7`"),
            (r#"{"request":"status"} {"request":"stop"}"#, "trailing characters"),
            (
                r#"{"request":"volume-create","dataset":"a","name":"b","bytes":1,"block_bytes":7}"#,
                "512 or 4096",
            ),
            (r#"{"request":"volume-resize","dataset":"a","name":"b","bytes":0}"#, "bytes is 0"),
            (r#"{"request":"volume-resize","dataset":"a","name":"b","bytes":-1}"#, "invalid value"),
        ] {
            let error = Request::decode(line.as_bytes()).expect_err(line);
            assert!(error.code == ErrorCode::BadRequest && error.text.contains(words), "{line}: {error}");
        }
        assert!(Request::decode("[".repeat(60_000).as_bytes()).is_err());
        assert!(Request::decode(b"{\"request\":\"\xff\"}").is_err());
    }

    #[test]
    fn replies_survive_text() {
        let event = Event { sequence: 1, time_ms: 2, dataset: None, kind: "k".into(), text: "t\n".into() };
        for reply in [
            Reply::Done {},
            Reply::Status(Box::new(super::super::testing::status())),
            Reply::Volumes { datasets: vec![DatasetVolumes { dataset: "a".into(), volumes: Vec::new() }] },
            Reply::Switched(SwitchReport { dataset: "a".into(), to: "b".into(), held_us: 1 }),
            Reply::CanStop(StopReport { can_stop: true, ..StopReport::default() }),
            Reply::Scrubbed(ScrubReport { damage: vec!["x".into()], ..ScrubReport::default() }),
            Reply::Verified(VerifyReport { differing_blocks: 1, ..VerifyReport::default() }),
            Reply::Events { events: vec![event], next: 1 },
            Reply::Error(AdminError::new(ErrorCode::NoSuchDataset, "no")),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
        let error = String::from_utf8(Reply::Error(AdminError::new(ErrorCode::NotPrimary, "no")).encode());
        assert_eq!(error.unwrap(), "{\"reply\":\"error\",\"code\":\"not-primary\",\"text\":\"no\"}\n");
        assert!(Reply::decode(b"{}").is_err());
    }

    #[test]
    fn a_status_has_the_keys_that_are_documented() {
        let status = serde_json::to_value(super::super::testing::status()).unwrap();
        let dataset = &status["datasets"][0];
        assert_eq!((&dataset["role"], &dataset["disk_state"]), (&"Primary".into(), &"UpToDate".into()));
        let documented = include_str!("../../../docs/operations.md");
        let mut pending = vec![status.clone()];
        while let Some(value) = pending.pop() {
            match value {
                serde_json::Value::Object(map) => {
                    for (key, value) in map {
                        assert!(documented.contains(&key), "docs/operations.md does not name {key}");
                        pending.push(value);
                    }
                }
                serde_json::Value::Array(values) => pending.extend(values),
                _ => {}
            }
        }
        // A newer node may say more.
        let mut newer = status;
        newer["load"] = 7.into();
        assert!(serde_json::from_value::<NodeStatus>(newer).is_ok());
    }
}
