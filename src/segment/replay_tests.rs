//! The tail, damage and forks are told apart.

use super::super::head::tests::sample;
use super::super::testing::{append, file, memory, write};
use super::*;
use crate::base::Phase;
use crate::segment::{Append, GenerationBegin, Salt};

type Segments = Vec<(SegmentHead, Vec<u8>)>;

impl SegmentSource for Vec<u8> {
    type Error = std::convert::Infallible;

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Self::Error> {
        SegmentSource::read(&self[..], offset, target)
    }
}

/// A generation's segments, each with as many records as given; and where each record ends.
fn generation(first: SegmentHead, counts: &[u64]) -> (Segments, Vec<Lsn>) {
    let (mut head, mut segments, mut ends) = (first, Vec::new(), Vec::new());
    for count in counts {
        let (memory, mut log) = (memory(&head), Append::new(head));
        for number in 0..*count {
            log.set_durable(ends.len().checked_sub(3).map_or(Lsn::ZERO, |at| ends[at]));
            assert!(append(&mut log, &memory, write(number, 1), u8::try_from(number).unwrap()));
            ends.push(log.end());
        }
        segments.push((head, file(&head, &memory)));
        if *count > 0 {
            head = log.next(head.phase, Salt([ends.len().try_into().unwrap(); 16]));
        }
    }
    (segments, ends)
}

/// Of a log that continues nothing.
fn fresh() -> SegmentHead {
    SegmentHead { predecessor: LogGeneration(0), fork: Lsn(0), previous_end: Lsn(0), ..sample() }
}

/// The generation after, which leaves the one of `head` at `fork`.
fn after(head: &SegmentHead, fork: Lsn) -> SegmentHead {
    let begin = GenerationBegin {
        generation: LogGeneration(head.generation.0 + 1),
        predecessor: head.generation,
        fork,
        highest_known: head.end(),
        ring_bytes: 1 << 18,
    };
    SegmentHead::first(head.dataset, head.layout, begin, Phase(9), Salt([0x44; 16]))
}

fn replay(segments: &Segments, from: Lsn, durable: Lsn) -> (Vec<Lsn>, Result<Outcome, String>) {
    let known = Known { from, durable: durable.max(from) };
    let mut replay = match Replay::new(segments.clone(), known) {
        Ok(replay) => replay,
        Err(error) => return (Vec::new(), Err(format!("{error:?}"))),
    };
    let mut ends = Vec::new();
    while let Some(next) = replay.next() {
        match next {
            Ok(record) => ends.push(record.end()),
            Err(error) => {
                assert!(replay.outcome().is_none() && replay.next().is_none());
                return (ends, Err(format!("{error:?}")));
            }
        }
    }
    let outcome = replay.outcome().expect("it ended");
    (ends, Ok(outcome))
}

/// Makes the last record of the segment invalid.
fn damage(segments: &mut Segments, at: usize, record: usize) {
    let bytes = &mut segments[at].1;
    let slot = bytes.len() - 64 * (record + 1);
    bytes[slot + 1] ^= 1;
}

#[test]
fn everything_comes_back_from_any_checkpoint() {
    let (segments, ends) = generation(fresh(), &[5, 9, 2]);
    for (skipped, from) in
        [(0, Lsn(0)), (3, ends[2]), (5, ends[4]), (6, ends[5]), (14, ends[13]), (16, ends[15])]
    {
        let (found, outcome) = replay(&segments, from, ends[1].max(from));
        assert_eq!(found, ends[skipped..]);
        assert_eq!(outcome, Ok(Outcome { end: ends[15], highest_known: segments[2].0.end() }));
    }
    assert_eq!(replay(&Vec::new(), Lsn(0), Lsn(0)).1, Ok(Outcome { end: Lsn(0), highest_known: Lsn(0) }));
}

#[test]
fn the_tail_is_no_damage() {
    let (mut segments, ends) = generation(fresh(), &[5, 4]);
    damage(&mut segments, 1, 3);
    assert_eq!(replay(&segments, Lsn(0), ends[7]).1.map(|outcome| outcome.end), Ok(ends[7]));
    damage(&mut segments, 1, 2);
    assert_eq!(replay(&segments, Lsn(0), ends[6]).1.map(|outcome| outcome.end), Ok(ends[6]));
}

