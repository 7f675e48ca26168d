//! What is granted, what is not, and what is no longer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rig::*;
use crate::base::Generation;
use crate::fabric::tcp::{FrameKind, Header, Outbox, ReceiverEndReason, Refusal, Responder};
use crate::fabric::{Access, ExportedWindow, Grant, Operation, Queue, QueueError, WindowId, WorkRequest};

const WINDOW_BYTES: usize = 256;

#[test]
fn what_is_not_granted_is_refused_by_the_peer_too() {
    let lie = |access: Access, told: fn(Grant) -> Grant, bad| {
        let served = window(WINDOW_BYTES, access);
        let mut rig = Rig::with(tcp_pair(), served, 8, Duration::ZERO, None, told);
        let big = region(4 * WINDOW_BYTES);
        big.slice().write(0, &[1; 4 * WINDOW_BYTES]);
        let _ = rig.queue.post(&[bad]).map(|taken| assert_eq!(taken, 1));
        rig.queue.doorbell().unwrap();
        let error = failure(&mut rig.queue);
        drop(rig.queue);
        assert!(matches!(rig.serving.end().reason, ReceiverEndReason::Refused(Refusal::Request { .. })));
        assert_eq!(rig.window.mapping().slice().to_vec(), [0; WINDOW_BYTES]);
        error
    };
    let error = lie(Access::Read, |grant| Grant { access: Access::ReadWrite, ..grant }, write(1, 0, 8, true));
    assert!(error.to_string().contains("only be read"), "{error}");
    let error = lie(
        Access::ReadWrite,
        |grant| Grant { len: 1 << 20, ..grant },
        WorkRequest { remote_offset: WINDOW_BYTES - 7, ..write(1, 0, 8, false) },
    );
    assert!(error.to_string().contains("outside"), "{error}");
    let stale = |grant| Grant { generation: Generation(2), ..grant };
    let error = lie(Access::ReadWrite, stale, write(1, 0, 8, true));
    assert_eq!(error, QueueError::Revoked { granted: Generation(2) });
}

#[test]
fn a_read_only_grant_takes_no_write() {
    let mut rig =
        Rig::with(tcp_pair(), window(WINDOW_BYTES, Access::Read), 8, Duration::ZERO, None, |grant| grant);
    rig.window.mapping().slice().write(0, &[5; WINDOW_BYTES]);
    assert!(matches!(rig.queue.post(&[write(1, 0, 8, true)]), Err(QueueError::OutOfRange { limit: 0, .. })));
    let mut seen = Vec::new();
    post_all(&mut rig.queue, &[request(Operation::Read, 2, 0, WINDOW_BYTES, true)], &mut seen).unwrap();
    reap(&mut rig.queue, 2, &mut seen).unwrap();
    assert_eq!(rig.local.slice().to_vec(), [5; WINDOW_BYTES]);
}

#[test]
fn no_byte_changes_after_a_revocation_is_complete() {
    for round in 0..20 {
        let mut rig = Rig::new(tcp_pair(), 1 << 20, 64, Duration::from_micros(20));
        let window = Arc::clone(&rig.window);
        let revoker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(200 * round));
            window.revoke();
            let end = Instant::now() + PATIENCE;
            while !window.quiesced() {
                assert!(Instant::now() < end);
            }
            let frozen = window.mapping().slice().to_vec();
            std::thread::sleep(Duration::from_millis(5));
            assert!(frozen == window.mapping().slice().to_vec(), "bytes changed after the revocation");
            frozen
        });
        let (mut seen, mut n) = (Vec::new(), 0_u64);
        let error = loop {
            rig.local.slice().write(0, &[n.to_le_bytes()[0]; 4096]);
            if let Err(error) = post_all(&mut rig.queue, &[write(n, 0, 4096, true)], &mut seen) {
                break error;
            }
            n += 1;
        };
        assert_eq!(error, QueueError::Revoked { granted: GENERATION });
        let frozen = revoker.join().unwrap();
        // What was acknowledged is there: the frozen bytes are those of the last acknowledged write or of a later one.
        let last = seen.last().copied().unwrap_or(0);
        assert!(frozen[..4096].iter().all(|byte| *byte == frozen[0]));
        assert!(
            u64::from(frozen[0].wrapping_sub(last.to_le_bytes()[0])) <= n - last,
            "{} after {last}",
            frozen[0]
        );
    }
}

#[test]
fn several_windows_keep_apart() {
    let first = window(WINDOW_BYTES, Access::ReadWrite);
    let second = ExportedWindow::new(WindowId(8), Generation(9), Access::ReadWrite, region(WINDOW_BYTES));
    let mut responder = Responder::new(vec![Arc::clone(&first), Arc::clone(&second)]);
    let header = Header {
        kind: FrameKind::Write,
        flags: 0,
        len: 3,
        psn: 0,
        wr_id: 0,
        offset: 1,
        window: 8,
        generation: 9,
    };
    let mut outbox = Outbox::new(Responder::OUTBOX_BYTES_MIN);
    let bytes = [encode(header, b"two"), frame(FrameKind::Write, 1, 0, 3, 0, b"one")].concat();
    assert_eq!(responder.handle(&bytes, &mut outbox).consumed, bytes.len());
    assert!(outbox.is_empty() && responder.refusal().is_none());
    assert_eq!(first.mapping().slice().to_vec()[..4], *b"one\0");
    assert_eq!(second.mapping().slice().to_vec()[..5], *b"\0two\0");
}
