//! One client, from its arrival to its end, on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig as TlsConfig;

use super::channel::Channel;
use super::ended::Ended;
use super::export::{Export, Exports};
use super::handshake::Handshake;
use super::input::Input;
use super::negotiated::{Chosen, HandshakeEnd, Progress, TlsMode};
use super::socket::{Lifeline, Socket, Stream, Tls};
use super::transmission::Transmission;

/// How long the negotiation may take, TLS included: someone may type it.
pub(super) const NEGOTIATION_TIME_MAX: Duration = Duration::from_secs(30);

/// What all connections of a server have in common.
pub(super) struct Common {
    pub(super) exports: Arc<dyn Exports>,
    pub(super) tls: TlsMode,
    pub(super) tls_config: Option<Arc<TlsConfig>>,
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    #[error("{0}")]
    Handshake(#[from] HandshakeEnd),
    #[error("the negotiation broke off: {0}")]
    Negotiation(std::io::Error),
    #[error("the client closed the connection in the negotiation")]
    Closed,
    #[error("bytes behind STARTTLS that are not under TLS")]
    BehindStartTls,
    #[error("export {name:?}: {ended}")]
    Export { name: String, ended: Ended },
}

impl ConnectionEnd {
    /// Nothing that anybody should look into.
    pub(super) const fn is_usual(&self) -> bool {
        matches!(
            self,
            Self::Handshake(HandshakeEnd::Aborted)
                | Self::Closed
                | Self::Export { ended: Ended::Disconnected | Ended::Closed | Ended::Moved, .. }
        )
    }
}

/// Serves the client at the other end of `lifeline`, which has `within` to choose an export; `negotiated` is called when it has.
pub(super) fn serve(
    lifeline: Arc<Lifeline>,
    common: &Common,
    within: Duration,
    negotiated: impl FnOnce(&Arc<dyn Export>),
) -> ConnectionEnd {
    let mut input = Input::new();
    let deadline = Instant::now() + within;
    let mut stream = Some(Stream::Plain(Socket::new(lifeline, deadline)));
    let chosen = negotiate(&mut stream, &mut input, common);
    let Some(mut stream) = stream else {
        return chosen.err().unwrap_or(ConnectionEnd::Closed);
    };
    let end = match chosen {
        Ok(chosen) => {
            negotiated(&chosen.export);
            stream.lift_deadline();
            let name = chosen.name.clone();
            log::debug!("nbd: a client uses {chosen:?}");
            ConnectionEnd::Export { name, ended: Transmission::new(&mut stream, chosen, input).run() }
        }
        Err(end) => end,
    };
    stream.close();
    end
}

/// Negotiates over `stream`, which becomes one under TLS when the client asks for that, and none when that fails.
fn negotiate(
    stream: &mut Option<Stream>,
    input: &mut Input,
    common: &Common,
) -> Result<Chosen, ConnectionEnd> {
    let mut handshake = Handshake::new(common.tls);
    let mut output = Vec::new();
    loop {
        let progress = handshake.handle(input.bytes(), &*common.exports);
        output.clear();
        handshake.poll_transmit(&mut output);
        let Some(open) = stream else { return Err(ConnectionEnd::Closed) };
        open.send(&output).map_err(ConnectionEnd::Negotiation)?;
        match progress {
            Progress::More => match input.receive(open) {
                Ok(true) => {}
                Ok(false) => return Err(ConnectionEnd::Closed),
                Err(error) => return Err(ConnectionEnd::Negotiation(error)),
            },
            Progress::Took(count) => input.consume(count),
            Progress::Begin(count, chosen) => {
                input.consume(count);
                return Ok(chosen);
            }
            Progress::StartTls(count) => {
                input.consume(count);
                if !input.bytes().is_empty() {
                    // Somebody on the way may have put them there; under TLS they would count as the client's.
                    return Err(ConnectionEnd::BehindStartTls);
                }
                start_tls(stream, common).map_err(ConnectionEnd::Negotiation)?;
                handshake.secured();
            }
            Progress::End(end) => return Err(end.into()),
        }
    }
}

fn start_tls(stream: &mut Option<Stream>, common: &Common) -> std::io::Result<()> {
    let (Some(Stream::Plain(socket)), Some(config)) = (stream.take(), &common.tls_config) else {
        unreachable!("STARTTLS is acknowledged on plain connections only, and with a certificate only");
    };
    *stream = Some(Stream::Tls(Box::new(Tls::accept(socket, config)?)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::serve::nbd::export::ExportName;

    /// A list that does not fit into any socket, of nothing that can be used.
    struct Long;

    impl Exports for Long {
        fn open(&self, _: &str) -> Option<Arc<dyn Export>> {
            None
        }

        fn list(&self) -> Vec<ExportName> {
            vec![ExportName { name: "x".repeat(4096), description: "y".repeat(4096) }; 1000]
        }
    }

    /// A client that says `words` and then nothing, and reads nothing.
    fn end_of(words: &[u8]) -> (ConnectionEnd, UnixStream) {
        let (mut client, server) = UnixStream::pair().expect("two sockets");
        client.write_all(words).expect("room for some words");
        let lifeline = Arc::new(Lifeline::new(OwnedFd::from(server)));
        let common = Common { exports: Arc::new(Long), tls: TlsMode::Off, tls_config: None };
        let within = Duration::from_millis(50);
        (serve(lifeline, &common, within, |_| panic!("there is nothing to choose")), client)
    }

    #[test]
    fn a_negotiation_ends_in_time_whether_the_client_is_silent_or_deaf() {
        for words in [&b""[..], b"\0\0\0\x03", b"\0\0\0\x03IHAVEOPT\0\0\0\x03\0\0\0\0"] {
            let (end, mut client) = end_of(words);
            let ConnectionEnd::Negotiation(error) = end else { panic!("{words:?}: {end}") };
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{words:?}");
            // Hung up on, though the server's side of the socket lives on here.
            client.read_to_end(&mut Vec::new()).expect("an end");
        }
    }

    #[test]
    fn a_client_that_leaves_in_the_negotiation_is_usual() {
        let (mut client, server) = UnixStream::pair().expect("two sockets");
        client.write_all(b"\0\0\0\x03IHAVE").expect("room for some words");
        drop(client);
        let lifeline = Arc::new(Lifeline::new(OwnedFd::from(server)));
        let common = Common { exports: Arc::new(Long), tls: TlsMode::Off, tls_config: None };
        let end = serve(lifeline, &common, NEGOTIATION_TIME_MAX, |_| ());
        // Whether the greeting found it there still is a matter of luck.
        assert!(matches!(end, ConnectionEnd::Closed | ConnectionEnd::Negotiation(_)), "{end}");
    }
}
