//! What each option is answered, whatever the pieces in which it comes.

use std::sync::Arc;

use super::*;
use crate::serve::nbd::export::{ExportError, ExportErrorKind, ExportName, Extents, Mark, Payload};
use crate::serve::nbd::wire::Fields;

/// Exports of which only the description matters.
struct Described(Vec<(&'static str, bool)>);

struct Disk {
    read_only: bool,
}

fn unused<T>() -> Result<T, ExportError> {
    Err(ExportError::new(ExportErrorKind::Unsupported, "not in a negotiation"))
}

impl Export for Disk {
    fn size(&self) -> u64 {
        0x0102_0304_0506
    }
    fn block_bytes(&self) -> u32 {
        4096
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<Mark, ExportError> {
        unused()
    }
    fn write(&self, _: u64, _: Payload<'_>, _: &dyn Fn() -> bool) -> Result<Mark, ExportError> {
        unused()
    }
    fn trim(&self, _: u64, _: u64, _: &dyn Fn() -> bool) -> Result<Mark, ExportError> {
        unused()
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool, _: &dyn Fn() -> bool) -> Result<Mark, ExportError> {
        unused()
    }
    fn commit(&self, _: Mark, _: &dyn Fn() -> bool) -> Result<(), ExportError> {
        unused()
    }
    fn flush(&self, _: &dyn Fn() -> bool) -> Result<(), ExportError> {
        unused()
    }
    fn extents(&self, _: u64, _: u64, _: usize) -> Result<Extents, ExportError> {
        unused()
    }
    /// So that one of two has.
    fn has_peer(&self) -> bool {
        self.read_only
    }
}

impl Exports for Described {
    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        let is_only = name.is_empty() && self.0.len() == 1;
        let found = self.0.iter().find(|(named, _)| *named == name || is_only)?;
        Some(Arc::new(Disk { read_only: found.1 }))
    }
    fn list(&self) -> Vec<ExportName> {
        let described = |name: &str| ExportName { name: name.into(), description: format!("about {name}") };
        self.0.iter().map(|(name, _)| described(name)).collect()
    }
}

fn two() -> Described {
    Described(vec![("a", false), ("b", true)])
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&OPTION_MAGIC.to_be_bytes()[..], &number.to_be_bytes(), &len, data].concat()
}

fn named(name: &str, rest: &[u8]) -> Vec<u8> {
    [&u32::try_from(name.len()).unwrap().to_be_bytes()[..], name.as_bytes(), rest].concat()
}

fn info(name: &str, requests: &[u16]) -> Vec<u8> {
    let mut rest = u16::try_from(requests.len()).unwrap().to_be_bytes().to_vec();
    requests.iter().for_each(|request| rest.extend(request.to_be_bytes()));
    named(name, &rest)
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut rest = u32::try_from(queries.len()).unwrap().to_be_bytes().to_vec();
    queries.iter().for_each(|query| rest.extend(named(query, &[])));
    named(name, &rest)
}

/// How a negotiation went.
#[derive(Debug)]
struct Outcome {
    /// Each reply: option, code, data.
    replies: Vec<(u32, u32, Vec<u8>)>,
    /// What was sent behind the last whole reply: the answer to EXPORT_NAME.
    rest: Vec<u8>,
    end: Option<HandshakeEnd>,
    chosen: Option<Chosen>,
    tls: bool,
}

/// Sends client flags and options, in pieces of `piece` bytes; TLS is taken to stand as soon as it is begun.
fn run_in(tls: TlsMode, exports: &Described, flags: u32, options: &[Vec<u8>], piece: usize) -> Outcome {
    let mut handshake = Handshake::new(tls);
    let mut sent = Vec::new();
    handshake.poll_transmit(&mut sent);
    assert_eq!(sent, b"NBDMAGICIHAVEOPT\0\x03");
    sent.clear();
    let stream = [flags.to_be_bytes().to_vec(), options.concat()].concat();
    let mut outcome = Outcome { replies: vec![], rest: vec![], end: None, chosen: None, tls: false };
    let (mut from, mut to) = (0, 0);
    loop {
        let progress = handshake.handle(&stream[from..to], exports);
        handshake.poll_transmit(&mut sent);
        match progress {
            Progress::More if to == stream.len() => break,
            Progress::More => to = (to + piece).min(stream.len()),
            Progress::Took(count) => from += count,
            Progress::StartTls(count) => {
                from += count;
                outcome.tls = true;
                handshake.secured();
            }
            Progress::Begin(count, chosen) => {
                assert_eq!(from + count, stream.len());
                outcome.chosen = Some(chosen);
                break;
            }
            Progress::End(end) => {
                outcome.end = Some(end);
                break;
            }
        }
    }
    let mut fields = Fields(&sent);
    while fields.0.starts_with(&OPTION_REPLY_MAGIC_BYTES) {
        fields.u64().unwrap();
        let (number, code, len) = (fields.u32().unwrap(), fields.u32().unwrap(), fields.u32().unwrap());
        outcome.replies.push((number, code, fields.bytes(len as usize).unwrap().to_vec()));
    }
    outcome.rest = fields.0.to_vec();
    outcome
}

const OPTION_REPLY_MAGIC_BYTES: [u8; 8] = crate::serve::nbd::wire::OPTION_REPLY_MAGIC.to_be_bytes();

fn run(tls: TlsMode, exports: &Described, options: &[Vec<u8>]) -> Outcome {
    let whole = run_in(tls, exports, 3, options, usize::MAX >> 1);
    for piece in [1, 3, 17] {
        let pieces = run_in(tls, exports, 3, options, piece);
        assert_eq!(format!("{pieces:?}"), format!("{whole:?}"), "in pieces of {piece}");
    }
    whole
}

fn codes(outcome: &Outcome) -> Vec<(u32, u32)> {
    outcome.replies.iter().map(|(number, code, _)| (*number, code & 0xffff)).collect()
}

const ERROR: u32 = 1 << 31;

#[test]
fn go_tells_of_the_export_what_was_asked_for() {
    let asked = info("b", &[0, 1, 2, 3, 77]);
    let outcome = run(TlsMode::Off, &two(), &[option(8, &[]), option(7, &asked)]);
    let infos: Vec<_> =
        outcome.replies.iter().filter(|reply| reply.1 == 3).map(|reply| reply.2.clone()).collect();
    // Read only: flags, flush, FUA, DF, several connections, cache; no trim, no zeroes.
    let flags: u16 = 0b101_1000_1111;
    assert_eq!(infos[0], [&[0, 0, 0, 0, 1, 2, 3, 4, 5, 6][..], &flags.to_be_bytes()].concat());
    assert_eq!(infos[1], b"\0\x01b");
    assert_eq!(infos[2], b"\0\x02about b");
    assert_eq!(infos[3], b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0");
    assert_eq!(codes(&outcome), [(8, 1), (7, 3), (7, 3), (7, 3), (7, 3), (7, 1)]);
    let chosen = outcome.chosen.unwrap();
    assert!(chosen.structured && !chosen.allocation && chosen.name == "b");
}

#[test]
fn info_tells_and_goes_on_and_go_without_structured_replies_has_no_df() {
    let outcome = run(TlsMode::Off, &two(), &[option(6, &info("a", &[])), option(7, &info("a", &[]))]);
    assert_eq!(codes(&outcome), [(6, 3), (6, 1), (7, 3), (7, 1)]);
    let flags: u16 = 0b1101_0110_1101;
    assert_eq!(outcome.replies[0].2[10..], flags.to_be_bytes());
    assert!(!outcome.chosen.unwrap().structured);
}

#[test]
fn the_default_is_the_only_export() {
    let one = Described(vec![("only", false)]);
    let outcome = run(TlsMode::Off, &one, &[option(7, &info("", &[1, 2]))]);
    assert_eq!(outcome.replies[1].2, b"\0\x01only");
    assert_eq!(outcome.replies[2].2, b"\0\x02about only");
    let outcome = run(TlsMode::Off, &two(), &[option(7, &info("", &[]))]);
    assert_eq!((outcome.replies[0].1, outcome.chosen.is_none()), (ERROR | 6, true));
}

#[test]
fn export_name_is_answered_with_and_without_zeroes_or_by_hanging_up() {
    for (flags, zeroes) in [(0, 124), (1, 124), (2, 0), (3, 0)] {
        let outcome = run_in(TlsMode::Off, &two(), flags, &[option(1, b"a")], 1);
        assert_eq!(outcome.rest.len(), 10 + zeroes, "client flags {flags}");
        assert_eq!(outcome.rest[..10], [0, 0, 1, 2, 3, 4, 5, 6, 0b1101, 0b0110_1101]);
        assert!(outcome.rest[10..].iter().all(|&byte| byte == 0) && outcome.chosen.is_some());
    }
    for name in [&b"c"[..], b"", b"\xff", &[b'x'; 4097]] {
        let outcome = run(TlsMode::Off, &two(), &[option(1, name)]);
        assert!(matches!(outcome.end, Some(HandshakeEnd::ExportName { .. })), "{outcome:?}");
        assert!(outcome.rest.is_empty() && outcome.replies.is_empty());
    }
}

#[test]
fn list_names_all() {
    let outcome = run(TlsMode::Off, &two(), &[option(3, &[]), option(3, b"x")]);
    assert_eq!(codes(&outcome), [(3, 2), (3, 2), (3, 1), (3, 3)]);
    assert_eq!(outcome.replies[1].2, b"\0\0\0\x01babout b");
}

#[test]
fn contexts_are_listed_and_selected_by_name() {
    let cases: [(u32, &[&str], &[u32]); 9] = [
        (9, &[], &[4, 1]),
        (9, &["base:"], &[4, 1]),
        (9, &["base:allocation"], &[4, 1]),
        (9, &["qemu:"], &[1]),
        (10, &[], &[1]),
        (10, &["base:"], &[1]),
        (10, &["base:allocation", "base:allocation", "x-y:z"], &[4, 1]),
        (10, &["qemu:dirty-bitmap:x"], &[1]),
        (10, &["allocation"], &[ERROR | 3]),
    ];
    for (number, queries, expected) in cases {
        let options = [option(8, &[]), option(number, &meta("a", queries)), option(7, &info("a", &[]))];
        let outcome = run(TlsMode::Off, &two(), &options);
        let found: Vec<_> = outcome.replies.iter().filter(|reply| reply.0 == number).collect();
        assert_eq!(found.iter().map(|reply| reply.1).collect::<Vec<_>>(), expected, "{number} {queries:?}");
        if expected[0] == 4 {
            let id = if number == 10 { 1 } else { 0 };
            assert_eq!(found[0].2, [&[0, 0, 0, id][..], b"base:allocation"].concat());
        }
        assert_eq!(outcome.chosen.unwrap().allocation, number == 10 && expected[0] == 4);
    }
}

#[test]
fn what_the_peer_lacks_is_told_of_exports_with_a_peer() {
    let (base, ours) = ("base:allocation", "mirrorbus:unreplicated");
    let cases: [(u32, &str, &[&str], &[&str]); 8] = [
        (9, "b", &[], &[base, ours]),
        (9, "b", &["mirrorbus:"], &[ours]),
        (9, "a", &["mirrorbus:", ours], &[]),
        (9, "b", &["base:", ours], &[base, ours]),
        (10, "b", &[ours], &[ours]),
        (10, "b", &[ours, base], &[base, ours]),
        (10, "b", &["mirrorbus:"], &[]),
        (10, "a", &[ours, base], &[base]),
    ];
    for (number, export, queries, expected) in cases {
        let options = [option(8, &[]), option(number, &meta(export, queries)), option(7, &info(export, &[]))];
        let outcome = run(TlsMode::Off, &two(), &options);
        let found = outcome.replies.iter().filter(|reply| (reply.0, reply.1) == (number, 4));
        let found: Vec<_> = found.map(|(_, _, data)| data.split_at(4)).collect();
        let names: Vec<_> = found.iter().map(|(_, name)| std::str::from_utf8(name).unwrap()).collect();
        assert_eq!(names, expected, "{number} {export} {queries:?}");
        for (id, name) in found {
            let selected = if name == base.as_bytes() { 1 } else { 2 };
            assert_eq!(id, [0, 0, 0, if number == 10 { selected } else { 0 }]);
        }
        let chosen = outcome.chosen.unwrap();
        let selects = |name: &str| number == 10 && expected.contains(&name);
        assert_eq!((chosen.allocation, chosen.unreplicated), (selects(base), selects(ours)));
    }
}

#[test]
fn a_selection_ends_with_the_next_with_another_export_and_with_tls() {
    let select = |name: &str, queries: &[&str]| option(10, &meta(name, queries));
    let all = ["base:allocation"];
    let go = option(7, &info("a", &[]));
    let cases: [(&str, Vec<Vec<u8>>); 5] = [
        ("another export", vec![option(8, &[]), select("b", &all), go.clone()]),
        (
            "a later selection of nothing",
            vec![option(8, &[]), select("a", &all), select("a", &[]), go.clone()],
        ),
        ("a later one that fails", vec![option(8, &[]), select("a", &all), select("c", &all), go.clone()]),
        ("no structured replies", vec![select("a", &all), option(8, &[]), go.clone()]),
        ("TLS", vec![option(8, &[]), select("a", &all), option(5, &[]), go.clone()]),
    ];
    for (why, options) in cases {
        let chosen = run(TlsMode::Allowed, &two(), &options).chosen.unwrap();
        assert!(!chosen.allocation, "{why}");
        assert_eq!(chosen.structured, why != "TLS");
    }
}

#[test]
fn tls_is_off_allowed_or_required() {
    let off = run(TlsMode::Off, &two(), &[option(5, &[]), option(2, &[])]);
    assert_eq!(off.replies.iter().map(|reply| reply.1).collect::<Vec<_>>(), [ERROR | 1, 1]);
    let twice = run(TlsMode::Allowed, &two(), &[option(5, b"x"), option(5, &[]), option(5, &[])]);
    assert_eq!(twice.replies.iter().map(|reply| reply.1).collect::<Vec<_>>(), [ERROR | 3, 1, ERROR | 3]);
    assert!(twice.tls);
    let all = [3, 6, 7, 8, 9, 10, 99].map(|number| option(number, &[]));
    let required = run(TlsMode::Required, &two(), &all);
    assert!(required.replies.len() == 7 && required.replies.iter().all(|reply| reply.1 == ERROR | 5));
    let named = run(TlsMode::Required, &two(), &[option(1, b"a")]);
    assert!(matches!(named.end, Some(HandshakeEnd::ExportName { .. })));
    let after = run(TlsMode::Required, &two(), &[option(5, &[]), option(1, b"a")]);
    assert!(after.chosen.is_some());
    let ended = run(TlsMode::Required, &two(), &[option(2, &[])]);
    assert_eq!((ended.end, ended.replies[0].1), (Some(HandshakeEnd::Aborted), 1));
}

#[test]
fn malformed_data_is_refused_and_the_next_option_answered() {
    let long = "x".repeat(4097);
    let cases: [(u32, Vec<u8>, u32); 14] = [
        (99, b"whatever".to_vec(), 1),
        (4, vec![], 1),
        (11, vec![], 1),
        (8, b"x".to_vec(), 3),
        (7, vec![], 3),
        (7, vec![0, 0, 0, 2, b'a', 0, 0], 3),
        (7, vec![0, 0, 0, 1, b'a', 0, 1], 3),
        (7, [info("a", &[3]), vec![0]].concat(), 3),
        (7, info("c", &[]), 6),
        (7, info(&long, &[]), 9),
        (6, vec![0, 0, 0, 1, 0xff, 0, 0], 3),
        (10, vec![0, 0, 0, 1, b'a', 0, 0, 0, 1], 3),
        (9, [meta("a", &[]), vec![0]].concat(), 3),
        (3, vec![0; (OPTION_BYTES_MAX + 1) as usize], 9),
    ];
    for (number, data, expected) in cases {
        let options = [option(8, &[]), option(number, &data), option(8, &[]), option(2, &[])];
        let outcome = run(TlsMode::Off, &two(), &options);
        assert_eq!(codes(&outcome), [(8, 1), (number, expected), (8, 1), (2, 1)], "{number} {data:?}");
        assert!(!outcome.replies[1].2.is_empty(), "a refusal says why");
    }
}

#[test]
fn broken_rules_end_it() {
    let run_flags = |flags, options: &[Vec<u8>]| run_in(TlsMode::Off, &two(), flags, options, 5).end;
    assert_eq!(run_flags(4, &[]), Some(HandshakeEnd::ClientFlags { flags: 4 }));
    assert_eq!(run_flags(2, &[option(3, &[])]), Some(HandshakeEnd::NotFixed { number: 3 }));
    assert_eq!(run_flags(3, &[vec![0; 16]]), Some(HandshakeEnd::NotAnOption));
    let mut long = option(3, &[]);
    long[12..].copy_from_slice(&(OPTION_SKIPPED_BYTES_MAX + 1).to_be_bytes());
    let bytes = OPTION_SKIPPED_BYTES_MAX + 1;
    assert_eq!(run_flags(3, &[long]), Some(HandshakeEnd::TooLong { number: 3, bytes }));
}
