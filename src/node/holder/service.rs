//! Carries out what an owner asks over its control connection.
//!
//! One thread per connection, so that a slow request (a sync, the digest of a large copy) holds up neither the
//! heartbeats nor another owner's refusal. Requests of one owner are carried out in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::links::Presence;
use super::state::{Content, Owner, Shared, State};
use super::streams::RECEIVERS_MAX;
use super::{apply, copy};
use crate::base::{Deadline, FabricUrl, Generation, RegionId, SessionId};
use crate::control::{CloseReason, Token};
use crate::fabric::shm::{GrantPage, LifeWord};
use crate::fabric::{Access, ExportedWindow};
use crate::mirror::ByteRange;
use crate::node::driver::Driver;
use crate::node::message::{AttachMode, AttachRequest, DIGESTS_MAX, Granted, Message, RefusalCode};
use crate::node::{REGION_WINDOW, STAGING_WINDOW};

/// Tokens handed out and not used.
pub(super) const TOKENS_MAX: usize = 64;
/// Ranges of one `Apply`, over all its messages: what 256 lanes of the greatest depth can have in flight.
const APPLY_ALL_MAX: usize = 1 << 20;
/// How long an attachment waits for the one before it to be revoked.
const REVOKE_TIME: Duration = Duration::from_secs(5);

/// Why a request is not carried out: told to the peer.
pub(super) type Refusal = (RefusalCode, String);

/// What serves one connection.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) driver: Arc<Driver>,
    pub(super) session: SessionId,
    pub(super) presence: Arc<Presence>,
}

impl Service {
    /// Serves until the inbox says that the connection ended.
    pub(super) fn run(&self, inbox: &Receiver<Option<Vec<u8>>>) {
        while let Ok(Some(body)) = inbox.recv() {
            let answer = match Message::decode(&body) {
                Ok(message) => self.carry_out(message),
                Err(error) => {
                    log::warn!("session {}: {error}", self.session);
                    continue;
                }
            };
            if let Some(answer) = answer
                && let Err(error) = self.driver.send(&answer.encode())
            {
                log::warn!("session {}: {error}", self.session);
                // Nobody would answer any more: the peer is to know.
                self.driver.close(CloseReason::Finished);
                return;
            }
        }
    }

    fn carry_out(&self, message: Message) -> Option<Message> {
        let (request, result) = match message {
            Message::Attach { request, attach } => {
                (request, self.attach(&attach).map(|granted| Message::Granted { request, granted }))
            }
            Message::OpenQueue { request } => {
                (request, self.token().map(|token| Message::Token { request, token }))
            }
            Message::Digest { request, first, count } => {
                (request, self.digests(first, count).map(|digests| Message::Digests { request, digests }))
            }
            Message::Complete { request } => (request, self.complete().map(|()| Message::Done { request })),
            Message::Sync { request } => (request, self.sync().map(|()| Message::Done { request })),
            Message::Apply { request, last, ranges } => {
                (request, self.apply(last, ranges).map(|()| Message::Done { request }))
            }
            Message::Ask { request, body } => {
                (request, self.answer(&body).map(|body| Message::Answer { request, body }))
            }
            other => {
                log::warn!("session {}: {other:?} is not for a holder", self.session);
                return None;
            }
        };
        Some(result.unwrap_or_else(|(code, why)| Message::Refused { request, code, why }))
    }

