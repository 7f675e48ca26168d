//! From the first byte to a secured stream: prefaces and Noise, the part that control and data streams share.
//!
//! ```text
//!  initiator   AwaitReply ──preface──▶ AwaitSecond ──message 2──▶ done
//!  responder   AwaitPreface ──preface──▶ AwaitFirst ──message 1──▶ done
//!                   └──preface (data)──▶ AwaitKeys ──provide_keys──▲
//! ```
//!
//! Done means for the initiator that the responder is authenticated. The responder knows no more than that message 1
//! was made with a key, perhaps long ago: it waits for the first record. What it has taken by then counts on: the
//! bound [`HANDSHAKE_BYTES_MAX`] covers the first record too.

use super::frame::{FrameReader, LENGTH_LEN, Piece, push_frame};
use super::key::Secret;
use super::noise::{Handshake, Secured};
use super::preface::{PREFACE_LEN, Preface, PrefaceKind, RefusalCode, VersionRange};
use super::{ControlError, HANDSHAKE_BYTES_MAX, HANDSHAKE_MESSAGE_MAX};
use crate::base::SessionId;

/// The handshake of one stream.
#[derive(Debug)]
pub(super) struct Opening {
    stage: Stage,
    intake: Intake,
}

/// Cuts what comes before authentication, and counts it.
#[derive(Debug, Default)]
pub(super) struct Intake {
    reader: FrameReader,
    taken: usize,
}

/// A secured stream.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) secured: Secured,
    pub(super) version: u16,
    /// Which of the keys fitted.
    pub(super) key_index: usize,
    pub(super) intake: Intake,
}

enum Stage {
    AwaitReply { own: Preface, key: Secret },
    AwaitSecond { noise: Handshake, version: u16 },
    AwaitPreface { kind: PrefaceKind, versions: VersionRange, keys: Option<Vec<Secret>> },
    AwaitKeys { own: Preface, peer: Preface, session: SessionId, version: u16 },
    AwaitFirst { prologue: Vec<u8>, keys: Vec<Secret>, version: u16 },
    Done,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AwaitReply { .. } => "AwaitReply",
            Self::AwaitSecond { .. } => "AwaitSecond",
            Self::AwaitPreface { .. } => "AwaitPreface",
            Self::AwaitKeys { .. } => "AwaitKeys",
            Self::AwaitFirst { .. } => "AwaitFirst",
            Self::Done => "Done",
        })
    }
}

impl Intake {
    fn take(&mut self, input: &mut &[u8], piece: Piece) -> Result<Option<Vec<u8>>, ControlError> {
        let before = input.len();
        let piece = self.reader.take(input, piece);
        self.taken += before - input.len();
        assert!(self.taken <= HANDSHAKE_BYTES_MAX, "no frame beyond the bound is begun");
        piece
    }

    /// The next frame of the handshake, within what is left of the bound.
    pub(super) fn take_frame(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, ControlError> {
        // Bytes of a frame that has begun are part of `taken`: the bound is on what came before it.
        let before = self.taken - self.reader.partial_len();
        let left = HANDSHAKE_BYTES_MAX - before - LENGTH_LEN;
        self.take(input, Piece::Frame { max: HANDSHAKE_MESSAGE_MAX.min(left), what: "handshake message" })
    }

    pub(super) fn into_reader(self) -> FrameReader {
        self.reader
    }
}

impl Opening {
    /// Appends the preface to `out` and waits for the reply.
    pub(super) fn initiate(own: Preface, key: Secret, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&own.to_bytes());
        Self { stage: Stage::AwaitReply { own, key }, intake: Intake::default() }
    }

    /// Waits for a preface. Without keys it then waits for them: see [`Opening::needs_keys`].
    pub(super) fn accept(kind: PrefaceKind, versions: VersionRange, keys: Option<Vec<Secret>>) -> Self {
        Self { stage: Stage::AwaitPreface { kind, versions, keys }, intake: Intake::default() }
    }

    /// The session whose tokens are needed to go on.
    pub(super) fn needs_keys(&self) -> Option<SessionId> {
        match &self.stage {
            Stage::AwaitKeys { session, .. } => Some(*session),
            Stage::AwaitReply { .. }
            | Stage::AwaitSecond { .. }
            | Stage::AwaitPreface { .. }
            | Stage::AwaitFirst { .. }
            | Stage::Done => None,
        }
    }

    /// Goes on with these keys, or refuses when there are none.
    pub(super) fn provide_keys(&mut self, keys: Vec<Secret>, out: &mut Vec<u8>) -> Result<(), ControlError> {
        let Stage::AwaitKeys { own, peer, version, .. } = &self.stage else {
            panic!("keys provided in {:?}, which waits for none", self.stage);
        };
        if keys.is_empty() {
            let code = RefusalCode::UnknownSession;
            out.extend_from_slice(&Preface { refusal: Some(code), ..*own }.to_bytes());
            return Err(ControlError::Preface {
                why: "no token waits for the session that the stream names".into(),
            });
        }
        out.extend_from_slice(&own.to_bytes());
        self.stage = Stage::AwaitFirst {
            prologue: prologue(&peer.to_bytes(), &own.to_bytes()),
            keys,
            version: *version,
        };
        Ok(())
    }

