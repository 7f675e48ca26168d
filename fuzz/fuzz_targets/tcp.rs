//! The responder of the tcp fabric against whatever a peer may send.
//!
//! The first byte chooses. *Raw*: the rest goes in as it is; unless the fuzzer finds a CRC32C, nothing may change.
//! *Built*: the rest is read as a list of requests, each of which gets its sequence number and both checksums, so that
//! fuzzing goes on behind them: into window, generation, access and range checks, and into memory. A model says what
//! the windows must hold, how far the requests are carried out and which answers are due. Executions that carried out
//! requests are counted and printed at each power of two.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use mirrorbus::base::Generation;
use mirrorbus::fabric::tcp::{
    FRAME_HEADER_BYTES, FRAME_PAYLOAD_MAX, FrameDecoder, FrameKind, Header, NakReason, Outbox, Refusal,
    Responder,
};
use mirrorbus::fabric::{Access, ExportedWindow, WindowId};
use mirrorbus::memory::{MapOptions, Mapping};

const WINDOW_BYTES: usize = 512;
const GENERATION: u32 = 5;
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let carried_out = if mode % 8 == 0 { raw(data) } else { built(usize::from(mode / 8), data) };
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let requests = REQUESTS.fetch_add(carried_out, Ordering::Relaxed) + carried_out;
    let deep = DEEP.fetch_add(u64::from(carried_out > 0), Ordering::Relaxed) + u64::from(carried_out > 0);
    if executions.is_power_of_two() {
        eprintln!(
            "deep: {deep} of {executions} (executions behind the checksums; {requests} requests carried out)"
        );
    }
});

/// Window 0 may be written, window 1 only read, window 2 is revoked.
fn windows() -> Vec<Arc<ExportedWindow>> {
    let windows: Vec<_> = [Access::ReadWrite, Access::Read, Access::ReadWrite]
        .into_iter()
        .zip(0..)
        .map(|(access, id)| {
            let mapping =
                Mapping::anonymous(WINDOW_BYTES, MapOptions::default()).expect("512 bytes of memory");
            ExportedWindow::new(WindowId(id), Generation(GENERATION), access, Arc::new(mapping))
        })
        .collect();
    windows[2].revoke();
    windows
}

fn raw(data: &[u8]) -> u64 {
    let mut decoder = FrameDecoder::new();
    let mut rest = data;
    while let Ok(Some(frame)) = decoder.decode(rest) {
        rest = &rest[frame.wire_bytes()..];
    }
    let windows = windows();
    let mut responder = Responder::new(windows.clone());
    let mut outbox = Outbox::new(Responder::OUTBOX_BYTES_MIN);
    let step = responder.handle(data, &mut outbox);
    assert!(step.consumed <= data.len());
    assert!(
        responder.frames() > 0 || windows.iter().all(|window| window.mapping().slice().to_vec() == [0; 512])
    );
    responder.frames()
}

/// A request made of ten bytes of input, and what must become of it.
struct Request {
    header: Header,
    payload: Vec<u8>,
}

impl Request {
    fn take(data: &mut &[u8], psn: u64) -> Option<Self> {
        let (&[kind, window, generation, flags, at, at_high, len, len_high, text, odd], rest) =
            data.split_first_chunk::<10>()?;
        *data = rest;
        // Mostly requests that are in order, or the sequence would always be short.
        let kind = match kind % 32 {
            0..12 => FrameKind::Write,
            12..24 => FrameKind::Read,
            24..29 => FrameKind::Flush,
            29 => FrameKind::ReadReply,
            30 => FrameKind::Ack,
            _ => FrameKind::Nak,
        };
        let window = if odd & 1 == 0 { 0 } else { u32::from(window % 4) };
        let generation = if odd & 6 == 6 { u32::from(generation) } else { GENERATION };
        let mut offset = u64::from(u16::from_le_bytes([at, at_high])) % (WINDOW_BYTES as u64 + 1);
        let mut len = usize::from(u16::from_le_bytes([len, len_high]));
        match odd >> 3 {
            31 => offset = u64::MAX - offset,
            30 => len = FRAME_PAYLOAD_MAX - len,
            29 => {}
            _ => len %= WINDOW_BYTES - (offset as usize).min(WINDOW_BYTES) + 1,
        }
        if !kind.carries_payload() && kind != FrameKind::Read {
            len = 0;
        }
        let payload = if kind.carries_payload() { vec![text; len] } else { Vec::new() };
        let wr_id = psn ^ 0xabcd;
        Some(Self {
            header: Header { kind, flags: flags % 2, len, psn, wr_id, offset, window, generation },
            payload,
        })
    }

    fn encode(&self, stream: &mut Vec<u8>) {
        let mut head = [0; FRAME_HEADER_BYTES];
        self.header.encode(&self.payload, &mut head);
        stream.extend_from_slice(&head);
        stream.extend_from_slice(&self.payload);
    }

