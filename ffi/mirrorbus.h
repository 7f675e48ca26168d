/*
 * Mirrorbus: memory and volumes that are mirrored in another process or on another machine.
 *
 * Made from the source by cbindgen: change it there. docs/c.md is the manual.
 *
 * Functions return MIRRORBUS_OK, which is 0, or a negative mirrorbus_code; mirrorbus_error_text() then has a sentence for people. After an
 * error nothing is left half done, but where a function says so. No function throws, aborts or calls back.
 *
 * Handles are no addresses: a null, closed or invented one is MIRRORBUS_E_HANDLE. Functions say which threads may be in them at the same
 * time; one thread too many is MIRRORBUS_E_BUSY. A forked child is told MIRRORBUS_E_FORKED by all functions but the few that only tell
 * something: fork before the library is used.
 *
 * Structs that begin with `size` are to be all zeroes but for it and for what is wanted: mirrorbus_region_options options = {.size = sizeof options}. So programs that
 * were built with an older header run with a newer library. Times are in nanoseconds.
 */

#ifndef MIRRORBUS_H
#define MIRRORBUS_H

#include <stddef.h>
#include <stdint.h>

/**
 * What programs are built for. Another number is another libmirrorbus.so.N, and programs have to be built again. What is added keeps the
 * number: structs grow at their end, and say how large they are.
 */
#define MIRRORBUS_ABI_VERSION 1

/**
 * A timeout without an end.
 */
#define MIRRORBUS_FOREVER UINT64_MAX

/**
 * What a function returns: 0, or one of these, which are all negative. mirrorbus_error_text() says more.
 */
typedef enum mirrorbus_code {
  /**
   * It was done.
   */
  MIRRORBUS_OK = 0,
  /**
   * An argument that cannot be: a null pointer, an unknown number, text that is none, a size that the struct never had.
   */
  MIRRORBUS_E_INVALID = -1,
  /**
   * The handle is null, was closed, or never was one of this kind.
   */
  MIRRORBUS_E_HANDLE = -2,
  /**
   * Another thread is in a call with this handle that allows no second. Nothing was done.
   */
  MIRRORBUS_E_BUSY = -3,
  /**
   * This process was forked after the library was used: only the parent may go on with it. Nothing was done.
   */
  MIRRORBUS_E_FORKED = -4,
  /**
   * Offset and length lie outside of the region or volume, or do not fit in 64 bits. Nothing was done.
   */
  MIRRORBUS_E_RANGE = -5,
  /**
   * No room just now: poll or wait, then try again. Nothing was done.
   */
  MIRRORBUS_E_WOULD_BLOCK = -6,
  /**
   * The deadline passed. What was waited for may come yet.
   */
  MIRRORBUS_E_TIMEOUT = -7,
  /**
   * The link to the holder is lost: reconnect, or open anew.
   */
  MIRRORBUS_E_LINK_LOST = -8,
  /**
   * The ticket is of another lane, or of before a reconnection.
   */
  MIRRORBUS_E_STALE = -9,
  /**
   * The pair cannot give that, whatever is done.
   */
  MIRRORBUS_E_UNSUPPORTED = -10,
  /**
   * The other side, or this one in the state that it is in, says no.
   */
  MIRRORBUS_E_REFUSED = -11,
  /**
   * The key file is none, or others may read it.
   */
  MIRRORBUS_E_KEY = -12,
  /**
   * The operating system refused something.
   */
  MIRRORBUS_E_SYSTEM = -13,
  /**
   * Stable storage failed. What was Visible stays so.
   */
  MIRRORBUS_E_SYNC = -14,
  /**
   * No room on a disk of the pair.
   */
  MIRRORBUS_E_NO_SPACE = -15,
  /**
   * This node does not serve the volume (any more): open it again, where it is served.
   */
  MIRRORBUS_E_ROLE = -16,
  /**
   * Stored data does not match its checksum.
   */
  MIRRORBUS_E_DAMAGED = -17,
  /**
   * There is no such volume.
   */
  MIRRORBUS_E_NOT_FOUND = -18,
  /**
   * As many handles of this kind are open as can be; or as many memories of epochs are tracked by a handler of SIGSEGV as can be.
   */
  MIRRORBUS_E_LIMIT = -19,
  /**
   * A bug of this library was caught. The handles of the call can be closed, and nothing else.
   */
  MIRRORBUS_E_INTERNAL = -20,
  /**
   * The program was built for another version of this library.
   */
  MIRRORBUS_E_VERSION = -21,
  /**
   * The copies differ, or are of different regions, though they were said to be the same.
   */
  MIRRORBUS_E_DIFFERENT = -22,
  /**
   * More changed in one epoch than the ring takes. Nothing was cut, and what changed is found again: commit more often, or open with a larger
   * ring.
   */
  MIRRORBUS_E_TOO_LARGE = -23,
  /**
   * A reconnection dropped the epoch that was cut: cut another, which has all that it changed.
   */
  MIRRORBUS_E_DROPPED = -24,
  /**
   * The holder has epochs of another owner, which were left as they are: close, and open anew.
   */
  MIRRORBUS_E_SUPERSEDED = -25,
} mirrorbus_code;

/**
 * How far a store has come. Each includes the ones before it; docs/semantics.md has the meaning on each fabric.
 */
typedef enum mirrorbus_level {
  /**
   * Handed to the fabric. Nothing is promised yet.
   */
  MIRRORBUS_POSTED = 1,
  /**
   * The holder's side of the fabric has it: it survives the death of this process.
   */
  MIRRORBUS_ACKED = 2,
  /**
   * The holder's processor reads it.
   */
  MIRRORBUS_VISIBLE = 3,
  /**
   * It is on the holder's stable storage: it survives the loss of power there. Takes a holder with a file.
   */
  MIRRORBUS_DURABLE = 4,
} mirrorbus_level;

/**
 * What the two sides hold when a region is opened. There is no default.
 */
typedef enum mirrorbus_attach {
  /**
   * Zeroes go to the holder. One that has a whole copy already refuses.
   */
  MIRRORBUS_ATTACH_PUSH = 1,
  /**
   * Zeroes go to the holder. The copy that it has is gone.
   */
  MIRRORBUS_ATTACH_PUSH_REPLACE = 2,
  /**
   * The holder's bytes come here: what a restarted owner does.
   */
  MIRRORBUS_ATTACH_PULL = 3,
  /**
   * Both sides hold zeroes, proven by digests; nothing is moved.
   */
  MIRRORBUS_ATTACH_EQUAL = 4,
} mirrorbus_attach;

