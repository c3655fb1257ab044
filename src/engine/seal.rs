//! Sealing: a stream's bytes move from the log to chunks of its own, and its manifest takes in what the log says of it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::EngineError;
use super::cas::{self, Replaced};
use super::context::Context;
use super::handle::Uploaded;
use super::load;
use super::read::{self, Owner};
use super::state::{Base, Committed};
use super::tail::Missing;
use crate::clock::Millis;
use crate::layout::checkpoint::{Nonce, Release, Run};
use crate::layout::document::Document;
use crate::layout::facts::Facts;
use crate::layout::manifest::{ChunkRef, Inline, Manifest};
use crate::layout::{Damaged, chunk, document, key};
use crate::protocol::{Incarnation, Stream, StreamName, page};
use crate::store::{Condition, Put, Reply};

/// Sizes that small chunks grow to, in multiples of `merge_bytes`: of the last chunks that are smaller than half of one, as
/// many become one chunk as together reach it. So each byte is rewritten once per size at most, and a long stream's
/// manifest stays small.
const SIZES: [u64; 3] = [1, 8, 64];

/// A stream as it is to be sealed: all its records up to `log_position`.
#[derive(Debug)]
pub(super) struct Plan {
    pub shard: u32,
    pub name: StreamName,
    pub log_position: u64,
    base: Base,
    stream: Option<Arc<Stream>>,
    runs: Vec<Run>,
    page_ends: Vec<u64>,
    garbage: Vec<(u64, u128)>,
    releases: Vec<Release>,
}

/// The outcome.
#[derive(Debug)]
pub(super) enum Sealed {
    Written {
        base: Base,
        garbage: Vec<(u64, u128)>,
        releases: Vec<Release>,
    },
    /// Another replica's manifest came first, or an object that was named is gone: read the manifest again.
    Outdated,
}

impl Plan {
    /// From what is known of a log that was read up to `read_to`. `None` if the manifest has not been read.
    pub fn new(shard: u32, name: &StreamName, read_to: u64, committed: &Committed) -> Option<Plan> {
        let base = committed.base.clone()?;
        Some(Plan {
            shard,
            name: name.clone(),
            // Another replica's manifest may be ahead of this one's reading; then so is what is known of the stream.
            log_position: read_to.max(base.log_position()),
            base,
            stream: committed.stream.clone(),
            runs: committed.runs.iter().cloned().collect(),
            page_ends: committed.page_ends.iter().copied().collect(),
            garbage: committed.garbage.clone(),
            releases: committed.releases.clone(),
        })
    }

    /// Chunks of the manifest's stream, if that is not the present one.
    fn replaced_chunks(&self) -> Vec<(u64, u128)> {
        let Some(manifest) = &self.base.manifest else { return Vec::new() };
        let Some(old) = manifest.stream.as_ref().map(|facts| facts.incarnation) else { return Vec::new() };
        if self.stream.as_ref().is_some_and(|stream| stream.incarnation.get() == old) {
            return Vec::new();
        }
        manifest.own_chunks().collect()
    }
}

pub(super) async fn seal(context: &Context, plan: &Plan) -> Result<Sealed, EngineError> {
    // Before the manifest forgets that there was a fork: told twice does no harm, never told would keep bytes for good.
    super::fork::release(context, &plan.name, &plan.releases).await?;
    let built = match build(context, plan).await {
        Ok(built) => built,
        Err(Missing::Object { key }) => {
            tracing::info!(key, "object named by an old manifest is gone, reading the manifest again");
            return Ok(Sealed::Outdated);
        }
        Err(Missing::Failed(error)) => return Err(error),
    };
    let write_id = context.ids.id();
    let body = document::encode(&built.manifest, write_id);
    let condition = plan.base.version.clone().map_or(Condition::Absent, Condition::Unchanged);
    match cas::replace(context, &key::manifest(&plan.name), &body, write_id, condition).await? {
        Replaced::Written(version) => {
            let tail = built.manifest.stream.as_ref().map(|facts| facts.tail);
            tracing::debug!(stream = %plan.name, log_position = plan.log_position, tail, "stream sealed");
            delete_chunks(context, &plan.name, &plan.replaced_chunks()).await;
            delete_chunks(context, &plan.name, &plan.garbage).await;
            delete_chunks(context, &plan.name, &built.dropped).await;
            let base = Base { manifest: Some(Arc::new(built.manifest)), version: Some(version) };
            Ok(Sealed::Written { base, garbage: plan.garbage.clone(), releases: plan.releases.clone() })
        }
        Replaced::Lost => {
            delete_unnamed(context, &plan.name, &built.uploaded).await;
            Ok(Sealed::Outdated)
        }
    }
}

