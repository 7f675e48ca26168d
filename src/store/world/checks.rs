//! What is promised of a pair that loses something, one by one, each in a world where nothing else happens.

#![cfg(test)]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::finish::primary;
use super::medium::Inquirer;
use super::net::{self, Cut, MEDIATOR};
use super::node::{Look, keys};
use super::oracle;
use super::run::{Setting, World, act};
use super::trace::fail;
use crate::base::DatasetId;
use crate::cluster::{ArbiterClient, Configuration, LEASE, RACE_DELAY, Request, Verdict};
use crate::mediator::Client;
use crate::sim::scheduler;

/// Each check is made in so many worlds.
const SEEDS: std::ops::Range<u64> = 1..3;
const SOON: Duration = Duration::from_secs(3);

/// Does something to a whole pair of which this one serves, in some worlds; behind it all heals, and both nodes are the same.
fn check(preferred: Option<usize>, acts: impl Fn(&mut World, usize)) {
    for seed in SEEDS {
        let outcome = act(seed, Some(Setting::quiet(preferred)), None, false, &mut |world| {
            // Until then the mediator takes nothing from whoever does not serve.
            world.advance(Duration::from_secs(3));
            let serves = primary(&world.clients).expect("the pair is whole");
            // The world ends in good order whatever is found.
            if let Err(why) = catch_unwind(AssertUnwindSafe(|| acts(world, serves))) {
                let text = why.downcast_ref::<String>().cloned();
                let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                fail(text.unwrap_or_default());
            }
        });
        assert!(outcome.failures.is_empty(), "seed {seed}: {:#?}", outcome.failures);
        assert!(outcome.answered > 20, "seed {seed}: nearly nobody was answered");
    }
}

fn cut(one: usize, other: usize, how: Cut) {
    net::cut(one, other, how);
    net::cut(other, one, how);
}

fn mend(one: usize, other: usize) {
    net::mend(one, other);
    net::mend(other, one);
}

fn look(world: &World, node: usize) -> Look {
    world.clients.nodes.borrow()[node].look()
}

fn serves_alone(world: &World, node: usize) -> bool {
    look(world, node) == Look::Alone
}

/// Waits until this node serves alone, and somebody was answered since.
fn wait_for(world: &mut World, node: usize) {
    let clients = world.clients.clone();
    let alone = || clients.nodes.borrow()[node].look() == Look::Alone;
    world.advance_until(SOON, &alone);
    assert!(alone(), "node {node} is {:?}: {}", look(world, node), clients.nodes.borrow()[node].reason());
    let before = clients.answered.get();
    world.advance_until(SOON, &|| clients.answered.get() > before + 4);
    assert!(clients.answered.get() > before + 4, "node {node} serves, and answers nobody");
    assert!(alone() && !serves_alone(world, 1 - node));
}

/// How many were answered within a time.
fn answered_within(world: &mut World, time: Duration) -> u64 {
    let before = world.clients.answered.get();
    world.advance(time);
    world.clients.answered.get() - before
}

/// What a client of the mediator is told, which asks as the node `node` does.
fn ask(world: &mut World, node: usize, request: &Request) -> Result<Verdict, String> {
    let (told, url) = (Rc::new(RefCell::new(None)), net::address(MEDIATOR));
    let (tells, request) = (told.clone(), request.clone());
    let name = super::node::NAMES[node];
    let process = world.clients.nodes.borrow()[node].process.expect("it runs");
    let task = scheduler::spawn_in(process, "asks", move || {
        let mut client = Client::<Inquirer>::over(url, keys(), DatasetId::from_bytes([5; 16]), name);
        let verdict = client.compare_and_set(&request, Duration::from_millis(500));
        tells.replace(Some(verdict.map_err(|error| error.to_string())));
    });
    world.advance_until(SOON, &|| scheduler::is_done(task));
    told.take().expect("an answer, or none")
}

fn held() -> Configuration {
    oracle::held().expect("somebody has asked the mediator")
}

#[test]
fn the_link_is_cut_and_exactly_one_serves() {
    for how in [Cut::Loud, Cut::Silent] {
        check(None, |world, serves| {
            cut(0, 1, how);
            wait_for(world, serves);
            mend(0, 1);
        });
    }
}

#[test]
fn the_preferred_one_wins() {
    for preferred in [0, 1] {
        for how in [Cut::Loud, Cut::Silent] {
            check(Some(preferred), |world, _| {
                cut(0, 1, how);
                wait_for(world, preferred);
                mend(0, 1);
            });
        }
    }
}

