//! Forking: a new stream that names the chunks of another one.
//!
//! In this order, so that nothing is deleted that a fork needs, whoever dies in between:
//!
//! 1. The source's log takes in a *reference*: bytes before the fork's position are needed.
//! 2. The source is sealed. Its manifest names all those bytes, and whoever seals it next has read of the reference, and
//!    neither merges nor deletes what it covers.
//! 3. The fork's log takes in the fork, which names the source's chunks and has a copy of what is in the manifest itself.
//!
//! A fork that is gone tells its source before its manifest forgets where it came from. A reference of which nothing came
//! is dropped by the collector.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::access::{ask, confirm};
use super::context::Context;
use super::error::{no_answer, stopping};
use super::handle::{Message, Witness};
use super::read;
use super::state::{Base, Committed};
use super::submit::{Refusal, came_to_nothing, needs_outcome};
use super::{Admission, Engine, EngineError};
use crate::layout::checkpoint::Release;
use crate::layout::manifest::{ChunkRef, Inline, Manifest};
use crate::layout::{Damaged, chunk, facts, key};
use crate::protocol::fork::{self, ForkId, ForkRequest, Origin};
use crate::protocol::stream::{AddFork, Body, Branch, Command, Create, Data, Inherited, Outcome};
use crate::protocol::{Incarnation, Rejection, Stream, StreamName, page};
use crate::store::StoreTime;

/// Attempts to seal a stream that is being sealed, and the pause between them.
const SEAL_ATTEMPTS: u32 = 40;
const SEAL_PAUSE: Duration = Duration::from_millis(25);

impl Engine {
    /// PUT with `Stream-Forked-From`: makes the fork, or finds that it exists as it was asked for.
    pub async fn fork(
        &self,
        name: &StreamName,
        request: ForkRequest,
        mut body: Body,
        admission: Admission,
    ) -> Result<Outcome, EngineError> {
        match self.submit(name, Command::FindFork(request.clone()), None, None).await {
            Err(Refusal::Error(EngineError::Rejected(Rejection::NotFound))) => {}
            found => return needs_outcome(found?),
        }
        let id = ForkId { name: name.clone(), incarnation: self.new_incarnation() };
        let prepared_at = self.0.context.store.last_seen();
        let reserved = self.reserve(&id, &request, prepared_at).await?;
        let made = async {
            let source = self.reseal(&request.source).await?;
            let (stream, branch) = self.branch(&request, &source, &reserved, prepared_at)?;
            let uploaded = self.upload_if_large(name, id.incarnation, &mut body).await?;
            let create = Create {
                incarnation: id.incarnation,
                content_type: stream.content_type.clone(),
                lifetime: request.lifetime.unwrap_or(stream.lifetime),
                closed: request.closed,
                body,
                fork: Some(Box::new(branch)),
                retention: request.retention,
            };
            let outcome = self.submit(name, Command::Create(create), uploaded, Some(admission)).await;
            self.discard_if_unused(name, uploaded, &outcome);
            outcome
        };
        let outcome = made.await;
        if came_to_nothing(&outcome) {
            self.give_up(&request.source, id).await;
        }
        needs_outcome(outcome?)
    }

    /// The stream that is to be forked.
    pub async fn source(&self, name: &StreamName) -> Result<Arc<Stream>, EngineError> {
        self.stat(name).await.map_err(of_source)
    }

    /// Step 1. Returns what the source was like then; its tail is where the fork branches off.
    async fn reserve(&self, id: &ForkId, request: &ForkRequest, since: StoreTime) -> Result<Outcome, EngineError> {
        let beyond = self.beyond(request).await?;
        let add = AddFork {
            fork: id.clone(),
            offset: request.requested.offset,
            beyond,
            content_type: request.content_type.clone(),
            since: since.0,
        };
        match self.submit(&request.source, Command::AddFork(add), None, None).await {
            // It has changed since its messages were counted.
            Err(Refusal::Error(EngineError::Rejected(Rejection::Replaced { .. }))) => Err(no_answer()),
            added => needs_outcome(added?),
        }
    }

    /// Nothing came of a fork whose reference is in the source's log. If this does not get there, the collector will.
    async fn give_up(&self, source: &StreamName, fork: ForkId) {
        let Ok(there) = self.cell(source, false).await else { return };
        let incarnation = there.lock().stream.as_ref().map(|stream| stream.incarnation);
        if let Some(source_incarnation) = incarnation {
            self.submit_quietly(source, Command::DropFork { source: source_incarnation, fork });
        }
    }

