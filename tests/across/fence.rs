//! Roles: a holder that is fenced in the middle of an owner's stores, and the owner, which goes on posting.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::mirror::StoreError;
use mirrorbus::node::Content;
use mirrorbus::{Attach, Deadline, FabricUrl, Holder, HolderConfig, Lane, LaneConfig};

use crate::child::{PATIENCE, variable};
use crate::region::{CALL, SIZE, keys, open, until_told_to_go, walk};

/// The copy is looked at so often after the fence, with a pause before each look.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// So many stores are in flight when the fence comes that the owner does not run out of room soon.
const DEPTH: usize = 1024;

/// The least an owner stores before it is fenced.
const STORES_MIN: u64 = 100;

/// Role: holds; `TEST_DELAY_MS` after it is told to, fences, tells the owner over `TEST_LISTEN` that it has, and sees that no byte of the
/// copy changes any more.
pub(crate) fn fenced_holder() {
    let mut config = HolderConfig::new(variable::<FabricUrl>("TEST_URL"), SIZE);
    config.lock = mirrorbus::memory::LockPolicy::Try;
    let holder = Holder::start(config, keys()).unwrap();
    let line = TcpListener::bind(variable::<String>("TEST_LISTEN")).unwrap();
    println!("listening on {}", holder.url());
    println!("told at {}", line.local_addr().unwrap());
    let (mut line, _) = line.accept().unwrap();
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    until_told_to_go("1");
    std::thread::sleep(Duration::from_millis(variable("TEST_DELAY_MS")));
    assert_eq!(holder.status().content, Content::Complete);
    let received = received_bytes();
    let began = Instant::now();
    let fenced = holder.fence(Deadline::within(PATIENCE)).unwrap();
    let took = began.elapsed();
    let digest = fenced.memory.slice().digest();
    let still = received_bytes();
    line.write_all(b"f").unwrap();
    for look in 1..=LOOKS {
        std::thread::sleep(PAUSE);
        assert!(
            fenced.memory.slice().digest() == digest && holder.memory().slice().digest() == digest,
            "the copy has changed {:?} after the fence",
            PAUSE * u32::try_from(look).unwrap()
        );
    }
    println!("fenced in {} us, exact: {}", took.as_micros(), fenced.exact);
    println!("received {} before, {} after", still - received, received_bytes() - still);
    // The owner says what it has acknowledged before the judge comes.
    let mut acked = [0; 8];
    line.read_exact(&mut acked).unwrap();
    println!("acked {}", u64::from_le_bytes(acked));
    until_told_to_go("2");
    assert!(holder.memory().slice().digest() == digest, "the copy has changed after a new owner came");
}

/// What all network cards of this machine have received.
fn received_bytes() -> u64 {
    let cards = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let bytes = |card: std::fs::DirEntry| {
        let text = std::fs::read_to_string(card.path().join("statistics/rx_bytes")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    cards.filter_map(bytes).sum()
}

/// Role: stores without waiting until it knows that it was fenced, and says how many stores it took after it was told that
/// the fence had returned.
pub(crate) fn fenced_owner() {
    let region = open(Attach::Push { replace: true }).unwrap();
    let config = LaneConfig { depth: DEPTH, store_timeout: CALL, ..LaneConfig::default() };
    let mut lane = region.lane(config).unwrap();
    let mut line = TcpStream::connect(variable::<String>("TEST_HOLDER")).unwrap();
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    println!("attached");
    let fenced = AtomicBool::new(false);
    let (reason, after) = std::thread::scope(|scope| {
        let (mut line, fenced) = (line.try_clone().unwrap(), &fenced);
        scope.spawn(move || {
            line.read_exact(&mut [0]).unwrap();
            fenced.store(true, Ordering::Relaxed);
        });
        let lost = post_on(&mut lane, fenced);
        println!("lost after {} stores: {}", lane.watermarks().acked, lost.0);
        lost
    });
    println!("{after} were taken after the fence, before it was lost: {reason}");
    line.write_all(&lane.watermarks().acked.0.to_le_bytes()).unwrap();
}

/// Stores until the link is lost: why it was, and how many stores came after the fence.
fn post_on(lane: &mut Lane, fenced: &AtomicBool) -> (String, u64) {
    let until = Instant::now() + PATIENCE;
    let mut after = 0;
    for (number, store) in (1..).zip(walk()) {
        match lane.store(store.offset, &store.bytes) {
            Ok(_) => {}
            Err(StoreError::LinkLost { reason, .. }) => return (reason.to_string(), after),
            Err(error) => panic!("{error}"),
        }
        after += u64::from(fenced.load(Ordering::Relaxed));
        if number == STORES_MIN {
            println!("storing");
        }
        assert!(Instant::now() < until, "the fence is not noticed");
    }
    unreachable!("stores do not end")
}