#[test]
fn the_other_one_wins_after_its_delay_where_the_preferred_is_dead() {
    for preferred in [0, 1] {
        check(Some(preferred), |world, serves| {
            // The one that is preferred is to serve when it dies.
            if serves != preferred {
                world.clients.nodes.borrow()[serves].command("switch", |dataset| {
                    dataset.switch().map(|_| ()).map_err(|error| error.to_string())
                });
                let clients = world.clients.clone();
                world.advance_until(SOON, &|| primary(&clients) == Some(preferred));
            }
            assert_eq!(primary(&world.clients), Some(preferred));
            // Without a word: nobody can know that it is not just slow.
            cut(0, 1, Cut::Silent);
            world.clients.nodes.borrow_mut()[preferred].kill(true);
            let died = scheduler::time();
            let clients = world.clients.clone();
            world.advance_until(SOON, &|| clients.nodes.borrow()[1 - preferred].look() == Look::Alone);
            assert!(scheduler::time() - died >= RACE_DELAY);
            wait_for(world, 1 - preferred);
            mend(0, 1);
            world.clients.nodes.borrow_mut()[preferred].start();
        });
    }
}

#[test]
fn a_stale_id_is_refused() {
    check(None, |world, serves| {
        let before = held();
        let name = super::node::NAMES[1 - serves].to_owned();
        let members = vec![name.clone()];
        let next = Configuration { id: before.id, members, primary: name, floor: 0 };
        let request = Request { expected: before.id - 1, next, nonce: 7 };
        assert_eq!(ask(world, 1 - serves, &request), Ok(Verdict::Changed(Some(before.clone()))));
        assert_eq!(held(), before);
        assert_eq!(primary(&world.clients), Some(serves));
    });
}

#[test]
fn a_paused_primary_finds_another_id_and_follows() {
    check(None, |world, serves| {
        let process = world.clients.nodes.borrow()[serves].process.expect("it runs");
        scheduler::pause(process);
        wait_for(world, 1 - serves);
        scheduler::resume(process);
        for _ in 0..100 {
            world.advance(Duration::from_millis(5));
            assert!(!serves_alone(world, serves));
        }
        assert_eq!(held().primary, super::node::NAMES[1 - serves]);
    });
}

#[test]
fn a_retry_after_a_lost_reply_succeeds() {
    check(None, |world, serves| {
        let id = held().id;
        cut(0, 1, Cut::Loud);
        for _ in 0..1_000_000 {
            if held().id > id {
                break;
            }
            world.advance(Duration::from_micros(4));
        }
        // It was taken, and the answer is on its way.
        net::cut(MEDIATOR, serves, Cut::Silent);
        let taken = held();
        assert!(taken.is_alone(super::node::NAMES[serves]));
        world.advance(LEASE + Duration::from_millis(5));
        assert_eq!(answered_within(world, Duration::from_millis(400)), 0, "it was not told");
        mend(MEDIATOR, serves);
        wait_for(world, serves);
        assert_eq!(held(), taken, "the same request, taken once");
        mend(0, 1);
    });
}

#[test]
fn the_end_of_the_lease_alone_fences() {
    check(None, |world, serves| {
        // Its stores arrive, its access stands, and nobody can decide anything.
        net::cut(1 - serves, serves, Cut::Silent);
        cut(serves, MEDIATOR, Cut::Silent);
        cut(1 - serves, MEDIATOR, Cut::Silent);
        world.advance(LEASE + Duration::from_millis(5));
        assert_eq!(answered_within(world, Duration::from_millis(400)), 0);
        for node in [0, 1] {
            mend(node, MEDIATOR);
        }
        mend(0, 1);
    });
}

#[test]
fn the_mediator_is_lost_first_and_who_was_elected_serves() {
    check(None, |world, serves| {
        let mediator = world.faults.mediator.process.expect("it runs");
        scheduler::pause(mediator);
        world.advance(Duration::from_secs(6));
        assert!(world.clients.nodes.borrow()[serves].reason().starts_with("elected"));
        cut(0, 1, Cut::Silent);
        wait_for(world, serves);
        scheduler::resume(mediator);
        mend(0, 1);
    });
}

#[test]
fn the_link_and_the_mediator_are_lost_together_and_nobody_serves() {
    check(None, |world, _| {
        let mediator = world.faults.mediator.process.expect("it runs");
        scheduler::pause(mediator);
        cut(0, 1, Cut::Silent);
        world.advance(LEASE + Duration::from_millis(5));
        assert_eq!(answered_within(world, Duration::from_secs(5)), 0);
        assert!(!serves_alone(world, 0) && !serves_alone(world, 1));
        scheduler::resume(mediator);
        mend(0, 1);
    });
}

#[test]
fn the_loser_comes_back_the_same_and_wins_the_next_time() {
    check(None, |world, serves| {
        cut(0, 1, Cut::Silent);
        wait_for(world, serves);
        mend(0, 1);
        assert!(world.wait_until_mirrored());
        world.clients.nodes.borrow_mut()[serves].kill(true);
        wait_for(world, 1 - serves);
        world.clients.nodes.borrow_mut()[serves].start();
    });
}
