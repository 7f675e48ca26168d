//! A holder with an application behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use super::*;
use crate::base::Deadline;
use crate::control::KeySet;
use crate::memory::LockPolicy;
use crate::node::{self, Attach, CallError, Holder, HolderConfig, OpenError, Region, RegionConfig};

const SECONDS: Duration = Duration::from_secs(10);

/// An application that notes what it is asked.
#[derive(Default)]
struct Application {
    closed: AtomicBool,
    asked: Mutex<Vec<Attaching>>,
    /// Fenced while it is asked, and lets in all the same.
    fences: OnceLock<Weak<Holder>>,
}

impl HolderGate for Application {
    fn may_attach(&self, attaching: Attaching) -> Result<(), String> {
        self.asked.lock().unwrap().push(attaching);
        if let Some(holder) = self.fences.get().and_then(Weak::upgrade) {
            holder.fence(Deadline::within(SECONDS)).unwrap();
        }
        if self.closed.load(Ordering::SeqCst) { Err("this side serves by itself".into()) } else { Ok(()) }
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        match request {
            b"too much" => vec![0; REQUEST_BYTES_MAX + 1],
            other => other.iter().rev().copied().collect(),
        }
    }
}

fn keys() -> KeySet {
    KeySet::from_bytes(&[[7; 32]]).unwrap()
}

fn holder(application: &Arc<Application>) -> Arc<Holder> {
    let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse().unwrap(), 4096);
    config.lock = LockPolicy::Off;
    Arc::new(Holder::start_with(config, keys(), application.clone()).unwrap())
}

fn attach(holder: &Holder, attach: Attach) -> Result<Region, OpenError> {
    let mut config = RegionConfig::new(holder.url().clone(), 4096, attach);
    config.lock = LockPolicy::Off;
    Region::open(config, keys())
}

fn not_now(error: OpenError) -> String {
    match error {
        OpenError::Call(CallError::Refused { code: RefusalCode::NotNow, why }) => why,
        error => panic!("{error}"),
    }
}

#[test]
fn the_application_is_asked_who_may_attach_before_anything_is_taken_away() {
    let application = Arc::new(Application::default());
    let holder = holder(&application);
    let region = attach(&holder, Attach::Push { replace: false }).unwrap();
    let status = holder.status();
    assert!(status.attached && status.connected);
    application.closed.store(true, Ordering::SeqCst);
    region.reconnect(&mut [], Deadline::within(SECONDS)).unwrap_err();
    let why = not_now(attach(&holder, Attach::Push { replace: true }).unwrap_err());
    assert_eq!(why, "this side serves by itself");
    not_now(attach(&holder, Attach::Pull).unwrap_err());
    assert_eq!(holder.status().generation, status.generation, "nobody's access was taken away");
    application.closed.store(false, Ordering::SeqCst);
    region.reconnect(&mut [], Deadline::within(SECONDS)).unwrap();
    drop(region);
    let _equal = attach(&holder, Attach::Equal);
    let push = |replace| Attaching::Push { replace };
    assert_eq!(
        application.asked.lock().unwrap()[..4],
        [push(false), Attaching::Resume, push(true), Attaching::Pull]
    );
    assert_eq!(application.asked.lock().unwrap()[4..6], [Attaching::Resume, Attaching::Equal]);
}

#[test]
fn a_permission_does_not_outlive_a_fence() {
    let application = Arc::new(Application::default());
    let holder = holder(&application);
    assert!(application.fences.set(Arc::downgrade(&holder)).is_ok());
    let why = not_now(attach(&holder, Attach::Push { replace: false }).unwrap_err());
    assert!(why.contains("fenced"), "{why}");
    assert!(!holder.status().attached);
}

#[test]
fn questions_are_answered_to_the_owner_and_to_whoever_has_the_key() {
    let application = Arc::new(Application::default());
    let holder = holder(&application);
    let alone = |body: &[u8]| node::ask(holder.url(), &keys(), body, SECONDS);
    assert_eq!(alone(b"abc"), Ok(b"cba".to_vec()));
    let region = attach(&holder, Attach::Push { replace: false }).unwrap();
    assert_eq!(region.ask(b"", SECONDS), Ok(vec![]));
    assert_eq!(alone(b"another"), Ok(b"rehtona".to_vec()));
    let longest = vec![5; REQUEST_BYTES_MAX];
    assert_eq!(region.ask(&longest, SECONDS), Ok(longest.clone()));
    let too_long = CallError::TooLong { len: REQUEST_BYTES_MAX + 1, max: REQUEST_BYTES_MAX };
    assert_eq!(region.ask(&[longest, vec![5]].concat(), SECONDS), Err(too_long));
    match region.ask(b"too much", SECONDS) {
        Err(CallError::Refused { code: RefusalCode::Resources, why }) => {
            assert!(why.contains("57345 bytes"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(holder.status().connected, "those who ask disturb no owner");
    let stranger = KeySet::from_bytes(&[[8; 32]]).unwrap();
    assert!(matches!(node::ask(holder.url(), &stranger, b"abc", SECONDS), Err(CallError::Ended(_))));
    let url = holder.url().clone();
    Arc::try_unwrap(holder).unwrap().stop();
    assert!(matches!(region.ask(b"abc", SECONDS), Err(CallError::Ended(_))));
    assert!(matches!(node::ask(&url, &keys(), b"abc", SECONDS), Err(CallError::Ended(_))));
}

#[test]
fn a_holder_without_an_application_refuses_questions() {
    let mut config = HolderConfig::new("tcp://127.0.0.1:0".parse().unwrap(), 4096);
    config.lock = LockPolicy::Off;
    let holder = Holder::start(config, keys()).unwrap();
    match node::ask(holder.url(), &keys(), b"abc", SECONDS) {
        Err(CallError::Refused { code: RefusalCode::Unsupported, .. }) => {}
        other => panic!("{other:?}"),
    }
}
