//! Log entries: a batch of records of many streams, one immutable object each.
//!
//! ```text
//! "HWLE" version:u8 shard:u32 position:u64 id:u128 prev:u128 writer:u128 at:u64     fixed part, little-endian
//! data_length:u32  record_count:varint  records…                                  what happened
//! data                                                                           the appended bytes, by stream
//! crc32:u32                                                                       of all before it
//! ```
//! The bytes of one stream lie together in the data part, in order, so that a batch gives each of its streams one
//! contiguous run, however many appends it had.

mod forks;

use std::collections::HashMap;

use bytes::Bytes;

use super::Damaged;
use super::codec::{Reader, Writer};
use crate::clock::Millis;
use crate::protocol::lifetime::Lifetime;
use crate::protocol::stream::{Appended, Body, Data, Effect};
use crate::protocol::{ContentType, Incarnation, Producer, Retention, StreamName, offset};

const MAGIC: &[u8; 4] = b"HWLE";
const VERSION: u8 = 1;
/// A name of one byte after its length, a tag and an incarnation.
const SHORTEST_RECORD: usize = 4;

/// Which entry of a shard's log this is, and after which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub shard: u32,
    pub position: u64,
    /// Its own random id.
    pub id: u128,
    /// The id of the valid entry that it was validated on; zero for the first.
    pub prev: u128,
    pub writer: u128,
    /// When; never goes back within a log.
    pub at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub name: StreamName,
    pub effect: Effect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub header: Header,
    pub records: Vec<Placed>,
}

/// A record, and where in the entry's object its inline data starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub record: Record,
    pub data_at: u32,
}

mod tag {
    pub const CREATED: u8 = 1;
    pub const APPENDED: u8 = 2;
    pub const DELETED: u8 = 3;
    pub const TOUCHED: u8 = 4;
    pub const RETENTION_SET: u8 = 5;
    pub const TRIMMED: u8 = 6;
    pub const FORKED: u8 = 16;
    pub const FORK_ADDED: u8 = 17;
    pub const FORK_DROPPED: u8 = 18;
    // 32 to 47 are kept for subscriptions.
}

/// The entry's object.
pub fn encode<'a>(header: &Header, records: impl Iterator<Item = (&'a StreamName, &'a Effect)> + Clone) -> Bytes {
    let placement = Placement::of(records.clone());
    let mut out = Writer::default();
    out.0.extend_from_slice(MAGIC);
    out.u8(VERSION);
    out.u32(header.shard);
    out.u64(header.position);
    out.u128(header.id);
    out.u128(header.prev);
    out.u128(header.writer);
    out.u64(header.at);
    out.u32(placement.total);
    out.varint(placement.offsets.len() as u64);
    for ((name, effect), data_offset) in records.zip(&placement.offsets) {
        out.text(name.as_str());
        encode_effect(&mut out, effect, *data_offset);
    }
    for bytes in &placement.data {
        out.0.extend_from_slice(bytes);
    }
    let crc = crc32fast::hash(&out.0);
    out.u32(crc);
    Bytes::from(out.0)
}

/// Where each record's data goes in the data part: grouped by stream, in order of first appearance.
struct Placement {
    offsets: Vec<u32>,
    data: Vec<Bytes>,
    total: u32,
}

impl Placement {
    fn of<'a>(records: impl Iterator<Item = (&'a StreamName, &'a Effect)>) -> Placement {
        let mut groups: Vec<Vec<(usize, Bytes)>> = Vec::new();
        let mut group_of: HashMap<&StreamName, usize> = HashMap::new();
        let mut count = 0;
        for (index, (name, effect)) in records.enumerate() {
            count = index + 1;
            if let Effect::Appended(Appended { body: Body { data: Data::Inline(bytes), .. }, .. }) = effect {
                let group = *group_of.entry(name).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                });
                groups[group].push((index, bytes.clone()));
            }
        }
        let mut placement = Placement { offsets: vec![0; count], data: Vec::new(), total: 0 };
        for (index, bytes) in groups.into_iter().flatten() {
            placement.offsets[index] = placement.total;
            placement.total = placement.total.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            placement.data.push(bytes);
        }
        placement
    }
}

