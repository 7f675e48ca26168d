//! Power cuts at every write and every sync: nothing flushed is lost, nothing is served that was not written, and what the log
//! has is a prefix of what was asked; damage is never taken for the log's end.

use super::store::{BLOCKS, Call, Content, Defect, Recovered, Store, recover};
use super::{Disk, DiskError, Random};
use crate::base::Lsn;

const SECTOR: u64 = 4096;
const SEEDS: u64 = 6;

/// Calls of a client and of the destager, mixed.
fn workload(seed: u64, count: u32) -> Vec<Call> {
    let mut random = Random::new(seed);
    let mut byte = 0_u8;
    let mut one = || {
        byte = byte % 250 + 1;
        let blocks = 1 + random.below(9);
        let block = random.below(BLOCKS - blocks);
        let blocks = u32::try_from(blocks).unwrap();
        match random.below(16) {
            0..8 => Call::Write { block, blocks, byte },
            8..10 => Call::Trim { block, blocks },
            10 => Call::BrokenOff { block, byte },
            11 | 12 => Call::Flush,
            13 | 14 => Call::Destage(1 + blocks / 4),
            _ => Call::Sync,
        }
    };
    (0..count).map(|_| one()).collect()
}

/// What a run leaves: the content after each record, by the position behind it, the first before all.
struct Run {
    store: Store,
    history: Vec<(Lsn, Content)>,
    error: Option<DiskError>,
}

fn run(store: Store, before: (Lsn, Content), calls: &[Call]) -> Run {
    let mut content = before.1.clone();
    let mut run = Run { store, history: vec![before], error: None };
    for call in calls {
        match run.store.call(*call) {
            Ok(end) => {
                call.change(&mut content);
                run.history.extend(end.map(|end| (end, content.clone())));
            }
            Err(error) => {
                run.error = Some(error);
                break;
            }
        }
    }
    run
}

fn fresh(seed: u64, defect: Defect) -> Store {
    Store::start(Disk::new(SECTOR, seed), None, seed, defect)
}

/// What is wrong with what was recovered, if anything is.
fn judge(run: &Run, found: &Recovered) -> Result<(), String> {
    let end = found.outcome.end;
    if end < run.store.flushed {
        return Err(format!("flushed to {}, found to {end}", run.store.flushed));
    }
    // A void record is not returned, so the log may end between two of the history.
    let Some((_, content)) = run.history.iter().rfind(|(lsn, _)| *lsn <= end) else {
        return Err(format!("the log ends at {end}, before it began"));
    };
    if found.content != *content {
        return Err(format!("at {end} found {:?}, written was {content:?}", found.content));
    }
    Ok(())
}

