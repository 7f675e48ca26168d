//! The throttle in a model of a node: clients that commit, and a device that they share with the pieces.

use super::*;
use crate::replica::Latencies;
use crate::sim::Random;

/// Bytes of a piece, and how long one takes when nobody else is there: a gibibyte a second.
const PIECE: u64 = 256 << 10;
const PIECE_TIME: Duration = Duration::from_micros(250);

/// Clients of a node.
struct Load {
    /// Between two commits.
    every: Duration,
    /// A commit takes so long when no piece was moved of late.
    quiet: Duration,
    /// And so many hundredths more for each hundredth of the device's time that pieces take.
    harm: u64,
}

struct Model {
    now: Duration,
    throttle: Throttle,
    latencies: Latencies,
    random: Random,
    /// When pieces were under way, in the last tenth of a second.
    pieces: VecDeque<(Duration, Duration)>,
    next_commit: Duration,
    bytes: u64,
    /// How long the peer is busy with each piece, before it asks for the next one.
    peer: Duration,
    /// And how much longer a piece takes while there are commits.
    contention: Duration,
    /// One piece of so many takes a quarter of the time of the others.
    lucky: Option<u64>,
    /// Commits since the last look, by whether a piece was moved of late.
    with: Latencies,
}

const MEMORY: Duration = Duration::from_millis(20);

impl Model {
    fn new(seed: u64) -> Self {
        let now = Duration::from_secs(3);
        Self {
            now,
            throttle: Throttle::new(now, None, Counts::default()),
            latencies: Latencies::default(),
            random: Random::new(seed),
            pieces: VecDeque::new(),
            next_commit: now,
            bytes: 0,
            peer: Duration::ZERO,
            contention: Duration::ZERO,
            lucky: None,
            with: Latencies::default(),
        }
    }

    /// Hundredths of the last 20 ms that pieces took.
    fn use_of_device(&mut self, at: Duration) -> u64 {
        let from = at.saturating_sub(MEMORY);
        while self.pieces.front().is_some_and(|(_, end)| *end < from) {
            self.pieces.pop_front();
        }
        let busy: Duration =
            self.pieces.iter().map(|(begin, end)| (*end).min(at).saturating_sub((*begin).max(from))).sum();
        u64::try_from(busy.as_nanos() * 100 / MEMORY.as_nanos()).unwrap()
    }

    fn commit_until(&mut self, until: Duration, load: &Load) {
        while self.next_commit < until {
            let at = self.next_commit;
            let harm = load.harm * self.use_of_device(at);
            let noise = 90 + self.random.below(20);
            let nanoseconds = load.quiet.as_nanos() * u128::from((100 + harm / 100) * noise) / 10_000;
            let latency = Duration::from_nanos(u64::try_from(nanoseconds).unwrap());
            self.latencies.record(latency);
            if matches!(self.throttle.activity, Activity::Moving) {
                self.with.record(latency);
            }
            self.next_commit = at + load.every;
        }
    }

    /// Runs for a while; bytes a second in it, and the percentile of commits with pieces under way.
    fn run(&mut self, time: Duration, load: &Load) -> (u64, Option<Duration>) {
        let (until, bytes, before) = (self.now + time, self.bytes, self.with.counts());
        self.next_commit = self.next_commit.max(self.now);
        while self.now < until {
            let wait = self.throttle.wait(self.now, &self.latencies.counts());
            if !wait.is_zero() {
                self.now += wait;
                self.commit_until(self.now, load);
                continue;
            }
            let began = self.now;
            let is_lucky = self.lucky.is_some_and(|of| self.random.below(of) == 0);
            self.now += if is_lucky { PIECE_TIME / 4 } else { PIECE_TIME };
            if self.next_commit <= self.now {
                self.now += self.contention;
            }
            self.pieces.push_back((began, self.now));
            self.commit_until(self.now, load);
            self.throttle.moved(began, self.now, PIECE);
            self.bytes += PIECE;
            self.now += self.peer;
            self.commit_until(self.now, load);
        }
        let rate = u128::from(self.bytes - bytes) * 1000 / time.as_millis();
        (u64::try_from(rate).unwrap(), self.with.counts().since(&before).p99())
    }
}

