//! Each method that this kernel has passes the same tests; those that it lacks are printed.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fault::GUARDED_RANGES_MAX;
use super::*;
use crate::memory::testing::{in_child, run_child};
use crate::memory::{LockPolicy, MapError, MapOptions, Mapping, Pages};

const PAGE: usize = 4096;

/// The methods of this kernel.
fn methods() -> Vec<TrackingMethod> {
    let works = |method: &TrackingMethod| match method.probe() {
        Ok(()) => true,
        Err(error @ TrackError::System { .. }) => {
            let _ = writeln!(io::stderr(), "skipped: {error}");
            assert_ne!(*method, TrackingMethod::Mprotect, "it works everywhere");
            false
        }
        Err(error) => panic!("{error}"),
    };
    TrackingMethod::ALL.into_iter().filter(works).collect()
}

fn collected(memory: &TrackedMemory) -> Runs {
    let mut found = Runs::new(memory.page_bytes());
    memory.collect(&mut found).expect("collecting");
    found
}

fn pages(numbers: impl IntoIterator<Item = usize>) -> Runs {
    let mut runs = Runs::new(PAGE);
    numbers.into_iter().for_each(|page| runs.add_pages(page..page + 1));
    runs
}

fn check(method: TrackingMethod, found: &Runs, stored: &Runs) {
    assert_eq!(found, stored, "{method}");
}

fn store(memory: &TrackedMemory, offset: usize, byte: u8) {
    assert!(offset < memory.len());
    // SAFETY: within the memory, which no reference exists to.
    let place = unsafe { memory.pointer().add(offset) };
    // SAFETY: as above; nobody else stores there at this time.
    unsafe { place.write_volatile(byte) };
}

#[test]
fn each_store_is_found_once() {
    for method in methods() {
        // The last page is not whole.
        let memory = TrackedMemory::new(300 * PAGE - 100, method).expect("300 pages");
        check(method, &collected(&memory), &pages([]));
        for offset in [0, 5 * PAGE - 1, 5 * PAGE, 128 * PAGE + 9, 300 * PAGE - 101] {
            store(&memory, offset, 7);
        }
        store(&memory, 9, 8);
        check(method, &collected(&memory), &pages([0, 4, 5, 128, 299]));
        check(method, &collected(&memory), &pages([]));
        (0..300).step_by(2).for_each(|page| store(&memory, page * PAGE + 1, 9));
        check(method, &collected(&memory), &pages((0..300).step_by(2)));
        let mut bytes = [0; 2];
        memory.slice().read(0, &mut bytes);
        assert_eq!((bytes, memory.slice().to_vec()[9]), ([7, 9], 8), "{method}: reading is not storing");
        check(method, &collected(&memory), &pages([]));
    }
}

#[test]
fn what_other_threads_store_meanwhile_is_in_a_copy_made_after_its_page_was_told() {
    const PAGES: usize = 64;
    for method in methods() {
        let memory = TrackedMemory::new(PAGES * PAGE, method).expect("some pages");
        let place = memory.pointer().expose_provenance().get();
        let (copy, ending) = (
            Mapping::anonymous(PAGES * PAGE, MapOptions::default()).expect("as many"),
            AtomicBool::new(false),
        );
        let copy_stored = || {
            for run in collected(&memory).ranges() {
                let part = memory.slice().subslice(run.start, run.len()).expect("within");
                copy.slice().copy_from(run.start, part);
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..3_usize {
                let ending = &ending;
                scope.spawn(move || {
                    let mut seed = 77 + thread as u64;
                    while !ending.load(Ordering::Relaxed) {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let offset = usize::try_from(seed >> 33).expect("31 bits") % (PAGES * PAGE / 32) * 32
                            + thread * 8;
                        let word = std::ptr::with_exposed_provenance_mut::<u64>(place + offset);
                        // SAFETY: within the memory, aligned; no other thread stores to these words.
                        unsafe { word.write_volatile(seed) };
                    }
                });
            }
            (0..400).for_each(|_| copy_stored());
            ending.store(true, Ordering::Relaxed);
        });
        // Behind their last stores.
        copy_stored();
        assert_eq!(copy.slice().first_difference(memory.slice()), None, "{method}");
        check(method, &collected(&memory), &pages([]));
    }
}

