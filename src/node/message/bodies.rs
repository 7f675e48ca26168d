//! The bodies of messages that are more than a number: structures of fixed size, and lists of them.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{AttachMode, AttachRequest, Granted, Message};
use crate::mirror::ByteRange;

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AttachBody {
    request: U32,
    generation: U32,
    region: [u8; 16],
    prior_session: [u8; 16],
    life: [u8; 16],
    size: U64,
    staging: U64,
    mode: u8,
    reserved: [u8; 7],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct GrantedBody {
    request: U32,
    generation: U32,
    region: [u8; 16],
    life: [u8; 16],
    size: U64,
    staging: U64,
    durable: u8,
    reserved: [u8; 7],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RangeBody {
    offset: U64,
    len: U64,
}

const _: () =
    assert!(size_of::<AttachBody>() == 80 && size_of::<GrantedBody>() == 64 && size_of::<RangeBody>() == 16);

pub(super) fn attach_body(request: u32, attach: &AttachRequest) -> AttachBody {
    AttachBody {
        request: request.into(),
        generation: attach.generation.into(),
        region: attach.region,
        prior_session: attach.prior_session,
        life: attach.life,
        size: attach.size.into(),
        staging: attach.staging.into(),
        mode: attach.mode.code(),
        reserved: [0; 7],
    }
}

pub(super) fn decode_attach(body: &[u8]) -> Option<Message> {
    let body = AttachBody::read_from_bytes(body).ok()?;
    let mode = AttachMode::ALL.into_iter().find(|mode| mode.code() == body.mode)?;
    let attach = AttachRequest {
        mode,
        region: body.region,
        size: body.size.get(),
        prior_session: body.prior_session,
        life: body.life,
        generation: body.generation.get(),
        staging: body.staging.get(),
    };
    Some(Message::Attach { request: body.request.get(), attach })
}

pub(super) fn granted_body(request: u32, granted: &Granted) -> GrantedBody {
    GrantedBody {
        request: request.into(),
        generation: granted.generation.into(),
        region: granted.region,
        life: granted.life,
        size: granted.size.into(),
        staging: granted.staging.into(),
        durable: u8::from(granted.not_durable.is_none()),
        reserved: [0; 7],
    }
}

pub(super) fn decode_granted(body: &[u8]) -> Option<Message> {
    let (body, why) = GrantedBody::read_from_prefix(body).ok()?;
    let granted = Granted {
        generation: body.generation.get(),
        region: body.region,
        life: body.life,
        size: body.size.get(),
        staging: body.staging.get(),
        not_durable: (body.durable == 0).then(|| String::from_utf8_lossy(why).into_owned()),
    };
    Some(Message::Granted { request: body.request.get(), granted })
}

pub(super) fn decode_ranges(list: &[u8]) -> Option<Vec<ByteRange>> {
    let list = <[RangeBody]>::ref_from_bytes(list).ok()?;
    list.iter()
        .map(|body| {
            let (offset, len) =
                (usize::try_from(body.offset.get()).ok()?, usize::try_from(body.len.get()).ok()?);
            offset.checked_add(len).map(|_| ByteRange { offset, len })
        })
        .collect()
}

/// The bytes of a list of ranges.
pub(super) fn encode_ranges(ranges: &[ByteRange]) -> Vec<u8> {
    let body = |range: &ByteRange| RangeBody {
        offset: (range.offset as u64).into(),
        len: (range.len as u64).into(),
    };
    ranges.iter().map(body).collect::<Vec<_>>().as_bytes().to_vec()
}