/**
 * Whether memory is locked, so that no store waits for a page.
 */
typedef enum mirrorbus_lock {
  /**
   * Fail where it cannot be.
   */
  MIRRORBUS_LOCK_REQUIRED = 0,
  /**
   * Go on without.
   */
  MIRRORBUS_LOCK_TRY = 1,
  /**
   * Do not lock.
   */
  MIRRORBUS_LOCK_OFF = 2,
} mirrorbus_lock;

/**
 * How a lane waits.
 */
typedef enum mirrorbus_polling {
  /**
   * Spins for 50 us, then sleeps.
   */
  MIRRORBUS_POLLING_ADAPTIVE = 0,
  /**
   * Keeps a processor busy: the shortest latency.
   */
  MIRRORBUS_POLLING_SPIN = 1,
  /**
   * Sleeps at once.
   */
  MIRRORBUS_POLLING_BLOCK = 2,
} mirrorbus_polling;

/**
 * How the pages are found that a program stored to; docs/epoch.md says what each needs.
 */
typedef enum mirrorbus_tracking {
  /**
   * The best that works here.
   */
  MIRRORBUS_TRACKING_BEST = 0,
  /**
   * By the kernel, from Linux 6.9 on.
   */
  MIRRORBUS_TRACKING_WP_ASYNC = 1,
  /**
   * By the kernel's soft-dirty bits.
   */
  MIRRORBUS_TRACKING_SOFT_DIRTY = 2,
  /**
   * By a handler of SIGSEGV: everywhere. System calls that store there need mirrorbus_epochs_prepare().
   */
  MIRRORBUS_TRACKING_MPROTECT = 3,
} mirrorbus_tracking;

/**
 * The link of a region to its holder.
 */
typedef enum mirrorbus_link {
  /**
   * The holder is heard.
   */
  MIRRORBUS_LINK_UP = 1,
  /**
   * The holder has not been heard for too long; where the medium needs no processor of its, stores still reach its memory.
   */
  MIRRORBUS_LINK_SILENT = 2,
  /**
   * Lost: reconnect.
   */
  MIRRORBUS_LINK_LOST = 3,
} mirrorbus_link;

/**
 * What a holder's copy is worth.
 */
typedef enum mirrorbus_content {
  /**
   * No owner ever pushed.
   */
  MIRRORBUS_CONTENT_EMPTY = 0,
  /**
   * A push began and did not complete: worth nothing.
   */
  MIRRORBUS_CONTENT_PARTIAL = 1,
  /**
   * A copy of the region.
   */
  MIRRORBUS_CONTENT_COMPLETE = 2,
} mirrorbus_content;

/**
 * What a flush of a volume waits for.
 */
typedef enum mirrorbus_durability {
  /**
   * The storage of both nodes.
   */
  MIRRORBUS_DURABILITY_DISK = 0,
  /**
   * The memory of both nodes: the loss of power of both loses what neither had written. While a node serves alone its own storage.
   */
  MIRRORBUS_DURABILITY_MEMORY = 1,
} mirrorbus_durability;

/**
 * What this node is for a dataset.
 */
typedef enum mirrorbus_role {
  /**
   * Serves nothing, and waits for the peer or the operator.
   */
  MIRRORBUS_ROLE_UNDECIDED = 0,
  /**
   * Follows.
   */
  MIRRORBUS_ROLE_SECONDARY = 1,
  /**
   * Serves.
   */
  MIRRORBUS_ROLE_PRIMARY = 2,
  /**
   * Out of service.
   */
  MIRRORBUS_ROLE_FAILED = 3,
} mirrorbus_role;

/**
 * How the two nodes of a dataset are to each other.
 */
typedef enum mirrorbus_replication {
  /**
   * The secondary waits for a primary.
   */
  MIRRORBUS_REPLICATION_WAITING = 0,
  /**
   * Every acknowledged write is in both memories.
   */
  MIRRORBUS_REPLICATION_ESTABLISHED = 1,
  /**
   * The peer follows, and lacks some of the log.
   */
  MIRRORBUS_REPLICATION_CATCHING_UP = 2,
  /**
   * The peer is brought up to date from this node's files.
   */
  MIRRORBUS_REPLICATION_SYNC_SOURCE = 3,
  /**
   * This node is brought up to date from the primary's files.
   */
  MIRRORBUS_REPLICATION_SYNC_TARGET = 4,
  /**
   * The link is lost and requests are held.
   */
  MIRRORBUS_REPLICATION_LINK_LOST = 5,
  /**
   * The primary serves without the peer.
   */
  MIRRORBUS_REPLICATION_ALONE = 6,
} mirrorbus_replication;

/**
 * A dataset, open on this node.
 */
typedef struct mirrorbus_dataset mirrorbus_dataset;

/**
 * A copy of an owner's memory that is a whole epoch, always.
 */
typedef struct mirrorbus_epoch_holder mirrorbus_epoch_holder;

/**
 * A memory whose plain stores are found and mirrored, all of an epoch or none.
 */
typedef struct mirrorbus_epochs mirrorbus_epochs;

/**
 * A copy of a region, kept for one owner at a time.
 */
typedef struct mirrorbus_holder mirrorbus_holder;

/**
 * An ordered stream of stores into a region.
 */
typedef struct mirrorbus_lane mirrorbus_lane;

/**
 * A region: memory whose every store, made through a lane, reaches the holder's.
 */
typedef struct mirrorbus_region mirrorbus_region;

/**
 * A volume: a disk of blocks that both nodes have.
 */
typedef struct mirrorbus_volume mirrorbus_volume;

/**
 * How a holder is opened. Zero is the usual, but for `size`, `url`, `bytes` and `key_file`.
 */
typedef struct mirrorbus_holder_options {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * Where to listen: "tcp://HOST:PORT[?encrypt=1]" (port 0: any), "shm:/PATH.sock", "rdma://HOST:PORT".
   */
  const char *url;
  /**
   * Bytes of the copy.
   */
  uint64_t bytes;
  /**
   * The key file that both sides have, by `mirrorbus keygen`.
   */
  const char *key_file;
  /**
   * Keep the copy in this file, so that owners can have stores durable, and a restart loses nothing; null: in memory.
   */
  const char *file;
  /**
   * Not 0: use the file although the host has rebooted since it was written, or a sync of it failed.
   */
  int accept_uncertain;
  /**
   * A mirrorbus_lock.
   */
  int lock;
  /**
   * How long an owner is not heard before it is called silent, in nanoseconds; 0: 2 s.
   */
  uint64_t silence_ns;
} mirrorbus_holder_options;

