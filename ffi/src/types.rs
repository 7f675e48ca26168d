//! What is passed in structs and numbers.
#![allow(non_camel_case_types, reason = "they are the names in C")]

use std::ffi::{c_char, c_int, c_void};

/// A timeout without an end.
pub const MIRRORBUS_FOREVER: u64 = u64::MAX;

/// How far a store has come. Each includes the ones before it; docs/semantics.md has the meaning on each fabric.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_level {
    /// Handed to the fabric. Nothing is promised yet.
    MIRRORBUS_POSTED = 1,
    /// The holder's side of the fabric has it: it survives the death of this process.
    MIRRORBUS_ACKED = 2,
    /// The holder's processor reads it.
    MIRRORBUS_VISIBLE = 3,
    /// It is on the holder's stable storage: it survives the loss of power there. Takes a holder with a file.
    MIRRORBUS_DURABLE = 4,
}

/// What the two sides hold when a region is opened. There is no default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_attach {
    /// Zeroes go to the holder. One that has a whole copy already refuses.
    MIRRORBUS_ATTACH_PUSH = 1,
    /// Zeroes go to the holder. The copy that it has is gone.
    MIRRORBUS_ATTACH_PUSH_REPLACE = 2,
    /// The holder's bytes come here: what a restarted owner does.
    MIRRORBUS_ATTACH_PULL = 3,
    /// Both sides hold zeroes, proven by digests; nothing is moved.
    MIRRORBUS_ATTACH_EQUAL = 4,
}

/// Whether memory is locked, so that no store waits for a page.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_lock {
    /// Fail where it cannot be.
    MIRRORBUS_LOCK_REQUIRED = 0,
    /// Go on without.
    MIRRORBUS_LOCK_TRY = 1,
    /// Do not lock.
    MIRRORBUS_LOCK_OFF = 2,
}

/// How a lane waits.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_polling {
    /// Spins for 50 us, then sleeps.
    MIRRORBUS_POLLING_ADAPTIVE = 0,
    /// Keeps a processor busy: the shortest latency.
    MIRRORBUS_POLLING_SPIN = 1,
    /// Sleeps at once.
    MIRRORBUS_POLLING_BLOCK = 2,
}

/// The link of a region to its holder.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_link {
    /// The holder is heard.
    MIRRORBUS_LINK_UP = 1,
    /// The holder has not been heard for too long; where the medium needs no processor of its, stores still reach its memory.
    MIRRORBUS_LINK_SILENT = 2,
    /// Lost: reconnect.
    MIRRORBUS_LINK_LOST = 3,
}

/// What a holder's copy is worth.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_content {
    /// No owner ever pushed.
    MIRRORBUS_CONTENT_EMPTY = 0,
    /// A push began and did not complete: worth nothing.
    MIRRORBUS_CONTENT_PARTIAL = 1,
    /// A copy of the region.
    MIRRORBUS_CONTENT_COMPLETE = 2,
}

/// What a flush of a volume waits for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_durability {
    /// The storage of both nodes.
    MIRRORBUS_DURABILITY_DISK = 0,
    /// The memory of both nodes: the loss of power of both loses what neither had written. While a node serves alone its own storage.
    MIRRORBUS_DURABILITY_MEMORY = 1,
}

/// What this node is for a dataset.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_role {
    /// Serves nothing, and waits for the peer or the operator.
    MIRRORBUS_ROLE_UNDECIDED = 0,
    /// Follows.
    MIRRORBUS_ROLE_SECONDARY = 1,
    /// Serves.
    MIRRORBUS_ROLE_PRIMARY = 2,
    /// Out of service.
    MIRRORBUS_ROLE_FAILED = 3,
}

/// How the two nodes of a dataset are to each other.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum mirrorbus_replication {
    /// The secondary waits for a primary.
    MIRRORBUS_REPLICATION_WAITING = 0,
    /// Every acknowledged write is in both memories.
    MIRRORBUS_REPLICATION_ESTABLISHED = 1,
    /// The peer follows, and lacks some of the log.
    MIRRORBUS_REPLICATION_CATCHING_UP = 2,
    /// The peer is brought up to date from this node's files.
    MIRRORBUS_REPLICATION_SYNC_SOURCE = 3,
    /// This node is brought up to date from the primary's files.
    MIRRORBUS_REPLICATION_SYNC_TARGET = 4,
    /// The link is lost and requests are held.
    MIRRORBUS_REPLICATION_LINK_LOST = 5,
    /// The primary serves without the peer.
    MIRRORBUS_REPLICATION_ALONE = 6,
}

