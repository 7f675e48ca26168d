//! Failover as a model: two nodes, a mediator, and a network that delays and loses, in every order of steps.
//!
//! ```text
//!   node A ──── the log, word of who follows, leases ──── node B         a step: a message taken, a file synced, a link lost, a crash …
//!      ╲                                                  ╱
//!       compare-and-set ──────── mediator ───────────────             a state: what each of the three knows, and what is under way
//! ```
//!
//! It does what `src/store/pair` does, in the same words, without the data: a log is the set of writes that it has. Without any one of its rules,
//! by [`Rule`], something breaks. `docs/failover.md`, "The model", has what is looked for, how far, and what is left out.

mod config;
mod election;
mod follow;
mod mediator;
mod model;
mod reach;
mod serve;
mod state;
mod step;

pub use config::{Config, Name};
pub use model::{Bounds, Failover, Rule};
pub use reach::Graph;
pub use state::{Ask, Mode, Node, Request, Role, State, Told};
pub use step::{MEDIATOR, Step};
