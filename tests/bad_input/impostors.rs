//! A holder that is none, or one gone wrong: garbage from its side at every stage of opening a region. The owner gets
//! an error within bounded time, and maps nothing that it would die of.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mirrorbus::control::{Connection, DataHandshake, Token};
use mirrorbus::{Attach, FabricUrl, Region};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::common::{Fabric, Random, Scratch, keys, region_config};
use crate::wire::{Abuse, Peer, hello, with_timeout};
use crate::{SIZE, on_both};

on_both!(
    whoever_is_no_holder,
    a_handshake_cut_at_every_byte,
    a_handshake_garbled_at_every_byte,
    answers_that_make_no_sense,
    grants_of_another_size,
    data_streams_gone_wrong,
);

/// The owner's patience with each step, where an answer comes that it should wait for on the busiest machine.
const PATIENT: Duration = Duration::from_secs(8);
/// The same where none comes.
const IMPATIENT: Duration = Duration::from_millis(500);
const TOKEN: [u8; 32] = [3; 32];
/// Messages of a holder, by their first byte.
const GRANTED: u8 = 129;
const TOKEN_ANSWER: u8 = 130;

/// Listens as a holder would and hands the first stream to one function, each further stream to another.
struct Impostor {
    url: FabricUrl,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    _scratch: Scratch,
}

impl Impostor {
    fn start(
        fabric: Fabric,
        first: impl Fn(File) + Send + Sync + 'static,
        further: impl Fn(File) + Send + Sync + 'static,
    ) -> Self {
        let scratch = Scratch::new();
        let (url, accept): (FabricUrl, Box<dyn Fn() -> Option<OwnedFd> + Send>) = match fabric {
            Fabric::Shm => {
                let socket = scratch.path("impostor.sock");
                let listener = UnixListener::bind(&socket).unwrap();
                listener.set_nonblocking(true).unwrap();
                let accept = move || listener.accept().ok().map(|(stream, _)| OwnedFd::from(stream));
                (FabricUrl::Shm { socket }, Box::new(accept))
            }
            Fabric::Tcp | Fabric::TcpSealed | Fabric::Rdma => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                listener.set_nonblocking(true).unwrap();
                let url = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
                (url, Box::new(move || listener.accept().ok().map(|(stream, _)| OwnedFd::from(stream))))
            }
            Fabric::Device => {
                unreachable!("its owner needs nothing of the holder but the control connection")
            }
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                let mut first = Some(&first);
                while !stopped.load(Ordering::SeqCst) {
                    let Some(stream) = accept() else {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    let stream = with_timeout(stream);
                    // A further stream is served on this thread: the first must go on beside it.
                    match first.take() {
                        Some(first) => drop(scope.spawn(move || first(stream))),
                        None => further(stream),
                    }
                }
            });
        });
        Self { url, stop, thread: Some(thread), _scratch: scratch }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}

/// Tries to open a region at an impostor; returns the error's words and asserts that it came in time.
fn open(url: &FabricUrl) -> String {
    open_within(url, PATIENT)
}

fn open_within(url: &FabricUrl, patience: Duration) -> String {
    let started = Instant::now();
    let mut config = region_config(url, SIZE, Attach::Push { replace: true });
    config.timeout = patience;
    // An impostor sends no heartbeats: the error is to be about what it does send.
    config.silence = Duration::from_secs(60);
    let error = Region::open(config, keys()).expect_err("an impostor was taken for a holder").to_string();
    let took = started.elapsed();
    assert!(took < patience + Duration::from_secs(6), "{error} came after {took:?}");
    assert!(error.len() > 20, "{error:?} says too little");
    error
}

fn hang_up(stream: File) {
    drop(stream);
}

/// The control connection of an impostor that has the key.
fn responder(stream: File, abuse: Abuse) -> Peer {
    let mut peer = Peer::new(stream, Connection::accept(hello(), &keys(), Instant::now()), abuse);
    peer.shake_hands();
    peer
}

