//! The negotiation, without its socket: from the greeting to the choice of an export.
//!
//! ```text
//!                    ┌───────────────────────────────┐
//!                    ▼                               │ a reply, whatever it says
//!  ClientFlags ──▶ Options ──────────────────────────┤
//!                    │  │ └─ too long ─▶ Skipping ───┘
//!                    │  └─ STARTTLS ─▶ StartTls ─▶ secured() ─▶ Options
//!                    └─ GO, EXPORT_NAME ─▶ Begin      ABORT, broken rules ─▶ End
//! ```
//!
//! [`Handshake::handle`] takes one unit from the front of what has come; [`Handshake::poll_transmit`] gives what is to be
//! sent, which has to be done before anything is read after `StartTls`, and before a connection is closed.
//!
//! What was negotiated before TLS counts for nothing after it: somebody on the way may have said it.

use std::sync::Arc;

use super::export::{Export, Exports};
use super::negotiated::{Chosen, HandshakeEnd, OPTION_SKIPPED_BYTES_MAX, Progress, TlsMode};
use super::option::{
    Contexts, InfoRequest, Malformed, MetaRequest, OptionHeader, OptionKind, cut, reply, reply_infos, text,
    transmission_flags,
};
use super::wire::{
    ALLOCATION, ALLOCATION_ID, FIXED_NEWSTYLE, GREETING, NO_ZEROES, OPTION_HEADER_BYTES, OPTION_MAGIC,
    UNREPLICATED, UNREPLICATED_ID, option_reply,
};

/// Longest data of an option that is looked at: a name, and queries.
const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Zeroes that follow EXPORT_NAME unless the client asked for none.
const EXPORT_NAME_ZEROES: usize = 124;

#[derive(Debug, Clone, Copy)]
enum State {
    ClientFlags,
    Options,
    /// The data of an option that is too long.
    Skipping {
        number: u32,
        left: usize,
    },
}

/// The negotiation of one connection.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    tls: TlsMode,
    secured: bool,
    fixed: bool,
    zeroes: bool,
    structured: bool,
    /// What was selected, and for which export.
    selected: Option<(String, Contexts)>,
    output: Vec<u8>,
}

impl Handshake {
    /// Begins with the greeting.
    #[must_use]
    pub fn new(tls: TlsMode) -> Self {
        let mut output = Vec::new();
        output.extend_from_slice(&GREETING.to_be_bytes());
        output.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        output.extend_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
        Self {
            state: State::ClientFlags,
            tls,
            secured: false,
            fixed: false,
            zeroes: true,
            structured: false,
            selected: None,
            output,
        }
    }

