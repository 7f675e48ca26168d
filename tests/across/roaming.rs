//! Roles: clients of a volume that connect again, for as long as it takes, wherever it is served on their machine. There is one on the machine of
//! each node of a pair, and at most one of them is served.
//!
//! The writer's lines are those of `disk-writer`, and it flushes nothing. It writes to blocks of its own, so that of each block one client
//! has the last word.

use std::io::{self, ErrorKind, Write, stdout};
use std::time::Duration;

use super::disk::{Work, connect, go};
use crate::child::variable;
use crate::client::{BLOCK, Client, Command, number_of};

/// How long a watcher waits for an answer until it asks once more, and then for both.
const PATIENCE: Duration = Duration::from_secs(6);
const PATIENCE_LATE: Duration = Duration::from_secs(60);
/// Between two attempts to connect.
const REST: Duration = Duration::from_millis(10);

/// Role: writes to the blocks of the volume from `TEST_FROM` to before `TEST_TO`, with numbers from `TEST_FIRST` on, until it is told to stop.
pub(crate) fn disk_roamer() {
    let (go, mut next) = (go(), variable("TEST_FIRST"));
    println!("roaming");
    while !go.exists() {
        let Ok(client) = connect() else {
            std::thread::sleep(REST);
            continue;
        };
        let mut work = Work::new(client, variable("TEST_FROM")..variable("TEST_TO"), false, next);
        let is_lost = work.run(&go).is_err();
        next = work.next();
        if is_lost {
            println!("lost");
        }
        // What was answered is not to stay here.
        stdout().flush().unwrap();
    }
    println!("stopped");
}

/// Role: reads the blocks of the volume from `TEST_FROM` to before `TEST_TO`, over and over, until it is told to stop. Of each answer it says when it
/// had asked, by the file `TEST_CLOCK`, which has seconds, and after which write each block has its content: `found SECONDS NUMBER…`.
///
/// Whoever is not answered for long asks once more, over a connection that it has for that: an answer to what was asked before somebody took over
/// may be of before that too.
pub(crate) fn disk_watcher() {
    let go = go();
    println!("watching");
    while !go.exists() {
        let (Ok(first), Ok(second)) = (connect(), connect()) else {
            std::thread::sleep(REST);
            continue;
        };
        let mut clients = [first, second];
        while !go.exists() && look(&mut clients).is_ok() {}
    }
    println!("stopped");
}

/// Says what is found, if there is an answer.
fn look([usual, late]: &mut [Client; 2]) -> io::Result<()> {
    usual.set_patience(PATIENCE);
    let asked = ask(usual)?;
    let answered = match usual.answer() {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            let asked = ask(late)?;
            usual.set_patience(PATIENCE_LATE);
            let answered = late.answer()?;
            found(late, asked, answered)?;
            usual.answer()?
        }
        answered => answered?,
    };
    found(usual, asked, answered)
}

/// The blocks, of `TEST_FROM` and `TEST_TO`.
fn blocks() -> std::ops::Range<usize> {
    variable("TEST_FROM")..variable("TEST_TO")
}

/// Asks; the second before.
fn ask(client: &mut Client) -> io::Result<String> {
    let seconds = std::fs::read_to_string(variable::<String>("TEST_CLOCK"))?;
    let bytes = u32::try_from(blocks().len() * BLOCK).unwrap();
    client.ask(Command::Read, (blocks().start * BLOCK) as u64, bytes, &[])?;
    Ok(seconds.trim().to_owned())
}

/// Says what the answer has.
fn found(client: &mut Client, asked: String, (_, error): (u64, u32)) -> io::Result<()> {
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error.cast_signed()));
    }
    let bytes = client.data(u32::try_from(blocks().len() * BLOCK).unwrap())?;
    let number = |(block, bytes): (usize, &[u8])| number_of(block as u64, bytes).unwrap().to_string();
    let numbers = blocks().zip(bytes.chunks_exact(BLOCK)).map(number);
    println!("{}", ["found".to_owned(), asked].into_iter().chain(numbers).collect::<Vec<_>>().join(" "));
    Ok(())
}

#[cfg(feature = "serve")]
mod tests {
    use super::BLOCK;
    use crate::Stage;
    use crate::client::content;
    use crate::memory::{Disks, Memory};
    use mirrorbus::serve::nbd::{Server, ServerConfig};

    const BLOCKS: usize = 64;
    /// The watcher's blocks, which the roamer leaves alone: of a block that is written to meanwhile this disk may show half, as no volume does.
    const WATCHED: std::ops::Range<usize> = 48..64;
    /// What is there.
    const NUMBER: u32 = 7;

    #[test]
    fn a_roamer_goes_on_wherever_it_is_served_and_a_watcher_sees_it() {
        let stage = Stage::new();
        let (socket, clock) = (stage.scratch.path("nbd.sock"), stage.scratch.path("clock"));
        std::fs::write(&clock, "1234\n").unwrap();
        let disk = Memory::new((BLOCKS * BLOCK) as u64, false);
        WATCHED.for_each(|block| disk.put((block * BLOCK) as u64, &content(block as u64, NUMBER)));
        let [socket_text, clock] = [&socket, &clock].map(|path| path.display().to_string());
        let told = [
            ("TEST_SOCKET", socket_text.as_str()),
            ("TEST_VOLUME", "disk"),
            ("TEST_FROM", "16"),
            ("TEST_TO", "48"),
            ("TEST_FIRST", "1000"),
            ("TEST_CLOCK", &clock),
        ];
        let watched = [("TEST_FROM", "48"), ("TEST_TO", "64")];
        let mut roamer = stage.start("disk-roamer", &told);
        let mut watcher = stage.start("disk-watcher", &[&told[..], &watched].concat());
        roamer.told("roaming");
        watcher.told("watching");
        let mut last = 0;
        for _ in 0..2 {
            let server = Server::start(&ServerConfig::new(socket.clone()), Disks::one(&disk)).unwrap();
            let words = roamer.told("w ");
            let words: Vec<usize> = words.split(' ').map(|word| word.parse().unwrap()).collect();
            assert!(words[0] > last && words[1] >= 16 && words[1] + words[2] <= 48, "{words:?}");
            last = words[0];
            assert_eq!(watcher.told("found "), format!("1234{}", format!(" {NUMBER}").repeat(WATCHED.len())));
            server.stop();
            roamer.told("lost");
        }
        stage.go("");
        for mut role in [roamer, watcher] {
            role.told("stopped");
            role.ends_well();
        }
        let bytes = disk.content();
        let at = |block: usize| &bytes[block * BLOCK..][..BLOCK];
        let is_as_it_was = WATCHED.into_iter().all(|block| at(block) == content(block as u64, NUMBER));
        assert!(is_as_it_was && (0..16).all(|block| at(block) == [0; BLOCK]), "it wrote elsewhere");
    }
}
