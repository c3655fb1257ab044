//! From a manifest and an offset to the bytes of a page: the tail from memory, older bytes from chunks.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};

use super::context::Context;
use super::state::Committed;
use super::tail::Missing;
use super::{EngineError, Page, Source};
use crate::clock::Millis;
use crate::layout::checkpoint::Nonce;
use crate::layout::manifest::Foreign;
use crate::layout::{chunk, key};
use crate::protocol::{Incarnation, ReadFrom, Rejection, Stream, StreamName, json, page};
use std::sync::Arc;

/// Finds the page that starts at `from`; `None` if the stream's manifest must be read first.
pub(super) fn locate(
    committed: &Committed,
    stream: &Arc<Stream>,
    from: ReadFrom,
    page_bytes: u64,
) -> Result<Option<Page>, Rejection> {
    let start = match from {
        ReadFrom::Start => stream.horizon,
        ReadFrom::Now => stream.tail,
        ReadFrom::At(offset) if !stream.admits(offset) => {
            return Err(Rejection::Replaced { current: stream.incarnation });
        }
        ReadFrom::At(offset) if offset.position > stream.tail => {
            return Err(Rejection::BeyondTail { tail: stream.tail_offset() });
        }
        ReadFrom::At(offset) if offset.position < stream.horizon => {
            return Err(Rejection::Trimmed { earliest: stream.offset_at(stream.horizon) });
        }
        ReadFrom::At(offset) => offset.position,
    };
    if start < committed.unsealed_start() && committed.base.is_none() {
        return Ok(None);
    }
    let end = page_end(committed, start, page_bytes).unwrap_or(stream.tail);
    let ends_at = if end == stream.tail { stream.tail_at } else { written_at(committed, end) };
    Ok(Some(Page { stream: Arc::clone(stream), start, end, ends_at }))
}

/// The first page end after `position`, if the stream has got there.
fn page_end(committed: &Committed, position: u64, page_bytes: u64) -> Option<u64> {
    let manifest = committed.own_manifest();
    let sealed = manifest.and_then(|manifest| {
        let from = manifest.chunks.partition_point(|chunk| chunk.end() <= position);
        manifest.chunks[from..].iter().find_map(|chunk| chunk.page_end_after(position, page_bytes))
    });
    let inline = || {
        let inline = manifest?.inline.as_ref()?;
        page::ends_in(inline.start, &inline.ends, page_bytes).into_iter().find(|end| *end > position)
    };
    let unsealed = || {
        let from = committed.page_ends.partition_point(|end| *end <= position);
        committed.page_ends.get(from).copied()
    };
    sealed.or_else(inline).or_else(unsealed)
}

/// When the bytes that end at `end` came, as near as it is known.
fn written_at(committed: &Committed, end: u64) -> Millis {
    if let Some(run) = committed.runs.iter().find(|run| run.start < end && end <= run.start + run.len) {
        return run.at;
    }
    let Some(manifest) = committed.own_manifest() else { return 0 };
    let chunk = manifest.chunks.iter().find(|chunk| end <= chunk.end()).map(|chunk| chunk.at);
    chunk.or(manifest.inline.as_ref().map(|inline| inline.at)).unwrap_or(0)
}

/// A piece of a page, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// In the manifest.
    Inline(Bytes),
    /// In the entry at a position of the log: `range` of the run of `len` bytes there that starts at `start`.
    Log { position: u64, start: u64, len: u64, range: Range<usize> },
    /// In a chunk with `len` bytes of data, which is another stream's if that is said.
    Chunk { nonce: u128, len: u64, range: Range<u64>, foreign: Option<Foreign> },
}

/// The parts that `range` of the stream consists of, without gaps.
pub(super) fn parts(committed: &Committed, range: &Range<u64>) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut at = range.start;
    let mut take = |start: u64, len: u64, part: &dyn Fn(Range<u64>) -> Part| {
        // A piece that does not continue what was found is left out, and the gap is noticed below.
        if start <= at && at < (start + len).min(range.end) {
            let end = (start + len).min(range.end);
            parts.push(part(at - start..end - start));
            at = end;
        }
    };
    if let Some(manifest) = committed.own_manifest() {
        let from = manifest.chunks.partition_point(|chunk| chunk.end() <= range.start);
        for chunk in manifest.chunks[from..].iter().take_while(|chunk| chunk.start < range.end) {
            take(chunk.start, chunk.len, &|range| in_chunk(chunk.nonce, chunk.len, range, chunk.foreign.as_ref()));
        }
        if let Some(inline) = &manifest.inline {
            take(inline.start, inline.data.len() as u64, &|range| Part::Inline(inline.data.slice(narrow(&range))));
        }
    }
    let from = committed.runs.partition_point(|run| run.start + run.len <= range.start);
    for run in committed.runs.range(from..).take_while(|run| run.start < range.end) {
        take(run.start, run.len, &|range| match run.nonce {
            Some(Nonce(nonce)) => in_chunk(nonce, run.len, range, run.foreign.as_ref()),
            None => Part::Log { position: run.position, start: run.start, len: run.len, range: narrow(&range) },
        });
    }
    (at == range.end).then_some(parts)
}

fn in_chunk(nonce: u128, len: u64, range: Range<u64>, foreign: Option<&Foreign>) -> Part {
    let len = foreign.map_or(len, |foreign| foreign.whole);
    Part::Chunk { nonce, len, range, foreign: foreign.cloned() }
}

