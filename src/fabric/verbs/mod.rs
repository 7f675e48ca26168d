//! RDMA: the peer's memory is written by its device, without a line of its code. Hardware, or soft-RoCE.
//!
//! ```text
//!  owner                                                     holder
//!  Connector ─▶ Route ─▶ Connection ═══ reliable connection ═══ Accepted ─▶ Export      Listener
//!     │                    │    ▲                                                 │
//!  MemoryRegion (local)    │   Watch (connection manager, device)             MemoryRegion per window
//!                       VerbsQueue
//! ```
//!
//! * One file per object of the library; a child holds its parent, so that they end in the one order that is allowed.
//! * A queue pair goes RESET, INIT, RTR, RTS and at last ERR; it is never revived ([`QueuePairState`]).
//! * `Acked` is the completion of a write: the peer's device has it. `Visible` is the completion of a read behind it.
//! * Retries end: after half a second without an answer a request has failed, and everything behind it.
//! * No relaxed ordering, and nothing that needs a receive: no code of the holder runs per store.
//!
//! All use of the C libraries is in this room. `unsafe` blocks hold one operation each.

mod address;
pub mod bare;
mod batch;
mod completion_queue;
mod connection;
mod connection_id;
mod connector;
mod device;
mod device_event;
mod devices;
mod domain;
mod error;
mod event_channel;
mod export;
mod life;
mod listener;
mod memory_region;
mod port;
mod private_data;
mod queue;
mod queue_pair;
mod queue_pair_state;
mod slots;
mod watch;

pub use completion_queue::CompletionQueue;
pub use connector::{Connector, QueueOptions};
pub use device::{Device, DeviceLimits};
pub use device_event::DeviceEvent;
pub use devices::{DeviceInfo, GidInfo, GidKind, PortInfo, PortState, devices, try_registration};
pub use domain::ProtectionDomain;
pub use error::VerbsError;
pub use export::{CONNECTIONS_MAX, Export, SHOW_UP_TIME};
pub use listener::{Arrival, ConnectRequest, Listener};
pub use memory_region::{MemoryRegion, RegionUse};
pub use private_data::RemoteWindow;
pub use queue::VerbsQueue;
pub use queue_pair::{QueuePair, QueuePairOptions};
pub use queue_pair_state::QueuePairState;
pub use watch::{Watch, Watched};