    pub(super) fn attach(&self, attach: &AttachRequest) -> Result<Granted, Refusal> {
        let shared = &self.shared;
        let fences = shared.lock().fences;
        self.may_attach(attach.mode)?;
        let mut state = shared.lock();
        if state.fences != fences {
            let why = "the holder was fenced while its application was asked: ask again".to_owned();
            return Err((RefusalCode::NotNow, why));
        }
        if self.presence.ended.load(Ordering::SeqCst) {
            // Nobody would end what is granted now, and it would keep every other owner out.
            return Err((RefusalCode::OutOfOrder, "its connection has ended".into()));
        }
        let size = shared.config.size as u64;
        if attach.size != size {
            let why = format!("this holder keeps {size} bytes, the region has {}", attach.size);
            return Err((RefusalCode::Size, why));
        }
        state.memory.check_whole().map_err(|error| {
            let why = format!("{error}; restore the file, or restart the holder on another");
            (RefusalCode::Resources, why)
        })?;
        check_mode(&state, attach)?;
        let supersedes = attach.mode == AttachMode::Resume;
        if let Some(owner) = &state.owner
            && owner.connected
            && !owner.silent
            && !supersedes
        {
            return Err((RefusalCode::Busy, format!("owner {} is connected", owner.session)));
        }
        let mut deadline = Deadline::within(REVOKE_TIME);
        // A device cannot be closed; its former owner is disconnected or silent, and the operator vouches for the rest.
        shared
            .revoke(&mut state, "another session attached", &mut deadline)
            .map_err(|error| (RefusalCode::Resources, error.to_string()))?;
        self.grant(&mut state, attach)
    }

    /// Makes this session the owner.
    fn grant(&self, state: &mut State, attach: &AttachRequest) -> Result<Granted, Refusal> {
        let shared = &self.shared;
        let resources = |error: &dyn std::fmt::Display| (RefusalCode::Resources, error.to_string());
        if let Some(file) = &shared.config.file {
            // One that could not be dropped would undo what is stored from now on.
            apply::forget(file).map_err(|error| resources(&error))?;
        }
        let generation = state.raise();
        let window = |id, memory| ExportedWindow::new(id, generation, Access::ReadWrite, memory);
        let mut windows = vec![window(REGION_WINDOW, state.memory.clone())];
        if attach.mode == AttachMode::Resume && attach.staging > 0 {
            let len = usize::try_from(attach.staging.min(attach.size)).map_err(|error| resources(&error))?;
            let staging = copy::memory_of(&shared.config, len).map_err(|error| resources(&error))?;
            windows.push(window(STAGING_WINDOW, Arc::new(staging)));
        }
        let page = self.grant_page(generation)?;
        let pushing = matches!(attach.mode, AttachMode::Push | AttachMode::PushReplace);
        if pushing {
            // On the disk first: when that fails the copy is what it was.
            let region = Some(RegionId::from_bytes(attach.region));
            if let Err(error) = shared.remember(state, Content::Partial, region) {
                let _ = shared.remember(state, state.content, state.region);
                return Err(resources(&error));
            }
            state.content = Content::Partial;
            state.region = region;
        }
        let resumes =
            (attach.mode == AttachMode::Resume).then(|| SessionId::from_bytes(attach.prior_session));
        if resumes.is_none() {
            state.resumable.clear();
        }
        self.presence.attached.store(true, Ordering::SeqCst);
        state.owner = Some(Owner {
            session: self.session,
            driver: self.driver.clone(),
            page,
            processes: Vec::new(),
            tokens: Vec::new(),
            receivers: Vec::new(),
            #[cfg(feature = "rdma")]
            export: matches!(shared.url, FabricUrl::Rdma { .. })
                .then(|| crate::fabric::verbs::Export::new(windows.clone())),
            // Either may have changed while the one before was revoked, and what is unchanged is not told again.
            connected: !self.presence.ended.load(Ordering::SeqCst),
            silent: self.presence.silent.load(Ordering::SeqCst),
            apply: Vec::new(),
            pushing,
            resumes,
            windows,
        });
        shared.note_change(state);
        let not_durable = shared.why_not_durable(&state.memory);
        Ok(Granted {
            generation: generation.0,
            region: state.region.map_or([0; 16], RegionId::to_bytes),
            life: state.life.to_bytes(),
            size: attach.size,
            staging: if attach.mode == AttachMode::Resume { attach.staging.min(attach.size) } else { 0 },
            not_durable,
        })
    }

