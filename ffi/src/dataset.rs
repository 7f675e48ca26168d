//! Datasets: what a node of a pair has, opened in this process.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_char, c_int};
use std::path::PathBuf;
use std::time::Duration;

use mirrorbus::base::{BlockSize, DatasetId};
use mirrorbus::segment::SegmentLayout;
use mirrorbus::store::{Dataset, DatasetConfig, Durability, ReplicationState, RoleStatus, VolumeSpec};

use crate::arguments::{self, check_target, deadline, needed};
use crate::codes::{Failure, mirrorbus_code};
use crate::forked;
use crate::guard::call;
use crate::table::{Table, pointer};
use crate::types::{mirrorbus_dataset_options, mirrorbus_dataset_status};

/// Looks at a dataset that is waited for are so far apart.
const LOOK_TIME: Duration = Duration::from_millis(2);

/// A dataset, open on this node.
pub struct mirrorbus_dataset {
    _opaque: [u8; 0],
}

pub(crate) static DATASETS: Table<Dataset, 64> = Table::new(0x94, "dataset");

pub(crate) fn number(dataset: *const mirrorbus_dataset) -> u64 {
    dataset.addr() as u64
}

/// Opens the directory, replays the log, and begins to look for the peer. Whether this node serves shows in the status a little later.
///
/// Durable on return: nothing new; all that was durable here before is there again. Threads: any, at any time.
///
/// # Safety
/// `options` is such a struct with its texts, `dataset` a place for the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_dataset_open(
    options: *const mirrorbus_dataset_options,
    dataset: *mut *mut mirrorbus_dataset,
) -> c_int {
    call(|| {
        check_target(dataset, "the handle")?;
        // SAFETY: by this function's contract.
        let options = unsafe { arguments::take(options) }?;
        // SAFETY: by this function's contract.
        let config = unsafe { config(&options) }?;
        // SAFETY: by this function's contract.
        let keys = unsafe { arguments::keys(options.key_file) }?;
        DATASETS.check_room()?;
        forked::watch()?;
        let handle = DATASETS.insert(Dataset::open(config, keys)?)?;
        // SAFETY: checked above.
        unsafe { *dataset = pointer(handle) };
        Ok(())
    })
}

/// # Safety
/// The texts are texts or null.
unsafe fn config(options: &mirrorbus_dataset_options) -> Result<DatasetConfig, Failure> {
    // SAFETY: by this function's contract.
    let name = unsafe { arguments::text(options.name, "name") }?.unwrap_or("dataset");
    // SAFETY: by this function's contract.
    let id = unsafe { needed(options.id, "id") }?;
    // SAFETY: by this function's contract.
    let node = unsafe { needed(options.node, "node") }?;
    // SAFETY: by this function's contract.
    let directory = unsafe { needed(options.directory, "directory") }?;
    // SAFETY: by this function's contract.
    let listen = unsafe { arguments::url(options.listen, "listen") }?;
    // SAFETY: by this function's contract.
    let peer = unsafe { arguments::url(options.peer, "peer") }?;
    let id = DatasetId::from_bytes(arguments::id(id, "id")?);
    let mut config = DatasetConfig::new(name, id, node, PathBuf::from(directory), listen, peer);
    if options.segment_bytes != 0 {
        let layout = SegmentLayout::new(options.segment_bytes, 4096);
        config.layout = layout.map_err(|error| Failure::invalid(error.to_string()))?;
    }
    if options.segments != 0 {
        config.places = options.segments;
    }
    config.durability = match options.durability {
        0 => Durability::Disk,
        1 => Durability::Memory,
        other => return Err(arguments::unknown("durability", other)),
    };
    config.lock = arguments::lock(options.lock)?;
    // SAFETY: by this function's contract.
    if let Some(name) = unsafe { arguments::text(options.volume, "volume") }? {
        let block_size = block_size(options.volume_block_bytes)?;
        let volume = VolumeSpec { name: name.to_owned(), bytes: options.volume_bytes, block_size };
        // It is made when this node serves first, which is no time to find that it cannot be.
        volume.check()?;
        config.volumes = vec![volume];
    }
    Ok(config)
}

fn block_size(bytes: u64) -> Result<BlockSize, Failure> {
    match bytes {
        512 => Ok(BlockSize::Small),
        0 | 4096 => Ok(BlockSize::Large),
        other => Err(Failure::invalid(format!("a block of {other} bytes: it has 512 or 4096"))),
    }
}

