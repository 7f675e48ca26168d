//! Sealed mode, with a cipher that hides nothing but finds every change, loss and reordering of records.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::rig::*;
use crate::base::crc32c;
use crate::fabric::tcp::{
    FRAME_PAYLOAD_MAX, FrameKind, RECORD_PLAIN_MAX, Receiver, ReceiverEndReason, RecordCipher,
};
use crate::fabric::{Access, Operation, QueueError};

#[derive(Default)]
struct Toy {
    sealed: u64,
    opened: u64,
}

impl RecordCipher for Toy {
    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        assert!(!plain.is_empty() && plain.len() <= RECORD_PLAIN_MAX);
        let size = u16::try_from(plain.len() + 12).unwrap();
        out.extend_from_slice(&size.to_le_bytes());
        let start = out.len();
        out.extend(plain.iter().map(|byte| byte ^ 0x5a));
        out.extend_from_slice(&self.sealed.to_le_bytes());
        let crc = crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        self.sealed += 1;
        Ok(())
    }

    fn open(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let Some((body, crc)) = record.split_last_chunk::<4>() else { return Err("no tag".into()) };
        let Some((text, number)) = body.split_last_chunk::<8>() else { return Err("no number".into()) };
        if crc32c(body) != u32::from_le_bytes(*crc) || u64::from_le_bytes(*number) != self.opened {
            return Err(format!("record {} does not open", self.opened));
        }
        self.opened += 1;
        out.extend(text.iter().map(|byte| byte ^ 0x5a));
        Ok(())
    }
}

fn toys() -> Option<Ciphers> {
    Some((Box::new(Toy::default()), Box::new(Toy::default())))
}

#[test]
fn sealed_streams_carry_everything_through_narrow_sockets() {
    let len = 1 << 20;
    for ends in [narrow_pair(), tcp_pair()] {
        let served = window(len, Access::ReadWrite);
        let mut rig = Rig::with(ends, served, 64, Duration::ZERO, toys(), |grant| grant);
        rig.fill(1);
        let (mut seen, mut offset, mut id) = (Vec::new(), 0, 0);
        for size in [1, 64, 4096, FRAME_PAYLOAD_MAX, 70_000, 0].into_iter().cycle().take(24) {
            if offset + size > len {
                break;
            }
            post_all(&mut rig.queue, &[write(id, offset, size, id % 2 == 0)], &mut seen).unwrap();
            (offset, id) = (offset + size, id + 1);
        }
        post_all(&mut rig.queue, &[request(Operation::Flush, 1000, 0, 0, true)], &mut seen).unwrap();
        reap(&mut rig.queue, 1000, &mut seen).unwrap();
        assert_eq!(rig.remote()[..offset], pattern(len, 1)[..offset]);
        rig.local.slice().write(0, &vec![0; len]);
        for n in 0..8 {
            let read = request(Operation::Read, 2000 + n as u64, n * 100_000, 100_000, true);
            post_all(&mut rig.queue, &[read], &mut seen).unwrap();
        }
        reap(&mut rig.queue, 2007, &mut seen).unwrap();
        assert_eq!(rig.local.slice().to_vec()[..offset.min(800_000)], rig.remote()[..offset.min(800_000)]);
    }
}

#[test]
fn a_record_that_does_not_open_changes_nothing() {
    let bytes = frame(FrameKind::Write, 0, 0, 64, 1, &[7; 64]);
    let mut sealed = Vec::new();
    Toy::default().seal(&bytes, &mut sealed).unwrap();
    for at in 0..=sealed.len() {
        let mut bad = sealed.clone();
        if let Some(byte) = bad.get_mut(at) {
            *byte ^= 4;
        }
        let served = window(64, Access::ReadWrite);
        let (ours, theirs) = tcp_pair();
        let cipher: Box<dyn RecordCipher> = Box::new(Toy::default());
        let windows = vec![std::sync::Arc::clone(&served)];
        // The first bytes came with the handshake's last.
        let early = bad[..at.min(9)].to_vec();
        let rest = bad[early.len()..].to_vec();
        let mut serving = Serving::start(Receiver::new(theirs, windows, Duration::ZERO, Some(cipher), early));
        let ours = TcpStream::from(ours);
        // A receiver that refused the first bytes may be gone already.
        let _ = (&ours).write_all(&rest);
        let _ = ours.shutdown(std::net::Shutdown::Write);
        let end = serving.end();
        let expected = if at == sealed.len() { [7; 64] } else { [0; 64] };
        assert_eq!(served.mapping().slice().to_vec(), expected, "byte {at}");
        match end.reason {
            // A longer size waits for bytes that never come.
            ReceiverEndReason::PeerGone { .. } => assert!(at < 2 || at == sealed.len(), "byte {at}"),
            reason => assert!(matches!(reason, ReceiverEndReason::Cipher { .. }), "byte {at}: {reason}"),
        }
    }
}

#[test]
fn an_unsealed_peer_is_refused() {
    let served = window(64, Access::ReadWrite);
    let (ours, theirs) = tcp_pair();
    let toy: Box<dyn RecordCipher> = Box::new(Toy::default());
    let mut serving =
        Serving::start(Receiver::new(theirs, vec![served], Duration::ZERO, Some(toy), Vec::new()));
    let mut plain = queue(ours, &region(64), window(64, Access::ReadWrite).grant(), 8, None);
    let mut seen = Vec::new();
    // What looks like the size of a record is more than 25000 bytes: it must come in full to be refused.
    let mut requests = vec![write(1, 0, 64, false); 1000];
    requests.push(write(2, 0, 64, true));
    let error =
        post_all(&mut plain, &requests, &mut seen).and_then(|()| reap(&mut plain, 2, &mut seen)).unwrap_err();
    assert!(matches!(error, QueueError::PeerGone { .. }), "{error}");
    assert!(matches!(serving.end().reason, ReceiverEndReason::Cipher { .. }));
}
