//! Shared memory: the peer's memory is mapped here, and a store is a copy by this processor. The system bus itself.
//!
//! ```text
//!  owner (requester)                         holder (responder)
//!  ShmQueue ── copy ──▶ memory  ◀── same pages ──▶ memory
//!     │                grant page (read only) ◀──── generation, life word (kernel marks it when the holder dies)
//!     └── full fence, look at the grant page, then acknowledge
//! ```
//!
//! The holder cannot unmap what the owner mapped. So it revokes by raising the generation in the *grant page*; the
//! owner looks there after its stores and a full fence, before it acknowledges (`fencing`). What a stopped or
//! disobedient owner still writes lands in the old pages: the holder has moved its copy to others by then
//! (`snapshot`), or knows that the owner is dead (`owner`).
//!
//! A memory window that is a device or a DAX file (CXL, NTB) has no grant page: nobody raises a generation there, and
//! revocation is `Unsupported`.

mod fencing;
mod grant_page;
mod life;
mod owner;
mod peer;
mod plain;
mod queue;
mod snapshot;

pub use fencing::{Word, after_earlier_stores, between_readings, raise, still_granted};
pub use grant_page::{GrantPage, GrantView};
pub use life::LifeWord;
pub use owner::OwnerProcess;
pub use peer::{ShmPeer, offer};
pub use plain::PlainWay;
pub use queue::ShmQueue;
pub use snapshot::{SnapshotError, take_snapshot};
