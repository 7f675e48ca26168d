//! The two lose each other, and both live: exactly one serves.

use std::time::{Duration, Instant};

use mirrorbus::serve::admin::{ReplicationState, Role};

use crate::arbiter::Decider;
use crate::client::Client;
use crate::probe::{Probes, Taken, assert_there};
use crate::proxy::Passage;
use crate::rig::{NAMES, Plan, Rig};
use crate::{assert_whole, cuttable, is_alone, make_primary, served, wait_until};

/// For how long it must stay as it is, once it is decided.
const STEADY_TIME: Duration = Duration::from_millis(1500);

/// Where the preferred one lost the first time it must win so often, before it has lost so often.
const WINS: u32 = 3;
const LOSSES: u32 = 3;
/// Writes of a probe in one cut are fewer.
const WRITES_MAX: u32 = 1 << 20;

/// Cuts the link of a pair of which `primary` serves, until one of them has won; the other must not have acknowledged anything that
/// was asked for since. The one that is preferred must win; on a machine that does much else it may be late, so that is tried again.
pub(crate) fn exactly_one_serves(plan: Plan, cut: Passage, preferred: Option<usize>, primary: usize) {
    let mut rig = Rig::pair(Plan { preferred, ..plan });
    let (mut wins, mut losses) = (0, 0);
    while losses < LOSSES {
        make_primary(&mut rig, primary);
        let winner = one_serves_behind(&rig, cut, primary, (wins + losses) * WRITES_MAX);
        if preferred.is_none_or(|preferred| preferred == winner) {
            wins += 1;
            if losses == 0 || wins == WINS {
                return;
            }
        } else {
            losses += 1;
            println!("{} won: loss {losses}, after {wins} wins", NAMES[winner]);
        }
    }
    panic!("the other one was preferred\n{}", rig.logs());
}

/// Cuts the link once; which has won.
fn one_serves_behind(rig: &Rig, cut: Passage, primary: usize, last: u32) -> usize {
    let probes = Probes::start_behind(rig, last);
    let began = Instant::now();
    wait_until(rig, "a probe is answered", || probes.taken(primary, began) > 10);
    let when_cut = Instant::now();
    rig.ways().set_link(cut);
    let winner = winner(rig);
    let decided = Instant::now();
    wait_until(rig, "the winner takes writes", || probes.taken(winner, decided) > 10);
    // It stays so, and the other one lets nobody in when it knows.
    let loser = 1 - winner;
    rig.wait(loser, "not primary", |status| status.role != Role::Primary);
    let steady = Instant::now();
    while steady.elapsed() < STEADY_TIME {
        assert!(Client::connect(&rig.socket(loser), "root").is_err(), "{} serves", NAMES[loser]);
        let status = rig.status(loser).unwrap();
        assert!(status.role != Role::Primary, "{status:?}\n{}", rig.logs());
        assert!(rig.status(winner).is_some_and(|status| is_alone(&status)), "{}", rig.logs());
    }
    rig.ways().set_link(Passage::Open);
    assert_eq!(assert_whole(rig), winner, "{}", rig.logs());
    let taken = probes.stop();
    assert_one_acknowledged(rig, winner, when_cut, &taken);
    assert_there(&mut served(rig, winner), &taken);
    winner
}

/// Waits until one of them goes on alone; never do both.
fn winner(rig: &Rig) -> usize {
    let mut winner = None;
    wait_until(rig, "one goes on", || {
        let alone = [0, 1].map(|node| rig.status(node).is_some_and(|status| is_alone(&status)));
        assert_ne!(alone, [true; 2], "both serve\n{}", rig.logs());
        winner = alone.iter().position(|alone| *alone);
        winner.is_some()
    });
    winner.unwrap()
}

/// Of what was asked for since the winner's first answer behind the cut, the loser acknowledged nothing; if the winner did not serve
/// before, that is since it took over.
fn assert_one_acknowledged(rig: &Rig, winner: usize, when_cut: Instant, taken: &[Taken]) {
    let first = taken.iter().find(|taken| taken.node == winner && taken.asked > when_cut).unwrap();
    let both = taken.iter().find(|taken| taken.node != winner && taken.asked > first.answered);
    assert!(
        both.is_none(),
        "{both:?} is acknowledged, and {} serves since {first:?}\n{}",
        NAMES[winner],
        rig.logs()
    );
}

#[test]
fn exactly_one_serves_when_the_link_is_cut_hard() {
    exactly_one_serves(cuttable(), Passage::Closed, None, 0);
}

#[test]
fn exactly_one_serves_when_the_link_is_cut_in_silence() {
    exactly_one_serves(cuttable(), Passage::Silent, None, 0);
}

#[test]
fn the_preferred_primary_wins_when_the_link_is_cut_hard() {
    exactly_one_serves(cuttable(), Passage::Closed, Some(0), 0);
}

#[test]
fn the_preferred_primary_wins_when_the_link_is_cut_in_silence() {
    exactly_one_serves(cuttable(), Passage::Silent, Some(0), 0);
}

#[test]
fn the_preferred_secondary_wins_when_the_link_is_cut_hard() {
    exactly_one_serves(cuttable(), Passage::Closed, Some(1), 0);
}

#[test]
fn the_preferred_secondary_wins_when_the_link_is_cut_in_silence() {
    exactly_one_serves(cuttable(), Passage::Silent, Some(1), 0);
}

/// Nobody can decide, so nobody acknowledges anything; afterwards they go on.
#[test]
fn link_and_mediator_together() {
    let rig = Rig::pair(cuttable());
    let serving = rig.wait_for_pair();
    let probes = Probes::start(&rig);
    let began = Instant::now();
    wait_until(&rig, "a probe is answered", || probes.taken(serving, began) > 10);
    rig.ways().set_all(Passage::Silent);
    // What was on its way may still be answered.
    std::thread::sleep(Duration::from_millis(100));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        let taken = [0, 1].map(|node| probes.taken(node, since));
        assert_eq!(taken, [0; 2], "acknowledged by one that may not be the only one\n{}", rig.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.ways().set_all(Passage::Open);
    let healed = Instant::now();
    wait_until(&rig, "they go on", || (0..2).any(|node| probes.taken(node, healed) > 10));
    let serving = assert_whole(&rig);
    assert_there(&mut served(&rig, serving), &probes.stop());
}

/// Without a mediator it is the operator who decides, however the link is cut.
#[test]
fn without_a_mediator_nobody_goes_on() {
    let rig = Rig::pair(Plan { decider: Decider::Operator, ..cuttable() });
    let serving = rig.wait_for_pair();
    let probes = Probes::start(&rig);
    for cut in [Passage::Closed, Passage::Silent] {
        let began = Instant::now();
        wait_until(&rig, "a probe is answered", || probes.taken(serving, began) > 10);
        rig.ways().set_link(cut);
        rig.wait(serving, "without a link", |status| status.replication_state == ReplicationState::LinkLost);
        let since = Instant::now();
        while since.elapsed() < STEADY_TIME {
            assert_eq!([0, 1].map(|node| probes.taken(node, since)), [0; 2], "{}", rig.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        rig.ways().set_link(Passage::Open);
        assert_eq!(assert_whole(&rig), serving);
    }
    assert_there(&mut served(&rig, serving), &probes.stop());
}
