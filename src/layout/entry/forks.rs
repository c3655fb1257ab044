//! Records of forks.

use std::sync::Arc;

use super::super::codec::{Reader, Writer};
use super::super::{Damaged, following};
use super::incarnation;
use crate::protocol::fork::{ForkId, Origin, Requested};
use crate::protocol::stream::{Forked, Inherited};
use crate::protocol::{ContentType, Incarnation, Lifetime, Offset, StreamName, offset};

/// An owner of two bytes, five numbers, a nonce.
const SHORTEST_RUN: usize = 24;

pub(super) fn encode_id(out: &mut Writer, id: &ForkId) {
    out.text(id.name.as_str());
    out.varint(id.incarnation.get());
}

pub(super) fn decode_id(input: &mut Reader) -> Result<ForkId, Damaged> {
    let name = StreamName::new(&input.text()?).map_err(|error| Damaged::new(error.what))?;
    Ok(ForkId { name, incarnation: incarnation(input)? })
}

/// What a fork has beside what every new stream has.
pub(super) fn encode(out: &mut Writer, forked: &Forked) {
    let Origin { source, requested, lineage } = &*forked.origin;
    encode_id(out, source);
    out.varint(forked.horizon);
    out.u8(u8::from(requested.offset.is_some()));
    if let Some(Offset { position, incarnation }) = requested.offset {
        out.varint(position);
        out.varint(incarnation.get());
    }
    out.varint(requested.sub_offset);
    out.varint(lineage.len() as u64);
    for (end, incarnation) in lineage {
        out.varint(*end);
        out.varint(incarnation.get());
    }
    out.varint(forked.inherited.len() as u64);
    for run in &*forked.inherited {
        encode_id(out, &run.owner);
        for number in [run.start, run.len, run.at, run.whole] {
            out.varint(number);
        }
        out.u128(run.nonce);
        out.varint(run.page_ends.len() as u64);
        run.page_ends.iter().for_each(|end| out.varint(*end - run.start));
    }
}

pub(super) fn decode(
    (incarnation, content_type, lifetime): (Incarnation, ContentType, Lifetime),
    input: &mut Reader,
) -> Result<Forked, Damaged> {
    let (source, horizon) = (decode_id(input)?, input.varint()?);
    let offset = if input.flag()? { Some(decode_offset(input)?) } else { None };
    let requested = Requested { offset, sub_offset: input.varint()? };
    let count = input.count(2)?;
    let mut lineage = Vec::with_capacity(count);
    for _ in 0..count {
        lineage.push((input.varint()?, super::incarnation(input)?));
    }
    let origin = Arc::new(Origin { source, requested, lineage });
    let count = input.count(SHORTEST_RUN)?;
    let mut inherited: Vec<Inherited> = Vec::with_capacity(count);
    for _ in 0..count {
        let run = decode_run(input)?;
        let at = inherited.last().map_or(run.start, |last| last.start + last.len);
        let end = following(at, run.start, run.len).filter(|end| run.len <= run.whole && *end < offset::LIMIT);
        end.ok_or_else(|| Damaged::new("what a fork inherited has gaps"))?;
        inherited.push(run);
    }
    let forked = Forked { incarnation, content_type, lifetime, origin, horizon, inherited: inherited.into() };
    forked.check().map_err(Damaged::new)?;
    Ok(forked)
}

fn decode_offset(input: &mut Reader) -> Result<Offset, Damaged> {
    let (position, number) = (input.varint()?, input.varint()?);
    let incarnation = if number == 0 { Some(Incarnation::ANY) } else { Incarnation::new(number) };
    match incarnation.filter(|_| position < offset::LIMIT) {
        Some(incarnation) => Ok(Offset { position, incarnation }),
        None => Err(Damaged::new("an offset is out of range")),
    }
}

fn decode_run(input: &mut Reader) -> Result<Inherited, Damaged> {
    let owner = decode_id(input)?;
    let (start, len, at, whole) = (input.varint()?, input.varint()?, input.varint()?, input.varint()?);
    let nonce = input.u128()?;
    let count = input.count(1)?;
    let mut page_ends: Vec<u64> = Vec::with_capacity(count);
    for _ in 0..count {
        let end = start.saturating_add(input.varint()?);
        if end <= *page_ends.last().unwrap_or(&start) || end > start.saturating_add(len) {
            return Err(Damaged::new("a page of what a fork inherited ends elsewhere"));
        }
        page_ends.push(end);
    }
    Ok(Inherited { owner, start, len, at, nonce, whole, page_ends })
}