/// Answers each message with what `answer` makes of it, until the owner goes.
fn serve(stream: File, answer: impl Fn(&[u8]) -> Vec<u8>) {
    let mut peer = responder(stream, Abuse::None);
    while let Some(message) = peer.next() {
        let body = answer(&message);
        if !body.is_empty() && peer.ended.is_none() {
            peer.send(&body);
        }
    }
}

/// A grant in answer to the attach message `asked`.
fn granted(asked: &[u8], size: u64, staging: u64) -> Vec<u8> {
    let mut body = vec![GRANTED];
    body.extend_from_slice(&asked[1..5]);
    body.extend_from_slice(&1u32.to_le_bytes());
    body.extend_from_slice(&[9; 32]);
    body.extend_from_slice(&size.to_le_bytes());
    body.extend_from_slice(&staging.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    body
}

/// Answers as a holder of `size` bytes would, up to the first data stream.
fn like_a_holder(asked: &[u8], size: u64) -> Vec<u8> {
    match asked[0] {
        1 => granted(asked, size, 0),
        2 => [&[TOKEN_ANSWER], &asked[1..5], &TOKEN].concat(),
        _ => [&[132], &asked[1..5]].concat(),
    }
}

fn whoever_is_no_holder(fabric: Fabric) {
    let text = open(&Impostor::start(fabric, hang_up, hang_up).url);
    assert!(text.contains("the stream ended during the handshake"), "{text}");
    let speaks_http = |mut stream: File| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        crate::wire::read_to_end(&stream);
    };
    let text = open(&Impostor::start(fabric, speaks_http, hang_up).url);
    assert!(text.contains("speaks something else") && text.contains("is the address"), "{text}");
    let says_nothing = |stream: File| drop(crate::wire::read_to_end(&stream));
    let text = open_within(&Impostor::start(fabric, says_nothing, hang_up).url, IMPATIENT);
    assert!(text.contains("did not answer within the deadline"), "{text}");
    let newer = |mut stream: File| {
        let mut preface = *b"MIRRORBS\x01\x00\x07\x00\x09\x00\x00\x00................";
        preface[16..].fill(0);
        let _ = stream.write_all(&preface);
        crate::wire::read_to_end(&stream);
    };
    let text = open(&Impostor::start(fabric, newer, hang_up).url);
    assert!(text.contains("peer speaks versions 7..9, we speak 1..1"), "{text}");
    let mut random = Random(0x5eed_0004);
    for _ in 0..50 {
        let len = 1 + random.below(3000);
        let bytes = crate::wire::random_bytes(&mut random, len);
        let garbage = move |mut stream: File| drop(stream.write_all(&bytes));
        open(&Impostor::start(fabric, garbage, hang_up).url);
    }
}

/// Bytes of a responder's handshake.
fn handshake_bytes(fabric: Fabric) -> usize {
    let (tell, told) = std::sync::mpsc::channel();
    let count = move |stream: File| {
        let peer = responder(stream, Abuse::None);
        assert!(peer.session.is_some(), "{:?}", peer.ended);
        tell.send(peer.sent).unwrap();
    };
    open(&Impostor::start(fabric, count, hang_up).url);
    let total = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(total > 32 + 48, "{total} bytes are no handshake");
    total
}

fn a_handshake_cut_at_every_byte(fabric: Fabric) {
    for len in 0..=handshake_bytes(fabric) {
        let cut = move |stream: File| {
            let peer = responder(stream, Abuse::Cut(len));
            assert!(peer.is_cut(), "cut at {len}: {:?}", peer.ended);
        };
        let text = open(&Impostor::start(fabric, cut, hang_up).url);
        assert!(text.contains("ended"), "cut at {len}: {text}");
    }
}