    /// What says that the grant stands, to an owner that stores into this memory by its own processor.
    fn grant_page(&self, generation: Generation) -> Result<Option<(Arc<GrantPage>, LifeWord)>, Refusal> {
        let resources = |error: &dyn std::fmt::Display| (RefusalCode::Resources, error.to_string());
        if !matches!(self.shared.url, FabricUrl::Shm { .. }) {
            return Ok(None);
        }
        let page = GrantPage::new(generation).map(Arc::new).map_err(|error| resources(&error))?;
        let life = LifeWord::arm(page.clone()).map_err(|error| resources(&error))?;
        Ok(Some((page, life)))
    }

    /// The state, as long as this session is the owner.
    fn with_owner<T>(&self, action: impl FnOnce(&mut State) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut state = self.shared.lock();
        if state.owner_of(self.session).is_none() {
            return Err((RefusalCode::OutOfOrder, "this session is not attached".into()));
        }
        action(&mut state)
    }

    fn token(&self) -> Result<[u8; 32], Refusal> {
        self.with_owner(|state| {
            let bytes =
                crate::node::random_bytes().map_err(|error| (RefusalCode::Resources, error.to_string()))?;
            let Some(owner) = state.owner_of(self.session) else { unreachable!("checked by with_owner") };
            // Refused here, it costs the owner a lane; later, a stream that breaks off, and with it the link.
            let running = owner.queues();
            if running >= RECEIVERS_MAX {
                let why = format!("{running} queues are open, the most an owner may have: drop a lane first");
                return Err((RefusalCode::Resources, why));
            }
            if owner.tokens.len() >= TOKENS_MAX {
                owner.tokens.remove(0);
            }
            owner.tokens.push(Token::from_bytes(&bytes));
            Ok(bytes)
        })
    }

    fn digests(&self, first: u32, count: u32) -> Result<Vec<[u8; 32]>, Refusal> {
        let memory = self.with_owner(|state| Ok(state.memory.clone()))?;
        let chunk = crate::node::message::DIGEST_CHUNK_BYTES;
        let chunks = memory.len().div_ceil(chunk);
        let (first, count) = (first as usize, count as usize);
        if count > DIGESTS_MAX || first > chunks || count > chunks - first {
            let why = format!("chunks {first} to {} of {chunks} were asked for", first + count);
            return Err((RefusalCode::OutOfOrder, why));
        }
        Ok((first..first + count).map(|index| crate::node::chunk_digest(&memory, index * chunk)).collect())
    }

