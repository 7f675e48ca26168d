//! The application behind a holder: questions, and who may attach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirrorbus::node::{Attaching, CallError, HolderGate, OpenError, REQUEST_BYTES_MAX, RefusalCode};
use mirrorbus::{Attach, Holder, LaneConfig, Level, Region};

use crate::common::{Fabric, Scratch, holder_config, keys, region_config, soon};

const SIZE: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

over_a_device_too!(questions_are_answered_beside_the_mirror);

mod where_access_can_be_taken_away {
    use super::*;

    on_every_fabric!(nobody_comes_after_a_fence_that_the_application_does_not_want);

    fn nobody_comes_after_a_fence_that_the_application_does_not_want(fabric: Fabric) {
        let scratch = Scratch::new();
        let application = Arc::new(Application::default());
        let config = holder_config(fabric.url(&scratch), SIZE);
        let holder = Holder::start_with(config, keys(), application.clone()).unwrap();
        let config = region_config(holder.url(), SIZE, Attach::Push { replace: false });
        let region = Region::open(config, keys()).unwrap();
        let mut lane = region.lane(LaneConfig::default()).unwrap();
        lane.store(0, b"acknowledged").unwrap();
        lane.flush(Level::Acked, soon()).unwrap();
        application.serves.store(true, Ordering::SeqCst);
        let fenced = holder.fence(soon()).unwrap();
        assert_eq!(&fenced.memory.slice().to_vec()[..12], b"acknowledged");
        assert!(region.reconnect(&mut [&mut lane], soon()).unwrap_err().to_string().contains("serves"));
        for attach in [Attach::Pull, Attach::Equal, Attach::Push { replace: true }] {
            match Region::open(region_config(holder.url(), SIZE, attach), keys()).unwrap_err() {
                OpenError::Call(CallError::Refused { code: RefusalCode::NotNow, .. }) => {}
                error => panic!("{error}"),
            }
        }
        assert!(!holder.status().attached);
        application.serves.store(false, Ordering::SeqCst);
        Region::open(region_config(holder.url(), SIZE, Attach::Pull), keys()).unwrap();
    }
}

/// Answers with what it was asked, and its length.
#[derive(Default)]
struct Application {
    serves: AtomicBool,
}

impl HolderGate for Application {
    fn may_attach(&self, _attaching: Attaching) -> Result<(), String> {
        if self.serves.load(Ordering::SeqCst) { Err("it serves by itself".into()) } else { Ok(()) }
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let mut answer = request.to_vec();
        answer.reverse();
        answer
    }
}

fn questions_are_answered_beside_the_mirror(fabric: Fabric) {
    let scratch = Scratch::new();
    let config = holder_config(fabric.url(&scratch), SIZE);
    let holder = Holder::start_with(config, keys(), Arc::new(Application::default())).unwrap();
    let alone = |body: &[u8]| mirrorbus::ask(holder.url(), &keys(), body, PATIENCE).unwrap();
    assert_eq!(alone(b"before"), b"erofeb");
    let config = region_config(holder.url(), SIZE, Attach::Push { replace: false });
    let region = Region::open(config, keys()).unwrap();
    let mut lane = region.lane(LaneConfig::default()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..100u8 {
                let body = vec![number; usize::from(number) * 100];
                assert_eq!(region.ask(&body, PATIENCE).unwrap(), body);
            }
            assert_eq!(region.ask(&vec![1; REQUEST_BYTES_MAX], PATIENCE).unwrap().len(), REQUEST_BYTES_MAX);
        });
        scope.spawn(|| (0..100).for_each(|_| assert_eq!(alone(b"beside"), b"ediseb")));
        for number in 0..2000usize {
            lane.store(number * 500, &[number as u8; 400]).unwrap();
        }
        lane.flush(Level::Visible, soon()).unwrap();
    });
    assert!(holder.memory().slice().to_vec() == region.memory().to_vec());
    assert!(holder.status().connected);
}
