//! Two nodes of a dataset: what one wrote and acknowledged is with the other, whatever happens to either.

#[path = "common/golden.rs"]
mod golden;

mod store {
    pub(crate) mod alone;
    pub(crate) mod away;
    pub(crate) mod content;
    pub(crate) mod damage;
    mod durable;
    mod image;
    mod marker;
    pub(crate) mod pair;
    pub(crate) mod proxy;
    pub(crate) mod replace;
    pub(crate) mod resync;
    pub(crate) mod resync_cuts;
    mod resync_tables;
    pub(crate) mod rig;
    mod s6;
    pub(crate) mod spoil;
    mod stop;
}
