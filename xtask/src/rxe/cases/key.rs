//! The key that a test shares between the guests.

use std::path::Path;
use std::time::Duration;

use crate::failure::{Context, Result};
use crate::rxe::guests::Guests;
use crate::rxe::machine::Machine;
use crate::shell::root;

/// Where a test has its key in each guest.
pub(in crate::rxe) const KEY: &str = "/tmp/key";

/// Makes a key in guest `b` and copies it to guest `a`.
pub(in crate::rxe) fn share_key(guests: &Guests) -> Result<()> {
    let short = Duration::from_secs(30);
    guests.b.run(&format!("rm -f {KEY}; mirrorbus keygen {KEY}"), short)?;
    copy(guests, KEY)?;
    guests.a.run(&format!("chmod 600 {KEY}"), short).map(drop)
}

/// Copies a file of guest `b` to guest `a`.
pub(super) fn copy(guests: &Guests, path: &str) -> Result<()> {
    let place = root().join("target/rxe/run/copied");
    std::fs::write(&place, guests.b.pull(path)?).context(|| format!("writing {}", place.display()))?;
    guests.a.push(Path::new(&place), path)
}