/**
 * How a holder is. Set `size` before it is asked for.
 */
typedef struct mirrorbus_holder_status {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * Counts every change: mirrorbus_holder_wait_change() takes it.
   */
  uint64_t changes;
  /**
   * Number of the grant in force, or of the last.
   */
  uint32_t generation;
  /**
   * A mirrorbus_content.
   */
  int content;
  /**
   * 1 while an owner has access to the copy, connected or not.
   */
  int attached;
  /**
   * 1 while an owner is connected.
   */
  int connected;
  /**
   * 1 while the connected owner is silent.
   */
  int silent;
  /**
   * 32 digits: the region's name, once an owner attached; else "".
   */
  char region[36];
} mirrorbus_holder_status;

/**
 * What a fence left. Set `size` before it is asked for.
 */
typedef struct mirrorbus_fenced {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * The generation from now on.
   */
  uint32_t generation;
  /**
   * 1 if the copy is exactly a prefix of each lane's stores. 0 only when an owner went on storing through shared memory although
   * its grant was void; every acknowledged store is in the copy all the same.
   */
  int exact;
} mirrorbus_fenced;

/**
 * How a region is opened. Zero is the usual, but for `size`, `url`, `bytes`, `key_file` and `attach`.
 */
typedef struct mirrorbus_region_options {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * The holder.
   */
  const char *url;
  /**
   * Bytes; the holder must have as many.
   */
  uint64_t bytes;
  /**
   * The key file that both sides have.
   */
  const char *key_file;
  /**
   * 32 hexadecimal digits: the region's name, where it is known; a pull of another is refused. Null: any, and a push makes a new one.
   */
  const char *id;
  /**
   * A mirrorbus_attach.
   */
  int attach;
  /**
   * A mirrorbus_lock.
   */
  int lock;
  /**
   * Not 0: ask for huge pages.
   */
  int huge_pages;
  /**
   * Not used.
   */
  int reserved;
  /**
   * How long the holder is not heard before it is called silent, in nanoseconds; 0: 2 s.
   */
  uint64_t silence_ns;
  /**
   * How long opening waits for the holder at each step; 0: 10 s.
   */
  uint64_t timeout_ns;
} mirrorbus_region_options;

/**
 * How a region is. Set `size` before it is asked for.
 */
typedef struct mirrorbus_region_status {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * Its bytes.
   */
  uint64_t bytes;
  /**
   * A mirrorbus_link.
   */
  int link;
  /**
   * Lanes that are open.
   */
  uint32_t lanes;
  /**
   * 32 digits: its name.
   */
  char id[40];
  /**
   * Why the link is lost; else "". Cut off where it is longer.
   */
  char reason[256];
} mirrorbus_region_status;

/**
 * How a lane is opened. Zero is the usual, but for `size`.
 */
typedef struct mirrorbus_lane_options {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * Stores in flight at most, to 4096; 0: 256.
   */
  uint32_t depth;
  /**
   * A mirrorbus_polling.
   */
  int polling;
  /**
   * How long a store waits for room; 0: 10 s.
   */
  uint64_t store_timeout_ns;
} mirrorbus_lane_options;

/**
 * A store's name, for mirrorbus_lane_wait(). Valid until the lane is closed or the region is reconnected.
 */
typedef struct mirrorbus_ticket {
  /**
   * The lane, and which connection of it.
   */
  uint64_t stream;
  /**
   * Position of the store on its lane; the first is 1.
   */
  uint64_t sequence;
} mirrorbus_ticket;

/**
 * Bytes that are a part of one store.
 */
typedef struct mirrorbus_part {
  /**
   * Where they are.
   */
  const void *data;
  /**
   * How many.
   */
  size_t bytes;
} mirrorbus_part;

/**
 * How far the stores of a lane have come: for each level the position of the last that reached it, with all before. Set `size` before it
 * is asked for.
 */
typedef struct mirrorbus_watermarks {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * The last store that was taken.
   */
  uint64_t last;
  /**
   * See MIRRORBUS_POSTED.
   */
  uint64_t posted;
  /**
   * See MIRRORBUS_ACKED.
   */
  uint64_t acked;
  /**
   * See MIRRORBUS_VISIBLE. Over rdma it is moved by waits and flushes at that level only, not by mirrorbus_lane_poll().
   */
  uint64_t visible;
  /**
   * See MIRRORBUS_DURABLE. It is moved by waits and flushes at that level only.
   */
  uint64_t durable;
} mirrorbus_watermarks;

/**
 * How a holder of epochs is. Set `size` before it is asked for.
 */
typedef struct mirrorbus_epoch_holder_status {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * Counts every change of the owner's access: mirrorbus_epoch_holder_wait_change() takes it. Epochs are no such change.
   */
  uint64_t changes;
  /**
   * The epoch that the copy holds.
   */
  uint64_t epoch;
  /**
   * Number of the grant in force, or of the last.
   */
  uint32_t generation;
  /**
   * 1 if there is a whole epoch: an owner's first push is complete.
   */
  int whole;
  /**
   * 1 while an owner has access, connected or not.
   */
  int attached;
  /**
   * 1 while an owner is connected.
   */
  int connected;
  /**
   * 1 while the connected owner is silent.
   */
  int silent;
  /**
   * 32 digits: the region's name, once an owner attached; else "".
   */
  char region[36];
  /**
   * Why no further epoch is applied, if something is wrong with what the owner wrote; else "". Cut off where it is longer.
   */
  char trouble[256];
} mirrorbus_epoch_holder_status;

/**
 * How a memory of epochs is opened. Zero is the usual, but for `size`, `url`, `bytes`, `key_file` and `attach`.
 */
