//! Bringing a node up to date that was away for longer than the ring reaches back, or is new.
//!
//! ```text
//!  primary                                                   secondary, with the log to F
//!  "you are to be resynced" ───────────────────────────────▶ notes F durably                                      begin, note
//!  maps at X, its log's end ── ring pushed, live records ──▶ destaged as they come, applied to staging maps       staging
//!                           ◀── which volumes? which runs? ── staging maps = maps at X                            pull
//!                           ◀── heads, tables of segments? ─── compared with its own files'
//!                           ◀── data of these blocks? ──────── only what its own files do not have
//!  reads its own files, checks, ── window of the region ───▶ checks, writes to its own files, syncs               source, pull
//!                                                            all there: checkpoint of staging, F is forgotten     keeper
//!                           ◀── finished ──────────────────── and then set in like any follower
//! ```
//!
//! Data keeps its LSN for life, on both nodes: so what a segment's file has here and lacks there is told by the maps and by the checksums in
//! the segment's table, nothing is remembered of what was moved, and any number of cuts loses nothing. A directory with copied segment files is
//! a node that lacks little.
//!
//! Invariants:
//! * Until all is there, the secondary keeps two roots: what it has, with its checkpoint and its blocks, and the staging maps. It recovers to
//!   the old one, says that it has the old one, and serves it if the operator tells it to. It writes no checkpoint and gives no block back.
//! * Files behind F are nothing but what need not be moved again: a start ignores them as long as the note is there.
//! * Data travels in a window of its own, never in the ring: what clients write does not wait behind it.
//! * What the primary cannot read keeps nothing else from coming, and is never taken for all there is.
//! * What is overwritten before its turn is not moved: the staging maps have the newer position by then, and that came by the ring.
//! * Nothing that came is believed: a piece is written when it matches the checksums of the segment's table, a table when all its records do,
//!   the maps when their digest is the primary's.

mod carrier;
mod damage;
mod fill;
mod maps;
mod meter;
mod note;
mod pull;
mod source;
mod staging;
mod table;
mod tables;
mod wire;

pub(super) use carrier::Carrier;
pub use meter::ResyncStatus;
pub(super) use note::Note;
pub use note::NoteError;
pub(super) use pull::Puller;
pub(super) use source::{Roots, Source};
pub(super) use staging::Staging;
pub(super) use table::SegmentTable;
pub(super) use wire::{Ask, Reply};