const IDLE_RATE: u64 = PIECE * 4000;

const fn load(every: u64, quiet: u64, harm: u64) -> Load {
    Load { every: Duration::from_micros(every), quiet: Duration::from_micros(quiet), harm }
}

/// So many; a fifth of them but for the long version: each is a minute of a model's time and most of a second of a processor's.
fn seeds(all: u64) -> std::ops::Range<u64> {
    if std::env::var_os("MIRRORBUS_FULL").is_some() { 0..all } else { 0..all / 5 }
}

#[test]
fn with_nobody_there_it_runs_at_full_speed() {
    let mut model = Model::new(1);
    let nobody = load(1 << 40, 50, 900);
    model.next_commit = Duration::from_secs(1 << 30);
    let (rate, _) = model.run(Duration::from_secs(3), &nobody);
    assert!(rate >= IDLE_RATE * 9 / 10, "{rate} of {IDLE_RATE}");
}

#[test]
fn clients_that_do_not_feel_it_do_not_slow_it_down() {
    let mut model = Model::new(2);
    let (rate, p99) = model.run(Duration::from_secs(5), &load(100, 50, 20));
    assert!(rate >= IDLE_RATE * 9 / 10 && p99 < Some(Duration::from_micros(75)), "{rate} {p99:?}");
}

/// Whatever the load, after a second: the percentile is at most doubled, or the rate is at its least, and never below that.
#[test]
fn it_gives_way_as_far_as_it_must_and_no_further() {
    for seed in seeds(40) {
        let mut model = Model::new(seed);
        for _ in 0..3 {
            let mut random = Random::new(seed ^ model.bytes);
            let load = load(50 + random.below(500), 20 + random.below(400), 50 + random.below(800));
            model.run(Duration::from_secs(2), &load);
            let (rate, p99) = model.run(Duration::from_secs(4), &load);
            // Noise adds a tenth, and a bucket is a sixteenth wide.
            let limit = load.quiet * 2 * 110 / 100 * 107 / 100;
            let is_least = rate <= IDLE_RATE * 31 / 100;
            assert!(is_least || p99.unwrap() <= limit, "seed {seed}: {p99:?} of {limit:?}, {rate}");
            assert!(rate >= IDLE_RATE / 4, "seed {seed}: {rate} of {IDLE_RATE}");
            // A share at which nothing is doubled by far is not all that it takes.
            let share = 100 * 100 / load.harm;
            assert!(rate >= IDLE_RATE / 100 * share.min(95) / 2, "seed {seed}: {rate}, {share} hundredths");
        }
    }
}

#[test]
fn a_load_that_comes_is_given_way_to_within_a_second() {
    for seed in seeds(20) {
        let mut model = Model::new(seed);
        model.next_commit = Duration::from_secs(1 << 30);
        model.run(Duration::from_secs(2), &load(1, 1, 1));
        model.next_commit = model.now;
        let clients = load(100, 100, 250);
        model.run(Duration::from_secs(1), &clients);
        let (rate, p99) = model.run(Duration::from_secs(1), &clients);
        assert!(p99.unwrap() <= Duration::from_micros(250), "seed {seed}: {p99:?}");
        assert!(rate >= IDLE_RATE / 4, "seed {seed}: {rate}");
        // And when it goes, it is at full speed again.
        model.next_commit = Duration::from_secs(1 << 30);
        model.run(Duration::from_secs(1), &clients);
        let (rate, _) = model.run(Duration::from_secs(1), &clients);
        assert!(rate >= IDLE_RATE * 9 / 10, "seed {seed}: {rate}");
    }
}

#[test]
fn a_load_that_grows_slower_by_itself_is_not_taken_for_harm() {
    let mut model = Model::new(9);
    model.run(Duration::from_secs(3), &load(100, 50, 20));
    let slower = load(100, 800, 20);
    model.run(Duration::from_millis(2500), &slower);
    let (rate, _) = model.run(Duration::from_secs(2), &slower);
    assert!(rate >= IDLE_RATE * 9 / 10, "{rate}: what it is without pieces is looked at again");
}

