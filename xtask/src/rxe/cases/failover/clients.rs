//! The clients in the two guests, and who of them is answered.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Failover, PLAN, QUIET, WATCHED};
use crate::failure::{Context, Result};
use crate::rxe::cases::ensure;
use crate::rxe::cases::nodes::Status;
use crate::rxe::cases::roles::{GO, SOON};
use crate::rxe::machine::Machine;
use crate::rxe::port::Running;

impl Failover<'_, '_> {
    /// Those blocks that the client of a guest writes to.
    pub(super) const fn blocks(index: usize) -> [usize; 2] {
        let half = PLAN.blocks / 2;
        [index * half, (index + 1) * half]
    }

    /// A client in each guest that has none.
    pub(super) fn start_roamers(&mut self) -> Result<()> {
        for index in [0, 1] {
            if self.roamers[index].is_none() {
                self.nodes.guest(index).run(&format!("rm -f {GO}"), SOON)?;
                let [from, to] = Self::blocks(index);
                let mut roamer = self.nodes.start_role("disk-roamer", index, from..to)?;
                roamer.line_after("roaming", SOON)?;
                self.roamers[index] = Some(roamer);
            }
        }
        Ok(())
    }

    pub(super) fn roamer(&mut self, index: usize) -> &mut Running {
        self.roamers[index].as_mut().expect("it is started with its guest")
    }

    /// The client in this guest is answered from now on.
    pub(super) fn until_answered(&mut self, index: usize) -> Result<()> {
        let roamer = self.roamer(index);
        roamer.catch_up();
        // What it had printed may only come now.
        roamer.line_after("w ", SOON)?;
        std::thread::sleep(Duration::from_millis(50));
        roamer.catch_up();
        roamer.line_after("w ", SOON).map(drop).context(|| format!("the client in guest {index}"))
    }

    /// The clients in these guests are not answered for a while.
    pub(super) fn assert_quiet(&mut self, which: &[usize]) -> Result<()> {
        for &index in which {
            self.roamer(index).catch_up();
        }
        std::thread::sleep(QUIET);
        for &index in which {
            let roamer = self.roamer(index);
            while let Ok(Some(line)) = roamer.line(Duration::ZERO) {
                ensure(!line.starts_with("w "), || {
                    format!("the client in guest {index} is answered: {line}")
                })?;
            }
        }
        Ok(())
    }

    /// From a fault on: one of the two serves, and answers nobody but its own client; which.
    pub(super) fn until_one_serves(&mut self) -> Result<usize> {
        let until = Instant::now() + SOON;
        let alone = |status: &Status| status["role"] == "Primary" && status["replication_state"] == "Alone";
        let serving = loop {
            let statuses = [0, 1].map(|index| self.nodes.status(index));
            let found = statuses.iter().position(|status| status.as_ref().is_some_and(alone));
            if let Some(index) = found {
                break index;
            }
            ensure(Instant::now() < until, || format!("none serves: {statuses:?}"))?;
        };
        self.until_answered(serving)?;
        if self.roamers[1 - serving].is_some() {
            self.assert_quiet(&[1 - serving])?;
        }
        self.until_answered(serving)?;
        Ok(serving)
    }

    /// The client in this guest was answered to writes of the watched blocks: what each of them has at least.
    pub(super) fn until_written(&mut self, index: usize, from: usize) -> Result<Vec<u32>> {
        let mut written = vec![0; WATCHED];
        self.roamer(index).catch_up();
        let until = Instant::now() + SOON;
        // Some of them, so that there is something to miss.
        while written.iter().filter(|&&number| number > 0).count() < WATCHED / 4 {
            let line =
                self.roamer(index).line_after("w ", until.saturating_duration_since(Instant::now()))?;
            let words: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            let [number, first, count] = words[..] else { continue };
            for block in first..first + count {
                if let Some(last) = block.checked_sub(from).and_then(|at| written.get_mut(at)) {
                    *last = u32::try_from(number).unwrap_or(u32::MAX);
                }
            }
        }
        Ok(written)
    }
}

/// By this host's clock, which is that of the guests' hardware.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a watcher found at this time and later.
pub(super) fn after(output: &str, least: u64) -> Vec<Vec<u32>> {
    let found = output.lines().filter_map(|line| line.strip_prefix("found "));
    let numbers = found.map(|line| line.split(' ').filter_map(|word| word.parse::<u64>().ok()));
    let late = numbers.filter_map(|mut numbers| (numbers.next()? >= least).then_some(numbers));
    late.map(|numbers| numbers.filter_map(|number| u32::try_from(number).ok()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_later_is_told_from_what_was_found_before() {
        let output = "watching\nfound 9 1 2\nfound 10 3 4\nlost\nfound 12 5 6\n";
        assert_eq!(after(output, 10), [[3, 4], [5, 6]]);
        assert!(after(output, 13).is_empty());
    }

    #[test]
    fn each_client_has_blocks_of_its_own() {
        assert_eq!([0, 1].map(Failover::blocks), [[0, 512], [512, 1024]]);
    }
}
