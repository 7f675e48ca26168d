//! What the puller says again until it is heard.

use super::*;
use crate::base::VolumeId;
use crate::store::pair::rig::pair;

#[test]
fn a_full_disk_is_told_until_the_primary_has_heard() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path());
    let session = Session::for_tests(Lsn::ZERO, Lsn(1 << 30));
    let mut puller = Puller::new();
    puller.session = Some(session);
    let full = PullError::NoSpace("too small".into());
    puller.failed(&pair, &full);
    for _ in 0..2 {
        // Nobody listens there.
        assert!(!puller.pull(&pair, &session).unwrap());
        let Stage::GivesUp { code, text } = &puller.stage else { panic!("{:?}", puller.stage) };
        assert_eq!((code.as_str(), text.as_str()), ("no-space", "too small"));
        assert_eq!(pair.engine.shared.lock().reason.code, "no-space");
    }
}

#[test]
fn a_log_that_cannot_be_followed_takes_the_node_out() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path());
    Puller::new().failed(&pair, &PullError::Follow(VolumeError::UnknownId(VolumeId(3))));
    let state = pair.engine.shared.lock();
    assert!(matches!(state.role, Role::Failed { .. }));
    assert_eq!(state.reason.code, "cannot-follow");
}
