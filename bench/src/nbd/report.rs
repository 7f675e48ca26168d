//! The comparison, as a table and as JSON.

use std::fmt::Write;

use mirrorbus::base::format_bytes;
use serde_json::{Value, json};

use super::options::NbdOptions;
use super::servers::Counts;
use super::{Figures, Row};
use crate::machine::Machine;
use crate::ratio::Ratio;

/// What is told.
pub(super) struct Report<'a> {
    pub(super) options: &'a NbdOptions,
    pub(super) machine: &'a Machine,
    pub(super) rows: &'a [Row],
    pub(super) counts: &'a Counts,
}

impl Report<'_> {
    #[allow(clippy::cast_precision_loss, reason = "a ratio needs no 53 bits")]
    fn amplification(&self) -> f64 {
        self.counts.destaged_bytes as f64 / self.counts.written_bytes.max(1) as f64
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { options, machine, .. } = self;
        writeln!(
            text,
            "fio over NBD, Unix sockets · volume {} written once · ring {} · {} · {} rounds of {} s",
            format_bytes(options.volume),
            format_bytes(options.ring),
            options.directory.display(),
            options.rounds,
            options.seconds
        )?;
        writeln!(text, "{}, {} cores, load {}\n", machine.cpu, machine.cores, machine.load)?;
        writeln!(
            text,
            "{:<28}{:<15}{:>10}{:>10}{:>10}  {:<22}{:<22}rate, theirs/theirs",
            "", "", "IOPS", "p50 us", "p99 us", "rate, ours/theirs", "p50, ours/theirs"
        )?;
        for row in self.rows {
            self.figures(text, &row.job.name(), "mirrorbus", &row.ours)?;
            writeln!(text)?;
            for against in &row.against {
                self.figures(text, "", against.peer, &against.theirs)?;
                let [rate, p50, control] = [against.rate, against.p50, against.control].map(interval);
                writeln!(
                    text,
                    "  {rate:<22}{p50:<22}{control}{}",
                    if against.is_void() { " VOID" } else { "" }
                )?;
            }
        }
        writeln!(text, "\nbytes destaged for each byte written  {:.3}", self.amplification())?;
        writeln!(
            text,
            "copies of each byte, ours  socket to ring, peer's memory, page cache of both nodes: 4; nbdkit: 2; qemu: 5"
        )
    }

    #[allow(clippy::unused_self, reason = "one of the report's lines")]
    fn figures(&self, text: &mut String, job: &str, server: &str, figures: &Figures) -> std::fmt::Result {
        let Figures { iops, p50_us, p99_us } = figures;
        write!(text, "{job:<28}{server:<15}{iops:>10.0}{p50_us:>10.1}{p99_us:>10.1}")
    }

    pub(super) fn json(&self) -> Value {
        let Self { options, .. } = self;
        let figures = |figures: &Figures| json!({ "iops": figures.iops, "p50_us": figures.p50_us, "p99_us": figures.p99_us });
        let ratio = |ratio: Ratio| json!({ "median": ratio.median, "low": ratio.low, "high": ratio.high });
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let against: Vec<_> = row
                    .against
                    .iter()
                    .map(|against| {
                        json!({ "peer": against.peer, "theirs": figures(&against.theirs), "rate": ratio(against.rate),
                                "p50": ratio(against.p50), "control": ratio(against.control), "void": against.is_void() })
                    })
                    .collect();
                json!({ "job": row.job.name(), "ours": figures(&row.ours), "against": against })
            })
            .collect();
        json!({ "volume": options.volume, "ring": options.ring, "directory": options.directory, "rounds": options.rounds,
                "rows": rows, "write_amplification": self.amplification() })
    }
}

fn interval(ratio: Ratio) -> String {
    format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.low, ratio.high)
}