typedef struct mirrorbus_epochs_options {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * The holder, one of epochs: mirrorbus_epoch_holder_open(), or `mirrorbus hold --epochs`.
   */
  const char *url;
  /**
   * Bytes of the memory, a multiple of 8; the holder must have as many.
   */
  uint64_t bytes;
  /**
   * Bytes of the ring, a multiple of 4096, which an epoch has to fit in; the holder must have as many. 0: as usual for `bytes`.
   */
  uint64_t ring_bytes;
  /**
   * The key file that both sides have.
   */
  const char *key_file;
  /**
   * 32 hexadecimal digits: the region's name, where it is known; a pull of another is refused. Null: any, and a push makes a new one.
   */
  const char *id;
  /**
   * A mirrorbus_attach. A push makes zeroes epoch 0; anything else takes the holder's last whole epoch.
   */
  int attach;
  /**
   * A mirrorbus_lock.
   */
  int lock;
  /**
   * A mirrorbus_tracking.
   */
  int tracking;
  /**
   * Not used.
   */
  int reserved;
  /**
   * How long the holder is not heard before it is called silent, in nanoseconds; 0: 2 s.
   */
  uint64_t silence_ns;
  /**
   * How long opening waits for the holder at each step; 0: 10 s.
   */
  uint64_t timeout_ns;
} mirrorbus_epochs_options;

/**
 * What a cut found. Set `size` before it is asked for.
 */
typedef struct mirrorbus_cut {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * The epoch's number; that of the one before when nothing changed, for then none is made.
   */
  uint64_t epoch;
  /**
   * Pages that were looked at.
   */
  uint64_t pages;
  /**
   * Ranges that are shipped.
   */
  uint64_t ranges;
  /**
   * Bytes of the words of 8 that changed.
   */
  uint64_t changed_bytes;
  /**
   * Bytes that are shipped for it.
   */
  uint64_t shipped_bytes;
} mirrorbus_cut;

/**
 * How a memory of epochs is. Set `size` before it is asked for.
 */
typedef struct mirrorbus_epochs_status {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * Bytes of the memory.
   */
  uint64_t bytes;
  /**
   * The last epoch that was cut; that of the content at first.
   */
  uint64_t epoch;
  /**
   * The epoch that is cut and not shipped; 0: none is.
   */
  uint64_t unshipped;
  /**
   * The mirrorbus_tracking that is used.
   */
  int tracking;
  /**
   * A mirrorbus_link.
   */
  int link;
  /**
   * 32 digits: the region's name.
   */
  char id[40];
  /**
   * Why stores are found so, and not by a better method.
   */
  char tracking_reason[256];
  /**
   * Why the link is lost; else "". Cut off where it is longer.
   */
  char reason[256];
} mirrorbus_epochs_status;

/**
 * How a memory of epochs was connected again. Set `size` before it is asked for.
 */
typedef struct mirrorbus_epochs_reconnected {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * The last epoch that was cut, if the holder has it not: it was dropped, and with it all behind the holder's. What they changed is in the
   * memory still, and in the next epoch that is cut. 0: none was dropped.
   */
  uint64_t dropped;
  /**
   * 1: the holder knew this owner, and the epoch under way goes on. 0: it did not, and the region was opened anew.
   */
  int resumed;
  /**
   * Not used.
   */
  int reserved;
} mirrorbus_epochs_reconnected;

/**
 * How a dataset is opened on this node. Zero is the usual, but for `size`, `id`, `node`, `directory`, `listen`, `peer` and `key_file`.
 */
typedef struct mirrorbus_dataset_options {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * What people call it; null: "dataset".
   */
  const char *name;
  /**
   * 32 hexadecimal digits, the same on both nodes, as `mirrorbus dataset-id` prints them.
   */
  const char *id;
  /**
   * This node's name; the peer has another.
   */
  const char *node;
  /**
   * Where its files are; made where it is missing.
   */
  const char *directory;
  /**
   * Where the peer reaches this node's memory.
   */
  const char *listen;
  /**
   * Where this node reaches the peer's.
   */
  const char *peer;
  /**
   * The key file that both nodes have.
   */
  const char *key_file;
  /**
   * Bytes of a segment of the log, a power of two; the same on both nodes. 0: 16 MiB.
   */
  uint64_t segment_bytes;
  /**
   * Segments in the mirrored memory, 2 to 4096; the same on both nodes. 0: 16.
   */
  uint64_t segments;
  /**
   * A mirrorbus_durability.
   */
  int durability;
  /**
   * A mirrorbus_lock.
   */
  int lock;
  /**
   * A volume that is made when the dataset has none; null: no volume.
   */
  const char *volume;
  /**
   * Its bytes.
   */
  uint64_t volume_bytes;
  /**
   * Bytes of a block of it: 512 or 4096. 0: 4096.
   */
  uint64_t volume_block_bytes;
} mirrorbus_dataset_options;

/**
 * How a dataset is. Set `size` before it is asked for.
 */
typedef struct mirrorbus_dataset_status {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * A mirrorbus_role.
   */
  int role;
  /**
   * A mirrorbus_replication.
   */
  int replication;
  /**
   * Bytes of the log, or of what a resync has left to do, that the peer does not have.
   */
  uint64_t unreplicated_bytes;
  /**
   * Why it is as it is: a word for programs.
   */
  char reason[64];
  /**
   * And a sentence for people. Cut off where it is longer.
   */
  char text[256];
} mirrorbus_dataset_status;

/**
 * What a volume is. Set `size` before it is asked for.
 */
typedef struct mirrorbus_volume_info {
  /**
   * sizeof of this struct.
   */
  size_t size;
  /**
   * Its bytes.
   */
  uint64_t bytes;
  /**
   * Bytes of a block: what is aligned to them costs least.
   */
  uint64_t block_bytes;
} mirrorbus_volume_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that runs: MIRRORBUS_ABI_VERSION when it was built.
 *
 * Threads: any, at any time.
 */
uint32_t mirrorbus_abi_version(void);

/**
 * Whether a program that was built for `version` can use this library: mirrorbus_abi_check(MIRRORBUS_ABI_VERSION). MIRRORBUS_E_VERSION
 * if not.
 *
 * Threads: any, at any time.
 */
int mirrorbus_abi_check(uint32_t version);

/**
 * The release, such as "0.1.0". It stays where it is.
 *
 * Threads: any, at any time.
 */
const char *mirrorbus_version(void);

/**
 * The text of the last call of this thread that failed; empty before the first. It stays where it is until the next that fails.
 */
const char *mirrorbus_error_text(void);

/**
 * The name of a code, such as "MIRRORBUS_E_TIMEOUT"; "unknown" for others. It stays where it is.
 */
const char *mirrorbus_code_name(int code);

/**
 * Maps the memory of a copy, and listens for its owner. Nothing is left behind by a failure.
 *
 * Durable on return: nothing; a copy in a file is as it was. Threads: any, at any time.
 *
 * Pointers: `options` is such a struct with its texts, `holder` a place for the handle.
 */
