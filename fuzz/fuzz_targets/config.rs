//! The configuration of a node against whatever a file may hold.
//!
//! The first byte chooses. *Raw*: the rest is the file. *Edited*: the rest is a list of edits of the sample, so that fuzzing goes on
//! behind the TOML: each takes a few bytes away somewhere and puts others there. A mistake must be at a place of the text, and a
//! configuration within its bounds. Executions in which a configuration came out are counted and printed at each power of two.
#![no_main]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::fuzz_target;
use mirrorbus::serve::config::{ConfigError, NodeConfig};

const SAMPLE: &str = include_str!("../../docs/node.toml");

/// What edits put in, besides bytes of their own: what means something to the reader.
const PIECES: [&str; 16] = [
    "\n",
    "\"",
    "=",
    "[dataset.tls]\n",
    "[[dataset]]\n",
    "[[dataset.volume]]\n",
    "[node]\n",
    "tcp://",
    "unix:/a",
    "shm:/b",
    "rdma://h:1",
    "0.0.0.0:7000",
    "4096",
    "16MiB",
    "true",
    "-1",
];

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static DEEP: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let text = if mode % 4 == 0 { String::from_utf8_lossy(data).into_owned() } else { edited(data) };
    let is_deep = check(&text);
    let executions = EXECUTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let deep = DEEP.fetch_add(u64::from(is_deep), Ordering::Relaxed) + u64::from(is_deep);
    if executions.is_power_of_two() {
        eprintln!("deep: {deep} of {executions} (configurations that are right)");
    }
});

fn edited(mut data: &[u8]) -> String {
    let mut text = SAMPLE.to_owned();
    while let Some((&[high, low, len, piece], rest)) = data.split_first_chunk::<4>() {
        data = rest;
        let at = usize::from(u16::from_le_bytes([low, high])) % (text.len() + 1);
        let boundary =
            |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (boundary(at), boundary(at + usize::from(len % 16)));
        let new = match PIECES.get(usize::from(piece)) {
            Some(piece) => (*piece).to_owned(),
            None => {
                let count = usize::from(piece % 8).min(data.len());
                let (own, rest) = data.split_at(count);
                data = rest;
                String::from_utf8_lossy(own).into_owned()
            }
        };
        text.replace_range(start..end, &new);
    }
    text
}

/// Whether it is a configuration.
fn check(text: &str) -> bool {
    match NodeConfig::parse(text, Path::new("node.toml")) {
        Ok(config) => {
            assert!(!config.datasets.is_empty() && config.admin.is_absolute());
            for dataset in &config.datasets {
                assert!(dataset.segment_bytes.is_power_of_two());
                assert!(dataset.region_bytes.is_multiple_of(dataset.segment_bytes));
                assert!(dataset.region_bytes / dataset.segment_bytes >= 2);
                assert!(dataset.listen != dataset.peer && dataset.listen.medium() == dataset.peer.medium());
                assert!(dataset.directory.is_absolute() && dataset.key.is_absolute());
                for volume in &dataset.volumes {
                    assert!(volume.bytes > 0 && volume.bytes.is_multiple_of(volume.block_size.bytes()));
                }
            }
            true
        }
        Err(ConfigError::Mistake { line, column, why, .. }) => {
            assert!(line >= 1 && line <= text.matches('\n').count() + 1 && column >= 1 && !why.is_empty());
            false
        }
        Err(ConfigError::TooLong { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}