fn encode_effect(out: &mut Writer, effect: &Effect, data_offset: u32) {
    match effect {
        Effect::Created { incarnation, content_type, lifetime } => {
            out.u8(tag::CREATED);
            encode_created(out, *incarnation, content_type, *lifetime);
        }
        Effect::Forked(forked) => {
            out.u8(tag::FORKED);
            encode_created(out, forked.incarnation, &forked.content_type, forked.lifetime);
            forks::encode(out, forked);
        }
        Effect::Appended(appended) => {
            out.u8(tag::APPENDED);
            encode_appended(out, appended, data_offset);
        }
        Effect::Deleted { incarnation } => {
            out.u8(tag::DELETED);
            out.varint(incarnation.get());
        }
        Effect::Touched { incarnation } => {
            out.u8(tag::TOUCHED);
            out.varint(incarnation.get());
        }
        Effect::RetentionSet { incarnation, retention } => {
            out.u8(tag::RETENTION_SET);
            out.varint(incarnation.get());
            // Zero: unlimited.
            out.varint(retention.bytes.unwrap_or(0));
            out.varint(retention.age_seconds.unwrap_or(0));
        }
        Effect::Trimmed { incarnation, horizon } => {
            out.u8(tag::TRIMMED);
            out.varint(incarnation.get());
            out.varint(*horizon);
        }
        Effect::ForkAdded { incarnation, fork, position, since } => {
            out.u8(tag::FORK_ADDED);
            out.varint(incarnation.get());
            forks::encode_id(out, fork);
            out.varint(*position);
            out.varint(*since);
        }
        Effect::ForkDropped { incarnation, fork } => {
            out.u8(tag::FORK_DROPPED);
            out.varint(incarnation.get());
            forks::encode_id(out, fork);
        }
    }
}

fn encode_created(out: &mut Writer, incarnation: Incarnation, content_type: &ContentType, lifetime: Lifetime) {
    out.varint(incarnation.get());
    out.text(content_type.as_str());
    let (kind, value) = match lifetime {
        Lifetime::Forever => (0, 0),
        Lifetime::Ttl(seconds) => (1, seconds),
        Lifetime::Until(moment) => (2, moment),
    };
    out.u8(kind);
    out.varint(value);
}

fn encode_appended(out: &mut Writer, appended: &Appended, data_offset: u32) {
    out.varint(appended.incarnation.get());
    out.varint(appended.start);
    match &appended.body.data {
        Data::Inline(bytes) => {
            out.u8(0);
            out.varint(u64::from(data_offset));
            out.varint(bytes.len() as u64);
        }
        Data::Chunk { nonce, len } => {
            out.u8(1);
            out.u128(*nonce);
            out.varint(*len);
        }
    }
    out.rising(&appended.body.ends);
    out.optional_text(appended.seq.as_deref());
    out.u8(u8::from(appended.producer.is_some()));
    if let Some(producer) = &appended.producer {
        out.text(&producer.id);
        out.varint(producer.epoch);
        out.varint(producer.seq);
    }
    out.u8(u8::from(appended.close));
}

/// Reads an entry's object. The data of its records are slices of `object`.
pub fn decode(object: &Bytes) -> Result<Entry, Damaged> {
    let covered = object.len().checked_sub(4).ok_or_else(|| Damaged::new("it is too short for an entry"))?;
    let mut trailer = Reader::new(object.slice(covered..));
    if trailer.u32()? != crc32fast::hash(&object[..covered]) {
        return Err(Damaged::new("its checksum does not match"));
    }
    let mut input = Reader::new(object.slice(..covered));
    if input.take(4)? != MAGIC[..] {
        return Err(Damaged::new("it is not a log entry"));
    }
    let version = input.u8()?;
    if version != VERSION {
        return Err(Damaged::new(format!("its format version is {version}; this program knows {VERSION}")));
    }
    let header = Header {
        shard: input.u32()?,
        position: input.u64()?,
        id: input.u128()?,
        prev: input.u128()?,
        writer: input.u128()?,
        at: input.u64()?,
    };
    let data_length = input.u32()? as usize;
    let data_start = covered.checked_sub(data_length).ok_or_else(|| Damaged::new("its data is longer than it is"))?;
    let count = input.count(SHORTEST_RECORD)?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(decode_record(&mut input, object, data_start, covered)?);
    }
    if input.at() != data_start {
        return Err(Damaged::new("its records and its data do not meet"));
    }
    let entry = Entry { header, records };
    check_placement(&entry, data_start, data_length)?;
    Ok(entry)
}