int mirrorbus_holder_open(const struct mirrorbus_holder_options *options, struct mirrorbus_holder **holder);

/**
 * Writes the address where it listens, with the real port, and a NUL. MIRRORBUS_E_RANGE if it takes more than `bytes`.
 *
 * Threads: any, at any time.
 *
 * Pointers: `target` has `bytes` bytes.
 */
int mirrorbus_holder_url(struct mirrorbus_holder *holder,
                         char *target,
                         size_t bytes);

/**
 * Tells what it holds, and for whom.
 *
 * Threads: any, at any time.
 *
 * Pointers: `status` is such a struct, with its size.
 */
int mirrorbus_holder_get_status(struct mirrorbus_holder *holder, struct mirrorbus_holder_status *status);

/**
 * Waits until something changed since `seen`, the `changes` of an earlier status, or the time is over: then the status is as it was.
 *
 * Threads: any, at any time.
 *
 * Pointers: `status` is such a struct, with its size.
 */
int mirrorbus_holder_wait_change(struct mirrorbus_holder *holder,
                                 uint64_t seen,
                                 uint64_t timeout_ns,
                                 struct mirrorbus_holder_status *status);

/**
 * Copies bytes out of the copy as it is now; an owner may be writing it. After a fence it is stable.
 *
 * Threads: any, at any time.
 *
 * Pointers: `target` has `bytes` bytes, which nobody else uses meanwhile.
 */
int mirrorbus_holder_read(struct mirrorbus_holder *holder, uint64_t offset, void *target, size_t bytes);

/**
 * Takes the owner's access away: on return no byte of the copy changes any more, and every store that was acknowledged, at any time, is in
 * it. The owner is told, and cannot reconnect; a new one can pull. Who takes over calls this first. After MIRRORBUS_E_TIMEOUT nothing
 * more is let in: try again.
 *
 * Durable on return: nothing that was not before. Threads: any, at any time.
 *
 * Pointers: `fenced` is such a struct, with its size, or null.
 */
int mirrorbus_holder_fence(struct mirrorbus_holder *holder,
                           uint64_t timeout_ns,
                           struct mirrorbus_fenced *fenced);

/**
 * Ends it: the owner is told; a copy in memory is gone, one in a file stays. MIRRORBUS_E_BUSY while another thread is in a call with it.
 *
 * Threads: any. The handle is of no use afterwards.
 */
int mirrorbus_holder_close(struct mirrorbus_holder *holder);

/**
 * Maps the memory, connects to the holder, and brings both copies together as `attach` says: on return they are equal. A failure leaves
 * nothing behind here; a push that failed half-way leaves the holder with a copy that it gives to nobody.
 *
 * Durable on return: nothing. mirrorbus_lane_flush() at MIRRORBUS_DURABLE brings what was pushed to the holder's disk. Threads: any.
 *
 * Pointers: `options` is such a struct with its texts, `region` a place for the handle.
 */
int mirrorbus_region_open(const struct mirrorbus_region_options *options,
                          struct mirrorbus_region **region);

/**
 * Gives the memory itself, to read in place. What is written there other than by a lane is not mirrored, and may be overwritten. It is
 * there until the region and all of its lanes are closed.
 *
 * Threads: any, at any time. Whoever reads while another thread stores may see half of a store.
 *
 * Pointers: `memory` and `bytes` are places for them; `bytes` may be null.
 */
int mirrorbus_region_memory(struct mirrorbus_region *region,
                            const void **memory,
                            uint64_t *bytes);

/**
 * Copies bytes out of this side's memory.
 *
 * Threads: any, at any time. Whoever reads while another thread stores may see half of a store.
 *
 * Pointers: `target` has `bytes` bytes, which nobody else uses meanwhile.
 */
int mirrorbus_region_read(struct mirrorbus_region *region, uint64_t offset, void *target, size_t bytes);

/**
 * Tells how the link is.
 *
 * Threads: any, at any time.
 *
 * Pointers: `status` is such a struct, with its size.
 */
int mirrorbus_region_get_status(struct mirrorbus_region *region, struct mirrorbus_region_status *status);

/**
 * Connects again after the link was lost, sends what was not acknowledged, and takes all lanes of the region along: on return every store
 * that was taken is MIRRORBUS_VISIBLE at the holder, and tickets from before are stale. After an error the link is lost, if it
 * was not before, and the stores are as they were: try again.
 * MIRRORBUS_E_REFUSED where the holder has restarted or was fenced: close the region and open it anew.
 *
 * Durable on return: nothing that was not before. Threads: any. MIRRORBUS_E_BUSY while a thread is in a call with one of the
 * lanes, or opens one.
 */
int mirrorbus_region_reconnect(struct mirrorbus_region *region,
                               uint64_t timeout_ns);

/**
 * Closes the link in good order; the holder keeps its copy. Lanes that are still open find the link lost: close them too. What was not
 * acknowledged before may or may not be at the holder: flush first. MIRRORBUS_E_BUSY while another thread is in a call with the region.
 *
 * Durable on return: nothing that was not before. Threads: any. The handle is of no use afterwards.
 */
int mirrorbus_region_close(struct mirrorbus_region *region);

/**
 * Opens one more lane. Lanes are independent: nothing is ordered between two of them. Close it before the region, or after. Waits for a
 * mirrorbus_region_reconnect() that is under way, as long as that takes.
 *
 * Threads: any, at any time.
 *
 * Pointers: `options` is such a struct or null, `lane` a place for the handle.
 */
int mirrorbus_lane_open(struct mirrorbus_region *region,
                        const struct mirrorbus_lane_options *options,
                        struct mirrorbus_lane **lane);

/**
 * Stores: on return this side's memory has the bytes, and they are on their way to the holder. Waits for room, at most the lane's
 * `store_timeout_ns`. After an error nothing was stored on either side.
 *
 * Durable on return: nothing. Wait for the ticket. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `data` has `bytes` bytes that nobody changes meanwhile; `ticket` may be null.
 */
int mirrorbus_lane_store(struct mirrorbus_lane *lane,
                         uint64_t offset,
                         const void *data,
                         size_t bytes,
                         struct mirrorbus_ticket *ticket);

/**
 * mirrorbus_lane_store() that never waits: MIRRORBUS_E_WOULD_BLOCK when as many stores are in flight as can be.
 *
 * Durable on return: nothing. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: As mirrorbus_lane_store().
 */
