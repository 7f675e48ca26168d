//! Whatever the text, the outcome is a configuration within its bounds or a mistake at a place of the text.

use std::path::Path;

use proptest::prelude::*;

use super::tests::SAMPLE;
use super::{ConfigError, NodeConfig, SILENCE_MAX, SILENCE_MIN};
use crate::base::FabricUrl;
use crate::segment::{Ring, SegmentLayout};

fn holds(text: &str) {
    match NodeConfig::parse(text, Path::new("x")) {
        Ok(config) => {
            assert!(!config.datasets.is_empty() && config.admin.is_absolute());
            for dataset in &config.datasets {
                assert!(SegmentLayout::new(dataset.segment_bytes, 4096).is_ok());
                assert!(dataset.region_bytes.is_multiple_of(dataset.segment_bytes));
                assert!(dataset.region_bytes / dataset.segment_bytes >= Ring::PLACES_MIN);
                assert_ne!(dataset.listen, dataset.peer);
                assert!((SILENCE_MIN..=SILENCE_MAX).contains(&dataset.silence));
                if let Some(mediator) = &dataset.mediator {
                    assert!(matches!(mediator.address, FabricUrl::Tcp { .. } | FabricUrl::Shm { .. }));
                    assert!(mediator.key.is_absolute() && mediator.key != dataset.key);
                    assert!(mediator.address != dataset.peer && mediator.address != dataset.listen);
                }
            }
        }
        Err(ConfigError::Mistake { line, column, key, why, .. }) => {
            assert!((1..=text.matches('\n').count() + 1).contains(&line), "line {line}");
            assert!(column >= 1 && !key.is_empty() && !why.is_empty());
        }
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #[test]
    fn any_text(text in "\\PC{0,200}") {
        holds(&text);
    }

    #[test]
    fn edits_of_the_sample(edits in proptest::collection::vec((0..SAMPLE.len(), 0..9_usize, "[\\PC\n\"=\\[\\]]{0,9}"), 1..6)) {
        let mut text = SAMPLE.to_owned();
        for (at, len, new) in edits {
            let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let (start, end) = (boundary(at), boundary(at + len));
            text.replace_range(start..end.max(start), &new);
        }
        holds(&text);
    }

    #[test]
    fn any_mediator(address in "(tcp://|shm:/|rdma://|shm://|)[\\PC]{0,20}", key in "/[\\PC]{0,20}", preferred in "[\\PC]{0,9}") {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut text = SAMPLE.replace("tcp://mediator:7080", &quote(&address));
        text = text.replace("/etc/mirrorbus/mediator.key", &quote(&key));
        holds(&text.replace("preferred = \"alpha\"", &format!("preferred = \"{}\"", quote(&preferred))));
    }

    #[test]
    fn any_values(values in proptest::collection::vec("[\\PC\\\\]{0,20}", 12)) {
        let keys = ["id", "directory", "key", "listen", "peer", "region", "segment", "durability", "lock"];
        let mut text = String::new();
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!("[node]\nname = \"{}\"\nadmin = \"/a{}\"\n[[dataset]]\nname = \"x\"\n", quote(&values[0]), quote(&values[1])));
        for (key, value) in keys.iter().zip(&values[2..]) {
            text.push_str(&format!("{key} = \"{}\"\n", quote(value)));
        }
        holds(&text);
    }
}
