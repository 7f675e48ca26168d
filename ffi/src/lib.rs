//! The C library: what the Rust library does with regions and volumes, for programs in C.
//!
//! ```text
//!  C program ─▶ region, lane, holder, epochs, epoch_holder, dataset, volume   one file for each kind of handle: the functions that C calls
//!                 │ guard      nothing that goes wrong in a call leaves it but as a code and a text; no call in a forked child
//!                 │ table      handles that are no pointers: closed, foreign and invented ones are told from live ones
//!                 │ arguments  what comes over the boundary is looked at before it is believed
//!                 └ codes      each error of the library has a code
//! ```
//!
//! `mirrorbus.h` is made of this source by cbindgen; the test `header` compares, and renews it when `MIRRORBUS_RENEW=1` is set.
#![deny(unsafe_op_in_unsafe_fn)]

mod arguments;
pub mod codes;
pub mod dataset;
pub mod epoch_holder;
pub mod epoch_types;
pub mod epochs;
mod forked;
pub mod guard;
pub mod holder;
pub mod lane;
pub mod region;
mod table;
pub mod types;
pub mod version;
pub mod volume;

#[cfg(test)]
mod tests;
