//! What has come, and who is gone.

use std::os::unix::net::UnixStream;

use super::*;
use crate::memory::{MapOptions, Mapping};

fn pair(within: Duration) -> (UnixStream, Socket) {
    let (client, server) = UnixStream::pair().expect("two sockets");
    let lifeline = Arc::new(Lifeline::new(OwnedFd::from(server)));
    (client, Socket::new(lifeline, Instant::now() + within))
}

#[test]
fn what_has_come_goes_straight_into_mapped_memory() {
    let (mut client, mut socket) = pair(Duration::from_secs(60));
    let bytes: Vec<u8> = (0..50_000_u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    client.write_all(&bytes).expect("room for it");
    assert_eq!(socket.available(), bytes.len());
    let mapping = Mapping::anonymous(60_000, MapOptions::default()).expect("60000 bytes");
    let target = mapping.slice().subslice(5, 40_000).expect("within");
    socket.receive_into(target).expect("it is all there");
    assert!(target.to_vec() == bytes[..40_000]);
    assert_eq!((socket.available(), mapping.slice().to_vec()[..5].to_vec()), (10_000, vec![0; 5]));
    drop(client);
    let error = socket.receive_into(target).expect_err("10000 bytes are not 40000");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_client_is_gone_when_it_hangs_up_or_is_cut_off_and_not_when_the_server_stops() {
    let (client, mut socket) = pair(Duration::from_secs(60));
    assert!(!socket.gone());
    socket.lifeline.stop();
    assert!(!socket.gone(), "it may still wait for its replies");
    assert_eq!(socket.receive(&mut [0]).expect("an end"), 0);
    drop(client);
    assert!(socket.gone());
    let (_client, socket) = pair(Duration::from_secs(60));
    socket.lifeline.cut();
    assert!(socket.gone());
    let (client, socket) = pair(Duration::from_secs(60));
    drop(client);
    assert!(socket.gone());
    // Whoever was found gone is told nothing of a failure that only came from that.
    let (client, socket) = pair(Duration::from_secs(60));
    client.shutdown(std::net::Shutdown::Write).expect("one way");
    assert!(socket.gone());
    socket.lifeline.stop();
    assert!(socket.gone(), "it was gone before");
}

/// The server may stop at any moment of a look for the client.
#[test]
fn a_client_is_never_gone_because_the_server_just_stops() {
    for round in 0..3000 {
        let (_client, socket) = pair(Duration::from_secs(60));
        let lifeline = socket.lifeline.clone();
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lifeline.stop();
                stopped.store(true, Ordering::SeqCst);
            });
            while !stopped.load(Ordering::SeqCst) {
                assert!(!socket.gone(), "in round {round}");
            }
        });
    }
}
