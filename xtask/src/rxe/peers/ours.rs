//! Ours, as a client has it: a node in each guest, mirrored over soft-RoCE, and its volume by NBD over a Unix socket.

use crate::failure::Result;
use crate::rxe::guests::Guests;
use crate::rxe::pair::{ENGINE, Pair, Sizes};

use super::contender::{Contender, Side, VOLUME};

/// The nodes.
#[derive(Debug)]
pub(super) struct Ours(Pair);

impl Default for Ours {
    fn default() -> Self {
        Self(Pair::new(Sizes { region: "64MiB", segment: "16MiB", volume: VOLUME }))
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn about(&self) -> &'static str {
        "a volume of `mirrorbus node` over RDMA, by NBD over a Unix socket; files on tmpfs"
    }

    fn side(&self) -> Side {
        Side::Ours
    }

    fn bring_up(&mut self, guests: &Guests) -> Result<()> {
        self.0.bring_up(guests)
    }

    fn engine(&self) -> String {
        ENGINE.to_owned()
    }

    fn tear_down(&mut self, guests: &Guests) -> Result<()> {
        self.0.tear_down(guests)
    }
}