    /// Ends a push or a resumption. A push counts, over a loss of power too, only once its bytes are where its record is.
    fn complete(&self) -> Result<(), Refusal> {
        let pushed = self.with_owner(|state| {
            let session = self.session;
            let pushing = state.owner_of(session).is_some_and(|owner| owner.pushing);
            let syncs = pushing && state.sync_failed.is_none() && state.memory.is_durable_backing();
            Ok(syncs.then(|| state.memory.clone()))
        })?;
        if let Some(memory) = pushed
            && let Err(error) = self.shared.sync_copy(&memory)
        {
            // It is remembered, and nothing becomes durable any more.
            log::error!("what was pushed is not known to outlive the power: {error}");
        }
        self.with_owner(|state| {
            let session = self.session;
            let Some(owner) = state.owner_of(session) else { unreachable!("checked by with_owner") };
            let resumes = owner.resumes;
            if owner.pushing {
                let remembered = self.shared.remember(state, Content::Complete, state.region);
                remembered.map_err(|error| (RefusalCode::Resources, error.to_string()))?;
                state.content = Content::Complete;
                state.inexact = false;
                let Some(owner) = state.owner_of(session) else { unreachable!("checked by with_owner") };
                owner.pushing = false;
            }
            // An owner that does not hear the answer goes on from the session before.
            state.resumable = resumes.into_iter().chain([session]).collect();
            self.shared.note_change(state);
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), Refusal> {
        let memory = self.with_owner(|state| match &state.sync_failed {
            _ if self.shared.is_device() => {
                let why = self.shared.why_not_durable(&state.memory).unwrap_or_default();
                Err((RefusalCode::Unsupported, why))
            }
            Some(why) => {
                Err((RefusalCode::SyncFailed, format!("an earlier sync failed ({why}); it is not retried")))
            }
            None => Ok(state.memory.clone()),
        })?;
        self.shared.sync_copy(&memory).map_err(|error| {
            let unsupported = error.kind() == std::io::ErrorKind::Unsupported;
            let code = if unsupported { RefusalCode::Unsupported } else { RefusalCode::SyncFailed };
            (code, error.to_string())
        })
    }

    fn apply(&self, last: bool, ranges: Vec<ByteRange>) -> Result<(), Refusal> {
        self.with_owner(|state| {
            let memory = state.memory.clone();
            let Some(owner) = state.owner_of(self.session) else { unreachable!("checked by with_owner") };
            let staging = owner.windows.iter().find(|window| window.grant().window == STAGING_WINDOW);
            let staging =
                staging.ok_or_else(|| (RefusalCode::OutOfOrder, "there is no staging memory".to_owned()))?;
            let staging = staging.mapping().clone();
            let mut all = std::mem::take(&mut owner.apply);
            all.extend(ranges);
            let sum = all.iter().try_fold(0usize, |sum, range| sum.checked_add(range.len));
            let good = |range: &ByteRange| range.len > 0 && memory.slice().contains(range.offset, range.len);
            if !all.iter().all(good) || sum.is_none_or(|sum| sum > staging.len()) {
                let why = format!(
                    "{sum:?} bytes were staged in {}, or a range is empty or outside the region",
                    staging.len()
                );
                return Err((RefusalCode::OutOfOrder, why));
            }
            if all.len() > APPLY_ALL_MAX {
                let why = format!("{} ranges are to be applied, the limit is {APPLY_ALL_MAX}", all.len());
                return Err((RefusalCode::Resources, why));
            }
            if !last {
                owner.apply = all;
                return Ok(());
            }
            let refuse = |error: &dyn std::fmt::Display| (RefusalCode::Resources, error.to_string());
            if let Some(file) = &self.shared.config.file {
                apply::note(file, &all, staging.slice(), memory.len()).map_err(|error| refuse(&error))?;
            }
            apply::carry_out(&all, staging.slice(), 0, &memory);
            match &self.shared.config.file {
                Some(file) => apply::forget(file).map_err(|error| refuse(&error)),
                None => Ok(()),
            }
        })
    }
}

fn check_mode(state: &State, attach: &AttachRequest) -> Result<(), Refusal> {
    let whole = state.content == Content::Complete;
    match attach.mode {
        AttachMode::Push if whole => {
            let region = state.region.map(|region| region.to_string()).unwrap_or_default();
            let why = format!("it has a whole copy of region {region}: pull it, or push with replace");
            Err((RefusalCode::Occupied, why))
        }
        AttachMode::Push | AttachMode::PushReplace => Ok(()),
        AttachMode::Pull | AttachMode::Equal if !whole => {
            let why = format!("its copy is {:?}: there is nothing to pull or compare; push", state.content);
            Err((RefusalCode::Nothing, why))
        }
        AttachMode::Pull | AttachMode::Equal => Ok(()),
        AttachMode::Resume => {
            let same = state.life.to_bytes() == attach.life
                && state.resumable.iter().any(|session| session.to_bytes() == attach.prior_session);
            if same && whole {
                return Ok(());
            }
            let why =
                "the holder restarted, was fenced, or another owner attached since: open the region anew";
            Err((RefusalCode::NotResumable, why.into()))
        }
    }
}
