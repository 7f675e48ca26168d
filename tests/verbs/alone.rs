//! What disturbs the device, or counts what the whole process has: nothing else may run beside it.

use std::process::Command;
use std::time::{Duration, Instant};

use mirrorbus::fabric::QueueError;
use mirrorbus::mirror::{LostReason, Polling, WaitError};
use mirrorbus::node::LinkStatus;
use mirrorbus::{LaneConfig, Level};

use crate::common::{Fabric, Pair, soon};

const SIZE: usize = 1 << 16;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The network interface of the device under test.
fn interface() -> String {
    let list = run("rdma", &["link", "show"]);
    let words: Vec<_> = list.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "netdev").unwrap();
    words[place + 1].to_owned()
}

#[test]
fn a_port_that_goes_down_fails_what_is_in_flight_and_comes_back() {
    let interface = interface();
    let pair = Pair::new(Fabric::Rdma, SIZE);
    for polling in [Polling::Block, Polling::Spin] {
        let mut lane = pair.region.lane(LaneConfig { polling, ..LaneConfig::default() }).unwrap();
        let mut idle = pair.region.lane(LaneConfig { polling, ..LaneConfig::default() }).unwrap();
        lane.store(0, b"before").unwrap();
        lane.flush(Level::Visible, soon()).unwrap();
        run("ip", &["link", "set", &interface, "down"]);
        let down = Instant::now();
        let error = loop {
            match lane.flush(Level::Visible, soon()) {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error,
            }
            assert!(down.elapsed() < Duration::from_secs(10), "nobody is told that the port is down");
        };
        println!("told {} ms after: {error}", down.elapsed().as_millis());
        assert!(matches!(error, WaitError::LinkLost { .. }), "{error}");
        assert!(matches!(idle.flush(Level::Acked, soon()), Err(WaitError::LinkLost { .. })));
        match pair.region.link() {
            LinkStatus::Lost(LostReason::Queue(QueueError::System { error, .. })) => {
                assert!(error.contains("port 1") && error.contains("down"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        run("ip", &["link", "set", &interface, "up"]);
        let mut deadline = mirrorbus::Deadline::within(Duration::from_secs(20));
        let until = deadline.instant();
        while let Err(error) = pair.region.reconnect(&mut [&mut lane, &mut idle], soon()) {
            assert!(Instant::now() < until, "{error}");
            std::thread::yield_now();
        }
        lane.store(100, b"after").unwrap();
        lane.flush(Level::Visible, soon()).unwrap();
        assert_eq!(pair.held(), pair.local());
    }
}

/// Descriptors of this process, and what the kernel counts of RDMA objects.
fn counts() -> (usize, Vec<String>) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let shown = run("rdma", &["resource", "show"]);
    let words: Vec<_> = shown.split_whitespace().map(str::to_owned).collect();
    (descriptors, words)
}

#[test]
fn fifty_reconnections_under_load_leave_nothing_behind() {
    let pair = Pair::new(Fabric::Rdma, SIZE);
    let mut lanes: Vec<_> = (0..3).map(|_| pair.region.lane(LaneConfig::default()).unwrap()).collect();
    let mut before = None;
    for round in 0..52u64 {
        for (index, lane) in lanes.iter_mut().enumerate() {
            for number in 0..20 {
                lane.store((index * 20 + number) * 64, &[round as u8; 64]).unwrap();
            }
        }
        let mut all: Vec<_> = lanes.iter_mut().collect();
        pair.region.reconnect(&mut all, soon()).unwrap();
        assert_eq!(pair.held(), pair.local(), "round {round}");
        if round == 1 {
            before = Some(counts());
        }
    }
    let until = Instant::now() + Duration::from_secs(10);
    // The holder lets go of what it watched a moment later.
    while Some(counts()) != before {
        assert!(Instant::now() < until, "{:?} became {:?}", before, counts());
        std::thread::yield_now();
    }
    drop(lanes);
    drop(pair);
}
