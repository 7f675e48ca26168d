//! The report for people.

use std::fmt::Write;

use mirrorbus::base::format_bytes;

use super::{Beside, Report};
use crate::outcome::{Figure, Outcome, Total};
use crate::pair::ROUNDS_WANTED;
use crate::ratio::Ratio;
use crate::workload::Fabric;

/// `report` as lines of text.
///
/// # Panics
/// Never: see there.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    write_all(&mut text, report).expect("writing to a String cannot fail");
    text
}

/// What was measured, in a line.
pub(crate) fn headline(report: &Report) -> String {
    let workload = &report.workload;
    format!(
        "{} {} of {} · depth {} · {} lane{} · {} thread{} · {} · {} · region {}",
        workload.fabric,
        workload.pattern,
        format_bytes(workload.size as u64),
        workload.depth,
        workload.lanes,
        plural(workload.lanes),
        workload.threads,
        plural(workload.threads),
        report.level.name(),
        workload.polling,
        format_bytes(workload.region as u64),
    )
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn write_all(text: &mut String, report: &Report) -> std::fmt::Result {
    let outcome = &report.outcome;
    let machine = &report.machine;
    writeln!(text, "{}", headline(report))?;
    writeln!(
        text,
        "{}, {} cores, {}, Linux {}, clock {}, load {}\n",
        machine.cpu,
        machine.cores,
        format_bytes(machine.memory_bytes),
        machine.kernel,
        machine.clock_source,
        machine.load
    )?;
    writeln!(
        text,
        "{:<22}{:>14}{:>14}{:>14}",
        "",
        "ours",
        "limit",
        if outcome.bare.is_some() { "bare" } else { "" }
    )?;
    let totals: Vec<&Total> = [&outcome.ours, &outcome.limit].into_iter().chain(&outcome.bare).collect();
    let mut row = |name: &str, value: &dyn Fn(&Total) -> String| -> std::fmt::Result {
        write!(text, "{name:<22}")?;
        totals.iter().try_for_each(|total| write!(text, "{:>14}", value(total)))?;
        writeln!(text)
    };
    row("stores/s", &|total| quantity(total.stores_per_s()))?;
    #[allow(clippy::cast_precision_loss, reason = "a size needs no 53 bits")]
    let size = report.workload.size as f64;
    row("GB/s", &|total| format!("{:.3}", total.stores_per_s() * size / 1e9))?;
    row("CPU ns/store", &|total| format!("{:.1}", total.cpu_ns_per_store()))?;
    let calls = if report.workload.fabric == Fabric::Rdma { "doorbells/store" } else { "syscalls/store" };
    row(calls, &|total| total.calls_per_store().map_or("-".into(), |calls| format!("{calls:.3}")))?;
    for (name, quantile) in
        [("to ack, p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)]
    {
        row(name, &|total| duration(total.latencies.at(quantile)))?;
    }
    row("shortest", &|total| duration(total.latency().min))?;
    row("longest", &|total| duration(total.latency().max))?;
    row("latencies taken", &|total| total.latencies.count().to_string())?;
    let copies = report.ours_copies_per_byte.map_or("-".into(), |copies| format!("{copies:.0}"));
    writeln!(text, "{:<22}{copies:>14}{:>14.0}\n", "copies/byte", report.limit_copies_per_byte)?;
    write_ratios(text, outcome)?;
    write_method(text, report)
}

/// The ratios of each kind and their control; those that their control makes void say so.
fn write_ratios(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let mut ratio = |name: &str, ratio: Ratio, figure: Figure| {
        let Ratio { median, low, high } = ratio;
        let void = if outcome.void(figure).is_some() { "   VOID" } else { "" };
        writeln!(text, "{name:<22}{median:>14.3}   [{low:.3}, {high:.3}]{void}")
    };
    ratio("rate, ours/limit", outcome.rate, Figure::Rate)?;
    if let Some(bare) = outcome.rate_bare {
        ratio("rate, ours/bare", bare, Figure::Rate)?;
    }
    ratio("rate, limit/limit", outcome.control, Figure::Rate)?;
    ratio("p50, ours/limit", outcome.p50, Figure::P50)?;
    ratio("p50 net of timer", outcome.p50_net, Figure::P50)?;
    ratio("p50, limit/limit", outcome.control_p50, Figure::P50)
}

/// How the figures came about, and whether they count.
fn write_method(text: &mut String, report: &Report) -> std::fmt::Result {
    let outcome = &report.outcome;
    writeln!(
        text,
        "\nratios: medians of {} paired slices of {:.2} s, 95 % interval{}",
        outcome.schedule.rounds,
        outcome.schedule.slice.as_secs_f64(),
        if outcome.schedule.rounds < ROUNDS_WANTED { " (few: give more --seconds)" } else { "" }
    )?;
    writeln!(text, "ours: {}", report.ours_does)?;
    writeln!(text, "limit: {}", report.limit_does)?;
    writeln!(text, "latency: {}", report.latency_method())?;
    writeln!(text, "copies: made by user code of the storing process; the kernel's are not counted")?;
    let shared = if outcome.ours.calls_per_store().is_none() {
        "; unknown of ours, whose threads share a lane and may wait for a lock or for each other"
    } else {
        ""
    };
    if report.workload.fabric == Fabric::Rdma {
        writeln!(text, "doorbells: of the storing threads; on soft-RoCE each is a system call{shared}")?;
    } else {
        writeln!(text, "syscalls: sends, receives and sleeps of the storing threads{shared}")?;
    }
    if let Some(idle) = report.idle_cpu {
        writeln!(text, "idle: an open region without stores took {:.2} % of a processor", idle * 100.0)?;
    }
    for Beside { program, figure, result } in &report.perftest {
        match result {
            Ok(value) => writeln!(text, "{program}: {value:.1} {figure}")?,
            Err(why) => writeln!(text, "{program}: {why}")?,
        }
    }
    let judged_by = report.judged_by();
    for figure in [Figure::Rate, Figure::P50] {
        if let Some(why) = outcome.void(figure) {
            let name = figure.name();
            let whole = if figure == judged_by { ", by which this run is judged" } else { "" };
            writeln!(text, "\nVOID: the {name}{whole}: {why}.")?;
        }
    }
    Ok(())
}

fn quantity(number: f64) -> String {
    match number {
        large if large >= 1e6 => format!("{:.2} M", large / 1e6),
        medium if medium >= 1e3 => format!("{:.1} k", medium / 1e3),
        small => format!("{small:.1}"),
    }
}

/// Nanoseconds with three digits or more and a unit.
pub(crate) fn duration(nanoseconds: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are printed")]
    let value = nanoseconds as f64;
    match nanoseconds {
        0..10_000 => format!("{nanoseconds} ns"),
        10_000..10_000_000 => format!("{:.1} µs", value / 1e3),
        _ => format!("{:.1} ms", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_figures_and_what_they_mean() {
        let text = render(&super::super::sample::report());
        for expected in [
            "shm hot of 64 B · depth 1 · 1 lane · 1 thread · acked · spin · region 1 GiB",
            "16.00 M",
            "20.00 M",
            "62.5",
            "1.024",
            "0.800   [0.800, 0.800]",
            "about 20 ns of each are the timer",
            "20 paired slices of 0.50 s",
        ] {
            assert!(text.contains(expected), "{expected:?} is missing from\n{text}");
        }
        assert!(!text.contains("VOID") && !text.contains("few"));
    }

    #[test]
    fn a_void_run_says_so() {
        let mut report = super::super::sample::report();
        report.outcome.control_p50.median = 0.9;
        let text = render(&report);
        let judged = "VOID: the p50, by which this run is judged: the limit differs from itself";
        assert!(text.contains(judged) && text.matches("]   VOID\n").count() == 3, "{text}");
        let mut report = super::super::sample::report();
        report.outcome.control.low = 0.8;
        let text = render(&report);
        assert!(text.contains("VOID: the rate: the limit may differ from itself"), "{text}");
        assert!(text.contains("[0.800, 0.800]   VOID") && text.matches("]   VOID\n").count() == 2, "{text}");
    }

    #[test]
    fn unknown_system_calls_are_explained() {
        let mut report = super::super::sample::report();
        assert!(render(&report).contains("of the storing threads\n"));
        report.outcome.ours.calls = None;
        assert!(render(&report).contains("unknown of ours, whose threads share a lane"));
    }

    #[test]
    fn durations_keep_three_digits() {
        assert_eq!(
            [duration(43), duration(9999), duration(12_345), duration(98_765_432)],
            ["43 ns", "9999 ns", "12.3 µs", "98.8 ms"]
        );
    }
}
