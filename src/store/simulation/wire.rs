//! The network as the shipped primary sees it.

use std::cell::RefCell;
use std::rc::Rc;

use super::Defect;
use crate::base::Sequence;
use crate::sim::Network;
use crate::store::link::Wire;

/// A way into the other node's memory.
#[derive(Debug)]
pub(super) struct SimulatedWire {
    pub(super) network: Rc<RefCell<Network>>,
    pub(super) defect: Defect,
}

impl SimulatedWire {
    fn check(&self) -> Result<(), String> {
        if self.network.borrow().is_lost() { Err("the link is lost".into()) } else { Ok(()) }
    }
}

impl Wire for SimulatedWire {
    fn hand_over(&mut self, offset: usize, len: usize) -> Result<Option<Sequence>, String> {
        self.check()?;
        Ok(Some(Sequence(self.network.borrow_mut().store(offset, len))))
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<bool, String> {
        self.check()?;
        let mut network = self.network.borrow_mut();
        network.write_here(offset, bytes);
        network.store(offset, bytes.len());
        Ok(true)
    }

    fn acked(&mut self) -> Result<Sequence, String> {
        self.check()?;
        let (sent, done) = self.network.borrow().counts();
        Ok(Sequence(if self.defect == Defect::AcksBeforePlaced { sent } else { done }))
    }

    fn fetch(&mut self, offset: usize, len: usize) -> Result<bool, String> {
        self.check()?;
        self.network.borrow_mut().fetch(offset, len);
        Ok(true)
    }

    fn has_fetched(&mut self) -> Result<bool, String> {
        self.check()?;
        Ok(self.network.borrow().has_fetched())
    }
}