/// Locked as it is when a region is opened: a kernel that stores to each page when it becomes writable again would be found.
#[test]
fn nothing_is_found_in_a_locked_memory_but_stores() {
    for method in methods() {
        let mapping = Mapping::apart(64 * PAGE).expect("64 pages");
        mapping.lock(LockPolicy::Try).expect("never fails");
        let memory = TrackedMemory::over(mapping, method).expect("64 pages");
        for page in [0, 63, 7] {
            store(&memory, page * PAGE, 1);
            check(method, &collected(&memory), &pages([page]));
            check(method, &collected(&memory), &pages([]));
        }
        // Once more, of a memory that is tracked already.
        memory.mapping().lock(LockPolicy::Try).expect("never fails");
        collected(&memory);
        store(&memory, 5 * PAGE, 1);
        check(method, &collected(&memory), &pages([5]));
    }
}

/// Memories of one kind that come to lie side by side stay two mappings.
#[test]
fn a_new_memory_beside_another_changes_nothing_of_it() {
    for method in methods() {
        let memory = TrackedMemory::new(8 * PAGE, method).expect("8 pages");
        store(&memory, 3 * PAGE, 1);
        let others: Vec<_> =
            (0..20).map(|_| TrackedMemory::new(8 * PAGE, method).expect("8 pages")).collect();
        check(method, &collected(&memory), &pages([3]));
        others.iter().for_each(|other| check(method, &collected(other), &pages([])));
        drop(others);
        check(method, &collected(&memory), &pages([]));
    }
}

/// Has the kernel store two bytes at `offset`.
fn receive(memory: &TrackedMemory, offset: usize) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(b"ab")?;
    assert!(offset + 2 <= memory.len());
    // SAFETY: within the memory.
    let place = unsafe { memory.pointer().add(offset) };
    // SAFETY: two bytes are there, that no reference exists to.
    let count = unsafe { libc::read(reader.as_raw_fd(), place.as_ptr().cast(), 2) };
    if count == 2 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn what_a_system_call_stores_is_found() {
    for method in methods() {
        let memory = TrackedMemory::new(8 * PAGE, method).expect("8 pages");
        collected(&memory);
        if method == TrackingMethod::Mprotect {
            let error = receive(&memory, 3 * PAGE).expect_err("no signal is raised for it");
            assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
            check(method, &collected(&memory), &pages([]));
        }
        // Over the border of two pages.
        memory.prepare(4 * PAGE - 1, 2).expect("within");
        receive(&memory, 4 * PAGE - 1).expect("it was prepared");
        assert_eq!(&memory.slice().to_vec()[4 * PAGE - 1..4 * PAGE + 1], b"ab");
        check(method, &collected(&memory), &pages([3, 4]));
        memory.prepare(8, 0).expect("nothing");
        check(method, &collected(&memory), &pages([]));
    }
}

#[test]
fn huge_pages_and_shared_memory_are_refused() {
    for method in methods() {
        let huge = Mapping::anonymous(4 << 20, MapOptions { huge_pages: true }).expect("4 MiB");
        if matches!(huge.pages(), Pages::Base { .. }) {
            let _ = writeln!(io::stderr(), "skipped: this machine gives no huge pages");
        } else {
            let error = TrackedMemory::over(huge, method).expect_err("refused").to_string();
            assert!(error.contains("4194304 bytes") && error.contains("base pages only"), "{error}");
        }
        let shared = Mapping::memfd("shared", PAGE, MapOptions::default()).expect("a page");
        let error = TrackedMemory::over(shared, method).expect_err("refused").to_string();
        assert!(error.contains("others may store into it"), "{error}");
        let error = TrackedMemory::new(0, method).expect_err("nothing to track");
        assert!(matches!(error, TrackError::Map(MapError::Zero)), "{error}");
    }
}

