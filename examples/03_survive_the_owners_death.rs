//! The owner is killed in the middle of its work; another one goes on from what the holder has.
//!
//! ```text
//! cargo run --example 03_survive_the_owners_death
//! ```
//!
//! This program is the holder. It starts itself once more as the owner, a process that appends records without end and
//! prints how many are acknowledged; kills that process with SIGKILL; takes its access away; and opens the region anew
//! by `Pull`. Every record that was ever reported as acknowledged is there, and what is there is a prefix.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mirrorbus::memory::LockPolicy;
use mirrorbus::{
    Attach, Deadline, FabricUrl, Holder, HolderConfig, KeySet, LaneConfig, Level, Region, RegionConfig,
};

const SIZE: usize = 8 << 20;
const RECORD_BYTES: usize = 64;
const RECORDS_MAX: u64 = (SIZE / RECORD_BYTES) as u64;
/// The owner dies once it has reported this many.
const KILL_AT: u64 = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, role, url, key] if role == "owner" => {
            append_for_ever(&url.parse()?, &KeySet::load(Path::new(key))?)
        }
        _ => {
            let scratch = std::env::temp_dir().join(format!("mirrorbus-example-{}", std::process::id()));
            std::fs::create_dir(&scratch)?;
            let result = survive(&scratch);
            std::fs::remove_dir_all(&scratch)?;
            result
        }
    }
}

/// The holder's side of the story.
fn survive(scratch: &Path) -> Result<(), Box<dyn Error>> {
    let key = scratch.join("key");
    let keys = KeySet::create(&key)?;
    let mut config = HolderConfig::new(FabricUrl::Shm { socket: scratch.join("holder.sock") }, SIZE);
    config.lock = LockPolicy::Try;
    let holder = Holder::start(config, keys.clone())?;

    let mut owner = Command::new(std::env::current_exe()?)
        .args(["owner", &holder.url().to_string()])
        .arg(&key)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut acknowledged = 0;
    let mut reports = BufReader::new(owner.stdout.take().ok_or("no output of the owner")?).lines();
    for line in reports.by_ref() {
        acknowledged = line?.parse::<u64>()?;
        if acknowledged >= KILL_AT {
            break;
        }
    }
    owner.kill()?;
    let status = owner.wait()?;
    println!("the owner died ({status}) after it had reported {acknowledged} records as acknowledged");

    // Before anybody reads the copy as final: nobody may write it any more, even an owner that only seemed dead.
    let fenced = holder.fence(Deadline::within(Duration::from_secs(5)))?;
    println!("its access is revoked; generation {} from now on", fenced.generation);

    // A new owner. `Pull`: the holder's bytes come here.
    let region = open(holder.url(), &keys, Attach::Pull)?;
    let found = (0..RECORDS_MAX).take_while(|&number| is_record(&region, number)).count() as u64;
    println!("the new owner found {found} whole records");
    assert!(found >= acknowledged, "{acknowledged} were acknowledged");
    // One more may be there in part: the store that the owner was making when it died. Nothing is behind it.
    let behind = usize::try_from(found + 1)? * RECORD_BYTES;
    assert!(region.memory().to_vec()[behind..].iter().all(|&byte| byte == 0), "that is no prefix");
    println!("nothing lies behind them: the copy is a prefix of what the owner stored");

    let mut lane = region.lane(LaneConfig::default())?;
    let ticket = lane.store(usize::try_from(found)? * RECORD_BYTES, &record(found))?;
    lane.wait(ticket, Level::Visible, Deadline::within(Duration::from_secs(5)))?;
    println!("it went on with record {}", found + 1);
    Ok(())
}

/// The owner: appends records and says how many are acknowledged, until it is killed.
fn append_for_ever(url: &FabricUrl, keys: &KeySet) -> Result<(), Box<dyn Error>> {
    let region = open(url, keys, Attach::Push { replace: false })?;
    let mut lane = region.lane(LaneConfig::default())?;
    for number in 0..RECORDS_MAX {
        let ticket = lane.store(usize::try_from(number)? * RECORD_BYTES, &record(number))?;
        lane.wait(ticket, Level::Acked, Deadline::within(Duration::from_secs(5)))?;
        // The report leaves this process only after the acknowledgment.
        writeln!(std::io::stdout(), "{}", number + 1)?;
    }
    Ok(())
}

fn open(url: &FabricUrl, keys: &KeySet, attach: Attach) -> Result<Region, Box<dyn Error>> {
    let mut config = RegionConfig::new(url.clone(), SIZE, attach);
    config.lock = LockPolicy::Try;
    Ok(Region::open(config, keys.clone())?)
}

fn record(number: u64) -> [u8; RECORD_BYTES] {
    std::array::from_fn(|at| (number + 1).to_le_bytes()[at % 8])
}

fn is_record(region: &Region, number: u64) -> bool {
    let mut bytes = [0; RECORD_BYTES];
    let offset = usize::try_from(number).unwrap_or(SIZE) * RECORD_BYTES;
    region.memory().read(offset, &mut bytes);
    bytes == record(number)
}