    /// Carries the request out on `model`, the bytes of window 0; a Read returns what it must bring.
    fn apply(&self, model: &mut [u8]) -> Result<Vec<u8>, NakReason> {
        let header = &self.header;
        if matches!(header.kind, FrameKind::ReadReply | FrameKind::Ack | FrameKind::Nak) {
            return Err(NakReason::Garbled);
        }
        match (header.window, header.generation) {
            (3, _) => return Err(NakReason::UnknownWindow),
            (_, generation) if generation != GENERATION => return Err(NakReason::StaleGeneration),
            (1, _) if header.kind == FrameKind::Write => return Err(NakReason::ReadOnly),
            (2, _) => return Err(NakReason::Revoked),
            _ => {}
        }
        let zeros = vec![0; WINDOW_BYTES];
        let range =
            usize::try_from(header.offset).ok().and_then(|start| Some(start..start.checked_add(header.len)?));
        let range = range.filter(|range| range.end <= WINDOW_BYTES).ok_or(NakReason::OutOfRange);
        match header.kind {
            FrameKind::Write => model[range?].copy_from_slice(&self.payload),
            FrameKind::Read if header.window == 0 => return Ok(model[range?].to_vec()),
            FrameKind::Read => return Ok(zeros[range?].to_vec()),
            _ => {}
        }
        Ok(Vec::new())
    }
}

/// What the answers must say, worked out without the responder.
struct Expected {
    model: Vec<u8>,
    /// Each request that wants an answer: psn, and for a Read its bytes.
    due: Vec<(u64, Option<Vec<u8>>)>,
    refused: Option<(u64, NakReason)>,
    carried_out: u64,
}

fn built(cut: usize, mut data: &[u8]) -> u64 {
    let mut stream = Vec::new();
    let mut expected =
        Expected { model: vec![0; WINDOW_BYTES], due: Vec::new(), refused: None, carried_out: 0 };
    for psn in 0..64 {
        let Some(request) = Request::take(&mut data, psn) else { break };
        request.encode(&mut stream);
        if expected.refused.is_some() {
            continue;
        }
        match request.apply(&mut expected.model) {
            Ok(bytes) => {
                expected.carried_out += 1;
                let read = request.header.kind == FrameKind::Read;
                if request.header.wants_answer() {
                    expected.due.push((psn, read.then_some(bytes)));
                }
            }
            Err(reason) => expected.refused = Some((psn, reason)),
        }
    }
    let windows = windows();
    let mut responder = Responder::new(windows.clone());
    let answers = drive(&mut responder, &stream, 1 + cut * 37);
    assert_eq!(windows[0].mapping().slice().to_vec(), expected.model);
    assert!(windows[1..].iter().all(|window| window.mapping().slice().to_vec() == [0; WINDOW_BYTES]));
    assert_eq!(responder.frames(), expected.carried_out);
    match (responder.refusal(), expected.refused) {
        (None, None) => {}
        (Some(Refusal::Request { psn, reason, .. }), Some(refused)) => assert_eq!((psn, reason), refused),
        (Some(Refusal::Garbled(_)), Some((_, reason))) => assert_eq!(reason, NakReason::Garbled),
        (found, expected) => panic!("refused {found:?}, expected {expected:?}"),
    }
    check(&answers, &expected);
    expected.carried_out
}

/// Feeds the stream in pieces, drains the answers in others; all answers.
fn drive(responder: &mut Responder, stream: &[u8], piece: usize) -> Vec<u8> {
    let mut outbox = Outbox::new(Responder::OUTBOX_BYTES_MIN);
    let (mut answers, mut arrived, mut taken) = (Vec::new(), 0, 0);
    while responder.refusal().is_none() {
        let step = responder.handle(&stream[taken..arrived], &mut outbox);
        taken += step.consumed;
        if step.blocked {
            assert!(!outbox.is_empty());
        } else if arrived == stream.len() {
            break;
        } else {
            arrived = stream.len().min(arrived + piece);
        }
        let drained = outbox.pending().len().min(if step.blocked { 700 } else { piece / 2 });
        answers.extend_from_slice(&outbox.pending()[..drained]);
        outbox.consume(drained);
    }
    assert!(responder.refusal().is_some() || taken == stream.len(), "{taken} of {}", stream.len());
    answers.extend_from_slice(outbox.pending());
    answers
}

/// Answers are in order, each names a request that is due, none is missing but those that a later one includes.
fn check(answers: &[u8], expected: &Expected) {
    let (mut decoder, mut rest, mut due) = (FrameDecoder::new(), answers, expected.due.iter().peekable());
    let mut naked = false;
    while let Some(frame) = decoder.decode(rest).expect("answers are frames") {
        rest = &rest[frame.wire_bytes()..];
        assert!(!naked, "nothing follows a Nak");
        match frame.header.kind {
            FrameKind::Ack | FrameKind::ReadReply => {
                let (_, read) = due
                    .by_ref()
                    .inspect(|(psn, read)| {
                        assert!(read.is_none() || *psn == frame.header.offset, "a Read was skipped")
                    })
                    .find(|(psn, _)| *psn == frame.header.offset)
                    .expect("the request is due");
                assert_eq!(read.as_deref().unwrap_or_default(), frame.payload);
                assert_eq!(read.is_some(), frame.header.kind == FrameKind::ReadReply);
            }
            FrameKind::Nak => {
                let (psn, reason) = expected.refused.expect("a refusal is due");
                assert_eq!((frame.header.offset, frame.header.flags), (psn, reason as u8));
                naked = true;
            }
            kind => panic!("{kind:?} is no answer"),
        }
    }
    assert!(rest.is_empty() && due.next().is_none() && naked == expected.refused.is_some());
}