/// The key of a chunk that a stream's manifest or run names.
pub(super) fn chunk_key(
    name: &StreamName,
    incarnation: Incarnation,
    nonce: u128,
    foreign: Option<&Foreign>,
) -> Result<String, EngineError> {
    let Some(foreign) = foreign else { return Ok(key::chunk(name, incarnation, nonce)) };
    let damaged = |error: crate::layout::Damaged| EngineError::Damaged { key: key::manifest(name), what: error.0 };
    let owner = foreign.owner().map_err(damaged)?;
    Ok(key::chunk(&owner.name, owner.incarnation, nonce))
}

fn narrow(range: &Range<u64>) -> Range<usize> {
    let narrow = |n| usize::try_from(n).unwrap_or(usize::MAX);
    narrow(range.start)..narrow(range.end)
}

/// Of which stream the parts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub shard: u32,
    pub name: &'a StreamName,
    pub incarnation: Incarnation,
    pub is_json: bool,
}

/// The page's bytes as the protocol serves them.
pub(super) async fn fetch(
    context: &Arc<Context>,
    owner: Owner<'_>,
    range: Range<u64>,
    parts: Vec<Part>,
) -> Result<(Bytes, Source), Missing> {
    if range.is_empty() {
        return Ok((if owner.is_json { json::array(std::iter::empty()) } else { Bytes::new() }, Source::Memory));
    }
    let in_memory = parts.iter().all(|part| match part {
        Part::Inline(_) => true,
        Part::Log { position, .. } => context.tails.has_entry(owner.shard, *position),
        Part::Chunk { .. } => false,
    });
    let is_made = Arc::new(AtomicBool::new(false));
    let Owner { shard, name, incarnation, is_json } = owner;
    let key = (name.clone(), incarnation, range.start, range.end);
    let (making, name, here) = (Arc::clone(&is_made), name.clone(), Arc::clone(context));
    let make = async move {
        making.store(true, Ordering::Relaxed);
        let owner = Owner { shard, name: &name, incarnation, is_json };
        let mut pieces = Vec::with_capacity(parts.len());
        for part in &parts {
            // A slice would keep the whole object in memory for as long as the response is being sent.
            pieces.push(Bytes::copy_from_slice(&fetch_part(&here, owner, part).await?));
        }
        Ok(if is_json { json::array(pieces.iter()) } else { join(pieces) })
    };
    let page = context.tails.page(key, make).await?;
    let from_store = is_made.load(Ordering::Relaxed) && !in_memory;
    Ok((page, if from_store { Source::Store } else { Source::Memory }))
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
    joined.freeze()
}

pub(super) async fn fetch_part(context: &Context, owner: Owner<'_>, part: &Part) -> Result<Bytes, Missing> {
    match part {
        Part::Inline(bytes) => Ok(bytes.clone()),
        Part::Log { position, start, len, range } => {
            let entry = context.tails.entry(&context.store, owner.shard, *position).await?;
            let piece =
                entry.piece(owner.name, owner.incarnation, *start, *len).ok_or_else(|| EngineError::Damaged {
                    key: key::log(owner.shard, *position),
                    what: format!("it lacks bytes of stream {}", owner.name),
                })?;
            Ok(piece.data.slice(range.clone()))
        }
        Part::Chunk { nonce, len, range, foreign } => {
            let key = chunk_key(owner.name, owner.incarnation, *nonce, foreign.as_ref())?;
            read_chunk(context, &key, *nonce, *len, range).await
        }
    }
}

/// A range of a chunk's data: one ranged GET of the blocks that cover it, each verified.
async fn read_chunk(context: &Context, key: &str, nonce: u128, len: u64, range: &Range<u64>) -> Result<Bytes, Missing> {
    let damaged = |error: crate::layout::Damaged| EngineError::Damaged { key: key.to_owned(), what: error.0 };
    let blocks = chunk::blocks(range);
    if blocks.is_empty() {
        return Ok(Bytes::new());
    }
    let base = chunk::place(blocks.start, len).start;
    let end = chunk::place(blocks.end - 1, len).end;
    let reply = context.store.get_range(key, base..end).await.map_err(EngineError::from)?;
    let object = reply.value.ok_or_else(|| Missing::Object { key: key.to_owned() })?;
    let mut pieces = Vec::new();
    for number in blocks.clone() {
        let place = chunk::place(number, len);
        let (from, to) = ((place.start - base) as usize, (place.end - base) as usize);
        // A short answer is noticed by the block's own length check.
        let block = object.slice(from.min(object.len())..to.min(object.len()));
        pieces.push(chunk::verify(nonce, number, &block, &place).map_err(damaged)?);
    }
    let skip = (range.start - blocks.start * chunk::BLOCK) as usize;
    let wanted = (range.end - range.start) as usize;
    Ok(join(pieces).slice(skip..skip + wanted))
}

/// The chunk that a manifest names, whole: its data and where its messages end.
pub(super) async fn whole_chunk(
    context: &Context,
    name: &StreamName,
    incarnation: Incarnation,
    nonce: u128,
) -> Result<chunk::Chunk, Missing> {
    let key = key::chunk(name, incarnation, nonce);
    let object = context.store.get(&key).await.map_err(EngineError::from)?.value;
    let object = object.ok_or_else(|| Missing::Object { key: key.clone() })?;
    chunk::decode(nonce, &object.body).map_err(|error| EngineError::Damaged { key, what: error.0 }.into())
}
