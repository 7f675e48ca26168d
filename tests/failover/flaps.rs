//! A link that comes and goes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::child::{Watchdog, rounds, say, seed};
use crate::common::Random;
use crate::ledger::Ledger;
use crate::proxy::Passage;
use crate::rig::Rig;
use crate::roamer::{Roamed, Roamer};
use crate::{BLOCKS, assert_kept, assert_whole, cuttable, wait_until};

#[test]
fn flaps_lose_nothing() {
    let watchdog = Watchdog::new("flaps");
    let mut random = Random(seed("flaps"));
    let rig = Rig::pair(cuttable());
    let ledger = Arc::new(Mutex::new(Ledger::new(BLOCKS)));
    let roamer = Roamer::start(&rig, &ledger, random.next());
    let acknowledged = || ledger.lock().unwrap().acknowledged;
    let (mut served, mut changes) = (rig.wait_for_pair(), 0);
    let cuts = rounds(20, 200);
    for cut in 0..cuts {
        watchdog.feed(format!("{cut} cuts"));
        std::thread::sleep(Duration::from_millis(50 + random.below(400) as u64));
        // Whoever does not reach the mediator loses: in every other round the one that serves, and for long enough.
        let (cut_off, least) = if cut % 2 == 0 { (served, 500) } else { (random.below(2), 50) };
        let cut_off = &rig.ways().arbiter[cut_off];
        rig.ways().set_link(Passage::Closed);
        cut_off.set(Passage::Closed);
        std::thread::sleep(Duration::from_millis(least + random.below(700) as u64));
        cut_off.set(Passage::Open);
        rig.ways().set_link(Passage::Open);
        // In some rounds they are whole before the next cut, in others it comes upon them as they meet.
        if random.below(2) == 0 {
            let serving = rig.wait_for_pair();
            changes += u32::from(serving != served);
            served = serving;
            let before = acknowledged();
            wait_until(&rig, "the client is answered", || acknowledged() > before);
        }
    }
    rig.wait_for_pair();
    let Roamed { connections, failed } = roamer.stop();
    assert!(failed.is_empty(), "requests failed: {failed:?}\n{}", rig.logs());
    let serving = assert_whole(&rig);
    say(&format!(
        "flaps: {cuts} cuts, {changes} changes seen, {connections} connections, {} writes acknowledged, none lost",
        acknowledged()
    ));
    assert!(acknowledged() > 0 && (cuts < 20 || changes > 0), "{changes} changes\n{}", rig.logs());
    assert_kept(&rig, serving, &ledger);
}
