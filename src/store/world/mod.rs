//! Two whole nodes and their mediator in one simulated world: all their threads take turns by a seed, in virtual time, over ways and disks that fail
//! when they are told to.

pub(in crate::store) mod medium;

mod aims;
mod checks;
mod client;
mod disk_faults;
mod faults;
mod finish;
mod harm;
mod history;
mod holder;
mod lane;
mod mediator_faults;
mod net;
mod node;
mod oracle;
mod region;
mod rules;
mod run;
mod tests;
mod trace;
mod undo;

pub(crate) use rules::{Defect, breaks};