/// What a name and a nonce in it make unique may be deleted at any time. What fails is left for `headwater gc`.
pub(super) async fn delete_chunks(context: &Context, name: &StreamName, chunks: &[(u64, u128)]) {
    for (incarnation, nonce) in chunks {
        let Some(incarnation) = Incarnation::new(*incarnation) else { continue };
        if let Err(error) = context.store.delete(&key::chunk(name, incarnation, *nonce)).await {
            tracing::warn!(%error, "chunk not deleted");
        }
    }
}

/// Deletes the chunks that the stream's manifest does not name. Only for chunks of a manifest that was refused: either it
/// was never there, and nobody knows them, or it was, and then the one that is there now was made by someone who had
/// read it.
async fn delete_unnamed(context: &Context, name: &StreamName, chunks: &[(u64, u128)]) {
    let Ok(Base { manifest: Some(manifest), .. }) = load::read_manifest(context, name).await else { return };
    let named: HashSet<(u64, u128)> = manifest.own_chunks().collect();
    let unnamed: Vec<(u64, u128)> = chunks.iter().copied().filter(|chunk| !named.contains(chunk)).collect();
    delete_chunks(context, name, &unnamed).await;
}

struct Built {
    manifest: Manifest,
    /// Chunks that this manifest is the first to name.
    uploaded: Vec<(u64, u128)>,
    /// Chunks whose bytes are in one of these now, or not kept any more.
    dropped: Vec<(u64, u128)>,
}

async fn build(context: &Context, plan: &Plan) -> Result<Built, Missing> {
    let manifest = Manifest {
        name: plan.name.as_str().to_owned(),
        log_position: plan.log_position,
        stream: plan.stream.as_deref().map(Facts::from),
        chunks: Vec::new(),
        kept: Vec::new(),
        inline: None,
    };
    let Some(stream) = &plan.stream else { return Ok(Built { manifest, uploaded: vec![], dropped: vec![] }) };
    let mut builder = Builder {
        context,
        plan,
        owner: Owner {
            shard: plan.shard,
            name: &plan.name,
            incarnation: stream.incarnation,
            is_json: stream.content_type.is_json(),
        },
        open: Open::default(),
        built: Built { manifest, uploaded: vec![], dropped: vec![] },
    };
    builder.run(stream.incarnation).await?;
    let damaged = |error: Damaged| EngineError::Damaged { key: key::manifest(&plan.name), what: error.0 };
    builder.built.manifest.check().map_err(damaged)?;
    Ok(builder.built)
}

/// Bytes that are not in a chunk yet.
#[derive(Default)]
struct Open {
    start: u64,
    pieces: Vec<Bytes>,
    ends: Vec<u32>,
    len: u64,
    at: Millis,
}

impl Open {
    fn push(&mut self, start: u64, at: Millis, data: Bytes, ends: impl Iterator<Item = u32>) {
        if self.pieces.is_empty() {
            self.start = start;
        }
        let before = u32::try_from(self.len).unwrap_or(u32::MAX);
        self.ends.extend(ends.map(|end| before.saturating_add(end)));
        self.len += data.len() as u64;
        self.at = at;
        self.pieces.push(data);
    }
}

struct Builder<'a> {
    context: &'a Context,
    plan: &'a Plan,
    owner: Owner<'a>,
    open: Open,
    built: Built,
}