    /// Seals a stream with all that its log has of it, now. Returns its manifest.
    pub(super) async fn reseal(&self, name: &StreamName) -> Result<Base, EngineError> {
        let (_, shard) = self.shard(name);
        for _ in 0..SEAL_ATTEMPTS {
            // The shard needs the manifest for it.
            drop(self.cell(name, true).await?);
            let reseal = |reply: oneshot::Sender<Base>| Message::Reseal { name: name.clone(), reply };
            if let Ok(base) = ask(shard, reseal, self.patience()).await {
                return Ok(base);
            }
            // It was being sealed, or someone else's manifest came first.
            tokio::time::sleep(SEAL_PAUSE).await;
        }
        Err(no_answer())
    }

    /// Step 3, prepared: the source as it was sealed, and what the fork has of it.
    fn branch(
        &self,
        request: &ForkRequest,
        source: &Base,
        reserved: &Outcome,
        prepared_at: StoreTime,
    ) -> Result<(Stream, Branch), EngineError> {
        let (stream, manifest) = sealed(&request.source, source)?;
        let (position, horizon) = (reserved.tail.position, reserved.horizon);
        let origin = Origin {
            source: ForkId { name: request.source.clone(), incarnation: stream.incarnation },
            requested: request.requested,
            lineage: fork::lineage(&stream, position),
        };
        let clip = Clip { owner: origin.source.clone(), position, page_bytes: self.0.context.page_bytes };
        let damaged = |error: Damaged| EngineError::Damaged { key: key::manifest(&request.source), what: error.0 };
        // Some may have been let go since the reference was taken: those are kept for it. What is kept for others may end
        // long before.
        let wanted = manifest.named().filter(|chunk| chunk.end() > horizon);
        let inherited = clip.chunks(wanted).map_err(damaged)?;
        let rest = manifest.inline.as_ref().map(|inline| clip.inline(inline)).unwrap_or_default();
        let start = inherited.first().map_or(horizon, |run| run.start);
        let end = inherited.iter().try_fold(start, |at, run| (run.start == at).then_some(at + run.len));
        if start > horizon || end.map(|end| end + rest.data.len()) != Some(position) {
            return Err(no_answer());
        }
        let branch = Branch {
            request: request.clone(),
            origin: Arc::new(origin),
            inherited: inherited.into(),
            rest,
            horizon,
            prepared_at: prepared_at.0,
        };
        Ok((stream, branch))
    }

    /// How many bytes `Stream-Fork-Sub-Offset` is past `Stream-Fork-Offset`, and in which stream.
    async fn beyond(&self, request: &ForkRequest) -> Result<Option<(u64, Incarnation)>, EngineError> {
        let sub_offset = request.requested.sub_offset;
        if sub_offset == 0 {
            return Ok(None);
        }
        let too_far = || Rejection::ForkOffset { what: "Stream-Fork-Sub-Offset is past the next message" };
        let offset = request.requested.offset.ok_or_else(too_far)?;
        // What others have appended meanwhile may be what is asked for.
        let (_, shard) = self.shard(&request.source);
        confirm(shard, Instant::now(), Witness::Store, self.patience()).await?;
        let begin = |committed: &Committed| {
            let source = self.alive(committed)?;
            let start = fork::position(&source, Some(offset))?;
            Ok((source, start))
        };
        let (source, start) = self.look(&request.source, begin, |_| true).await.map_err(of_source)?;
        let base = self.reseal(&request.source).await?;
        let (sealed, manifest) = sealed(&request.source, &base)?;
        if sealed.incarnation != source.incarnation {
            return Err(no_answer());
        }
        let is_json = source.content_type.is_json();
        let wanted = if is_json { usize::try_from(sub_offset).unwrap_or(usize::MAX) } else { 1 };
        let owner = ForkId { name: request.source.clone(), incarnation: sealed.incarnation };
        let ends = self.ends_after(&owner, &manifest, start, wanted).await?;
        let last = ends.last().copied().filter(|_| ends.len() == wanted).ok_or_else(too_far)?;
        match is_json {
            true => Ok(Some((last - start, sealed.incarnation))),
            false if start.saturating_add(sub_offset) <= last => Ok(Some((sub_offset, sealed.incarnation))),
            false => Err(too_far().into()),
        }
    }

