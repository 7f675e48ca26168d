//! A peer that has no log although it had one: its disk was replaced, or is not there; or it is another machine.
//!
//! A node that lost everything looks like one that is new. Letting it in by itself would hide the loss of a copy, and where both nodes were down
//! it would let the other serve as though nothing had happened, though the lost copy may have had acknowledged writes that it
//! lacks. So it takes the operator's word, once: it holds until a peer has become a member.

use super::Pair;
use super::hello::Hello;
use crate::store::config::CommandError;
use crate::store::primary::Mode;
use crate::store::register::Register;
use crate::store::state::{Reason, Role};

/// Whether a node has nothing of any log.
const fn is_empty(hello: &Hello) -> bool {
    hello.position.generation == 0 && hello.position.end == 0
}

fn refuse<T>(why: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::Refused(why.into()))
}

impl Pair {
    /// Lets a peer without any log in, because the operator vouches that it is a new one.
    pub(in crate::store) fn replace_peer(&self) -> Result<(), CommandError> {
        match self.ask_hello() {
            Ok((_, theirs)) if !is_empty(&theirs) => {
                let (node, end) = (&theirs.node, theirs.position.end());
                return refuse(format!(
                    "{node} has a log, to {end}: it is let in by itself. If its copy is not to count, stop it, empty its directory, start it"
                ));
            }
            Ok(_) => {}
            // It may not be up yet.
            Err(reason) if reason.code == "peer-unreachable" => {}
            Err(reason) => return refuse(reason.text),
        }
        let _moves = self.moves();
        if self.has_renounced() {
            return refuse(
                "this node agreed, while the mediator was lost, that the other goes on, and it may have: if that is gone for good, say \
                 `mirrorbus promote --flushed-only` first",
            );
        }
        {
            let state = self.engine.shared.lock();
            match &state.role {
                Role::Primary(primary) => match primary.mode {
                    Mode::Alone => {}
                    Mode::CatchingUp { .. } | Mode::SettingIn | Mode::Mirrored => {
                        return refuse("the peer follows already");
                    }
                    Mode::Held { .. } => {
                        return refuse("the peer is still a member: `mirrorbus alone` sets it out first");
                    }
                },
                Role::Undecided if super::position(&state).end == 0 => {
                    return refuse("this node has no log itself: say it at the node that has the data");
                }
                Role::Undecided => {}
                Role::Secondary(_) => return refuse("this node follows: say it at the one that serves"),
                Role::Failed { why } => return refuse(format!("out of service: {why}")),
            }
        }
        let mut register = self.register();
        let (id, mut next) = (register.id(), register.contents().clone());
        next.awaits_new_peer = true;
        register.compare_and_set(id, next)?;
        drop(register);
        self.bell.ring();
        Ok(())
    }

    /// Why a peer without any log is not let in.
    pub(super) fn refuse_empty(&self, theirs: &Hello) -> Option<Reason> {
        let register = self.register();
        let contents = register.contents();
        if !is_empty(theirs) || !contents.had_peer || contents.awaits_new_peer {
            return None;
        }
        let text = format!(
            "{} has no log, and the peer had one: if its disk is not mounted, stop it and mount it; if it is a new node, \
             `mirrorbus replace-peer` here lets it in",
            theirs.node
        );
        Some(Reason::new("peer-empty", text))
    }
}
