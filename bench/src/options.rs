//! The command line. What it accepts is checked here, with the numbers that were given and a way out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use mirrorbus::FabricUrl;
use mirrorbus::base::parse_bytes;

use crate::epoch::EpochOptions;
use crate::nbd::NbdOptions;
use crate::pair::Schedule;
use crate::store::{StoreOptions, StorePeerOptions, StoreTurnsOptions};
use crate::workload::{DEPTH_MAX, Fabric, Pattern, Polling, THREADS_MAX, Workload};

/// The shortest slice that may be asked for: what is less is over before anything is measured.
const SLICE_SECONDS_MIN: f64 = 0.01;

/// Latency and rate of mirrorbus, as a ratio to the limit measured in the same run.
///
/// Exit code 0: measured. 1: it failed. 2: wrong options. 3: measured, but the machine was too unsteady for the
/// figure that the run is judged by to mean anything (the limit differed from itself by more than 5 %): the median latency at
/// depth 1, else the rate.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a mirrored region.
    Region(RegionOptions),
    /// Measure writes to a volume of a mirrored pair, in process.
    Store(StoreOptions),
    /// Measure plain stores mirrored by epochs: the first store to a page, and a commit beside its parts.
    Epoch(EpochOptions),
    /// Measure a volume of a mirrored pair over NBD, beside other servers of NBD, with fio.
    Nbd(NbdOptions),
    /// Be the other side of the limit of tcp or RDMA, for a run from another host.
    LimitPeer(LimitPeerOptions),
    /// Be the other node of a pair for a run of this program.
    #[command(hide = true)]
    StorePeer(StorePeerOptions),
    /// Measure writes to a volume of a pair on two machines, whenever told to on stdin.
    #[command(hide = true)]
    StoreTurns(StoreTurnsOptions),
    /// Write the manual page and completions.
    #[command(hide = true)]
    Pages(crate::pages::Arguments),
    /// Hold the copy for a run of this program.
    #[command(hide = true)]
    Hold(HoldOptions),
}

/// `mirrorbus-bench region`
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("polling").args(["spin", "block"])))]
pub(crate) struct RegionOptions {
    /// The medium.
    #[arg(long, value_enum)]
    pub fabric: Fabric,
    /// A holder that runs already; without it one is started here as a process of its own.
    #[arg(long, requires = "key")]
    pub peer: Option<FabricUrl>,
    /// Key file shared with --peer.
    #[arg(long, requires = "peer")]
    pub key: Option<PathBuf>,
    /// `HOST:PORT` of `mirrorbus-bench limit-peer` on the host of --peer: the limit goes the same way.
    #[arg(long, requires = "peer")]
    pub limit_peer: Option<String>,
    /// Bytes of one store: 64, 4K, 64K.
    #[arg(long, value_parser = size, default_value = "64")]
    pub size: usize,
    /// Stores in flight on each thread. 1: each is acknowledged before the next.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Lanes, each an ordered stream of stores of its own.
    #[arg(long, default_value_t = 1)]
    pub lanes: usize,
    /// Threads that store; they share the lanes in turn. As many as lanes unless said.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Where stores go.
    #[arg(long, value_enum, default_value = "random")]
    pub pattern: Pattern,
    /// What a store waits for.
    #[arg(long, value_enum, default_value = "acked")]
    pub level: AskedLevel,
    /// Seconds during which the mirrored region is measured; the limit takes as long twice over.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds of one slice, at least 0.01. Many short ones suit a machine that stalls now and then.
    #[arg(long)]
    pub slice: Option<f64>,
    /// Bytes of the region.
    #[arg(long, value_parser = size, default_value = "1G")]
    pub region: usize,
    /// Both sides spin for what they wait for (this is the default).
    #[arg(long)]
    pub spin: bool,
    /// Both sides sleep until what they wait for is there.
    #[arg(long)]
    pub block: bool,
    /// Measure the limit alone: it takes the place of the mirrored region too.
    #[arg(long, conflicts_with = "peer")]
    pub limit_only: bool,
    /// Before the first slice do nothing for so many seconds, and tell what processor time that takes.
    #[arg(long, default_value_t = 0.0)]
    pub idle: f64,
    /// Afterwards run `ib_write_lat` and `ib_write_bw` with stores of this size, where they are installed. With --peer their
    /// other sides are those of `limit-peer --perftest SIZE`.
    #[arg(long)]
    pub perftest: bool,
    /// Write the figures here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write a page with the latency curve here.
    #[arg(long)]
    pub html: Option<PathBuf>,
}

/// `mirrorbus-bench limit-peer`
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitPeerOptions {
    /// The medium.
    #[arg(long, value_enum, default_value = "tcp")]
    pub fabric: Fabric,
    /// Address to listen on; port 0 takes a free one, printed on stdout. Over RDMA that of a device's network interface.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: String,
    /// Most bytes of memory that all tcp connections together may ask for; over RDMA the bytes of the region, as the run has
    /// them.
    #[arg(long, value_parser = size, default_value = "2G")]
    pub memory: usize,
    /// Be the other side of `ib_write_lat` and `ib_write_bw` as well, for stores of this size.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub perftest: Option<usize>,
    /// End when stdin does.
    #[arg(long, hide = true)]
    pub with_stdin: bool,
}