    /// Takes what it needs of `input`, appends what is to be sent to `out`. `None`: more bytes, or keys, are needed.
    /// After an error the caller drops it, having sent what is in `out`.
    pub(super) fn step(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Opened>, ControlError> {
        loop {
            let piece = match &self.stage {
                Stage::AwaitReply { .. } | Stage::AwaitPreface { .. } => {
                    self.intake.take(input, Piece::Exact(PREFACE_LEN))?
                }
                Stage::AwaitSecond { .. } | Stage::AwaitFirst { .. } => self.intake.take_frame(input)?,
                Stage::AwaitKeys { .. } if input.is_empty() => return Ok(None),
                Stage::AwaitKeys { .. } => {
                    return Err(ControlError::Preface {
                        why: "bytes beyond the preface before its reply".into(),
                    });
                }
                Stage::Done => panic!("a finished handshake is not fed"),
            };
            let Some(piece) = piece else { return Ok(None) };
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::AwaitReply { own, key } => {
                    self.stage = answer_reply(own, &key, &preface_bytes(&piece), out)?
                }
                Stage::AwaitPreface { kind, versions, keys } => {
                    self.stage = answer_preface(kind, versions, keys, &preface_bytes(&piece), out)?;
                }
                Stage::AwaitSecond { mut noise, version } => {
                    if let [code] = piece[..] {
                        return Err(refused(RefusalCode::from_code(code)?));
                    }
                    noise.read(&piece)?;
                    return self.opened(noise, version, 0).map(Some);
                }
                Stage::AwaitFirst { prologue, keys, version } => {
                    let (noise, key_index) = answer_first(&prologue, &keys, &piece, out)?;
                    return self.opened(noise, version, key_index).map(Some);
                }
                Stage::AwaitKeys { .. } | Stage::Done => panic!("these stages take no piece"),
            }
        }
    }

    fn opened(&mut self, noise: Handshake, version: u16, key_index: usize) -> Result<Opened, ControlError> {
        Ok(Opened { secured: noise.finish()?, version, key_index, intake: std::mem::take(&mut self.intake) })
    }
}

fn preface_bytes(piece: &[u8]) -> [u8; PREFACE_LEN] {
    piece.try_into().expect("the reader cut as many bytes as it was told")
}

fn prologue(initiator: &[u8; PREFACE_LEN], responder: &[u8; PREFACE_LEN]) -> Vec<u8> {
    [&initiator[..], &responder[..]].concat()
}

/// A refusal for want of a common key is the same error on both sides.
fn refused(code: RefusalCode) -> ControlError {
    match code {
        RefusalCode::Authentication => ControlError::Authentication,
        RefusalCode::Version | RefusalCode::UnknownSession | RefusalCode::Busy => ControlError::Refused(code),
    }
}

/// Initiator: the responder's preface came.
fn answer_reply(
    own: Preface,
    key: &Secret,
    reply: &[u8; PREFACE_LEN],
    out: &mut Vec<u8>,
) -> Result<Stage, ControlError> {
    let peer = Preface::parse(reply)?;
    match peer.refusal {
        Some(RefusalCode::Version) => {
            return Err(ControlError::Versions { peer: peer.versions, own: own.versions });
        }
        Some(code) => return Err(refused(code)),
        None => {}
    }
    if peer.kind != own.kind || peer.session.is_some() {
        return Err(ControlError::Preface { why: "the reply is of another kind than what was sent".into() });
    }
    let Some(version) = own.versions.common(peer.versions) else {
        return Err(ControlError::Versions { peer: peer.versions, own: own.versions });
    };
    let mut noise = Handshake::initiator(key, &prologue(&own.to_bytes(), reply))?;
    push_frame(out, &noise.write()?);
    Ok(Stage::AwaitSecond { noise, version })
}

/// Responder: the initiator's preface came.
fn answer_preface(
    kind: PrefaceKind,
    versions: VersionRange,
    keys: Option<Vec<Secret>>,
    bytes: &[u8; PREFACE_LEN],
    out: &mut Vec<u8>,
) -> Result<Stage, ControlError> {
    let peer = Preface::parse(bytes)?;
    let malformed = |why: String| Err(ControlError::Preface { why });
    if peer.kind != kind {
        return malformed(format!("a {:?} stream where {kind:?} was expected", peer.kind));
    }
    if peer.refusal.is_some() {
        return malformed("a refusal from the side that connects".into());
    }
    let own = Preface { kind, refusal: None, versions, session: None };
    let Some(version) = versions.common(peer.versions) else {
        out.extend_from_slice(&Preface { refusal: Some(RefusalCode::Version), ..own }.to_bytes());
        return Err(ControlError::Versions { peer: peer.versions, own: versions });
    };
    match (keys, peer.session) {
        (Some(keys), None) => {
            out.extend_from_slice(&own.to_bytes());
            Ok(Stage::AwaitFirst { prologue: prologue(bytes, &own.to_bytes()), keys, version })
        }
        (None, Some(session)) => Ok(Stage::AwaitKeys { own, peer, session, version }),
        (None, None) => malformed("a data stream that names no session".into()),
        (Some(_), Some(_)) => malformed("a control stream that names a session".into()),
    }
}

/// Responder: message 1 came.
fn answer_first(
    prologue: &[u8],
    keys: &[Secret],
    message: &[u8],
    out: &mut Vec<u8>,
) -> Result<(Handshake, usize), ControlError> {
    for (index, key) in keys.iter().enumerate() {
        let mut noise = Handshake::responder(key, prologue)?;
        match noise.read(message) {
            Ok(()) => {
                push_frame(out, &noise.write()?);
                return Ok((noise, index));
            }
            Err(ControlError::Authentication) => {}
            Err(error) => return Err(error),
        }
    }
    push_frame(out, &[RefusalCode::Authentication.code()]);
    Err(ControlError::Authentication)
}