fn a_handshake_garbled_at_every_byte(fabric: Fabric) {
    for at in 0..handshake_bytes(fabric) {
        let garbled = move |stream: File| {
            let mut peer = responder(stream, Abuse::Flip(at));
            while peer.ended.is_none() {
                peer.receive();
            }
        };
        // A length that was garbled upwards makes the owner wait for more.
        open_within(&Impostor::start(fabric, garbled, hang_up).url, IMPATIENT);
    }
}

fn answers_that_make_no_sense(fabric: Fabric) {
    let answered = |patience: Duration, answer: fn(&[u8]) -> Vec<u8>| {
        open_within(&Impostor::start(fabric, move |stream| serve(stream, answer), hang_up).url, patience)
    };
    let silent = "did not answer within the deadline";
    let text = answered(IMPATIENT, |_| Vec::new());
    assert!(text.contains(silent), "{text}");
    // A message that cannot be read is no answer.
    for body in [&[0xff, 1, 2, 3][..], &[GRANTED], &[GRANTED, 1, 0, 0, 0, 7], &[133, 1], &[1; 81]] {
        let impostor = Impostor::start(fabric, move |stream| serve(stream, |_| body.to_vec()), hang_up);
        let text = open_within(&impostor.url, IMPATIENT);
        assert!(text.contains(silent), "{body:?}: {text}");
    }
    let text = answered(PATIENT, |asked| [&[132], &asked[1..5]].concat());
    assert!(text.contains("answered out of turn: Done"), "{text}");
    let text = answered(PATIENT, |asked| [&[133], &asked[1..5], &[231, 3, b'n', b'o', 0xff]].concat());
    assert!(text.contains("the holder refused: no"), "{text}");
    // An answer to another request is none.
    let text = answered(IMPATIENT, |asked| [&[132], &(asked[1] + 1).to_le_bytes()[..], &[0, 0, 0]].concat());
    assert!(text.contains(silent), "{text}");
}

fn grants_of_another_size(fabric: Fabric) {
    for size in [0, 1, SIZE as u64 / 2, SIZE as u64 + 1, 1 << 40, u64::MAX] {
        let grants = move |stream: File| serve(stream, |asked| like_a_holder(asked, size));
        let text = open(&Impostor::start(fabric, grants, hang_up).url);
        assert!(text.contains(&size.to_string()) && text.contains(&SIZE.to_string()), "{size}: {text}");
    }
}

/// Lets a data stream in; returns its socket.
fn let_in(mut stream: File) -> Option<File> {
    use std::io::Read;
    let mut handshake = DataHandshake::accept(Instant::now());
    let mut buffer = [0; 4096];
    loop {
        if handshake.needs_token().is_some() {
            handshake.provide_token(Some(&Token::from_bytes(&TOKEN))).ok()?;
        }
        let mut out = Vec::new();
        handshake.poll_transmit(&mut out);
        stream.write_all(&out).ok()?;
        if handshake.is_done() {
            return Some(stream);
        }
        // The owner waits for the reply to its preface before it sends more.
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        handshake.handle_bytes(&buffer[..count], Instant::now()).ok()?;
    }
}

fn like_a_good_one(stream: File) {
    serve(stream, |asked| like_a_holder(asked, SIZE as u64));
}

fn with_data_stream(fabric: Fabric, further: impl Fn(File) + Send + Sync + 'static) -> String {
    open(&Impostor::start(fabric, like_a_good_one, further).url)
}

