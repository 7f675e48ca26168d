//! What a client feels of a resync, and what the resync has left of its rate: both against the same pair in the same rounds.
//!
//! ```text
//!  a round:  fio ─▶ outage ─▶ resync, nobody writes ─▶ fio ─▶ outage, fio in it ─▶ resync under fio
//!            p99              its rate                 p99    p99                  p99, its rate
//! ```
//!
//! In an outage the secondary's process ends, more than the ring holds is written, and it is started again. In a resync the primary is still
//! alone, and acknowledges by itself; so fio runs in the outage too, which tells what the resync alone does to it. Each of these is looked at through a *window* of the same length, which begins when data is being moved and must end before the resync does:
//! otherwise the round does not count. What a window contains is told by two looks at the primary's counters, with the guest's
//! own clock, right before the first write and right after the last one. Every second round has its two halves in the other order.

mod report;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::rxe::fio::{Disk, Figures};
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::rxe::pair::{ENGINE, Pair, STATUS, Sizes, dataset, status, until_paired, with_logs};
use crate::rxe::random::Random;
use crate::shell::root;

use super::roles::SOON;
use super::{ensure, number};
use report::Report;

/// A ring of which an outage writes several times as much.
const SIZES: Sizes = Sizes { region: "16MiB", segment: "4MiB", volume: "256MiB" };

/// What fio writes to.
const DISK: Disk<'_> = Disk { engine: ENGINE, size: "256M" };

/// Mebibytes that an outage changes: as many as a resync moves in [`RESYNC`], as far as can be told, and within these.
const CHANGED_MIB: (u64, u64) = (40, 160);
const RESYNC: Duration = Duration::from_secs(12);

/// A window is such a part of the time in which a resync without clients moves data. fio takes some of it to start.
const WINDOW_PART: f64 = 0.5;
/// One that was too long is followed by shorter ones.
const WINDOW_SHORTER: f64 = 0.75;
const WINDOW_MAX: Duration = Duration::from_secs(20);

/// Rounds that are to count, and the time after which no more is begun.
const ROUNDS: usize = 9;
const ROUNDS_TIME: Duration = Duration::from_secs(720);

/// At which the whole test is given up.
pub(super) const LIMIT: Duration = Duration::from_secs(900);

/// Where guest `a` has the script that looks.
const LOOK: &str = "/tmp/look";

/// What was found in one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// Of a pair: the one before the resync under fio first.
    without: [Figures; 2],
    /// Of a primary that is alone.
    alone: Figures,
    with: Figures,
    /// Bytes a second, of the whole window and of its halves.
    idle: f64,
    idle_halves: [f64; 2],
    busy: f64,
}

/// A resync under fio.
struct Busy {
    alone: Figures,
    with: Figures,
    rate: f64,
}

/// The primary at a moment.
#[derive(Debug, Clone)]
struct Look {
    /// By the guest's clock.
    seconds: f64,
    state: String,
    data_bytes: u64,
}

/// A pair under measurement.
struct Bench<'a> {
    guests: &'a Guests,
    pair: Pair,
    changed_mib: u64,
    window: Duration,
}

/// Measures, tells, and writes `resync-latency.json`.
pub(super) fn measure(guests: &Guests, _: &mut Random) -> Result<()> {
    let began = Instant::now();
    let pair = Pair::new(SIZES);
    let mut bench = Bench { guests, pair, changed_mib: CHANGED_MIB.0, window: Duration::ZERO };
    let rounds = bench.rounds(began).map_err(|failure| with_logs(guests, &failure))?;
    bench.pair.tear_down(guests)?;
    Report { rounds: &rounds, window: bench.window, changed_mib: bench.changed_mib }.deliver(&root())
}

