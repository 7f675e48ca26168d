//! Names of machines, looked up by a deadline: the system's resolver has none, and is often lost together with the machine that is looked for.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::Deadline;

/// How long a resolver is waited for that has given addresses before.
const KNOWN_WAIT_MAX: Duration = Duration::from_millis(50);

/// Of the whole process: each name is looked up by one thread at a time.
static NAMES: Names = Names { known: Mutex::new(BTreeMap::new()) };

/// The addresses of `HOST:PORT`. When the resolver does not answer soon, those that it gave the last time.
///
/// # Errors
/// The resolver's; or it did not answer in time, and never did.
pub(super) fn resolve(address: &str, deadline: &mut Deadline) -> io::Result<Vec<SocketAddr>> {
    match address.parse() {
        Ok(numbers) => Ok(vec![numbers]),
        Err(_) => NAMES.resolve(address, deadline, |address| Ok(address.to_socket_addrs()?.collect())),
    }
}

#[derive(Debug)]
struct Names {
    known: Mutex<BTreeMap<String, Arc<Name>>>,
}

/// What the resolver said of one name.
#[derive(Debug, Default)]
struct Name {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_asked: bool,
    answers: u64,
    /// The last answer, if it was an error.
    error: Option<(ErrorKind, String)>,
    /// The last addresses.
    addresses: Vec<SocketAddr>,
}

impl Name {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, answer: io::Result<Vec<SocketAddr>>) {
        let mut state = self.lock();
        (state.is_asked, state.answers) = (false, state.answers + 1);
        match answer {
            Ok(addresses) => (state.addresses, state.error) = (addresses, None),
            Err(error) => state.error = Some((error.kind(), error.to_string())),
        }
        self.answered.notify_all();
    }
}

impl Names {
    fn resolve(
        &self,
        address: &str,
        deadline: &mut Deadline,
        resolver: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let left = deadline.remaining().ok_or_else(|| io::Error::from(ErrorKind::TimedOut))?;
        let name = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(address.to_owned()).or_default().clone()
        };
        let mut state = name.lock();
        if !state.is_asked {
            state.is_asked = true;
            let (asked, address) = (name.clone(), address.to_owned());
            let thread = std::thread::Builder::new().name("mirrorbus-names".into());
            if let Err(error) = thread.spawn(move || asked.hear(resolver(&address))) {
                state.is_asked = false;
                return if state.addresses.is_empty() { Err(error) } else { Ok(state.addresses.clone()) };
            }
        }
        let before = state.answers;
        let wait = if state.addresses.is_empty() { left } else { (left / 2).min(KNOWN_WAIT_MAX) };
        let waited = name.answered.wait_timeout_while(state, wait, |state| state.answers == before);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &state.error {
            Some((kind, text)) if state.answers > before => Err(io::Error::new(*kind, text.clone())),
            _ if state.answers > before || !state.addresses.is_empty() => Ok(state.addresses.clone()),
            _ => Err(io::Error::new(ErrorKind::TimedOut, "the resolver of names does not answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn within(milliseconds: u64) -> Deadline {
        Deadline::within(Duration::from_millis(milliseconds))
    }

    #[test]
    fn numbers_and_names_are_found_and_what_is_none_is_told() {
        let numbers = resolve("192.0.2.7:7000", &mut within(0)).unwrap();
        assert_eq!(numbers, ["192.0.2.7:7000".parse().unwrap()]);
        let local = resolve("localhost:7000", &mut within(60_000)).unwrap();
        assert!(
            local.iter().all(|address| address.ip().is_loopback() && address.port() == 7000),
            "{local:?}"
        );
        assert!(resolve("no port", &mut within(60_000)).is_err());
    }

    #[test]
    fn a_resolver_that_does_not_answer_is_asked_once_and_what_it_said_before_counts() {
        let names = Names { known: Mutex::default() };
        let found: SocketAddr = "192.0.2.7:7000".parse().unwrap();
        let (answer, waiting) = channel::<()>();
        let hangs = move |_: &str| {
            let _ = waiting.recv();
            Ok(vec![])
        };
        let error = names.resolve("other:1", &mut within(10), hangs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = names.resolve("other:1", &mut within(10), |_| panic!("it is asked already")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(answer);

        let known = names.resolve("one:1", &mut within(60_000), move |_| Ok(vec![found]));
        assert_eq!(known.unwrap(), [found]);
        let refuses = |_: &str| Err(io::Error::new(ErrorKind::NotFound, "no such name"));
        let error = names.resolve("one:1", &mut within(60_000), refuses).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, "no such name".into()));
        let (answer, waiting) = channel::<()>();
        let hangs = move |_: &str| {
            let _ = waiting.recv();
            Ok(vec![])
        };
        assert_eq!(names.resolve("one:1", &mut within(10), hangs).unwrap(), [found]);
        drop(answer);
    }
}