/// Readers take a stream's bytes as one slice: they must lie where [`encode`] puts them, each in one record only.
fn check_placement(entry: &Entry, data_start: usize, data_length: usize) -> Result<(), Damaged> {
    let records = entry.records.iter().map(|placed| (&placed.record.name, &placed.record.effect));
    let placement = Placement::of(records);
    let is_placed = |(placed, offset): (&Placed, &u32)| match &placed.record.effect {
        Effect::Appended(Appended { body: Body { data: Data::Inline(_), .. }, .. }) => {
            placed.data_at as usize == data_start + *offset as usize
        }
        _ => true,
    };
    let all_placed = entry.records.iter().zip(&placement.offsets).all(is_placed);
    if all_placed && placement.total as usize == data_length {
        Ok(())
    } else {
        Err(Damaged::new("its data does not lie stream by stream"))
    }
}

fn decode_record(input: &mut Reader, object: &Bytes, data_start: usize, covered: usize) -> Result<Placed, Damaged> {
    let name = StreamName::new(&input.text()?).map_err(|e| Damaged::new(e.what))?;
    let mut data_at = 0;
    let effect = match input.u8()? {
        tag::CREATED => {
            let (incarnation, content_type, lifetime) = decode_created(input)?;
            Effect::Created { incarnation, content_type, lifetime }
        }
        tag::RETENTION_SET => {
            let incarnation = incarnation(input)?;
            let mut limit = || Ok(Some(input.varint()?).filter(|limit| *limit > 0));
            let retention = Retention { bytes: limit()?, age_seconds: limit()? };
            Effect::RetentionSet { incarnation, retention }
        }
        tag::TRIMMED => Effect::Trimmed { incarnation: incarnation(input)?, horizon: input.varint()? },
        tag::FORKED => Effect::Forked(forks::decode(decode_created(input)?, input)?),
        tag::FORK_ADDED => {
            let (incarnation, fork) = (incarnation(input)?, forks::decode_id(input)?);
            Effect::ForkAdded { incarnation, fork, position: input.varint()?, since: input.varint()? }
        }
        tag::FORK_DROPPED => Effect::ForkDropped { incarnation: incarnation(input)?, fork: forks::decode_id(input)? },
        tag::APPENDED => {
            let incarnation = incarnation(input)?;
            let start = input.varint()?;
            let data = match input.u8()? {
                0 => {
                    let (offset, length) = (input.varint()?, input.varint()?);
                    let from = (data_start as u64).saturating_add(offset);
                    let to = from.saturating_add(length);
                    if to > covered as u64 {
                        return Err(Damaged::new("a record's data lies outside"));
                    }
                    data_at = u32::try_from(from).map_err(|_| Damaged::new("it is larger than 4 GiB"))?;
                    Data::Inline(object.slice(from as usize..to as usize))
                }
                1 => Data::Chunk { nonce: input.u128()?, len: input.varint()? },
                _ => return Err(Damaged::new("a record's data is of an unknown kind")),
            };
            let ends = input.rising()?;
            if ends.last().map_or(0, |end| u64::from(*end)) != data.len() {
                return Err(Damaged::new("a record's messages do not fill its data"));
            }
            if start.saturating_add(data.len()) >= offset::LIMIT {
                return Err(Damaged::new("a record's data reaches further than a stream can"));
            }
            let seq = input.optional_text()?.map(Into::into);
            let producer = if input.flag()? {
                Some(Producer { id: input.text()?, epoch: input.varint()?, seq: input.varint()? })
            } else {
                None
            };
            let close = input.flag()?;
            Effect::Appended(Appended { incarnation, start, body: Body { data, ends }, seq, producer, close })
        }
        tag::DELETED => Effect::Deleted { incarnation: incarnation(input)? },
        tag::TOUCHED => Effect::Touched { incarnation: incarnation(input)? },
        unknown => return Err(Damaged::new(format!("it has a record of unknown kind {unknown}"))),
    };
    Ok(Placed { record: Record { name, effect }, data_at })
}

fn decode_created(input: &mut Reader) -> Result<(Incarnation, ContentType, Lifetime), Damaged> {
    let incarnation = incarnation(input)?;
    let text = input.text()?;
    let content_type = ContentType::new(&text).map_err(|e| Damaged::new(e.what))?;
    if content_type.as_str() != text {
        return Err(Damaged::new("a content type has spaces around it"));
    }
    let lifetime = match (input.u8()?, input.varint()?) {
        (0, 0) => Lifetime::Forever,
        (1, value) => Lifetime::Ttl(value),
        (2, value) => Lifetime::Until(value),
        _ => return Err(Damaged::new("a lifetime is of an unknown kind")),
    };
    Ok((incarnation, content_type, lifetime))
}

fn incarnation(input: &mut Reader) -> Result<Incarnation, Damaged> {
    super::facts::incarnation(input.varint()?)
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