impl Bench<'_> {
    fn rounds(&mut self, began: Instant) -> Result<Vec<Round>> {
        let guest = &self.guests.a;
        self.pair.bring_up(self.guests)?;
        let look = format!("cut -d' ' -f1 /proc/uptime; {STATUS}; cut -d' ' -f1 /proc/uptime");
        guest.run(&format!("cat >{LOOK} <<'EOF'\n{look}\nEOF\n"), SOON)?;
        DISK.fill(guest)?;
        self.until_marked()?;
        self.calibrate()?;
        let (mut rounds, mut longest) = (Vec::new(), Duration::ZERO);
        while rounds.len() < ROUNDS && began.elapsed() + longest < ROUNDS_TIME {
            let start = Instant::now();
            let turn = rounds.len() % 2 == 1;
            match self.round(turn).context(|| format!("round {}", rounds.len()))? {
                Some(round) => {
                    println!("{}", report::line(&round));
                    rounds.push(round);
                }
                None => {
                    self.window = self.window.mul_f64(WINDOW_SHORTER);
                    println!(
                        "the resync was over too early: does not count; windows are {:?} now",
                        self.window
                    );
                }
            }
            longest = longest.max(start.elapsed());
        }
        ensure(!rounds.is_empty(), || "no round counts: every resync was over too early".to_owned())?;
        Ok(rounds)
    }

    /// Finds out how fast a resync is, and how much it has to have to do, and for how long it can be looked at.
    fn calibrate(&mut self) -> Result<()> {
        let before = self.outage()?;
        let first = self.until_it_moves(&before)?;
        let first =
            first.ok_or_else(|| Failure::new("a resync was over before anybody saw it".to_owned()))?;
        let mut last = first.clone();
        while last.state == "SyncSource" {
            last = self.look()?;
        }
        until_paired(self.guests)?;
        let after = self.look()?;
        let (bytes, seconds) = (after.data_bytes - first.data_bytes, last.seconds - first.seconds);
        ensure(bytes > 0 && seconds > 0.0, || format!("{bytes} bytes in {seconds} s are no rate"))?;
        #[allow(clippy::cast_precision_loss, reason = "some gigabytes")]
        let rate = bytes as f64 / seconds;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some gigabytes")]
        let fits = (rate * RESYNC.as_secs_f64()) as u64 >> 20;
        self.changed_mib = fits.clamp(CHANGED_MIB.0, CHANGED_MIB.1);
        #[allow(clippy::cast_precision_loss, reason = "some gigabytes")]
        let lasts = Duration::from_secs_f64((self.changed_mib << 20) as f64 / rate);
        self.window = lasts.mul_f64(WINDOW_PART).min(WINDOW_MAX);
        println!(
            "{bytes} bytes in {seconds:.1} s while nobody writes: {} MiB are changed in each outage, windows are {:?}",
            self.changed_mib, self.window
        );
        Ok(())
    }

    /// One round; nothing when a resync was over before its window was.
    fn round(&mut self, turned: bool) -> Result<Option<Round>> {
        let mut idle = None;
        if !turned {
            idle = Some((self.fio("")?, self.resync_alone()?));
        }
        let first = self.fio("")?;
        let busy = self.resync_under_fio()?;
        if turned {
            idle = Some((self.fio("")?, self.resync_alone()?));
        }
        let (second, rates) = idle.expect("it comes before or after");
        let (Some([idle, idle_halves @ ..]), Some(busy)) = (rates, busy) else { return Ok(None) };
        let Busy { alone, with, rate } = busy;
        Ok(Some(Round { without: [first, second], alone, with, idle, idle_halves, busy: rate }))
    }

    /// The client, one write at a time.
    fn fio(&self, more: &str) -> Result<Figures> {
        DISK.random_writes(&self.guests.a, 1, self.window, more)
    }

    /// The rate of a resync while nobody writes: of the window, and of its halves.
    fn resync_alone(&mut self) -> Result<Option<[f64; 3]>> {
        let before = self.outage()?;
        let mut rates = None;
        if self.until_it_moves(&before)?.is_some() {
            let half = self.window.as_secs_f64() / 2.0;
            let script = format!("sh {LOOK}; for half in 1 2; do echo --; sleep {half:.3}; sh {LOOK}; done");
            let output = self.guests.a.run(&script, self.window + SOON)?;
            let looks = output.split("--\n").map(Look::read).collect::<Result<Vec<_>>>()?;
            let [first, middle, last] = &looks[..] else {
                return Err(Failure::new(format!("three looks are asked for: {output}")));
            };
            let all = [rate(first, last), rate(first, middle), rate(middle, last)];
            rates = all.iter().all(Option::is_some).then(|| all.map(Option::unwrap_or_default));
        }
        until_paired(self.guests)?;
        Ok(rates)
    }

    /// What fio finds during a resync, and the resync's rate meanwhile.
    fn resync_under_fio(&mut self) -> Result<Option<Busy>> {
        self.leave()?;
        let alone = self.fio("")?;
        let before = self.come_back()?;
        let mut found = None;
        if self.until_it_moves(&before)?.is_some() {
            // fio runs them right before its first write and right after its last one.
            let looks = format!("--exec_prerun='sh {LOOK}' --exec_postrun='sh {LOOK}'");
            let with = self.fio(&looks)?;
            let look = |when: &str| {
                let text = self.guests.a.run(&format!("cat /tmp/bench.{when}.txt"), SOON)?;
                Look::read(&text)
            };
            let rate = rate(&look("prerun")?, &look("postrun")?);
            found = rate.map(|rate| Busy { alone, with, rate });
        }
        until_paired(self.guests)?;
        Ok(found)
    }

    /// An outage without a client; how the primary was at its end.
    fn outage(&mut self) -> Result<Look> {
        self.leave()?;
        self.come_back()
    }

    /// The secondary's process ends.
    fn leave(&mut self) -> Result<()> {
        self.pair.stop(self.guests, 1)?;
        self.go_alone()
    }

    /// What the ring cannot hold is written, and the secondary is started again. The primary before that.
    fn come_back(&mut self) -> Result<Look> {
        DISK.change(&self.guests.a, self.changed_mib)?;
        let before = self.look()?;
        self.pair.start(self.guests, 1)?;
        Ok(before)
    }

    /// The primary notices that the other is gone, and goes on without it.
    fn go_alone(&self) -> Result<()> {
        let until = Instant::now() + SOON;
        while self.look()?.state != "LinkLost" {
            ensure(Instant::now() < until, || "the primary does not notice".to_owned())?;
        }
        loop {
            let told = self.guests.a.run("mirrorbus alone vm --admin /tmp/ours.admin", SOON);
            if told.is_ok() || Instant::now() > until {
                return told.map(drop);
            }
        }
    }

    /// Waits until data is moved; nothing when all has been.
    fn until_it_moves(&self, before: &Look) -> Result<Option<Look>> {
        let until = Instant::now() + SOON;
        loop {
            let look = self.look()?;
            match look.state.as_str() {
                "SyncSource" if look.data_bytes > before.data_bytes => return Ok(Some(look)),
                "Established" => return Ok(None),
                _ => ensure(Instant::now() < until, || format!("no resync begins: {look:?}"))?,
            }
        }
    }

    /// Waits until the marker is at the end of the log: what was filled in once is not to be moved.
    fn until_marked(&self) -> Result<()> {
        let until = Instant::now() + SOON;
        loop {
            let status = status(&self.guests.a)?;
            if number(&status, "/lsn/marker")? >= number(&status, "/lsn/appended")? {
                return Ok(());
            }
            ensure(Instant::now() < until, || format!("the marker does not move: {status}"))?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn look(&self) -> Result<Look> {
        Look::read(&self.guests.a.run(&format!("sh {LOOK}"), SOON)?)
    }
}

impl Look {
    /// What the script prints: a time, a status, a time. It was in between.
    fn read(text: &str) -> Result<Self> {
        let text = text.trim();
        let wrong = || Failure::new(format!("that is no look at a node: {text}"));
        let (first, rest) = text.split_once('\n').ok_or_else(wrong)?;
        let (status, last) = rest.rsplit_once('\n').ok_or_else(wrong)?;
        let time = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
        let status: Value = dataset(status)?;
        Ok(Self {
            seconds: f64::midpoint(time(first)?, time(last)?),
            state: status["replication_state"].as_str().unwrap_or_default().to_owned(),
            data_bytes: number(&status, "/counters/resync_data_bytes")?,
        })
    }
}

/// Bytes a second from one look to another; nothing when it was no resync all the time, or nothing was moved.
fn rate(first: &Look, last: &Look) -> Option<f64> {
    let is_one = [first, last].iter().all(|look| look.state == "SyncSource");
    let (bytes, seconds) = (last.data_bytes.saturating_sub(first.data_bytes), last.seconds - first.seconds);
    #[allow(clippy::cast_precision_loss, reason = "some gigabytes")]
    let rate = bytes as f64 / seconds;
    (is_one && bytes > 0 && seconds > 0.0).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: [&str; 2], state: &str, bytes: u64) -> String {
        let status = format!(
            r#"{{ "datasets": [ {{ "replication_state": "{state}", "counters": {{ "resync_data_bytes": {bytes} }} }} ] }}"#
        );
        format!("\n{}\n{status}\n{}\n\n", seconds[0], seconds[1])
    }

    #[test]
    fn a_rate_is_that_between_two_looks_at_one_resync() {
        let look = |seconds, state, bytes| Look::read(&text(seconds, state, bytes)).unwrap();
        let (first, last) =
            (look(["7.90", "8.10"], "SyncSource", 500), look(["10.0", "10.0"], "SyncSource", 2500));
        assert!(rate(&first, &last).is_some_and(|rate| (rate - 1000.0).abs() < 1e-6));
        assert_eq!(rate(&first, &look(["10.0", "10.0"], "Established", 2500)), None, "it was over");
        assert_eq!(rate(&first, &look(["10.0", "10.0"], "SyncSource", 500)), None, "nothing was moved");
    }

    #[test]
    fn what_is_no_look_is_a_failure() {
        for text in ["", "7.9", "7.9\nno node answers\n8.1", "x\n{\"datasets\":[]}\n8.1"] {
            assert!(Look::read(text).is_err(), "{text:?}");
        }
    }
}
