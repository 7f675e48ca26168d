//! What a store reaches its peer by: memory that is mirrored, and questions. In tests it may be simulated, where the store runs in a simulated world.

#[cfg(test)]
pub(super) use super::world::medium::{Holder, Inquirer, Lane, Region, ask, is_vacant};
#[cfg(not(test))]
pub(super) use crate::mirror::Lane;
#[cfg(not(test))]
pub(super) use crate::node::{Holder, Inquirer, Region, ask, is_vacant};