    /// Appends what is to be sent to `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.output);
    }

    /// TLS stands, after [`Progress::StartTls`].
    ///
    /// # Panics
    /// When it stood already, or TLS is off.
    pub fn secured(&mut self) {
        assert!(!self.secured && self.tls != TlsMode::Off, "TLS was not asked for");
        self.secured = true;
        self.structured = false;
        self.selected = None;
    }

    /// Takes one unit from the front of `bytes`.
    pub fn handle(&mut self, bytes: &[u8], exports: &dyn Exports) -> Progress {
        match self.state {
            State::ClientFlags => self.client_flags(bytes),
            State::Options => self.option(bytes, exports),
            State::Skipping { number, left } => {
                let count = left.min(bytes.len());
                if count < left {
                    self.state = State::Skipping { number, left: left - count };
                    return if count == 0 { Progress::More } else { Progress::Took(count) };
                }
                self.state = State::Options;
                let why = format!("at most {OPTION_BYTES_MAX} bytes of data are taken");
                self.refuse(number, option_reply::ERR_TOO_BIG, &why);
                Progress::Took(count)
            }
        }
    }

    fn client_flags(&mut self, bytes: &[u8]) -> Progress {
        let Some(flags) = bytes.first_chunk::<4>() else { return Progress::More };
        let flags = u32::from_be_bytes(*flags);
        let (fixed, no_zeroes) = (u32::from(FIXED_NEWSTYLE), u32::from(NO_ZEROES));
        if flags & !(fixed | no_zeroes) != 0 {
            return Progress::End(HandshakeEnd::ClientFlags { flags });
        }
        self.fixed = flags & fixed != 0;
        self.zeroes = flags & no_zeroes == 0;
        self.state = State::Options;
        Progress::Took(4)
    }

    fn option(&mut self, bytes: &[u8], exports: &dyn Exports) -> Progress {
        let Some(header) = bytes.first_chunk::<OPTION_HEADER_BYTES>() else { return Progress::More };
        let Some(OptionHeader { number, bytes: len }) = OptionHeader::parse(header) else {
            return Progress::End(HandshakeEnd::NotAnOption);
        };
        let kind = OptionKind::of(number);
        if !self.fixed && kind != Some(OptionKind::ExportName) {
            return Progress::End(HandshakeEnd::NotFixed { number });
        }
        if len > OPTION_BYTES_MAX {
            if len > OPTION_SKIPPED_BYTES_MAX || kind == Some(OptionKind::ExportName) {
                return Progress::End(HandshakeEnd::TooLong { number, bytes: len });
            }
            self.state = State::Skipping { number, left: len as usize };
            return Progress::Took(OPTION_HEADER_BYTES);
        }
        let taken = OPTION_HEADER_BYTES + len as usize;
        let Some(data) = bytes.get(OPTION_HEADER_BYTES..taken) else { return Progress::More };
        let Some(kind) = kind else {
            let code = if self.is_locked() { option_reply::ERR_TLS_REQD } else { option_reply::ERR_UNSUP };
            self.refuse(number, code, "this server does not know the option");
            return Progress::Took(taken);
        };
        self.answer(kind, number, data, taken, exports)
    }

    /// Whether TLS has to come first.
    fn is_locked(&self) -> bool {
        self.tls == TlsMode::Required && !self.secured
    }

    fn answer(
        &mut self,
        kind: OptionKind,
        number: u32,
        data: &[u8],
        taken: usize,
        exports: &dyn Exports,
    ) -> Progress {
        let is_free = matches!(kind, OptionKind::Abort | OptionKind::StartTls);
        if self.is_locked() && !is_free {
            if kind == OptionKind::ExportName {
                return Progress::End(HandshakeEnd::ExportName { why: "TLS is required" });
            }
            self.refuse(number, option_reply::ERR_TLS_REQD, "this server requires TLS: use STARTTLS first");
            return Progress::Took(taken);
        }
        let answered = match kind {
            OptionKind::ExportName => return self.export_name(data, taken, exports),
            OptionKind::Abort => {
                self.acknowledge(number);
                return Progress::End(HandshakeEnd::Aborted);
            }
            OptionKind::List => self.list(number, data, exports),
            OptionKind::StartTls => match self.start_tls(number, data) {
                Ok(()) => return Progress::StartTls(taken),
                Err(refused) => Err(refused),
            },
            OptionKind::Info => self.info(number, data, exports).map(drop),
            OptionKind::Go => match self.info(number, data, exports) {
                Ok((export, name)) => return Progress::Begin(taken, self.choose(export, name)),
                Err(refused) => Err(refused),
            },
            OptionKind::StructuredReply => self.structured_reply(number, data),
            OptionKind::ListMetaContext => self.meta_context(number, data, exports, false),
            OptionKind::SetMetaContext => self.meta_context(number, data, exports, true),
        };
        if let Err(Malformed { code, why }) = answered {
            self.refuse(number, code, why);
        }
        Progress::Took(taken)
    }

    fn acknowledge(&mut self, number: u32) {
        reply(&mut self.output, number, option_reply::ACK, &[]);
    }

    fn refuse(&mut self, number: u32, code: u32, why: &str) {
        reply(&mut self.output, number, code, &[why.as_bytes()]);
    }

    fn choose(&mut self, export: Arc<dyn Export>, name: String) -> Chosen {
        // Contexts were selected for one export; another has none.
        let selected = self.selected.as_ref().filter(|(of, _)| *of == name);
        let Contexts { allocation, unreplicated } =
            selected.map_or_else(Contexts::default, |(_, contexts)| *contexts);
        Chosen { export, name, structured: self.structured, allocation, unreplicated }
    }

    fn export_name(&mut self, data: &[u8], taken: usize, exports: &dyn Exports) -> Progress {
        let refused = |why| Progress::End(HandshakeEnd::ExportName { why });
        let name = match text(data) {
            Ok(name) => name,
            Err(Malformed { why, .. }) => return refused(why),
        };
        let Some(export) = exports.open(name) else { return refused("there is no such export") };
        self.output.extend_from_slice(&export.size().to_be_bytes());
        let flags = transmission_flags(&*export, self.structured);
        self.output.extend_from_slice(&flags.to_be_bytes());
        if self.zeroes {
            self.output.extend_from_slice(&[0; EXPORT_NAME_ZEROES]);
        }
        Progress::Begin(taken, self.choose(export, name.to_owned()))
    }

    fn list(&mut self, number: u32, data: &[u8], exports: &dyn Exports) -> Result<(), Malformed> {
        no_data(data)?;
        for export in exports.list() {
            let name = cut(&export.name).as_bytes();
            let len = u32::try_from(name.len()).expect("cut to 4096 bytes").to_be_bytes();
            let parts: [&[u8]; 3] = [&len, name, cut(&export.description).as_bytes()];
            reply(&mut self.output, number, option_reply::SERVER, &parts);
        }
        self.acknowledge(number);
        Ok(())
    }

    fn start_tls(&mut self, number: u32, data: &[u8]) -> Result<(), Malformed> {
        if self.tls == TlsMode::Off {
            let why = "this server has no certificate for TLS";
            return Err(Malformed { code: option_reply::ERR_UNSUP, why });
        }
        no_data(data)?;
        if self.secured {
            return Err(Malformed { code: option_reply::ERR_INVALID, why: "TLS is used already" });
        }
        self.acknowledge(number);
        Ok(())
    }

    fn structured_reply(&mut self, number: u32, data: &[u8]) -> Result<(), Malformed> {
        no_data(data)?;
        self.structured = true;
        self.acknowledge(number);
        Ok(())
    }

    fn info(
        &mut self,
        number: u32,
        data: &[u8],
        exports: &dyn Exports,
    ) -> Result<(Arc<dyn Export>, String), Malformed> {
        let request = InfoRequest::parse(data)?;
        let export = open(exports, request.name)?;
        let mut names = exports.list();
        let described = match names.iter().position(|listed| listed.name == request.name) {
            Some(at) => Some(names.swap_remove(at)),
            // The default is the only one.
            None if request.name.is_empty() && names.len() == 1 => names.pop(),
            None => None,
        };
        let described =
            described.as_ref().map_or((request.name, ""), |of| (of.name.as_str(), of.description.as_str()));
        reply_infos(&mut self.output, number, &*export, self.structured, &request, described);
        self.acknowledge(number);
        Ok((export, request.name.to_owned()))
    }

    fn meta_context(
        &mut self,
        number: u32,
        data: &[u8],
        exports: &dyn Exports,
        select: bool,
    ) -> Result<(), Malformed> {
        if select {
            // Whatever comes of it, the earlier selection is void.
            self.selected = None;
        }
        if !self.structured {
            let why = "metadata contexts need structured replies: use STRUCTURED_REPLY first";
            return Err(Malformed { code: option_reply::ERR_INVALID, why });
        }
        let request = MetaRequest::parse(data)?;
        let export = open(exports, request.name)?;
        let wanted = |named: bool, space: bool| named || !select && (request.is_empty || space);
        let contexts = Contexts {
            allocation: wanted(request.names.allocation, request.spaces.allocation),
            unreplicated: wanted(request.names.unreplicated, request.spaces.unreplicated)
                && export.has_peer(),
        };
        for (is_wanted, id, name) in [
            (contexts.allocation, ALLOCATION_ID, ALLOCATION),
            (contexts.unreplicated, UNREPLICATED_ID, UNREPLICATED),
        ] {
            if is_wanted {
                // In a list the number is reserved.
                let id = if select { id } else { 0 }.to_be_bytes();
                reply(&mut self.output, number, option_reply::META_CONTEXT, &[&id[..], name.as_bytes()]);
            }
        }
        if select {
            self.selected = Some((request.name.to_owned(), contexts));
        }
        self.acknowledge(number);
        Ok(())
    }
}

fn no_data(data: &[u8]) -> Result<(), Malformed> {
    let why = "the option has no data";
    if data.is_empty() { Ok(()) } else { Err(Malformed { code: option_reply::ERR_INVALID, why }) }
}

fn open(exports: &dyn Exports, name: &str) -> Result<Arc<dyn Export>, Malformed> {
    let why = "there is no such export";
    exports.open(name).ok_or(Malformed { code: option_reply::ERR_UNKNOWN, why })
}

/// A connection's thread carries it.
const fn moves_between_threads<T: Send>() {}
const _: () = moves_between_threads::<Handshake>();

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