/// `mirrorbus-bench hold`
#[derive(Debug, Clone, Args)]
pub(crate) struct HoldOptions {
    /// Where to listen.
    #[arg(long)]
    pub listen: FabricUrl,
    /// Bytes of the region.
    #[arg(long, value_parser = size)]
    pub region: usize,
    /// Where the key is and the socket may be; removed when the parent is gone.
    #[arg(long)]
    pub directory: PathBuf,
    /// Microseconds for which the receiver spins before it sleeps.
    #[arg(long)]
    pub spin_us: u64,
}

/// The levels that can be measured against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AskedLevel {
    /// It survives the death of this process.
    Acked,
    /// The peer's processor reads it.
    Visible,
}

impl AskedLevel {
    /// As reports write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Visible => "visible",
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    usize::try_from(bytes).map_err(|_| format!("{text:?} does not fit in this machine's address space"))
}

impl RegionOptions {
    /// The workload asked for.
    ///
    /// # Errors
    /// The first value out of range, with the range.
    pub(crate) fn workload(&self) -> Result<Workload, String> {
        let threads = self.threads.unwrap_or(self.lanes);
        check("--depth", self.depth, 1, DEPTH_MAX)?;
        check("--threads", threads, 1, THREADS_MAX)?;
        check("--lanes", self.lanes, 1, threads)
            .map_err(|why| format!("{why} (a lane without a thread idles)"))?;
        check("--size", self.size, 1, self.region / threads)
            .map_err(|why| format!("{why} (each thread has {} / {threads} of the region)", self.region))?;
        if !(self.seconds.is_finite() && self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(format!("--seconds {} is not above 0 and at most 3600", self.seconds));
        }
        if self.slice.is_some_and(|slice| !(SLICE_SECONDS_MIN..=3600.0).contains(&slice)) {
            let slice = self.slice.unwrap_or_default();
            return Err(format!("--slice {slice} is not within {SLICE_SECONDS_MIN} and 3600"));
        }
        if !(0.0..=3600.0).contains(&self.idle) {
            return Err(format!("--idle {} is not within 0 and 3600", self.idle));
        }
        if self.perftest && self.fabric != Fabric::Rdma {
            return Err(format!("--perftest is for --fabric rdma, not {}", self.fabric));
        }
        if let Some(peer) = &self.peer {
            let medium = Fabric::of(peer);
            if medium != self.fabric {
                return Err(format!("--peer {peer} is {medium}, --fabric is {}", self.fabric));
            }
            let command = match self.fabric {
                Fabric::Tcp if !is_loopback(peer) => "limit-peer --listen 0.0.0.0:7171".to_owned(),
                Fabric::Rdma => {
                    format!("limit-peer --fabric rdma --listen HOST:7171 --memory {}", self.region)
                }
                Fabric::Tcp | Fabric::Shm => String::new(),
            };
            if !command.is_empty() && self.limit_peer.is_none() {
                return Err(format!(
                    "the limit for {peer} has to go the same way: run `mirrorbus-bench {command}` there and give \
                     --limit-peer HOST:7171"
                ));
            }
        }
        Ok(Workload {
            fabric: self.fabric,
            size: self.size,
            depth: self.depth,
            lanes: self.lanes,
            threads,
            pattern: self.pattern,
            region: self.region,
            polling: if self.block { Polling::Block } else { Polling::Spin },
        })
    }

    /// How the time asked for is spent.
    pub(crate) fn schedule(&self) -> Schedule {
        Schedule::of(Duration::from_secs_f64(self.seconds), self.slice.map(Duration::from_secs_f64))
    }
}

fn is_loopback(url: &FabricUrl) -> bool {
    match url {
        FabricUrl::Tcp { address, .. } | FabricUrl::Rdma { address } => {
            ["127.", "localhost:", "[::1]:"].iter().any(|prefix| address.starts_with(prefix))
        }
        FabricUrl::Shm { .. } | FabricUrl::ShmDevice { .. } => true,
    }
}

fn check(name: &str, value: usize, min: usize, max: usize) -> Result<(), String> {
    if value < min || value > max {
        return Err(format!("{name} {value} is not within {min} and {max}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Workload, String> {
        let words = ["mirrorbus-bench", "region"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Region(options) => options.workload(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_asked_is_what_is_run() {
        let workload =
            parse("--fabric tcp --size 4K --depth 64 --lanes 2 --threads 4 --pattern append --block")
                .unwrap();
        assert_eq!((workload.size, workload.depth, workload.lanes, workload.threads), (4096, 64, 2, 4));
        assert_eq!((workload.pattern, workload.polling), (Pattern::Append, Polling::Block));
        assert_eq!(parse("--fabric shm --lanes 3").unwrap().threads, 3);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [
            ("--fabric shm --depth 0", "--depth 0"),
            ("--fabric shm --depth 4097", "4096"),
            ("--fabric shm --lanes 3 --threads 2", "idles"),
            ("--fabric shm --size 2M --region 1M", "--size 2097152"),
            ("--fabric shm --seconds 0", "--seconds 0"),
            ("--fabric shm --slice 0", "--slice 0"),
            ("--fabric shm --slice NaN", "--slice NaN"),
            ("--fabric shm --spin --block", "cannot be used"),
            ("--fabric shm --peer tcp://h:1 --key k", "tcp"),
            ("--fabric tcp --peer tcp://h:1 --key k", "limit-peer"),
            ("--fabric tcp --peer tcp://h:1", "--key"),
            ("--fabric rdma --peer rdma://h:1 --key k", "limit-peer --fabric rdma"),
            ("--fabric shm --perftest", "--perftest"),
            ("--fabric shm --idle=-1", "--idle"),
            ("--fabric verbs", "possible values"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