fn data_streams_gone_wrong(fabric: Fabric) {
    let text = with_data_stream(fabric, hang_up);
    assert!(text.contains("data stream"), "{text}");
    let text = with_data_stream(fabric, |mut stream| drop(stream.write_all(&[0x5a; 700])));
    assert!(text.contains("data stream") && text.contains("speaks something else"), "{text}");
    with_data_stream(fabric, |stream| drop(let_in(stream)));
    // It is let in, which may take long on a machine that does much else, and then nothing comes.
    let (is_let_in, mut patience) = (Arc::new(AtomicBool::new(false)), IMPATIENT);
    while !is_let_in.load(Ordering::SeqCst) {
        let told = is_let_in.clone();
        let silent = move |stream: File| {
            let stream = let_in(stream);
            told.store(stream.is_some(), Ordering::SeqCst);
            stream.iter().for_each(|stream| drop(crate::wire::read_to_end(stream)));
        };
        let text = open_within(&Impostor::start(fabric, like_a_good_one, silent).url, patience);
        let is_told = text.contains("did not answer within the deadline");
        assert!(is_told || !is_let_in.load(Ordering::SeqCst), "{text}");
        patience *= 4;
    }
    for seed in 1..20 {
        with_data_stream(fabric, move |stream| {
            let mut random = Random(0x5eed_0005 * seed);
            let Some(mut stream) = let_in(stream) else { return };
            let len = 1 + random.below(300);
            let bytes = crate::wire::random_bytes(&mut random, len);
            let _ = stream.write_all(&bytes);
            let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Write);
            crate::wire::read_to_end(&stream);
        });
    }
    if fabric == Fabric::Shm {
        offers_gone_wrong();
    }
}

/// An offer of `size` bytes for window `window`, with these descriptors.
fn offer(stream: &File, window: u32, size: u64, fds: &[BorrowedFd<'_>]) {
    let mut body = b"MBSH".to_vec();
    body.extend_from_slice(&window.to_le_bytes());
    body.extend_from_slice(&size.to_le_bytes());
    body.extend_from_slice(&(1u64 << 32).to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes());
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let body = [std::io::IoSlice::new(&body)];
    let _ = rustix::net::sendmsg(stream, &body, &mut ancillary, SendFlags::NOSIGNAL);
}

fn memfd(size: usize) -> OwnedFd {
    let fd = rustix::fs::memfd_create("impostor", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, size as u64).unwrap();
    fd
}

/// A page as a holder grants with: of one page, sealed.
fn grant_page() -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("impostor", flags).unwrap();
    rustix::fs::ftruncate(&fd, 4096).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    fd
}

/// What an owner makes of such an offer.
fn offered(window: u32, size: u64, fds: impl Fn() -> Vec<OwnedFd> + Send + Sync + 'static) -> String {
    with_data_stream(Fabric::Shm, move |stream| {
        let stream = let_in(stream).unwrap();
        let fds = fds();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        offer(&stream, window, size, &borrowed);
        crate::wire::read_to_end(&stream);
    })
}

/// Descriptors that are no memory, too few, too many, too short, or of another window.
fn offers_gone_wrong() {
    let size = SIZE as u64;
    let text = offered(1, size, Vec::new);
    assert!(text.contains("0 descriptors, not 2"), "{text}");
    let text = offered(1, size, || (0..4).map(|_| memfd(SIZE)).collect());
    assert!(text.contains("4 descriptors, not 2"), "{text}");
    let text = offered(1, size, || vec![memfd(100), memfd(4096)]);
    assert!(text.contains("has 100 bytes, 65536 were promised"), "{text}");
    let text = offered(1, u64::MAX, || vec![memfd(SIZE), memfd(4096)]);
    assert!(text.contains("bytes"), "{text}");
    let pipes = || {
        let (one, other) = rustix::pipe::pipe().unwrap();
        vec![one, other]
    };
    offered(1, 0, pipes);
    offered(1, size, pipes);
    let text = offered(7, size, || vec![memfd(SIZE), grant_page()]);
    assert!(text.contains("WindowId(7)") && text.contains("was offered"), "{text}");
    // A grant page that can be cut under the owner, who would die of reading it.
    for size_of_page in [0, 4096] {
        let page = move || vec![memfd(SIZE), memfd(size_of_page)];
        let text = offered(1, size, page);
        assert!(text.contains("the grant page is not sealed against resizing"), "{text}");
    }
    // All as it should be, but the page grants something else: nothing is acknowledged.
    let text = offered(1, size, || vec![memfd(SIZE), grant_page()]);
    assert!(text.contains("revoked"), "{text}");
}