impl Builder<'_> {
    async fn run(&mut self, incarnation: Incarnation) -> Result<(), Missing> {
        let own = |manifest: &&Arc<Manifest>| {
            manifest.stream.as_ref().is_some_and(|facts| facts.incarnation == incarnation.get())
        };
        if let Some(base) = self.plan.base.manifest.as_ref().filter(own) {
            self.built.manifest.chunks.clone_from(&base.chunks);
            self.built.manifest.kept.clone_from(&base.kept);
            if let Some(inline) = &base.inline {
                self.open.push(inline.start, inline.at, inline.data.clone(), inline.ends.iter().copied());
            }
        }
        for run in &self.plan.runs {
            match run.nonce {
                None => {
                    // However much has come meanwhile: not all of it at once in memory.
                    if self.open.len + run.len > self.context.settings.seal_bytes {
                        self.close_chunk().await?;
                    }
                    self.take_from_log(run).await?;
                }
                Some(Nonce(nonce)) => {
                    self.close_chunk().await?;
                    let page_ends: Vec<u64> = self.page_ends_in(run.start, run.start + run.len);
                    let overshoots = ChunkRef::overshoots(run.start, &page_ends, self.context.page_bytes);
                    let Run { start, len, at, .. } = *run;
                    let chunk = ChunkRef { start, len, nonce, at, overshoots, foreign: run.foreign.clone() };
                    self.built.manifest.chunks.push(chunk);
                }
            }
        }
        if self.open.len > self.context.settings.inline_bytes {
            self.close_chunk().await?;
        } else if self.open.len > 0 {
            let open = std::mem::take(&mut self.open);
            let data = Bytes::from(open.pieces.concat());
            self.built.manifest.inline = Some(Inline { start: open.start, data, ends: open.ends, at: open.at });
        }
        self.let_go();
        self.merge().await
    }

    /// Leaves out the chunks before the stream's horizon, but for what its forks need.
    fn let_go(&mut self) {
        let Some(stream) = &self.plan.stream else { return };
        let manifest = &mut self.built.manifest;
        let past = manifest.chunks.partition_point(|chunk| chunk.end() <= stream.horizon);
        // The last one stays, or the bytes after it would seem to follow nothing.
        let past = past.min(manifest.chunks.len().saturating_sub(1));
        manifest.kept.extend(manifest.chunks.drain(..past));
        let frozen = stream.frozen();
        for chunk in manifest.kept.extract_if(.., |chunk| chunk.foreign.is_some() || chunk.start >= frozen) {
            if chunk.foreign.is_none() {
                self.built.dropped.push((self.owner.incarnation.get(), chunk.nonce));
            }
        }
    }

    async fn take_from_log(&mut self, run: &Run) -> Result<(), Missing> {
        let entry = self.context.tails.entry(&self.context.store, self.plan.shard, run.position).await?;
        let piece = entry.piece(self.owner.name, self.owner.incarnation, run.start, run.len);
        let piece = piece.ok_or_else(|| EngineError::Damaged {
            key: key::log(self.plan.shard, run.position),
            what: format!("it lacks bytes of stream {}", self.plan.name),
        })?;
        // A slice would keep the whole log object in memory until all of the stream's bytes are together.
        let data = Bytes::copy_from_slice(&piece.data);
        self.open.push(run.start, run.at, data, piece.ends.iter().copied());
        Ok(())
    }

    fn page_ends_in(&self, start: u64, end: u64) -> Vec<u64> {
        self.plan.page_ends.iter().copied().filter(|at| start < *at && *at <= end).collect()
    }

    /// Uploads the open bytes, if any, and names them after the chunks so far.
    async fn close_chunk(&mut self) -> Result<(), Missing> {
        if self.open.len > 0 {
            let chunk = self.upload_open().await?;
            self.built.manifest.chunks.push(chunk);
        }
        Ok(())
    }

    async fn upload_open(&mut self) -> Result<ChunkRef, Missing> {
        let open = std::mem::take(&mut self.open);
        let Owner { name, incarnation, .. } = self.owner;
        let Uploaded { nonce, .. } = upload(self.context, name, incarnation, &open.pieces, &open.ends).await?;
        self.built.uploaded.push((self.owner.incarnation.get(), nonce));
        let page_ends = page::ends_in(open.start, &open.ends, self.context.page_bytes);
        let overshoots = ChunkRef::overshoots(open.start, &page_ends, self.context.page_bytes);
        Ok(ChunkRef { start: open.start, len: open.len, nonce, at: open.at, overshoots, foreign: None })
    }

    /// Makes one chunk of some of the last ones, if together they are large enough.
    async fn merge(&mut self) -> Result<(), Missing> {
        let chunks = &self.built.manifest.chunks;
        // Not what is another stream's, and not what forks of this one name.
        let frozen = self.plan.stream.as_ref().map_or(0, |stream| stream.frozen());
        let is_bound = |chunk: &ChunkRef| chunk.foreign.is_some() || chunk.start < frozen;
        let free = chunks.iter().rposition(is_bound).map_or(0, |last| last + 1);
        // What is to be let go in pieces must not be in one.
        let retained = self.plan.stream.as_ref().and_then(|stream| stream.retention.bytes).unwrap_or(u64::MAX);
        let unit = self.context.settings.merge_bytes;
        let Some(small) = mergeable(&chunks[free..], unit, retained / 4) else { return Ok(()) };
        let merged = free + small.start..free + small.end;
        // It takes several times its bytes in memory; what is not merged now will be another time.
        let Ok(_turn) = self.context.merging.try_acquire() else { return Ok(()) };
        let small = chunks[merged.clone()].to_vec();
        for old in &small {
            let read = read::whole_chunk(self.context, self.owner.name, self.owner.incarnation, old.nonce).await;
            let whole = match read {
                Ok(whole) => whole,
                Err(error) => return self.leave_unmerged(error),
            };
            let data = Bytes::from(whole.blocks.concat());
            self.open.push(old.start, old.at, data, whole.ends.into_iter());
        }
        let chunk = self.upload_open().await?;
        self.built.dropped.extend(small.iter().map(|old| (self.owner.incarnation.get(), old.nonce)));
        self.built.manifest.chunks.splice(merged, [chunk]);
        Ok(())
    }

    /// A chunk that is lost or damaged must not hold up the bytes that came after it. If it is only not where an outdated
    /// manifest says, that manifest won't be replaced.
    fn leave_unmerged(&mut self, error: Missing) -> Result<(), Missing> {
        match error {
            Missing::Object { key } | Missing::Failed(EngineError::Damaged { key, .. }) => {
                tracing::warn!(stream = %self.owner.name, key, "chunk can't be read, and so not be merged with others");
                self.open = Open::default();
                Ok(())
            }
            error @ Missing::Failed(_) => Err(error),
        }
    }
}

