//! The first meeting: who gives, who takes, and the proof.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::call::CallError;
use super::data_stream::{Dialer, Reach};
#[cfg(feature = "rdma")]
use super::rdma::RdmaLink;
use super::session::Session;
use super::transfer::{Piece, transfer};
use super::{Attach, OpenError, RegionConfig};
use crate::base::{Deadline, FabricUrl, Generation, LifeId, RegionId, Unsupported};
use crate::fabric::{Access, Grant, Operation, WindowId};
use crate::mirror::RegionCore;
use crate::node::message::{AttachMode, AttachRequest, DIGEST_CHUNK_BYTES, DIGESTS_MAX, Granted, Message};
use crate::node::{REGION_WINDOW, STAGING_WINDOW};

/// Requests that a bulk transfer keeps under way.
pub(super) const BULK_DEPTH: usize = 64;

/// A session with what it was granted.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) session: Arc<Session>,
    pub(super) dialer: Dialer,
    pub(super) life: LifeId,
    pub(super) generation: Generation,
    pub(super) region: RegionId,
}

impl Attachment {
    /// Makes the grant of a session into something that queues can be dialed from.
    pub(super) fn new(
        session: Arc<Session>,
        url: &FabricUrl,
        core: &Arc<RegionCore>,
        granted: &Granted,
    ) -> Result<Self, CallError> {
        let local = core.memory().clone();
        let bytes = |value: u64| {
            usize::try_from(value)
                .map_err(|_| CallError::Confused(format!("a window of {value} bytes was granted")))
        };
        let generation = Generation(granted.generation);
        if granted.size != local.len() as u64 {
            let why =
                format!("a window of {} bytes was granted, the region has {}", granted.size, local.len());
            return Err(CallError::Confused(why));
        }
        let window = |window, len| Grant { window, generation, len, access: Access::ReadWrite };
        let mut grants = vec![window(REGION_WINDOW, bytes(granted.size)?)];
        if granted.staging > 0 {
            grants.push(window(STAGING_WINDOW, bytes(granted.staging)?));
        }
        let durable = match &granted.not_durable {
            None => Ok(()),
            Some(why) => Err(Unsupported { what: "Durable".into(), why: why.clone() }),
        };
        #[cfg(feature = "rdma")]
        let rdma = match url {
            FabricUrl::Rdma { .. } => Some(RdmaLink::new(&session, local.clone(), Arc::downgrade(core))?),
            _ => None,
        };
        let dialer = Dialer {
            url: url.clone(),
            local,
            grants,
            durable,
            peers: OnceLock::new(),
            #[cfg(feature = "rdma")]
            rdma,
        };
        Ok(Self {
            session,
            dialer,
            life: LifeId::from_bytes(granted.life),
            generation,
            region: RegionId::from_bytes(granted.region),
        })
    }
}

/// Asks to attach and carries out what was agreed.
pub(super) fn attach(
    core: &Arc<RegionCore>,
    config: &RegionConfig,
    session: Arc<Session>,
) -> Result<Attachment, OpenError> {
    let mut deadline = Deadline::within(config.timeout);
    let mode = match config.attach {
        Attach::Push { replace: false } => AttachMode::Push,
        Attach::Push { replace: true } => AttachMode::PushReplace,
        Attach::Pull => AttachMode::Pull,
        Attach::Equal => AttachMode::Equal,
    };
    let region = match (config.id, mode) {
        (Some(id), _) => id.to_bytes(),
        (None, AttachMode::Push | AttachMode::PushReplace) => crate::node::random_bytes()?,
        (None, _) => [0; 16],
    };
    let request = AttachRequest {
        mode,
        region,
        size: config.size as u64,
        prior_session: [0; 16],
        life: [0; 16],
        generation: 0,
        staging: 0,
    };
    let granted =
        match session.call(&mut deadline, |number| Message::Attach { request: number, attach: request })? {
            Message::Granted { granted, .. } => granted,
            other => return Err(CallError::Confused(format!("{other:?}")).into()),
        };
    let attachment = Attachment::new(session, &config.url, core, &granted)?;
    if let Some(ours) = config.id
        && ours != attachment.region
    {
        return Err(OpenError::OtherRegion { ours, theirs: attachment.region });
    }
    match config.attach {
        Attach::Push { .. } => move_all(core, config, &attachment, Operation::Write)?,
        Attach::Pull => move_all(core, config, &attachment, Operation::Read)?,
        Attach::Equal => compare(core, config, &attachment)?,
    }
    // The holder brings what was pushed to its disk, at 16 MiB a second at least.
    let syncing = Duration::from_secs((config.size >> 24) as u64);
    let mut deadline = Deadline::within(config.timeout.saturating_add(syncing));
    attachment.session.done(&mut deadline, |request| Message::Complete { request })?;
    Ok(attachment)
}

fn move_all(
    core: &RegionCore,
    config: &RegionConfig,
    attachment: &Attachment,
    operation: Operation,
) -> Result<(), CallError> {
    let mut deadline = Deadline::within(config.timeout);
    let mut queue = attachment.dialer.queue(&attachment.session, Reach::All, BULK_DEPTH, &mut deadline)?;
    let whole = Piece { local_offset: 0, remote_offset: 0, len: config.size };
    transfer(core, &mut *queue, operation, WindowId(REGION_WINDOW.0), [whole], config.timeout)
}

fn compare(core: &RegionCore, config: &RegionConfig, attachment: &Attachment) -> Result<(), OpenError> {
    let chunks = config.size.div_ceil(DIGEST_CHUNK_BYTES);
    let mut differing = 0;
    let mut first_offset = None;
    for first in (0..chunks).step_by(DIGESTS_MAX) {
        let count = DIGESTS_MAX.min(chunks - first);
        let number =
            |value: usize| u32::try_from(value).map_err(|_| CallError::Confused("too many chunks".into()));
        let (first_number, count_number) = (number(first)?, number(count)?);
        let mut deadline = Deadline::within(config.timeout);
        let answer = attachment.session.call(&mut deadline, |request| Message::Digest {
            request,
            first: first_number,
            count: count_number,
        })?;
        let Message::Digests { digests, .. } = answer else {
            return Err(CallError::Confused(format!("{answer:?}")).into());
        };
        if digests.len() != count {
            return Err(CallError::Confused(format!("{} digests of {count} came", digests.len())).into());
        }
        for (index, theirs) in digests.iter().enumerate() {
            let offset = (first + index) * DIGEST_CHUNK_BYTES;
            if *theirs != crate::node::chunk_digest(core.memory(), offset) {
                differing += 1;
                first_offset.get_or_insert(offset);
            }
        }
    }
    first_offset.map_or(Ok(()), |first_offset| Err(OpenError::Different { differing, chunks, first_offset }))
}
