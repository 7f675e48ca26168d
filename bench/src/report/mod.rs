//! One run, told three ways: a table for people, JSON for programs, a page with the latency curve.

pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod table;

use crate::machine::Machine;
use crate::options::AskedLevel;
use crate::outcome::{Figure, Outcome};
use crate::workload::Workload;

/// A finished run.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was measured.
    pub workload: Workload,
    /// What a store waited for.
    pub level: AskedLevel,
    /// What stands as ours, in a line.
    pub ours_does: String,
    /// Copies of each byte made by the program's side of ours, when known.
    pub ours_copies_per_byte: Option<f64>,
    /// What the limit does, in a line.
    pub limit_does: &'static str,
    /// Copies of each byte made by the program's side of the limit.
    pub limit_copies_per_byte: f64,
    /// The figures.
    pub outcome: Outcome,
    /// What each latency contains of the clock's own cost.
    pub timer_ns: u64,
    /// The part of one processor that an open, idle region took, where that was asked for.
    pub idle_cpu: Option<f64>,
    /// What other people's programs gave: name, unit, figure or why there is none. Empty where they were not asked for.
    pub perftest: Vec<Beside>,
    /// Where.
    pub machine: Machine,
}

/// A figure of another program.
#[derive(Debug)]
pub(crate) struct Beside {
    /// The program.
    pub program: &'static str,
    /// What its figure is.
    pub figure: &'static str,
    /// The figure, or why there is none.
    pub result: Result<f64, String>,
}

impl Report {
    /// The figure that this workload is run for. One store at a time is about how long it takes; with more in flight it is about
    /// how many get through.
    pub(crate) const fn judged_by(&self) -> Figure {
        if self.workload.depth == 1 { Figure::P50 } else { Figure::Rate }
    }

    /// Why the run as a whole is void, if it is: why that figure is.
    pub(crate) fn void(&self) -> Option<String> {
        self.outcome.void(self.judged_by())
    }

    /// How latencies were taken, in a line.
    pub(crate) fn latency_method(&self) -> String {
        let timer = self.timer_ns;
        if self.workload.batch() == 1 && !self.workload.pipelined() {
            return format!(
                "every store of the timed part of each slice; about {timer} ns of each are the timer"
            );
        }
        let batch = self.workload.batch();
        format!(
            "one store in {batch} of the timed part of each slice, at a moving position; about {timer} ns of each are the timer"
        )
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! A run with known figures.

    use std::time::Duration;

    use super::*;
    use crate::Failure;
    use crate::driver::Slice;
    use crate::histogram::Latencies;
    use crate::pair::{Contender, Contest, Schedule};
    use crate::workload::{Fabric, Pattern, Polling};

    struct Fixed {
        stores: u64,
        latency_ns: u64,
    }

    impl Contender for Fixed {
        fn slice(&mut self, _duration: Duration) -> Result<Slice, Failure> {
            let mut latencies = Latencies::new();
            for index in 0..1000 {
                latencies.record(Duration::from_nanos(self.latency_ns + index));
            }
            Ok(Slice { stores: self.stores, seconds: 0.5, cpu_ns: 500_000_000, calls: Some(0), latencies })
        }
    }

    /// Ours at 0.8 of the limit's rate and twice its latency.
    pub(crate) fn report() -> Report {
        let mut ours = Fixed { stores: 8_000_000, latency_ns: 1500 };
        let mut limit = Fixed { stores: 10_000_000, latency_ns: 500 };
        let mut contest = Contest { ours: &mut ours, limit: &mut limit, bare: None, timer_ns: 20 };
        let outcome = contest.run(Schedule { rounds: 20, slice: Duration::from_millis(500) });
        Report {
            workload: Workload {
                fabric: Fabric::Shm,
                size: 64,
                depth: 1,
                lanes: 1,
                threads: 1,
                pattern: Pattern::Hot,
                region: 1 << 30,
                polling: Polling::Spin,
            },
            level: AskedLevel::Acked,
            ours_does: "a fixed rate".into(),
            ours_copies_per_byte: None,
            limit_does: "another fixed rate",
            limit_copies_per_byte: 2.0,
            outcome: outcome.expect("fixed contenders do not fail"),
            timer_ns: 20,
            idle_cpu: None,
            perftest: Vec::new(),
            machine: Machine::here(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_void_when_the_figure_that_it_is_judged_by_is() {
        let void = |depth: usize, rate: f64, p50: f64| {
            let mut report = sample::report();
            report.workload.depth = depth;
            report.outcome.control.median = rate;
            report.outcome.control_p50.median = p50;
            report.void()
        };
        assert_eq!((void(1, 0.9, 1.0), void(64, 1.0, 0.9)), (None, None));
        assert!(void(1, 1.0, 0.9).is_some_and(|why| why.contains("control of the p50 0.900")));
        assert!(void(64, 0.9, 1.0).is_some_and(|why| why.contains("control of the rate 0.900")));
    }
}
