//! Options: what a client may ask for before it uses an export, how their data is read, and how replies are written.
//!
//! Pure. Data that does not have the form of its option is a [`Malformed`], and the client is told so with the reply
//! code in it; the negotiation goes on.

use super::export::Export;
use super::wire::{
    ALLOCATION, Fields, OPTION_HEADER_BYTES, OPTION_MAGIC, OPTION_REPLY_MAGIC, PAYLOAD_BYTES_MAX,
    STRING_BYTES_MAX, UNREPLICATED, info, option_reply, transmission_flag as flag,
};

/// The options that this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionKind {
    ExportName,
    Abort,
    List,
    StartTls,
    Info,
    Go,
    StructuredReply,
    ListMetaContext,
    SetMetaContext,
}

impl OptionKind {
    pub(super) const fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::ExportName),
            2 => Some(Self::Abort),
            3 => Some(Self::List),
            5 => Some(Self::StartTls),
            6 => Some(Self::Info),
            7 => Some(Self::Go),
            8 => Some(Self::StructuredReply),
            9 => Some(Self::ListMetaContext),
            10 => Some(Self::SetMetaContext),
            _ => None,
        }
    }
}

/// An option without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionHeader {
    pub(super) number: u32,
    pub(super) bytes: u32,
}

impl OptionHeader {
    /// `None` when it does not begin as an option does.
    pub(super) fn parse(bytes: &[u8; OPTION_HEADER_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.u64()?;
        (magic == OPTION_MAGIC).then_some(Self { number: fields.u32()?, bytes: fields.u32()? })
    }
}

/// Data that is not as its option has it: the code of the reply, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) code: u32,
    pub(super) why: &'static str,
}

const fn invalid(why: &'static str) -> Malformed {
    Malformed { code: option_reply::ERR_INVALID, why }
}

/// A string with its length in front.
fn string<'a>(fields: &mut Fields<'a>) -> Result<&'a str, Malformed> {
    let len = fields.u32().ok_or(invalid("the data ends before a length"))? as usize;
    let bytes = fields.bytes(len).ok_or(invalid("a string is longer than the data"))?;
    text(bytes)
}

/// A string of the protocol.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.len() > STRING_BYTES_MAX {
        let why = "a string of more than 4096 bytes";
        return Err(Malformed { code: option_reply::ERR_TOO_BIG, why });
    }
    std::str::from_utf8(bytes).map_err(|_| invalid("a string that is not UTF-8"))
}

/// The data of INFO and GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InfoRequest<'a> {
    pub(super) name: &'a str,
    pub(super) wants_name: bool,
    pub(super) wants_description: bool,
    pub(super) wants_block_size: bool,
}

impl<'a> InfoRequest<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(data);
        let name = string(&mut fields)?;
        let count = fields.u16().ok_or(invalid("the data ends before the number of requests"))?;
        let mut request = Self { name, wants_name: false, wants_description: false, wants_block_size: false };
        for _ in 0..count {
            match fields.u16().ok_or(invalid("fewer requests than announced"))? {
                info::NAME => request.wants_name = true,
                info::DESCRIPTION => request.wants_description = true,
                info::BLOCK_SIZE => request.wants_block_size = true,
                // The export is told of in any case, and what is not known is to be ignored.
                _ => {}
            }
        }
        if fields.is_empty() { Ok(request) } else { Err(invalid("more data than announced")) }
    }
}

/// Some of the metadata contexts that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Contexts {
    pub(super) allocation: bool,
    pub(super) unreplicated: bool,
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetaRequest<'a> {
    pub(super) name: &'a str,
    /// Whether there was no query at all.
    pub(super) is_empty: bool,
    /// The contexts that are named.
    pub(super) names: Contexts,
    /// Those in whose namespace all are asked for.
    pub(super) spaces: Contexts,
}

impl<'a> MetaRequest<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(data);
        let name = string(&mut fields)?;
        let count = fields.u32().ok_or(invalid("the data ends before the number of queries"))?;
        let (mut names, mut spaces) = (Contexts::default(), Contexts::default());
        for _ in 0..count {
            let query = string(&mut fields)?;
            if !query.contains(':') {
                return Err(invalid("a query without a namespace"));
            }
            names.allocation |= query == ALLOCATION;
            names.unreplicated |= query == UNREPLICATED;
            spaces.allocation |= query == "base:";
            spaces.unreplicated |= query == "mirrorbus:";
        }
        let request = Self { name, is_empty: count == 0, names, spaces };
        if fields.is_empty() { Ok(request) } else { Err(invalid("more data than announced")) }
    }
}

/// Appends a reply to option `number`; its data is made of `parts`.
pub(super) fn reply(output: &mut Vec<u8>, number: u32, code: u32, parts: &[&[u8]]) {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = u32::try_from(bytes).expect("a reply to an option is made of a few short strings");
    output.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    output.extend_from_slice(&number.to_be_bytes());
    output.extend_from_slice(&code.to_be_bytes());
    output.extend_from_slice(&bytes.to_be_bytes());
    parts.iter().for_each(|part| output.extend_from_slice(part));
}

/// As much of `text` as the protocol takes for a string.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a client is told that `export` can do.
pub(super) fn transmission_flags(export: &dyn Export, structured: bool) -> u16 {
    let mut flags = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::SEND_CACHE
        // A flush makes durable what came by any connection.
        | flag::CAN_MULTI_CONN;
    flags |= if export.read_only() {
        flag::READ_ONLY
    } else {
        flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO
    };
    flags | if structured { flag::SEND_DF } else { 0 }
}

/// Appends what INFO and GO tell of an export, without the reply that ends it.
pub(super) fn reply_infos(
    output: &mut Vec<u8>,
    number: u32,
    export: &dyn Export,
    structured: bool,
    request: &InfoRequest<'_>,
    described: (&str, &str),
) {
    let (size, flags) = (export.size(), transmission_flags(export, structured));
    let parts: [&[u8]; 3] = [&info::EXPORT.to_be_bytes(), &size.to_be_bytes(), &flags.to_be_bytes()];
    reply(output, number, option_reply::INFO, &parts);
    if request.wants_name {
        let parts = [&info::NAME.to_be_bytes()[..], cut(described.0).as_bytes()];
        reply(output, number, option_reply::INFO, &parts);
    }
    if request.wants_description {
        let parts = [&info::DESCRIPTION.to_be_bytes()[..], cut(described.1).as_bytes()];
        reply(output, number, option_reply::INFO, &parts);
    }
    if request.wants_block_size {
        let [least, most] = [1, PAYLOAD_BYTES_MAX].map(u32::to_be_bytes);
        let preferred = export.block_bytes().to_be_bytes();
        let parts: [&[u8]; 4] = [&info::BLOCK_SIZE.to_be_bytes(), &least, &preferred, &most];
        reply(output, number, option_reply::INFO, &parts);
    }
}