int mirrorbus_lane_try_store(struct mirrorbus_lane *lane,
                             uint64_t offset,
                             const void *data,
                             size_t bytes,
                             struct mirrorbus_ticket *ticket);

/**
 * Stores parts, one behind the other, as one store; at most 1024 of them. Waits for room as mirrorbus_lane_store().
 *
 * Durable on return: nothing. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `parts` has `count` parts, each with its bytes, which nobody changes meanwhile; `ticket` may be null.
 */
int mirrorbus_lane_store_v(struct mirrorbus_lane *lane,
                           uint64_t offset,
                           const struct mirrorbus_part *parts,
                           size_t count,
                           struct mirrorbus_ticket *ticket);

/**
 * Waits until the store of the ticket, and with it every earlier one of this lane, reached a mirrorbus_level. After
 * MIRRORBUS_E_TIMEOUT the store goes on, and may be waited for again.
 *
 * Durable on return: what the level says; see docs/semantics.md. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
 */
int mirrorbus_lane_wait(struct mirrorbus_lane *lane,
                        struct mirrorbus_ticket ticket,
                        int level,
                        uint64_t timeout_ns);

/**
 * Brings every store so far to a mirrorbus_level. At MIRRORBUS_DURABLE it asks the holder for a sync, store or not: on return all of the copy
 * as it was when this was called is on the holder's stable storage, with what opening pushed.
 *
 * Durable on return: what the level says. Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
 */
int mirrorbus_lane_flush(struct mirrorbus_lane *lane,
                         int level,
                         uint64_t timeout_ns);

/**
 * Sends what was gathered, looks what has completed, and tells how far the stores have come. Never waits.
 *
 * Threads: one at a time for each lane; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `marks` is such a struct, with its size, or null.
 */
int mirrorbus_lane_poll(struct mirrorbus_lane *lane, struct mirrorbus_watermarks *marks);

/**
 * Closes the lane. What was not acknowledged before may or may not be at the holder: flush first.
 *
 * Durable on return: nothing that was not before. Threads: any; MIRRORBUS_E_BUSY while another is in a call with it. The handle is of no use
 * afterwards.
 */
int mirrorbus_lane_close(struct mirrorbus_lane *lane);

/**
 * mirrorbus_holder_open() of a holder that applies epochs: `bytes` of the options are those of the owner's memory, `ring_bytes` those of the
 * owner's ring; 0: as usual for `bytes`. What a holder before left in the file is brought to its last whole epoch first.
 *
 * Durable on return: nothing new. Threads: any, at any time.
 *
 * Pointers: `options` is such a struct with its texts, `holder` a place for the handle.
 */
int mirrorbus_epoch_holder_open(const struct mirrorbus_holder_options *options,
                                uint64_t ring_bytes,
                                struct mirrorbus_epoch_holder **holder);

/**
 * Writes the address where it listens, with the real port, and a NUL. MIRRORBUS_E_RANGE if it takes more than `bytes`.
 *
 * Threads: any, at any time.
 *
 * Pointers: `target` has `bytes` bytes.
 */
int mirrorbus_epoch_holder_url(struct mirrorbus_epoch_holder *holder,
                               char *target,
                               size_t bytes);

/**
 * Tells which epoch it has, and for whom.
 *
 * Threads: any, at any time. It may wait for an epoch that is being applied.
 *
 * Pointers: `status` is such a struct, with its size.
 */
int mirrorbus_epoch_holder_get_status(struct mirrorbus_epoch_holder *holder,
                                      struct mirrorbus_epoch_holder_status *status);

/**
 * Waits until an owner came, went or fell silent since `seen`, the `changes` of an earlier status, or the time is over: then the status is as
 * it was. It may return later than that, and so may mirrorbus_epoch_holder_get_status(): to tell the epoch both wait while one is being applied,
 * and synced where the copy is in a file.
 *
 * Threads: any, at any time.
 *
 * Pointers: `status` is such a struct, with its size.
 */
int mirrorbus_epoch_holder_wait_change(struct mirrorbus_epoch_holder *holder,
                                       uint64_t seen,
                                       uint64_t timeout_ns,
                                       struct mirrorbus_epoch_holder_status *status);

/**
 * Copies the whole memory as of one epoch, between two of them; an owner may go on meanwhile. `bytes` are those of the memory, else
 * MIRRORBUS_E_RANGE. MIRRORBUS_E_REFUSED while there is no whole epoch. Takes as much memory again for a while.
 *
 * Threads: any, at any time. It holds up the applying of epochs.
 *
 * Pointers: `target` has `bytes` bytes, which nobody else uses meanwhile. `epoch` is a place for the epoch's number, or null.
 */
int mirrorbus_epoch_holder_copy(struct mirrorbus_epoch_holder *holder,
                                void *target,
                                size_t bytes,
                                uint64_t *epoch);

/**
 * Takes the owner's access away, and applies what is whole: on return the copy is the last epoch that was acknowledged, or a later one whose
 * commit record had come, and changes only when a new owner attaches. mirrorbus_epoch_holder_copy() gives it out. After
 * MIRRORBUS_E_TIMEOUT nothing more is let in: try again. MIRRORBUS_E_REFUSED when there is no whole epoch.
 *
 * Durable on return: nothing that was not before. Threads: any, at any time.
 *
 * Pointers: `epoch` is a place for the epoch's number, or null.
 */
int mirrorbus_epoch_holder_take_over(struct mirrorbus_epoch_holder *holder,
                                     uint64_t timeout_ns,
                                     uint64_t *epoch);

/**
 * Ends it: the owner is told; a copy in memory is gone, one in a file stays. MIRRORBUS_E_BUSY while another thread is in a call with it.
 *
 * Threads: any. The handle is of no use afterwards.
 */
int mirrorbus_epoch_holder_close(struct mirrorbus_epoch_holder *holder);

/**
 * Maps the memory, has its stores found from now on, connects to a holder of epochs, and brings both together as `attach` says: on return the
 * holder has zeroes as epoch 0, or the memory has the holder's last whole epoch. Nothing is left behind here by a failure; a push
 * that failed half-way leaves the holder with a copy that it gives to nobody. MIRRORBUS_E_LIMIT: a process has at most 256 of them, and at
 * most 64 that are tracked by MIRRORBUS_TRACKING_SOFT_DIRTY or _MPROTECT.
 *
 * Durable on return: nothing; a commit at MIRRORBUS_DURABLE makes it so. Threads: any, at any time.
 *
 * Pointers: `options` is such a struct with its texts, `epochs` a place for the handle.
 */
