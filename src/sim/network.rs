//! A network of one-sided stores from one memory to another: one after the other, and torn off anywhere. Within one no order is promised:
//! they arrive by turns from their beginning, their end and their middle. A word of eight bytes arrives from its beginning.
//!
//! ```text
//!  hand over ─▶ copied ─▶ on its way ── some bytes ──▶ the other memory ─▶ acknowledged
//!                            └── the link is lost: a part of one arrives, then nothing
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use crate::memory::Mapping;

/// With which byte a store begins to arrive.
#[derive(Debug, Clone, Copy)]
enum From {
    Start,
    End,
    /// And after the last comes the first.
    Middle,
}

impl From {
    /// Where the byte lies that comes as the one of this number, of `len`.
    const fn place(self, number: usize, len: usize) -> usize {
        match self {
            Self::Start => number,
            Self::End => len - 1 - number,
            Self::Middle => (len / 2 + number) % len,
        }
    }
}

#[derive(Debug)]
enum Message {
    /// Bytes for a place, and how many of them are there already.
    Store { offset: usize, bytes: Vec<u8>, done: usize, from: From },
    /// A look at words of the other memory.
    Fetch { offset: usize, words: usize },
}

/// What is on its way between two memories.
#[derive(Debug)]
pub(crate) struct Network {
    from: Arc<Mapping>,
    to: Arc<Mapping>,
    messages: VecDeque<Message>,
    /// Messages handed over, and those that are done.
    sent: u64,
    done: u64,
    fetched: bool,
    is_lost: bool,
}

impl Network {
    pub(crate) const fn new(from: Arc<Mapping>, to: Arc<Mapping>) -> Self {
        Self { from, to, messages: VecDeque::new(), sent: 0, done: 0, fetched: false, is_lost: false }
    }

    pub(crate) const fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Messages handed over, and how many of those are done.
    pub(crate) const fn counts(&self) -> (u64, u64) {
        (self.sent, self.done)
    }

    /// Writes to the memory that it comes from.
    pub(crate) fn write_here(&self, offset: usize, bytes: &[u8]) {
        self.from.slice().write(offset, bytes);
    }

    /// Copies a range of the memory onto the way; its number.
    pub(crate) fn store(&mut self, offset: usize, len: usize) -> u64 {
        let mut bytes = vec![0; len];
        self.from.slice().read(offset, &mut bytes);
        let from = match self.sent % 3 {
            1 if len > 8 => From::End,
            2 if len > 8 => From::Middle,
            _ => From::Start,
        };
        self.messages.push_back(Message::Store { offset, bytes, done: 0, from });
        self.sent += 1;
        self.sent
    }

    /// Asks for words of the other memory.
    pub(crate) fn fetch(&mut self, offset: usize, len: usize) {
        self.fetched = false;
        self.messages.push_back(Message::Fetch { offset, words: len / 8 });
        self.sent += 1;
    }

    /// Whether they have come since they were asked for.
    pub(crate) const fn has_fetched(&self) -> bool {
        self.fetched
    }

    /// Moves so many bytes on at most; whether there were any.
    pub(crate) fn deliver(&mut self, mut bytes_max: usize) -> bool {
        let moves = !self.messages.is_empty() && bytes_max > 0;
        while bytes_max > 0
            && let Some(message) = self.messages.front_mut()
        {
            match message {
                Message::Store { offset, bytes, done, from } => {
                    let count = bytes_max.min(bytes.len() - *done);
                    for number in *done..*done + count {
                        let at = from.place(number, bytes.len());
                        self.to.slice().write(*offset + at, &bytes[at..=at]);
                    }
                    (*done, bytes_max) = (*done + count, bytes_max - count);
                    if *done < bytes.len() {
                        break;
                    }
                }
                Message::Fetch { offset, words } => {
                    for at in (0..*words).map(|word| *offset + word * 8) {
                        self.from.slice().store_word(at, self.to.slice().load_word(at));
                    }
                    self.fetched = true;
                    bytes_max -= 1;
                }
            }
            self.messages.pop_front();
            self.done += 1;
        }
        moves
    }

    /// The link is lost: what has not arrived does not.
    pub(crate) fn lose(&mut self) {
        self.messages.clear();
        self.is_lost = true;
    }

    /// The link is back. What was handed over and may not have arrived is sent once more, as it is now: all of the memory in `range`.
    pub(crate) fn reconnect(&mut self, range: std::ops::Range<usize>) {
        let mut bytes = vec![0; range.len()];
        self.from.slice().read(range.start, &mut bytes);
        self.to.slice().write(range.start, &bytes);
        (self.done, self.is_lost, self.fetched) = (self.sent, false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MapOptions;

    #[test]
    fn what_arrives_is_whole_stores_in_order_and_a_part_of_one() {
        for bytes in 0..30 {
            let memory = || Arc::new(Mapping::anonymous(4096, MapOptions::default()).unwrap());
            let (here, there) = (memory(), memory());
            let mut network = Network::new(here.clone(), there.clone());
            here.slice().fill(0, 10, 1);
            assert_eq!(network.store(0, 10), 1);
            here.slice().fill(0, 10, 2);
            assert_eq!(network.store(5, 10), 2);
            network.deliver(bytes);
            network.lose();
            let mut found = [0; 16];
            there.slice().read(0, &mut found);
            let second = bytes.saturating_sub(10).min(10);
            let mut wanted = [0; 16];
            wanted[..bytes.min(10)].fill(1);
            wanted[15 - second..15].copy_from_slice(&[2, 2, 2, 2, 2, 0, 0, 0, 0, 0][10 - second..]);
            assert_eq!(found, wanted, "{bytes}");
            assert_eq!(network.counts(), (2, u64::from(bytes >= 10) + u64::from(bytes >= 20)));
            network.reconnect(0..4096);
            there.slice().read(0, &mut found);
            assert_eq!(found[..10], [2; 10]);
        }
    }
}