#[test]
fn few_commits_a_second_are_not_too_few() {
    let mut model = Model::new(11);
    let rare = load(50_000, 200, 800);
    model.run(Duration::from_secs(10), &rare);
    let (rate, p99) = model.run(Duration::from_secs(20), &rare);
    assert!((IDLE_RATE / 4..IDLE_RATE * 6 / 10).contains(&rate), "{rate}");
    assert!(p99.unwrap() < Duration::from_micros(800), "{p99:?}");
}

/// What the rate is a share of must be what can be moved: neither the best of many pieces nor the primary's part of the work alone.
#[test]
fn it_gives_way_where_pieces_differ_and_where_the_peer_takes_its_time() {
    for seed in seeds(20) {
        for (lucky, peer) in [(Some(100), Duration::ZERO), (None, 2 * PIECE_TIME), (Some(100), PIECE_TIME)] {
            let mut model = Model::new(seed);
            (model.lucky, model.peer) = (lucky, peer);
            model.next_commit = Duration::from_secs(1 << 30);
            let (idle, _) = model.run(Duration::from_secs(5), &load(1, 1, 1));
            // So much harm that nothing but the least share is left.
            model.next_commit = model.now;
            let clients = load(100, 100, 5000);
            model.run(Duration::from_secs(3), &clients);
            let (rate, _) = model.run(Duration::from_secs(90), &clients);
            let range = idle / 4..idle * 42 / 100;
            assert!(range.contains(&rate), "seed {seed}, {lucky:?}, {peer:?}: {rate} of {idle}");
        }
    }
}

/// A processor that clients take most of makes pieces slow for as long as they are there: the idle rate is that without them all the same.
#[test]
fn clients_that_slow_pieces_down_do_not_sink_the_rate_further_and_further() {
    for seed in seeds(10) {
        let mut model = Model::new(seed);
        model.contention = PIECE_TIME;
        model.next_commit = Duration::from_secs(1 << 30);
        let (idle, _) = model.run(Duration::from_secs(5), &load(1, 1, 1));
        model.next_commit = model.now;
        let clients = load(100, 100, 5000);
        model.run(Duration::from_secs(120), &clients);
        let (rate, _) = model.run(Duration::from_secs(60), &clients);
        assert!(rate >= idle / 4, "seed {seed}: {rate} of {idle}");
    }
}

/// A machine that has become slow by itself is known to be slow once there were no clients for a while.
#[test]
fn an_idle_rate_that_was_is_forgotten() {
    let mut model = Model::new(13);
    let nobody = load(1, 1, 1);
    model.next_commit = Duration::from_secs(1 << 30);
    model.run(Duration::from_secs(5), &nobody);
    model.peer = 9 * PIECE_TIME;
    let (idle, _) = model.run(3 * PACE_TIME, &nobody);
    model.next_commit = model.now;
    let clients = load(100, 100, 5000);
    model.run(Duration::from_secs(3), &clients);
    let (rate, _) = model.run(Duration::from_secs(30), &clients);
    assert!((idle / 4..idle * 42 / 100).contains(&rate), "{rate} of {idle}");
}

#[test]
fn what_clients_had_in_the_pair_counts_where_it_was_more() {
    let load = load(200, 100, 600);
    let rate = |usual| {
        let mut model = Model::new(7);
        model.throttle = Throttle::new(model.now, usual, Counts::default());
        model.run(Duration::from_secs(2), &load);
        (model.run(Duration::from_secs(3), &load).0, model.throttle.step())
    };
    let (alone, small) = rate(None);
    let (used_to_less, _) = rate(Some(Duration::from_micros(50)));
    let (used_to_more, large) = rate(Some(Duration::from_millis(1)));
    assert!(alone < IDLE_RATE * 3 / 4 && used_to_less == alone, "{alone} {used_to_less}");
    assert!(used_to_more >= IDLE_RATE * 9 / 10, "{used_to_more} of {IDLE_RATE}");
    assert!((STEP_MIN..STEP_MAX).contains(&small) && large == STEP_MAX, "{small} {large}");
}