int mirrorbus_epochs_open(const struct mirrorbus_epochs_options *options,
                          struct mirrorbus_epochs **epochs);

/**
 * Gives the memory, to read and to store into through this pointer like any other. It is there until the handle is closed; who stores
 * there afterwards is killed.
 *
 * Threads: any, at any time; and any may store there at any time, also while an epoch is cut. What was stored before mirrorbus_epochs_commit()
 * or _cut() was called is in the epoch. What is stored during the cut is in it or in the next: hold your writers until it returns.
 *
 * Pointers: `memory` and `bytes` are places for them; `bytes` may be null.
 */
int mirrorbus_epochs_memory(struct mirrorbus_epochs *epochs,
                            void **memory,
                            uint64_t *bytes);

/**
 * Says that a system call is about to store there (read, recv). With MIRRORBUS_TRACKING_MPROTECT such a call fails with EFAULT otherwise; the
 * others need nothing. It holds until the next cut, during which no such call may be under way. With MIRRORBUS_TRACKING_SOFT_DIRTY a cut or opening of
 * any memory of this process that is tracked so counts, of another thread too: a call under way then may fail with EFAULT, and can be repeated.
 *
 * Threads: any, at any time.
 */
int mirrorbus_epochs_prepare(struct mirrorbus_epochs *epochs,
                             uint64_t offset,
                             uint64_t bytes);

/**
 * Says that something stored there that no method sees: a device, into pages that it keeps pinned (O_DIRECT, registered buffers of io_uring,
 * RDMA, a GPU). Call it when the device has done and before the cut.
 *
 * Threads: any, at any time.
 */
int mirrorbus_epochs_stored(struct mirrorbus_epochs *epochs,
                            uint64_t offset,
                            uint64_t bytes);

/**
 * mirrorbus_epochs_cut() and mirrorbus_epochs_ship(): on return the holder has the whole epoch at a mirrorbus_level, with all that was stored
 * before the call. One that was cut before and not shipped goes first. After an error nothing that was stored is forgotten: it is in
 * this epoch, which the next call goes on with, or in the next. MIRRORBUS_E_TOO_LARGE: more changed than the ring takes, and
 * nothing was cut.
 *
 * Durable on return: what the level says. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `cut` is such a struct, with its size, or null.
 */
int mirrorbus_epochs_commit(struct mirrorbus_epochs *epochs,
                            int level,
                            uint64_t timeout_ns,
                            struct mirrorbus_cut *cut);

/**
 * Closes an epoch: what was stored before the call is in it. Nothing is sent, so that writers need be held no longer than this. When nothing
 * changed none is made. MIRRORBUS_E_REFUSED while one is cut and not shipped.
 *
 * Durable on return: nothing. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `cut` is such a struct, with its size, or null.
 */
int mirrorbus_epochs_cut(struct mirrorbus_epochs *epochs,
                         struct mirrorbus_cut *cut);

/**
 * Ships the epoch that was cut, and waits until the holder has every epoch at a mirrorbus_level. After MIRRORBUS_E_TIMEOUT it stays cut: ship
 * again. MIRRORBUS_E_DROPPED: a reconnection dropped it, cut another.
 *
 * Durable on return: what the level says. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
 */
int mirrorbus_epochs_ship(struct mirrorbus_epochs *epochs,
                          int level,
                          uint64_t timeout_ns);

/**
 * Asks the holder which epoch it has applied last.
 *
 * Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `epoch` is a place for it.
 */
int mirrorbus_epochs_applied(struct mirrorbus_epochs *epochs, uint64_t timeout_ns, uint64_t *epoch);

/**
 * Tells how it is: epoch, tracking, link.
 *
 * Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `status` is such a struct, with its size.
 */
int mirrorbus_epochs_get_status(struct mirrorbus_epochs *epochs, struct mirrorbus_epochs_status *status);

/**
 * Connects again after the link was lost. Where the holder knows this owner still, the epoch under way goes on. Where it does not (it was
 * restarted, or fenced this owner), the region is opened anew with the holder's last whole epoch, the memory stays as it is, and the
 * next commit ships all in which it differs, in one epoch. MIRRORBUS_E_SUPERSEDED: another owner made epochs meanwhile, which
 * are left as they are; close this one. After any other error try again.
 *
 * Durable on return: nothing that was not before. Threads: one at a time for each memory; a second gets MIRRORBUS_E_BUSY.
 *
 * Pointers: `reconnected` is such a struct, with its size, or null.
 */
int mirrorbus_epochs_reconnect(struct mirrorbus_epochs *epochs,
                               uint64_t timeout_ns,
                               struct mirrorbus_epochs_reconnected *reconnected);

/**
 * Closes the link in good order, and unmaps the memory. What was not committed is nowhere; the holder keeps the last whole epoch.
 * MIRRORBUS_E_BUSY while another thread is in a call with it.
 *
 * Durable on return: nothing that was not before. Threads: any; none stores into the memory any more. The handle is of no use afterwards.
 */
int mirrorbus_epochs_close(struct mirrorbus_epochs *epochs);

/**
 * Opens the directory, replays the log, and begins to look for the peer. Whether this node serves shows in the status a little later.
 *
 * Durable on return: nothing new; all that was durable here before is there again. Threads: any, at any time.
 *
 * Pointers: `options` is such a struct with its texts, `dataset` a place for the handle.
 */
int mirrorbus_dataset_open(const struct mirrorbus_dataset_options *options,
                           struct mirrorbus_dataset **dataset);

/**
 * Tells how it is. Does not wait for anything that may hang.
 *
 * Threads: any, at any time.
 *
 * Pointers: `status` is such a struct, with its size.
 */
int mirrorbus_dataset_get_status(struct mirrorbus_dataset *dataset, struct mirrorbus_dataset_status *status);

/**
 * Waits until every acknowledged write is in both memories: this node serves or follows, and so does the peer.
 *
 * Threads: any, at any time.
 */
int mirrorbus_dataset_wait_mirrored(struct mirrorbus_dataset *dataset,
                                    uint64_t timeout_ns);

/**
 * Makes this node serve, by the operator's word that the peer does not. `flushed_only` not 0: from what was durable here, although the peer may
 * have acknowledged writes that are not.
 *
 * Threads: any, at any time.
 */
int mirrorbus_dataset_promote(struct mirrorbus_dataset *dataset,
                              int flushed_only);