/// How a holder is opened. Zero is the usual, but for `size`, `url`, `bytes` and `key_file`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_holder_options {
    /// sizeof of this struct.
    pub size: usize,
    /// Where to listen: "tcp://HOST:PORT[?encrypt=1]" (port 0: any), "shm:/PATH.sock", "rdma://HOST:PORT".
    pub url: *const c_char,
    /// Bytes of the copy.
    pub bytes: u64,
    /// The key file that both sides have, by `mirrorbus keygen`.
    pub key_file: *const c_char,
    /// Keep the copy in this file, so that owners can have stores durable, and a restart loses nothing; null: in memory.
    pub file: *const c_char,
    /// Not 0: use the file although the host has rebooted since it was written, or a sync of it failed.
    pub accept_uncertain: c_int,
    /// A mirrorbus_lock.
    pub lock: c_int,
    /// How long an owner is not heard before it is called silent, in nanoseconds; 0: 2 s.
    pub silence_ns: u64,
}

/// How a holder is. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_holder_status {
    /// sizeof of this struct.
    pub size: usize,
    /// Counts every change: mirrorbus_holder_wait_change() takes it.
    pub changes: u64,
    /// Number of the grant in force, or of the last.
    pub generation: u32,
    /// A mirrorbus_content.
    pub content: c_int,
    /// 1 while an owner has access to the copy, connected or not.
    pub attached: c_int,
    /// 1 while an owner is connected.
    pub connected: c_int,
    /// 1 while the connected owner is silent.
    pub silent: c_int,
    /// 32 digits: the region's name, once an owner attached; else "".
    pub region: [c_char; 36],
}

/// What a fence left. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_fenced {
    /// sizeof of this struct.
    pub size: usize,
    /// The generation from now on.
    pub generation: u32,
    /// 1 if the copy is exactly a prefix of each lane's stores. 0 only when an owner went on storing through shared memory although
    /// its grant was void; every acknowledged store is in the copy all the same.
    pub exact: c_int,
}

/// How a region is opened. Zero is the usual, but for `size`, `url`, `bytes`, `key_file` and `attach`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_region_options {
    /// sizeof of this struct.
    pub size: usize,
    /// The holder.
    pub url: *const c_char,
    /// Bytes; the holder must have as many.
    pub bytes: u64,
    /// The key file that both sides have.
    pub key_file: *const c_char,
    /// 32 hexadecimal digits: the region's name, where it is known; a pull of another is refused. Null: any, and a push makes a new one.
    pub id: *const c_char,
    /// A mirrorbus_attach.
    pub attach: c_int,
    /// A mirrorbus_lock.
    pub lock: c_int,
    /// Not 0: ask for huge pages.
    pub huge_pages: c_int,
    /// Not used.
    pub reserved: c_int,
    /// How long the holder is not heard before it is called silent, in nanoseconds; 0: 2 s.
    pub silence_ns: u64,
    /// How long opening waits for the holder at each step; 0: 10 s.
    pub timeout_ns: u64,
}

/// How a region is. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_region_status {
    /// sizeof of this struct.
    pub size: usize,
    /// Its bytes.
    pub bytes: u64,
    /// A mirrorbus_link.
    pub link: c_int,
    /// Lanes that are open.
    pub lanes: u32,
    /// 32 digits: its name.
    pub id: [c_char; 40],
    /// Why the link is lost; else "". Cut off where it is longer.
    pub reason: [c_char; 256],
}

/// How a lane is opened. Zero is the usual, but for `size`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_lane_options {
    /// sizeof of this struct.
    pub size: usize,
    /// Stores in flight at most, to 4096; 0: 256.
    pub depth: u32,
    /// A mirrorbus_polling.
    pub polling: c_int,
    /// How long a store waits for room; 0: 10 s.
    pub store_timeout_ns: u64,
}

