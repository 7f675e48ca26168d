//! The requests that were executed and not answered yet.
//!
//! Replies wait here for the newest mark of all of them. When it is not committed, each becomes a failure: none may show what it
//! saw or promise what was taken. Failures of their own wait for nothing and stay what they are.

use super::errno::Refusal;
use super::export::Mark;
use super::output::Output;

/// Requests executed before the replies go, whatever else has come.
pub(super) const BATCH_REQUESTS_MAX: usize = 256;
/// Bytes of replies before they go.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 10;

/// Replies to be.
#[derive(Debug)]
pub(super) struct Batch {
    structured: bool,
    /// Must be committed before `replies` go.
    newest: Option<Mark>,
    /// Those of success.
    pub(super) replies: Output,
    /// Whose they are.
    answered: Vec<u64>,
    /// Those that succeed once what is committed is durable too.
    synced: Vec<u64>,
    /// Those of failure.
    refusals: Output,
}

impl Batch {
    pub(super) fn new(structured: bool) -> Self {
        Self {
            structured,
            newest: None,
            replies: Output::new(),
            answered: Vec::with_capacity(BATCH_REQUESTS_MAX),
            synced: Vec::with_capacity(BATCH_REQUESTS_MAX),
            refusals: Output::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.answered.len() + self.synced.len() >= BATCH_REQUESTS_MAX
            || self.replies.len() + self.refusals.len() >= BATCH_BYTES_MAX
    }

    /// Something with this mark was taken or seen.
    #[inline]
    pub(super) fn raise(&mut self, mark: Mark) {
        self.newest = self.newest.max(Some(mark));
    }

    /// The reply to `cookie` is in `replies`, whole.
    #[inline]
    pub(super) fn answered(&mut self, cookie: u64) {
        self.answered.push(cookie);
    }

    /// `cookie` succeeded, and has no data.
    #[inline]
    pub(super) fn done(&mut self, cookie: u64) {
        self.replies.simple(cookie, 0);
        self.answered.push(cookie);
    }

    /// `cookie` succeeds when everything is durable.
    #[inline]
    pub(super) fn wants_sync(&mut self, cookie: u64) {
        self.synced.push(cookie);
    }

    /// `cookie` failed; with `offset`, there.
    pub(super) fn refuse(&mut self, cookie: u64, refusal: &Refusal, offset: Option<u64>) {
        log::debug!("nbd: request {cookie:#x} failed: {}", refusal.text);
        refuse(self.structured, &mut self.refusals, cookie, refusal, offset);
    }

    /// The mark to be committed now.
    #[inline]
    pub(super) const fn take_mark(&mut self) -> Option<Mark> {
        self.newest.take()
    }

    /// What was taken and seen was not committed.
    pub(super) fn fail(&mut self, refusal: &Refusal) {
        self.replies.clear();
        for cookie in self.answered.drain(..) {
            refuse(self.structured, &mut self.refusals, cookie, refusal, None);
        }
        self.fail_sync(refusal);
    }

    /// What was committed did not become durable.
    pub(super) fn fail_sync(&mut self, refusal: &Refusal) {
        for cookie in self.synced.drain(..) {
            refuse(self.structured, &mut self.refusals, cookie, refusal, None);
        }
    }

    /// Everything is durable.
    pub(super) fn succeed_sync(&mut self) {
        for cookie in self.synced.drain(..) {
            self.replies.simple(cookie, 0);
        }
    }

    pub(super) fn wants_any_sync(&self) -> bool {
        !self.synced.is_empty()
    }

    /// What may be sent, once the mark is committed; what it was is forgotten by [`sent`](Self::sent).
    pub(super) fn ready(&mut self) -> &[u8] {
        if !self.refusals.is_empty() {
            let refusals = self.refusals.filled();
            self.replies.extend(refusals.len()).copy_from_slice(refusals);
            self.refusals.clear();
        }
        self.replies.filled()
    }

    pub(super) fn sent(&mut self) {
        self.replies.clear();
        self.answered.clear();
    }
}

fn refuse(structured: bool, output: &mut Output, cookie: u64, refusal: &Refusal, offset: Option<u64>) {
    if structured {
        output.error_chunk(cookie, refusal, offset);
    } else {
        output.simple(cookie, refusal.errno.number());
    }
}