/**
 * Makes this primary go on without the peer, by the operator's word that that does not serve.
 *
 * Durable on return: everything that was acknowledged, here; every write is from then on before it is acknowledged, until the peer has come
 * back. Threads: any, at any time.
 */
int mirrorbus_dataset_alone(struct mirrorbus_dataset *dataset);

/**
 * Makes a volume of `bytes`, all zeroes, in blocks of 512 or 4096 (0: 4096). On return both nodes have it, as they have a write that was
 * acknowledged.
 *
 * Threads: any, at any time.
 *
 * Pointers: `name` is a text.
 */
int mirrorbus_dataset_create_volume(struct mirrorbus_dataset *dataset,
                                    const char *name,
                                    uint64_t bytes,
                                    uint64_t block_bytes);

/**
 * Ends it in good order: takes nothing more, brings what it has to the disks, and writes a checkpoint. A peer that does not follow is
 * waited for 30 seconds at most, up to a minute if it was just told to follow; this node's disk for as long as it takes. Volumes that are still open fail with MIRRORBUS_E_ROLE: close them too. MIRRORBUS_E_BUSY while another
 * thread is in a call with it.
 *
 * Durable on return: what was; what was not flushed in all likelihood, and without a word if not: flush the volumes first. Threads: any. The
 * handle is of no use afterwards.
 */
int mirrorbus_dataset_close(struct mirrorbus_dataset *dataset);

/**
 * Opens a volume, where this node serves. It works no more when the node's role changes: open it again then.
 *
 * Threads: any, at any time.
 *
 * Pointers: `name` is a text, `volume` a place for the handle.
 */
int mirrorbus_volume_open(struct mirrorbus_dataset *dataset,
                          const char *name,
                          struct mirrorbus_volume **volume);

/**
 * Tells how large it is.
 *
 * Threads: any, at any time.
 *
 * Pointers: `info` is such a struct, with its size.
 */
int mirrorbus_volume_get_info(struct mirrorbus_volume *volume, struct mirrorbus_volume_info *info);

/**
 * Reads. Returns when the bytes may be given out: nothing that is read is lost again by a failover.
 *
 * The target may be memory of epochs, however its stores are found, and also while it is cut: what is read into it is found as a store.
 *
 * A timeout is seen within 20 ms, but not while a disk is read. Threads: any, at any time.
 *
 * Pointers: `target` has `bytes` bytes, which nobody else uses meanwhile. After an error they mean nothing.
 */
int mirrorbus_volume_read(struct mirrorbus_volume *volume,
                          uint64_t offset,
                          void *target,
                          size_t bytes,
                          uint64_t timeout_ns);

/**
 * Writes. With `mark` null it returns when the write is acknowledged: in both nodes' memory, or on the own disk while the node serves
 * alone. Else it returns when the bytes are taken, and mirrorbus_volume_wait() or mirrorbus_volume_poll() of the mark tell when they are
 * acknowledged; a later mark includes the earlier ones. A mark is of this handle: after MIRRORBUS_E_ROLE what had not been acknowledged may
 * be lost, and another handle refuses the mark. Waits while the log has no room. After an error part of it may have been written.
 *
 * Durable on return: nothing but what mirrorbus_volume_flush() made so. A timeout, for room and acknowledgment together, is seen within 20 ms,
 * but not while a disk is synced. Threads: any, at any time.
 *
 * Pointers: `data` has `bytes` bytes that nobody changes meanwhile; `mark` is a place for one, or null.
 */
int mirrorbus_volume_write(struct mirrorbus_volume *volume,
                           uint64_t offset,
                           const void *data,
                           size_t bytes,
                           uint64_t timeout_ns,
                           uint64_t *mark);

/**
 * Makes the blocks that lie wholly in the range read as zeroes, and gives their room back. `mark` as in mirrorbus_volume_write().
 *
 * Durable on return: as there. Threads: any, at any time.
 *
 * Pointers: `mark` is a place for one, or null.
 */
int mirrorbus_volume_trim(struct mirrorbus_volume *volume,
                          uint64_t offset,
                          uint64_t bytes,
                          uint64_t timeout_ns,
                          uint64_t *mark);

/**
 * Makes the range read as zeroes. Takes no room, but for blocks that lie in it in part. `mark` as in mirrorbus_volume_write().
 *
 * Durable on return: as there. Threads: any, at any time.
 *
 * Pointers: `mark` is a place for one, or null.
 */
int mirrorbus_volume_write_zeroes(struct mirrorbus_volume *volume,
                                  uint64_t offset,
                                  uint64_t bytes,
                                  uint64_t timeout_ns,
                                  uint64_t *mark);

/**
 * Waits until everything up to the mark is acknowledged. After MIRRORBUS_E_TIMEOUT it may be waited for again.
 *
 * Durable on return: nothing but what mirrorbus_volume_flush() made so; while the node serves alone what was acknowledged is on its disk. A timeout
 * is seen within 20 ms, but not while a disk is synced. Threads: any, at any time.
 */
int mirrorbus_volume_wait(struct mirrorbus_volume *volume,
                          uint64_t mark,
                          uint64_t timeout_ns);

/**
 * Tells without waiting whether everything up to the mark is acknowledged: 1 in `*acknowledged` if so, else 0. While the node serves alone
 * the dataset's own threads bring the log to the disk, which may take them a second; mirrorbus_volume_wait() does it at once.
 *
 * Threads: any, at any time.
 *
 * Pointers: `acknowledged` is a place for it.
 */
int mirrorbus_volume_poll(struct mirrorbus_volume *volume,
                          uint64_t mark,
                          int *acknowledged);

/**
 * Makes what was acknowledged before durable.
 *
 * Durable on return: all of it, on both nodes' storage, or as the dataset's `durability` says. A timeout is seen within 20 ms, but not while a
 * disk is synced. Threads: any, at any time.
 */
int mirrorbus_volume_flush(struct mirrorbus_volume *volume,
                           uint64_t timeout_ns);

/**
 * Closes the handle. MIRRORBUS_E_BUSY while another thread is in a call with it.
 *
 * Durable on return: nothing that was not before. Threads: any. The handle is of no use afterwards.
 */
int mirrorbus_volume_close(struct mirrorbus_volume *volume);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MIRRORBUS_H */

/* Whether this program can use the library that it runs with: to be called once, first. */
#define MIRRORBUS_ABI_CHECK() mirrorbus_abi_check(MIRRORBUS_ABI_VERSION)
