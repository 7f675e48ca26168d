//! The server and its clients over a real socket.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::testing::TestSubject;
use super::{
    AdminClient, AdminServer, COMMANDS_MAX, CONNECTIONS_MAX, ClientError, EVENTS_PER_REPLY_MAX, ErrorCode,
    REQUEST_BYTES_MAX, Reply, Request, StatusSource,
};
use crate::base::Deadline;

struct Rig {
    subject: Arc<TestSubject>,
    path: PathBuf,
    server: Option<AdminServer>,
}

impl Rig {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mirrorbus-admin-{}-{number}", std::process::id()));
        let mut rig = Self { subject: Arc::new(TestSubject::default()), path, server: None };
        rig.server = Some(rig.serve().unwrap());
        rig
    }

    fn serve(&self) -> std::io::Result<AdminServer> {
        let status = StatusSource::start(self.subject.clone()).unwrap();
        AdminServer::start(&self.path, self.subject.clone(), status)
    }

    fn client(&self) -> AdminClient {
        AdminClient::connect(&self.path, soon()).unwrap()
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

fn scrub() -> Request {
    Request::Scrub { dataset: "vm1".into(), repair: true }
}

fn code(result: Result<Reply, ClientError>) -> ErrorCode {
    match result {
        Err(ClientError::Refused(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_request_reaches_the_subject() {
    let rig = Rig::new();
    let mut client = rig.client();
    let [dataset, name] = ["vm1", "root"].map(str::to_owned);
    for (request, call) in [
        (
            Request::VolumeCreate {
                dataset: dataset.clone(),
                name: name.clone(),
                bytes: 8192,
                block_bytes: 512,
            },
            "create vm1 root 8192 512",
        ),
        (
            Request::VolumeResize { dataset: dataset.clone(), name: name.clone(), bytes: 4096 },
            "resize vm1 root 4096",
        ),
        (Request::VolumeDelete { dataset: dataset.clone(), name }, "delete vm1 root"),
        (Request::Promote { dataset: dataset.clone(), flushed_only: true }, "promote vm1 true"),
        (Request::Alone { dataset: dataset.clone() }, "alone vm1"),
        (Request::ReplacePeer { dataset: dataset.clone() }, "replace-peer vm1"),
        (Request::Seed { dataset: dataset.clone() }, "seed vm1"),
        (Request::Stop {}, "stop"),
    ] {
        assert_eq!(client.ask(&request, soon()).unwrap(), Reply::Done {});
        assert_eq!(rig.subject.calls().last().unwrap(), call);
    }
    assert!(matches!(client.ask(&scrub(), soon()).unwrap(), Reply::Scrubbed(report) if report.blocks == 100));
    let verify = Request::Verify { dataset: dataset.clone(), volume: None, repair: true };
    assert!(matches!(client.ask(&verify, soon()).unwrap(), Reply::Verified(report) if report.bytes == 4096));
    assert_eq!(rig.subject.calls().last().unwrap(), "verify vm1 None true");
    let Reply::Status(status) = client.ask(&Request::Status {}, soon()).unwrap() else { panic!() };
    assert_eq!(*status, super::testing::status());
    for wanted in [None, Some(dataset)] {
        let reply = client.ask(&Request::VolumeList { dataset: wanted }, soon()).unwrap();
        assert!(matches!(reply, Reply::Volumes { datasets } if datasets[0].volumes[0].name == "root"));
    }
    let unknown = || "vm2".to_owned();
    assert_eq!(
        code(client.ask(&Request::VolumeList { dataset: Some(unknown()) }, soon())),
        ErrorCode::NoSuchDataset
    );
    assert_eq!(code(client.ask(&Request::Alone { dataset: unknown() }, soon())), ErrorCode::NoSuchDataset);
    // After a refusal the connection goes on.
    assert!(client.ask(&Request::Status {}, soon()).is_ok());
}

#[test]
fn only_the_user_may_connect_and_one_node_serves() {
    let mut rig = Rig::new();
    assert_eq!(std::fs::metadata(&rig.path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(rig.serve().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert!(rig.client().ask(&Request::Status {}, soon()).is_ok(), "the first one is not harmed");
    rig.server = None;
    assert!(!rig.path.exists());
    assert!(matches!(AdminClient::connect(&rig.path, soon()), Err(ClientError::Connect { .. })));
    // What lies there and is no socket is somebody's.
    std::fs::write(&rig.path, b"a file").unwrap();
    assert_eq!(rig.serve().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&rig.path).unwrap(), b"a file");
    std::fs::remove_file(&rig.path).unwrap();
    // What a killed node leaves.
    drop(std::os::unix::net::UnixListener::bind(&rig.path).unwrap());
    rig.server = Some(rig.serve().unwrap());
    assert!(rig.client().ask(&Request::Status {}, soon()).is_ok());
}

#[test]
fn a_status_is_answered_whatever_else_hangs() {
    let rig = Rig::new();
    rig.subject.let_scrubs_end(false);
    let mut scrubs: Vec<_> = (0..COMMANDS_MAX).map(|_| rig.stream()).collect();
    scrubs.iter_mut().for_each(|stream| stream.write_all(&scrub().encode()).unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while rig.subject.calls().len() < COMMANDS_MAX {
        assert!(Instant::now() < until, "{:?}", rig.subject.calls());
        std::thread::yield_now();
    }
    // All the other connections are idle, and twice as many as there can be.
    let idle: Vec<_> = (0..2 * CONNECTIONS_MAX).map(|_| rig.stream()).collect();
    let mut client = rig.client();
    assert_eq!(code(client.ask(&scrub(), soon())), ErrorCode::Busy);
    let mut times = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        assert!(rig.client().ask(&Request::Status {}, soon()).is_ok());
        times.push(begun.elapsed());
    }
    // On a machine that does much else any of them may take long by itself.
    times.sort_unstable();
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:.1?}");
    drop(idle);
    rig.subject.let_scrubs_end(true);
    for mut stream in scrubs {
        let mut reply = [0; 9];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"{\"reply\":", "no command was closed to make room");
    }
    assert!(matches!(rig.client().ask(&scrub(), soon()), Ok(Reply::Scrubbed(_))));
}

#[test]
fn bad_lines_are_told_and_long_ones_end_it() {
    let rig = Rig::new();
    let mut stream = rig.stream();
    stream.write_all(b"\n{}\nnonsense\n{\"request\":\"stop\"}\n").unwrap();
    let mut text = String::new();
    while text.matches('\n').count() < 4 {
        let mut piece = [0; 1000];
        let count = stream.read(&mut piece).unwrap();
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[..3].iter().all(|line| line.contains("bad-request")), "{lines:?}");
    assert_eq!(lines[3], "{\"reply\":\"done\"}");

    let mut stream = rig.stream();
    // It hangs up before it has read all.
    let _ = stream.write_all(&vec![b' '; REQUEST_BYTES_MAX + 100_000]);
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(text.is_empty() || text.contains("more than 65536 bytes"), "{text}");
    assert!(rig.client().ask(&Request::Status {}, soon()).is_ok());
}

#[test]
fn clients_that_vanish_anywhere_leave_nothing() {
    let rig = Rig::new();
    let line = Request::Status {}.encode();
    for cut in 0..=line.len() {
        rig.stream().write_all(&line[..cut]).unwrap();
    }
    let mut client = rig.client();
    assert!(client.ask(&Request::Status {}, soon()).is_ok());
}

#[test]
fn events_are_told_in_pieces_and_as_they_come() {
    let rig = Rig::new();
    let count = EVENTS_PER_REPLY_MAX as u64 + 10;
    for _ in 0..count {
        rig.subject.events.add(None, "x", "y");
    }
    let mut client = rig.client();
    let mut seen = 0;
    loop {
        let reply = client.ask(&Request::Events { since: seen, follow: false }, soon()).unwrap();
        let Reply::Events { events, next } = reply else { panic!() };
        assert!(events.first().is_none_or(|event| event.sequence == seen + 1));
        if events.is_empty() {
            assert_eq!(next, count);
            break;
        }
        assert!(events.len() <= EVENTS_PER_REPLY_MAX);
        seen = next;
    }
    let first = client.ask(&Request::Events { since: count - 1, follow: true }, soon()).unwrap();
    assert!(matches!(first, Reply::Events { next, .. } if next == count));
    assert!(client.next(Deadline::within(Duration::from_millis(10))).unwrap().is_none());
    rig.subject.events.add(Some("vm1"), "role", "primary now");
    let Some(Reply::Events { events, next }) = client.next(soon()).unwrap() else { panic!() };
    assert_eq!((events[0].text.as_str(), next), ("primary now", count + 1));
}

#[test]
fn the_end_waits_for_no_command() {
    let mut rig = Rig::new();
    rig.subject.let_scrubs_end(false);
    let mut stream = rig.stream();
    stream.write_all(&scrub().encode()).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while rig.subject.calls().is_empty() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    let mut follower = rig.client();
    rig.subject.events.add(None, "x", "y");
    follower.ask(&Request::Events { since: 0, follow: true }, soon()).unwrap();
    let begun = Instant::now();
    rig.server = None;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(matches!(follower.next(soon()), Err(ClientError::Lost { .. })));
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    rig.subject.let_scrubs_end(true);
}