/// Cuts the power in each step of the workload, recovers, and goes on.
fn cut_everywhere(workload_seed: u64, defect: Defect) -> Result<u64, String> {
    let calls = workload(workload_seed, 60);
    let whole = run(fresh(workload_seed, defect), (Lsn::ZERO, Content::new()), &calls);
    if let Some(error) = whole.error {
        return Err(format!("without a fault: {error:?}"));
    }
    let mut cuts = 0;
    for step in 1..=whole.store.disk.steps() {
        for seed in 0..SEEDS {
            let told = |why: String| format!("workload {workload_seed}, cut at {step}, seed {seed}: {why}");
            let mut store = fresh(workload_seed, defect);
            store.disk = Disk::new(SECTOR, seed * 1000 + step);
            store.disk.cut_at(step);
            let mut run = run(store, (Lsn::ZERO, Content::new()), &calls);
            assert_eq!(run.error, Some(DiskError::PowerCut), "step {step} comes");
            run.store.disk.restart();
            // The same without outside knowledge and with all that there can be.
            recover(&run.store.disk, run.store.flushed).map_err(|error| told(error.to_string()))?;
            let found = recover(&run.store.disk, Lsn::ZERO).map_err(|error| told(error.to_string()))?;
            judge(&run, &found).map_err(told)?;
            go_on(run, &found, seed).map_err(told)?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

/// A new generation on what was found, cut once more, and once more recovered.
fn go_on(before: Run, found: &Recovered, seed: u64) -> Result<(), String> {
    let mut disk = before.store.disk;
    let step = disk.steps() + 1 + Random::new(seed).below(40);
    disk.cut_at(step);
    let store = Store::start(disk, Some(found), seed + 77, Defect::None);
    let mut second = run(store, (found.outcome.end, found.content.clone()), &workload(seed + 500, 30));
    second.store.disk.restart();
    let again = recover(&second.store.disk, Lsn::ZERO).map_err(|error| format!("again: {error}"))?;
    judge(&second, &again).map_err(|why| format!("again: {why}"))
}

#[test]
fn no_cut_loses_what_was_flushed() {
    let cuts: u64 =
        (0..4).map(|seed| cut_everywhere(seed, Defect::None).unwrap_or_else(|why| panic!("{why}"))).sum();
    assert!(cuts > 500, "{cuts} cuts are no test");
}

/// The same tests on stores that are built wrong: each must be found out.
#[test]
fn stores_that_are_built_wrong_are_found_out() {
    for defect in [Defect::SkipsSync, Defect::SkipsDirectory, Defect::SkipsPadding] {
        // One that does not even get on without a cut is found out as well.
        let fails = |seed| {
            std::panic::catch_unwind(|| cut_everywhere(seed, defect)).map_or(true, |cuts| cuts.is_err())
        };
        let found = (0..4).any(fails);
        assert!(found, "{defect:?} was not noticed");
    }
}

#[test]
fn no_sector_is_written_twice() {
    for seed in 0..20 {
        let run = run(fresh(seed, Defect::None), (Lsn::ZERO, Content::new()), &workload(seed, 300));
        assert_eq!((run.error, run.store.disk.most_written()), (None, 1), "workload {seed}");
    }
}

/// Each sector that a flushed log has on the disk is damaged in turn: with what is known of the log's end that is always an error,
/// and without it never other data than what was written.
#[test]
fn damage_is_told_from_the_end_of_the_log() {
    let mut random = Random::new(1);
    for seed in 0..4 {
        let mut calls = workload(seed, 80);
        calls.push(Call::Flush);
        let whole = run(fresh(seed, Defect::None), (Lsn::ZERO, Content::new()), &calls);
        let (flushed, content) = (whole.store.flushed, &whole.history.last().unwrap().1);
        assert_eq!(&recover(&whole.store.disk, flushed).unwrap().content, content);
        let mut proved = 0;
        for (file, offset) in used_bytes(&whole.store.disk, &mut random) {
            let mut disk = whole.store.disk.clone();
            disk.flip(file, offset, u32::try_from(random.below(8)).unwrap());
            let damaged = recover(&disk, flushed);
            // Bytes of padding, of a head's block behind the head, of void payloads: nobody looks at them.
            let harmless = || damaged.as_ref().is_ok_and(|found| found.content == *content);
            assert!(damaged.is_err() || harmless(), "workload {seed}: byte {offset} of {file:#x}");
            proved += u64::from(damaged.is_err());
            if let Ok(found) = recover(&disk, Lsn::ZERO) {
                let prefix = whole.history.iter().rfind(|(lsn, _)| *lsn <= found.outcome.end).unwrap();
                assert_eq!(found.content, prefix.1, "workload {seed}: byte {offset} of {file:#x}");
            }
        }
        assert!(proved > 20, "{proved} of the damages were found");
    }
}

/// Some bytes of each sector, with those that begin and end it.
fn used_bytes(disk: &Disk, random: &mut Random) -> Vec<(u64, u64)> {
    let mut bytes = Vec::new();
    for file in disk.files() {
        for sector in disk.sectors(file) {
            bytes.extend([0, 17, SECTOR - 33, SECTOR - 1].map(|at| (file, sector + at)));
            bytes.extend((0..6).map(|_| (file, sector + random.below(SECTOR))));
        }
    }
    bytes
}

#[test]
fn after_a_failed_sync_nothing_more_is_promised() {
    for step in 1..60 {
        let mut store = fresh(9, Defect::None);
        store.disk.fail_sync_at(step);
        let mut run = run(store, (Lsn::ZERO, Content::new()), &workload(9, 60));
        run.store.disk.restart();
        // The store stopped there; what was flushed before is there.
        let found = recover(&run.store.disk, run.store.flushed)
            .unwrap_or_else(|error| panic!("step {step}: {error}"));
        judge(&run, &found).unwrap_or_else(|why| panic!("step {step}: {why}"));
    }
}