#[test]
fn a_store_in_the_midst_of_what_might_be_a_huge_page_is_found_as_one_page() {
    for method in methods() {
        let memory = TrackedMemory::new(8 << 20, method).expect("8 MiB");
        collected(&memory);
        store(&memory, (4 << 20) + 5 * PAGE, 1);
        check(method, &collected(&memory), &pages([1029]));
    }
}

#[test]
fn a_forked_child_has_not_the_memory_and_does_not_disturb() {
    for method in methods() {
        let memory = TrackedMemory::new(4 * PAGE, method).expect("4 pages");
        store(&memory, PAGE, 1);
        // SAFETY: the child calls nothing that needs a lock: it stores, and ends by that.
        let child = unsafe { libc::fork() };
        if child == 0 {
            store(&memory, 2 * PAGE, 1);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the child's number, and a place for its end.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV,
            "{method}: {status:#x}"
        );
        store(&memory, 3 * PAGE, 1);
        check(method, &collected(&memory), &pages([1, 3]));
        store(&memory, 0, 1);
        check(method, &collected(&memory), &pages([0]));
    }
}

/// What a parent was doing with its memories while it forked holds up no memory of the child.
#[test]
fn a_forked_child_tracks_memories_of_its_own() {
    for method in methods() {
        let memories: Vec<_> = (0..3).map(|_| TrackedMemory::new(PAGE, method).expect("a page")).collect();
        memories.iter().for_each(|memory| _ = collected(memory));
        // SAFETY: no other thread of this process is waited for by what the child does, but for the allocator's, which survives it.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let found = std::panic::catch_unwind(|| {
                let own = TrackedMemory::new(4 * PAGE, method).expect("4 pages");
                collected(&own);
                store(&own, 2 * PAGE, 1);
                check(method, &collected(&own), &pages([2]));
            });
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(found.is_err())) };
        }
        let mut status = 0;
        // SAFETY: the child's number, and a place for its end.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{method}: {status:#x}");
        memories.iter().for_each(|memory| store(memory, 0, 1));
        memories.iter().for_each(|memory| check(method, &collected(memory), &pages([0])));
    }
}

#[test]
fn what_a_device_stored_is_told_once_when_it_is_said() {
    for method in methods() {
        let memory = TrackedMemory::new(6 * PAGE, method).expect("6 pages");
        collected(&memory);
        memory.stored(PAGE + 5, PAGE);
        memory.stored(0, 0);
        store(&memory, 4 * PAGE, 1);
        check(method, &collected(&memory), &pages([1, 2, 4]));
        check(method, &collected(&memory), &pages([]));
    }
}

/// Memories come and go, at places that were others' a moment ago, while pages are collected.
#[test]
fn memories_end_while_others_are_collected() {
    for method in methods() {
        let ending = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !ending.load(Ordering::Relaxed) {
                        let memory = TrackedMemory::new(2 * PAGE, method).expect("2 pages");
                        store(&memory, PAGE, 1);
                        drop(memory);
                        // At its place, perhaps, and not to be protected by anybody.
                        let plain = Mapping::anonymous(2 * PAGE, MapOptions::default()).expect("2 pages");
                        (0..50).for_each(|byte| plain.slice().fill(0, 2 * PAGE, byte));
                    }
                });
            }
            let memory = TrackedMemory::new(8 * PAGE, method).expect("8 pages");
            for round in 0..300 {
                store(&memory, round % 8 * PAGE, 1);
                check(method, &collected(&memory), &pages([round % 8]));
            }
            ending.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_jump_into_a_tracked_memory_ends_the_process() {
    let output = run_child("memory::track::tests::a_jump_into_a_tracked_memory_ends_the_process", || {
        let memory = TrackedMemory::new(PAGE, TrackingMethod::Mprotect).expect("a page");
        collected(&memory);
        // SAFETY: no function: it faults, which is the point.
        let jump = unsafe { std::mem::transmute::<*mut u8, extern "C" fn()>(memory.pointer().as_ptr()) };
        jump();
    });
    let Some(output) = output else { return };
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(libc::SIGSEGV), "{output:?}");
}