#[test]
fn damage_is_no_tail() {
    let (whole, ends) = generation(fresh(), &[5, 6]);
    for (record, durable, to) in [
        (5, ends[10], ends[10]), // known from outside
        (1, Lsn(0), ends[7]),    // by the last record, which knew three before it to be durable
    ] {
        let mut segments = whole.clone();
        damage(&mut segments, 1, record);
        let (found, outcome) = replay(&segments, Lsn(0), durable);
        assert_eq!(found, ends[..5 + record]);
        let error = outcome.unwrap_err();
        assert!(error.contains(&format!("Corrupt {{ from: {:?}, to: {to:?}", ends[4 + record])), "{error}");
    }
    // Before a later segment, whose head proves it.
    let mut segments = whole;
    damage(&mut segments, 0, 4);
    let (found, outcome) = replay(&segments, Lsn(0), Lsn(0));
    assert_eq!(found, ends[..4]);
    let error = outcome.unwrap_err();
    assert!(error.contains(&format!("Corrupt {{ from: {:?}, to: {:?}", ends[3], ends[4])), "{error}");
    // In what the checkpoint has, payloads may be gone.
    segments[0].1[4096 * 5] ^= 1;
    segments[0].1[65536 - 64 * 5 + 1] ^= 1;
    assert_eq!(replay(&segments, ends[4], ends[4]).0, ends[5..]);
}

#[test]
fn missing_segments_are_missed() {
    let (whole, ends) = generation(fresh(), &[5, 6, 2]);
    let mut without = whole.clone();
    without.remove(1);
    assert!(replay(&without, Lsn(0), Lsn(0)).1.unwrap_err().contains("Missing"));
    assert_eq!(replay(&without, ends[10], ends[10]).0, ends[11..], "it may be reclaimed");
    without.remove(0);
    assert!(replay(&without, ends[4], ends[4]).1.unwrap_err().contains("Missing"));
    assert!(replay(&whole[..2].to_vec(), Lsn(0), ends[11]).1.unwrap_err().contains("Corrupt"));
    assert!(replay(&Vec::new(), Lsn(0), ends[0]).1.unwrap_err().contains("Missing"));
}

#[test]
fn what_follows_a_fork_is_void() {
    let (mut segments, ends) = generation(fresh(), &[5, 6, 2]);
    let forked = after(&segments[2].0, ends[7]);
    let (later, later_ends) = generation(forked, &[3, 1]);
    segments.extend(later);
    // Void records may be damaged, and whole segments of them.
    damage(&mut segments, 1, 4);
    damage(&mut segments, 2, 0);
    let expected: Vec<_> = ends[..8].iter().chain(&later_ends).copied().collect();
    let (found, outcome) = replay(&segments, Lsn(0), ends[7]);
    assert_eq!((found, outcome.map(|outcome| outcome.end)), (expected, Ok(later_ends[3])));
    // Those before the fork may not.
    damage(&mut segments, 1, 2);
    assert!(replay(&segments, Lsn(0), Lsn(0)).1.unwrap_err().contains("Corrupt"));
    // A checkpoint with void records is of no use.
    assert!(replay(&segments, ends[9], ends[9]).1.unwrap_err().contains("set aside"));
    assert_eq!(replay(&segments, later_ends[0], later_ends[0]).0, later_ends[1..]);
}

#[test]
fn a_generation_that_was_set_aside_voids_nothing() {
    let (mut segments, ends) = generation(fresh(), &[5]);
    let aside = after(&segments[0].0, ends[1]);
    segments.extend(generation(aside, &[2]).0);
    let mut taken = after(&segments[1].0, ends[4]);
    taken.predecessor = segments[0].0.generation;
    let (later, later_ends) = generation(taken, &[2]);
    segments.extend(later);
    let (found, _) = replay(&segments, Lsn(0), Lsn(0));
    assert_eq!(found, [&ends[..], &later_ends[..]].concat());
}

#[test]
fn an_empty_generation_is_a_link_of_the_chain() {
    let (mut segments, ends) = generation(fresh(), &[5]);
    let empty = after(&segments[0].0, ends[4]);
    segments.extend(generation(empty, &[0]).0);
    let (found, outcome) = replay(&segments, Lsn(0), ends[4]);
    assert_eq!((found.len(), outcome.map(|outcome| outcome.end)), (5, Ok(ends[4])));
    let (later, later_ends) = generation(after(&segments[1].0, ends[4]), &[2]);
    segments.extend(later);
    assert_eq!(replay(&segments, Lsn(0), Lsn(0)).1.map(|outcome| outcome.end), Ok(later_ends[1]));
}

#[test]
fn heads_that_contradict_each_other_are_named() {
    let (whole, ends) = generation(fresh(), &[5, 6]);
    let contradiction = |change: &dyn Fn(&mut SegmentHead)| {
        let mut segments = whole.clone();
        change(&mut segments[1].0);
        replay(&segments, Lsn(0), Lsn(0)).1.unwrap_err()
    };
    assert!(contradiction(&|head| head.generation = LogGeneration(1)).contains("generations rise"));
    assert!(contradiction(&|head| head.predecessor = LogGeneration(1)).contains("began otherwise"));
    assert!(contradiction(&|head| head.phase = Phase(1)).contains("phases rise"));
    assert!(contradiction(&|head| head.previous_end = ends[2]).contains("beyond the end"));
    assert!(contradiction(&|head| head.previous_end = head.base).contains("Corrupt"));
}