/// Tells how it is. Does not wait for anything that may hang.
///
/// Threads: any, at any time.
///
/// # Safety
/// `status` is such a struct, with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_dataset_get_status(
    dataset: *mut mirrorbus_dataset,
    status: *mut mirrorbus_dataset_status,
) -> c_int {
    call(|| {
        let found = DATASETS.shared(number(dataset))?.status();
        let said = mirrorbus_dataset_status {
            size: size_of::<mirrorbus_dataset_status>(),
            role: match found.role {
                RoleStatus::Undecided => 0,
                RoleStatus::Secondary => 1,
                RoleStatus::Primary => 2,
                RoleStatus::Failed => 3,
            },
            replication: match found.replication {
                ReplicationState::Waiting => 0,
                ReplicationState::Established => 1,
                ReplicationState::CatchingUp => 2,
                ReplicationState::SyncSource => 3,
                ReplicationState::SyncTarget => 4,
                ReplicationState::LinkLost => 5,
                ReplicationState::Alone => 6,
            },
            unreplicated_bytes: found.unreplicated_bytes,
            reason: arguments::fixed(found.reason.code),
            text: arguments::fixed(&found.reason.text),
        };
        // SAFETY: by this function's contract.
        unsafe { arguments::give(status, &said) }
    })
}

/// Waits until every acknowledged write is in both memories: this node serves or follows, and so does the peer.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_dataset_wait_mirrored(dataset: *mut mirrorbus_dataset, timeout_ns: u64) -> c_int {
    call(|| {
        let open = DATASETS.shared(number(dataset))?;
        let mut deadline = deadline(timeout_ns);
        loop {
            let status = open.status();
            if status.replication == ReplicationState::Established {
                return Ok(());
            }
            if status.role == RoleStatus::Failed {
                let text = format!("out of service: {}", status.reason.text);
                return Err(Failure::new(mirrorbus_code::MIRRORBUS_E_SYNC, text));
            }
            let Some(left) = deadline.remaining() else {
                let text = format!("not mirrored in time: {}", status.reason.text);
                return Err(Failure::new(mirrorbus_code::MIRRORBUS_E_TIMEOUT, text));
            };
            std::thread::sleep(left.min(LOOK_TIME));
        }
    })
}

/// Makes this node serve, by the operator's word that the peer does not. `flushed_only` not 0: from what was durable here, although the peer may
/// have acknowledged writes that are not.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_dataset_promote(dataset: *mut mirrorbus_dataset, flushed_only: c_int) -> c_int {
    call(|| Ok(DATASETS.shared(number(dataset))?.promote(flushed_only != 0)?))
}

/// Makes this primary go on without the peer, by the operator's word that that does not serve.
///
/// Durable on return: everything that was acknowledged, here; every write is from then on before it is acknowledged, until the peer has come
/// back. Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_dataset_alone(dataset: *mut mirrorbus_dataset) -> c_int {
    call(|| Ok(DATASETS.shared(number(dataset))?.alone()?))
}

/// Makes a volume of `bytes`, all zeroes, in blocks of 512 or 4096 (0: 4096). On return both nodes have it, as they have a write that was
/// acknowledged.
///
/// Threads: any, at any time.
///
/// # Safety
/// `name` is a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mirrorbus_dataset_create_volume(
    dataset: *mut mirrorbus_dataset,
    name: *const c_char,
    bytes: u64,
    block_bytes: u64,
) -> c_int {
    call(|| {
        // SAFETY: by this function's contract.
        let name = unsafe { needed(name, "name") }?;
        Ok(DATASETS.shared(number(dataset))?.create_volume(name, bytes, block_size(block_bytes)?)?)
    })
}

/// Ends it in good order: takes nothing more, brings what it has to the disks, and writes a checkpoint. A peer that does not follow is
/// waited for 30 seconds at most, up to a minute if it was just told to follow; this node's disk for as long as it takes. Volumes that are still open fail with MIRRORBUS_E_ROLE: close them too. MIRRORBUS_E_BUSY while another
/// thread is in a call with it.
///
/// Durable on return: what was; what was not flushed in all likelihood, and without a word if not: flush the volumes first. Threads: any. The
/// handle is of no use afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn mirrorbus_dataset_close(dataset: *mut mirrorbus_dataset) -> c_int {
    call(|| {
        DATASETS.close(number(dataset))?.settle();
        Ok(())
    })
}