#[test]
fn memories_are_tracked_by_themselves() {
    for method in methods() {
        let mut memories: Vec<_> =
            (0..3).map(|_| TrackedMemory::new(4 * PAGE, method).expect("4 pages")).collect();
        memories.iter().enumerate().for_each(|(at, memory)| store(memory, at * PAGE, 1));
        for (at, memory) in memories.iter().enumerate() {
            check(method, &collected(memory), &pages([at]));
        }
        memories.remove(1);
        memories.iter().for_each(|memory| store(memory, 3 * PAGE, 1));
        memories.iter().for_each(|memory| check(method, &collected(memory), &pages([3])));
    }
}

#[test]
fn the_guarded_ranges_are_bounded_and_given_back() {
    in_child("memory::track::tests::the_guarded_ranges_are_bounded_and_given_back", || {
        for _ in 0..2 {
            let make = |_| TrackedMemory::new(PAGE, TrackingMethod::Mprotect);
            let memories: Vec<_> = (0..GUARDED_RANGES_MAX).map(|at| make(at).expect("room")).collect();
            assert!(matches!(make(0), Err(TrackError::TooMany { most: 64, .. })), "no room");
            let chosen = TrackingMethod::choose().map(|(method, _)| method);
            let fits = matches!(chosen, Ok(TrackingMethod::WpAsync) | Err(TrackError::TooMany { .. }));
            assert!(fits, "{chosen:?}");
            memories.iter().for_each(|memory| store(memory, 0, 1));
        }
    });
}

#[test]
fn any_other_fault_kills_as_it_would_have() {
    let name = "memory::track::tests::any_other_fault_kills_as_it_would_have";
    let output = run_child(name, || {
        let memory = TrackedMemory::new(PAGE, TrackingMethod::Mprotect).expect("a page");
        store(&memory, 0, 1);
        // SAFETY: a new mapping that may not be written.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        // SAFETY: faults, which is the point; nothing is changed.
        unsafe { place.cast::<u8>().write_volatile(1) };
    });
    let Some(output) = output else { return };
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(libc::SIGSEGV), "{output:?}");
}

#[test]
fn more_pieces_than_the_kernel_allows_are_found_as_a_whole() {
    in_child("memory::track::tests::more_pieces_than_the_kernel_allows_are_found_as_a_whole", || {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        let most: usize = text.trim().parse().unwrap_or(usize::MAX);
        if most > 100_000 {
            let _ = writeln!(io::stderr(), "skipped: {most} mappings are allowed");
            return;
        }
        let count = most + most / 8;
        let memory = TrackedMemory::new(2 * count * PAGE, TrackingMethod::Mprotect).expect("much");
        (0..count).for_each(|at| store(&memory, 2 * at * PAGE, 1));
        let found = collected(&memory);
        assert!(found.pages() > 3 * count / 2, "{} pages of {}", found.pages(), 2 * count);
        assert!((0..count).all(|at| found.ranges().iter().any(|run| run.contains(&(2 * at * PAGE)))));
        store(&memory, 5 * PAGE, 1);
        check(TrackingMethod::Mprotect, &collected(&memory), &pages([5]));
    });
}

#[test]
fn the_choice_is_the_best_that_works_and_says_why() {
    let (method, why) = TrackingMethod::choose().expect("mprotect works everywhere");
    assert_eq!(method, methods()[0]);
    assert!(why.starts_with(&method.to_string()), "{why}");
    assert_eq!(method.to_string().parse(), Ok(method));
    assert!("pagemap".parse::<TrackingMethod>().is_err());
}
