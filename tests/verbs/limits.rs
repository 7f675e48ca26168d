//! More than the device takes, and more than the process may pin.

use mirrorbus::fabric::{Queue, QueueError};
use mirrorbus::node::RefusalCode;
use mirrorbus::{Attach, Holder, LaneConfig, Level, Region};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::child::in_child;
use crate::common::{Fabric, Pair, Scratch, holder_config, keys, region_config, soon};
use crate::rig::{Peer, next, write};

#[test]
fn a_message_longer_than_the_device_takes_is_refused_with_the_limit() {
    let size = 20 << 20;
    let peer = Peer::new(size);
    let (_connector, mut queue, local) = peer.queue(16);
    let most = queue.capabilities().message_bytes_max;
    assert!(most < size, "this test needs a device with a smaller limit than {most}");
    match queue.post(&[write(1, 0, most + 1, true)]).unwrap_err() {
        QueueError::OutOfRange { len, limit, .. } => assert_eq!((len, limit), (most + 1, most)),
        error => panic!("{error}"),
    }
    // It took no harm: one of exactly that length goes.
    local.slice().write(0, &vec![0xa5; most]);
    assert_eq!(queue.post(&[write(2, 0, most, true)]).unwrap(), 1);
    queue.doorbell().unwrap();
    assert_eq!(next(&mut queue).unwrap().wr_id, 2);
    assert_eq!(peer.memory.slice().digest(), local.slice().digest());
}

#[test]
fn a_store_longer_than_a_message_arrives_whole() {
    let size = 20 << 20;
    let pair = Pair::new(Fabric::Rdma, size);
    let mut lane = pair.region.lane(LaneConfig::default()).unwrap();
    let most = lane.capabilities().message_bytes_max;
    let bytes: Vec<u8> = (0..most * 2 + 12_345).map(|index| (index % 251) as u8).collect();
    let ticket = lane.store(77, &bytes).unwrap();
    lane.wait(ticket, Level::Visible, soon()).unwrap();
    assert!(pair.holder.memory().slice().equals(pair.region.memory()));
    assert!(lane.stats().requests >= 3);
}

/// From here on this thread, and those that it starts, may pin 64 KiB.
fn may_pin_little() {
    let hard = getrlimit(Resource::Memlock).maximum;
    setrlimit(Resource::Memlock, Rlimit { current: Some(64 << 10), maximum: hard }).unwrap();
    let mut mine = capabilities(None).unwrap();
    mine.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, mine).unwrap();
}

#[test]
fn too_much_to_pin_names_limit_size_and_way_out() {
    in_child("limits::too_much_to_pin_names_limit_size_and_way_out", || {
        let size = 1 << 20;
        let scratch = Scratch::new();
        let config = || holder_config(Fabric::Rdma.url(&scratch), size);
        let push = |holder: &Holder| {
            Region::open(region_config(holder.url(), size, Attach::Push { replace: true }), keys())
        };
        let holder = Holder::start(config(), keys()).unwrap();
        may_pin_little();
        let error = push(&holder).unwrap_err().to_string();
        for part in ["1048576 bytes", "RLIMIT_MEMLOCK", "65536 bytes", "ulimit -l", "LimitMEMLOCK"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        // A holder that may not says so too, in what it answers.
        let poor = Holder::start(config(), keys()).unwrap();
        let mut mine = capabilities(None).unwrap();
        mine.effective.insert(CapabilitySet::IPC_LOCK);
        set_capabilities(None, mine).unwrap();
        let error = push(&poor).unwrap_err().to_string();
        for part in ["the holder", "1048576 bytes", "RLIMIT_MEMLOCK", "65536 bytes", "ulimit -l"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        drop(push(&holder).unwrap());
    });
}

#[test]
fn a_wildcard_address_takes_owners_of_any_device() {
    let scratch = Scratch::new();
    let mut config = holder_config(Fabric::Rdma.url(&scratch), 4096);
    config.url = "rdma://0.0.0.0:0".parse().unwrap();
    let holder = Holder::start(config, keys()).unwrap();
    let address = crate::rig::device_address().ip();
    let text = holder.url().to_string().replace("0.0.0.0", &address.to_string());
    let url = text.parse().unwrap();
    let region = Region::open(region_config(&url, 4096, Attach::Push { replace: false }), keys()).unwrap();
    assert_eq!(region.size(), 4096);
    let again = Region::open(region_config(&url, 4096, Attach::Pull), keys()).unwrap_err();
    assert!(
        matches!(
            again,
            mirrorbus::node::OpenError::Call(mirrorbus::node::CallError::Refused {
                code: RefusalCode::Busy,
                ..
            })
        ),
        "{again}"
    );
}

#[test]
fn an_address_without_a_device_is_named() {
    let error =
        Holder::start(holder_config("rdma://127.0.0.1:0".parse().unwrap(), 4096), keys()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("127.0.0.1") && text.contains("rdma link show"), "{text}");
}