/// Which of the last chunks to merge, into one of at most one and a half times `largest` bytes.
fn mergeable(chunks: &[ChunkRef], unit: u64, largest: u64) -> Option<Range<usize>> {
    let reaches = |size: u64| {
        let first = chunks.iter().rposition(|chunk| chunk.len >= size / 2).map_or(0, |large| large + 1);
        let mut total = 0;
        let is_enough = |chunk: &ChunkRef| {
            total += chunk.len;
            total >= size
        };
        let last = chunks[first..].iter().position(is_enough)?;
        Some(first..first + last + 1)
    };
    let sizes = SIZES.iter().rev().map(|times| times * unit);
    sizes.filter(|size| *size <= largest.max(unit)).find_map(reaches)
}

/// Uploads a chunk under a fresh name.
pub(super) async fn upload(
    context: &Context,
    name: &StreamName,
    incarnation: Incarnation,
    pieces: &[Bytes],
    ends: &[u32],
) -> Result<Uploaded, EngineError> {
    let nonce = context.ids.id();
    let object = chunk::encode(nonce, pieces.iter(), ends);
    let key = key::chunk(name, incarnation, nonce);
    let first_sent = context.store.last_seen();
    let mut attempt = 0;
    loop {
        match context.store.put(&key, object.clone(), Condition::Absent).await {
            Ok(Reply { value: Put::Written(_), at }) => return Ok(Uploaded { incarnation, nonce, at }),
            // It can only be an earlier attempt of this upload, any of them: nobody else knows the nonce.
            Ok(Reply { value: Put::Conflict, .. }) => return Ok(Uploaded { incarnation, nonce, at: first_sent }),
            Err(error) if attempt < 8 && error.failure().kind.is_transient() => {
                attempt += 1;
                context.pause(attempt, &error).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
