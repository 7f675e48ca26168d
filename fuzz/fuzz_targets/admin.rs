//! The admin socket's lines against whatever may be sent, both ways.
//!
//! The first byte chooses. *Raw*: the rest is a line. *Built*: the rest makes a request, whose line is then changed in a few bytes, so that
//! fuzzing goes on behind the JSON. What is decoded must survive encoding; a reply is decoded as well, as a client would. Executions in
//! which a request was decoded are counted and printed at each power of two.
#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use mirrorbus::serve::admin::{ErrorCode, Reply, Request};

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let line = if mode % 4 == 0 { data.to_vec() } else { built(*mode, data) };
    let is_deep = check(&line);
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let deep = DEEP.fetch_add(u64::from(is_deep), Ordering::Relaxed) + u64::from(is_deep);
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (requests)");
    }
});

/// Whether it is a request.
fn check(line: &[u8]) -> bool {
    if let Ok(reply) = Reply::decode(line) {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
    match Request::decode(line) {
        Ok(request) => {
            let again = request.encode();
            assert_eq!(again.iter().position(|byte| *byte == b'\n'), Some(again.len() - 1));
            assert_eq!(Request::decode(&again), Ok(request));
            true
        }
        Err(error) => {
            assert!(error.code == ErrorCode::BadRequest && !error.text.is_empty());
            // Its answer is a line too.
            let answer = Reply::Error(error);
            assert_eq!(Reply::decode(&answer.encode()), Ok(answer));
            false
        }
    }
}

fn built(mode: u8, data: &[u8]) -> Vec<u8> {
    let Some((&[kind, first, second, edits], rest)) = data.split_first_chunk::<4>() else {
        return data.to_vec();
    };
    let (dataset, rest) = rest.split_at(usize::from(first % 32).min(rest.len()));
    let (name, rest) = rest.split_at(usize::from(second % 32).min(rest.len()));
    let [dataset, name] = [dataset, name].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let (number, rest) = rest.split_first_chunk::<8>().unwrap_or((&[0; 8], rest));
    let bytes = u64::from_le_bytes(*number);
    let request = match kind % 12 {
        0 => Request::Status {},
        1 => Request::VolumeList { dataset: (second % 2 == 0).then_some(dataset) },
        2 => Request::VolumeCreate {
            dataset,
            name,
            bytes,
            block_bytes: [512, 4096, 1024][usize::from(second % 3)],
        },
        3 => Request::VolumeResize { dataset, name, bytes },
        4 => Request::VolumeDelete { dataset, name },
        5 => Request::Promote { dataset, flushed_only: second % 2 == 0 },
        6 => Request::Alone { dataset },
        7 => Request::Scrub { dataset, repair: second % 2 == 0 },
        8 => Request::Verify { dataset, volume: (second % 2 == 0).then_some(name), repair: first % 2 == 0 },
        9 => Request::ReplacePeer { dataset },
        10 => Request::Events { since: bytes, follow: second % 2 == 0 },
        _ => Request::Stop {},
    };
    let mut line = request.encode();
    if mode % 4 == 1 {
        return line;
    }
    for edit in rest.chunks_exact(3).take(usize::from(edits % 8)) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % line.len();
        line[at] = edit[2];
    }
    line
}
