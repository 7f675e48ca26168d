//! Roles: a holder that is fenced in the middle of an owner's stores, and the owner, which goes on posting.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::mirror::StoreError;
use mirrorbus::node::Content;
use mirrorbus::{Attach, Deadline, FabricUrl, Holder, HolderConfig, Lane, LaneConfig};

use crate::child::{PATIENCE, variable};
use crate::region::{CALL, SIZE, keys, open, stores, until_told_to_go};

/// The copy is looked at so often after the fence, with a pause before each look.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// So many stores are in flight when the fence comes that the owner does not run out of room soon.
const DEPTH: usize = 1024;

/// The least an owner stores before it is fenced.
const STORES_MIN: u64 = 100;

/// Role: holds; `TEST_DELAY_MS` after an owner has said over `TEST_LISTEN` that it stores, fences, tells the owner that it
/// has, and sees that no byte of the copy changes any more.
pub(crate) fn fenced_holder() {
    let mut config = HolderConfig::new(variable::<FabricUrl>("TEST_URL"), SIZE);
    config.lock = mirrorbus::memory::LockPolicy::Try;
    let holder = Holder::start(config, keys()).unwrap();
    let line = TcpListener::bind(variable::<String>("TEST_LISTEN")).unwrap();
    println!("listening on {}", holder.url());
    println!("told at {}", line.local_addr().unwrap());
    let (mut line, _) = line.accept().unwrap();
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    line.read_exact(&mut [0]).unwrap();
    assert_eq!(holder.status().content, Content::Complete);
    std::thread::sleep(Duration::from_millis(variable("TEST_DELAY_MS")));
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

/// Role: stores without waiting until it knows that it was fenced, and says how many stores it took after the fence had
/// returned. Whoever started it may stop the thread that hears the holder before letting it go on, so that it posts as long
/// as the medium lets it.
pub(crate) fn fenced_owner() {
    let region = open(Attach::Push { replace: true }).unwrap();
    let config = LaneConfig { depth: DEPTH, store_timeout: CALL, ..LaneConfig::default() };
    let mut lane = region.lane(config).unwrap();
    let mut line = TcpStream::connect(variable::<String>("TEST_HOLDER")).unwrap();
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    line.set_nodelay(true).unwrap();
    println!("attached");
    until_told_to_go("1");
    let (fenced, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let (reason, after) = std::thread::scope(|scope| {
        let (mut line, fenced, stored) = (line.try_clone().unwrap(), &fenced, &stored);
        scope.spawn(move || {
            while stored.load(Ordering::Relaxed) < STORES_MIN {
                std::thread::sleep(Duration::from_millis(1));
            }
            line.write_all(b"s").unwrap();
            line.read_exact(&mut [0]).unwrap();
            fenced.store(true, Ordering::Relaxed);
        });
        post_on(&mut lane, fenced, stored)
    });
    let acked = lane.watermarks().acked.0;
    println!("lost after {acked} stores: {reason}; {after} were taken after the fence had returned");
    line.write_all(&acked.to_le_bytes()).unwrap();
}

/// Stores until the link is lost: why it was, and how many stores came after the fence.
fn post_on(lane: &mut Lane, fenced: &AtomicBool, stored: &AtomicU64) -> (String, u64) {
    let until = Instant::now() + PATIENCE;
    let mut after = 0;
    for store in stores() {
        match lane.store(store.offset, &store.bytes) {
            Ok(_) => {}
            Err(StoreError::LinkLost { reason, .. }) => return (reason.to_string(), after),
            Err(error) => panic!("{error}"),
        }
        stored.fetch_add(1, Ordering::Relaxed);
        after += u64::from(fenced.load(Ordering::Relaxed));
        assert!(Instant::now() < until, "the fence is not noticed");
    }
    unreachable!("stores do not end")
}