    /// Where the next messages after `start` end, up to `wanted` of them.
    async fn ends_after(
        &self,
        of: &ForkId,
        manifest: &Manifest,
        start: u64,
        wanted: usize,
    ) -> Result<Vec<u64>, EngineError> {
        let mut found = Vec::new();
        for named in manifest.chunks.iter().filter(|chunk| chunk.end() > start) {
            if found.len() >= wanted {
                return Ok(found);
            }
            let key = read::chunk_key(&of.name, of.incarnation, named.nonce, named.foreign.as_ref())?;
            let whole = named.whole();
            let at = chunk::index_start(whole);
            let index = self.0.context.store.get_range(&key, at..at + chunk::LONGEST_INDEX).await?.value;
            // It may have been merged with others meanwhile.
            let index = index.ok_or_else(no_answer)?;
            let ends = chunk::decode_index(named.nonce, &index, whole);
            let ends = ends.map_err(|error| EngineError::Damaged { key, what: error.0 })?;
            let ends = ends.into_iter().map(|end| (named.start + u64::from(end)).min(named.end()));
            found.extend(ends.filter(|end| *end > start).take(wanted - found.len()));
            found.dedup();
        }
        if let Some(inline) = &manifest.inline {
            let ends = inline.ends.iter().map(|end| inline.start + u64::from(*end));
            found.extend(ends.filter(|end| *end > start).take(wanted.saturating_sub(found.len())));
        }
        Ok(found)
    }
}

/// What is wrong with the source of a fork, instead of with the fork.
fn of_source(error: EngineError) -> EngineError {
    match error {
        EngineError::Rejected(rejection) => rejection.of_source().into(),
        error => error,
    }
}

fn sealed(name: &StreamName, base: &Base) -> Result<(Stream, Arc<Manifest>), EngineError> {
    let manifest = base.manifest.clone().ok_or(Rejection::NoSource)?;
    let facts = manifest.stream.clone().ok_or(Rejection::NoSource)?;
    let stream = Stream::try_from(facts);
    let stream = stream.map_err(|error| EngineError::Damaged { key: key::manifest(name), what: error.0 })?;
    Ok((stream, manifest))
}

/// What of a source's manifest lies before a position.
struct Clip {
    owner: ForkId,
    position: u64,
    page_bytes: u64,
}

impl Clip {
    fn chunks<'a>(&self, chunks: impl Iterator<Item = &'a ChunkRef>) -> Result<Vec<Inherited>, Damaged> {
        let before = chunks.take_while(|chunk| chunk.start < self.position);
        before.map(|chunk| self.chunk(chunk)).collect()
    }

    fn chunk(&self, chunk: &ChunkRef) -> Result<Inherited, Damaged> {
        let end = chunk.end().min(self.position);
        let owner = chunk.foreign.as_ref().map_or(Ok(self.owner.clone()), |foreign| foreign.owner())?;
        let mut page_ends: Vec<u64> =
            chunk.page_ends(self.page_bytes).take_while(|page_end| *page_end <= end).collect();
        let at = page_ends.last().copied().unwrap_or(chunk.start);
        // Where the fork branches off, a message ends, and so may a page.
        if end == self.position && at < end && page::target(at, self.page_bytes) <= end {
            page_ends.push(end);
        }
        Ok(Inherited {
            owner,
            start: chunk.start,
            len: end - chunk.start,
            at: chunk.at,
            nonce: chunk.nonce,
            whole: chunk.whole(),
            page_ends,
        })
    }

    fn inline(&self, inline: &Inline) -> Body {
        let len = self.position.saturating_sub(inline.start).min(inline.data.len() as u64) as usize;
        let mut ends: Vec<u32> = inline.ends.iter().copied().filter(|end| *end as usize <= len).collect();
        if len > ends.last().map_or(0, |end| *end as usize) {
            ends.push(len as u32);
        }
        Body { data: Data::Inline(Bytes::copy_from_slice(&inline.data[..len])), ends }
    }
}

/// Tells the sources of forks that are gone.
pub(super) async fn release(context: &Context, name: &StreamName, releases: &[Release]) -> Result<(), EngineError> {
    for release in releases {
        let engine = context.engine.get().and_then(std::sync::Weak::upgrade).map(Engine).ok_or_else(stopping)?;
        let damaged = |error: Damaged| EngineError::Damaged { key: key::manifest(name), what: error.0 };
        let source = facts::fork_id(&release.source, release.source_incarnation).map_err(damaged)?;
        let fork = facts::fork_id(name.as_str(), release.incarnation).map_err(damaged)?;
        let drop = Command::DropFork { source: source.incarnation, fork };
        engine.submit(&source.name, drop, None, None).await?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "fork_tests.rs"]
mod tests;