/// A store's name, for mirrorbus_lane_wait(). Valid until the lane is closed or the region is reconnected.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_ticket {
    /// The lane, and which connection of it.
    pub stream: u64,
    /// Position of the store on its lane; the first is 1.
    pub sequence: u64,
}

/// Bytes that are a part of one store.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_part {
    /// Where they are.
    pub data: *const c_void,
    /// How many.
    pub bytes: usize,
}

/// How far the stores of a lane have come: for each level the position of the last that reached it, with all before. Set `size` before it
/// is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_watermarks {
    /// sizeof of this struct.
    pub size: usize,
    /// The last store that was taken.
    pub last: u64,
    /// See MIRRORBUS_POSTED.
    pub posted: u64,
    /// See MIRRORBUS_ACKED.
    pub acked: u64,
    /// See MIRRORBUS_VISIBLE. Over rdma it is moved by waits and flushes at that level only, not by mirrorbus_lane_poll().
    pub visible: u64,
    /// See MIRRORBUS_DURABLE. It is moved by waits and flushes at that level only.
    pub durable: u64,
}

/// How a dataset is opened on this node. Zero is the usual, but for `size`, `id`, `node`, `directory`, `listen`, `peer` and `key_file`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_dataset_options {
    /// sizeof of this struct.
    pub size: usize,
    /// What people call it; null: "dataset".
    pub name: *const c_char,
    /// 32 hexadecimal digits, the same on both nodes, as `mirrorbus dataset-id` prints them.
    pub id: *const c_char,
    /// This node's name; the peer has another.
    pub node: *const c_char,
    /// Where its files are; made where it is missing.
    pub directory: *const c_char,
    /// Where the peer reaches this node's memory.
    pub listen: *const c_char,
    /// Where this node reaches the peer's.
    pub peer: *const c_char,
    /// The key file that both nodes have.
    pub key_file: *const c_char,
    /// Bytes of a segment of the log, a power of two; the same on both nodes. 0: 16 MiB.
    pub segment_bytes: u64,
    /// Segments in the mirrored memory, 2 to 4096; the same on both nodes. 0: 16.
    pub segments: u64,
    /// A mirrorbus_durability.
    pub durability: c_int,
    /// A mirrorbus_lock.
    pub lock: c_int,
    /// A volume that is made when the dataset has none; null: no volume.
    pub volume: *const c_char,
    /// Its bytes.
    pub volume_bytes: u64,
    /// Bytes of a block of it: 512 or 4096. 0: 4096.
    pub volume_block_bytes: u64,
}

/// How a dataset is. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_dataset_status {
    /// sizeof of this struct.
    pub size: usize,
    /// A mirrorbus_role.
    pub role: c_int,
    /// A mirrorbus_replication.
    pub replication: c_int,
    /// Bytes of the log, or of what a resync has left to do, that the peer does not have.
    pub unreplicated_bytes: u64,
    /// Why it is as it is: a word for programs.
    pub reason: [c_char; 64],
    /// And a sentence for people. Cut off where it is longer.
    pub text: [c_char; 256],
}

/// What a volume is. Set `size` before it is asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mirrorbus_volume_info {
    /// sizeof of this struct.
    pub size: usize,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of a block: what is aligned to them costs least.
    pub block_bytes: u64,
}

macro_rules! measured {
    ($($name:ident)*) => { $(
        // SAFETY: `repr(C)`, its size first; each field is as large as its place asks for (a test adds them up), and numbers, arrays of
        // them and pointers may be zero.
        unsafe impl $crate::arguments::Measured for $name {
            const NAME: &'static str = stringify!($name);
            // None has grown yet.
            const FIRST_BYTES: usize = size_of::<Self>();
        }
    )* };
}

pub(crate) use measured;

measured! {
    mirrorbus_holder_options mirrorbus_holder_status mirrorbus_fenced mirrorbus_region_options mirrorbus_region_status
    mirrorbus_lane_options mirrorbus_watermarks mirrorbus_dataset_options mirrorbus_dataset_status mirrorbus_volume_info
}
