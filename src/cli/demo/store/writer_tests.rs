//! The ledger against a server that keeps every write, and against such that lose or tear one.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::super::super::scratch::Scratch;
use super::*;

/// What a server does with a block's content before it keeps it; `None`: it acknowledges, and forgets.
type Keep = fn(u64, Vec<u8>) -> Option<Vec<u8>>;

/// A server of one connection after another, with one disk. It is gone after `writes` acknowledgments.
fn serve(scratch: &Scratch, keep: Keep, writes: usize) -> PathBuf {
    let path = scratch.path("nbd");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        let (mut disk, mut left) = (HashMap::new(), writes);
        for stream in listener.incoming() {
            // Ends with the connection, whoever breaks it.
            let _ = stream.and_then(|stream| talk(stream, &mut disk, keep, &mut left));
        }
    });
    path
}

fn talk(
    mut stream: UnixStream,
    disk: &mut HashMap<u64, Vec<u8>>,
    keep: Keep,
    left: &mut usize,
) -> io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    let mut option = [0; 4 + 16];
    stream.read_exact(&mut option)?;
    assert_eq!(option[..16], *b"\0\0\0\x03IHAVEOPT\0\0\0\x01");
    stream.read_exact(&mut vec![0; usize::from(option[19])])?;
    stream.write_all(&[0; 10])?;
    loop {
        let mut request = [0; 28];
        stream.read_exact(&mut request)?;
        let long = |at: usize| u64::from_be_bytes(request[at..at + 8].try_into().expect("8 bytes"));
        let offset = long(16);
        let mut reply = [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &request[8..16]].concat();
        match request[7] {
            0 => reply.extend(disk.get(&offset).cloned().unwrap_or(vec![0; BLOCK_BYTES])),
            1 => {
                let mut content = vec![0; BLOCK_BYTES];
                stream.read_exact(&mut content)?;
                if let Some(kept) = keep(long(8), content) {
                    disk.insert(offset, kept);
                }
                if *left == 0 {
                    return Ok(());
                }
                *left -= 1;
            }
            _ => return Ok(()),
        }
        stream.write_all(&reply)?;
    }
}

/// The ledger of what such a server acknowledged, and what the proof says.
fn proof(keep: Keep) -> (Ledger, Result<Found, String>) {
    let scratch = Scratch::new("ledger").expect("a directory");
    let path = serve(&scratch, keep, 100);
    let ledger = Writer::start(&path, LEDGER, 7).expect("connected").ledger().expect("cut short");
    let found = ledger.prove(&path, LEDGER);
    (ledger, found)
}

const LEDGER: &str = "ledger";

#[test]
fn what_is_kept_is_found() {
    let (ledger, found) = proof(|_, content| Some(content));
    assert_eq!(ledger.acknowledged, (0..100).collect::<Vec<_>>());
    assert!(ledger.in_doubt.contains(&100) && ledger.in_doubt.len() <= 12, "{:?}", ledger.in_doubt);
    assert_eq!(found, Ok(Found { acknowledged: 100, in_doubt: 1 }));
}

#[test]
fn an_acknowledged_write_that_is_lost_is_missed() {
    let (_, found) = proof(|number, content| (number != 60).then_some(content));
    assert!(
        found.as_ref().expect_err("lost").starts_with("write 60, acknowledged as number 60 of 100"),
        "{found:?}"
    );
    // One that was not acknowledged may be.
    let (_, found) = proof(|number, content| (number != 100).then_some(content));
    assert_eq!(found, Ok(Found { acknowledged: 100, in_doubt: 0 }));
}

/// Keeps it with one bit flipped.
fn flipped(mut content: Vec<u8>) -> Option<Vec<u8>> {
    content[BLOCK_BYTES - 1] ^= 1;
    Some(content)
}

#[test]
fn a_write_that_is_there_in_part_or_as_another_is_an_error() {
    let keeps: [(u64, Keep); 3] = [
        (60, |number, content| if number == 60 { flipped(content) } else { Some(content) }),
        (60, |number, bytes| Some(if number == 60 { content(8, 60) } else { bytes })),
        (100, |number, content| if number == 100 { flipped(content) } else { Some(content) }),
    ];
    for (number, keep) in keeps {
        assert_eq!(proof(keep).1, Err(format!("write {number} is there in part")));
    }
}

#[test]
fn a_writer_that_is_not_wanted_any_more_ends() {
    let scratch = Scratch::new("unwanted").expect("a directory");
    let path = serve(&scratch, |_, content| Some(content), usize::MAX);
    let Writer { go_on, thread } = Writer::start(&path, LEDGER, 7).expect("connected");
    drop(go_on);
    let (ledger, why) = thread.join().expect("it ends");
    assert!(ledger.in_doubt.is_empty() && why.to_string() == "nobody wants it", "{why}");
    assert!(Writer::start(&scratch.path("nowhere"), LEDGER, 7).is_err());
}

#[test]
fn each_block_has_a_place_and_a_content_of_its_own() {
    let places: HashSet<u64> = (0..BLOCKS).map(offset).collect();
    assert_eq!(places.len() as u64, BLOCKS);
    assert!(places.iter().all(|at| *at < VOLUME_BYTES && at.is_multiple_of(BLOCK_BYTES as u64)));
    let contents: HashSet<Vec<u8>> = (0..100).map(|number| content(1, number)).collect();
    assert_eq!(contents.len(), 100);
    assert!(contents.iter().all(|content| content.len() == BLOCK_BYTES));
    assert_ne!(content(1, 0), content(2, 0));
}
