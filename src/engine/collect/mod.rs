//! Garbage: what nothing names and nothing will name, and streams whose time is over.
//!
//! A chunk is uploaded before the entry or the manifest that names it is written, so one that nothing names may be about
//! to be named. It is deleted only when that has become impossible, in this order:
//!
//! 1. It was written longer than the grace period ago, and the manifest does not name it.
//! 2. *A fence*: an entry of this replica is placed in the stream's log. What still wants to be placed at or below it
//!    can't be any more; and whoever forms an entry after it has read it, so knows the store's time, and does not name a
//!    chunk that is older than half of the grace period (`stage::UPLOAD_PART`).
//! 3. *Another fence*: the stream's manifest is written anew. An older attempt to replace it is refused from now on, and a
//!    later one is made by someone who has read this one, and uploads chunks of its own.
//! 4. Neither the new manifest nor the log up to now names it.
//!
//! A stream of which there is neither a manifest nor a record has no second fence, and needs none: whoever is about to
//! write its first manifest has read a record that creates it, after the first fence, and all its chunks are young.
//!
//! All ages are by the store's clock: when an object was written against when it answered.

mod turn;

use std::collections::{BTreeMap, HashSet};

use futures::lock::Mutex;
use futures::{StreamExt, TryStreamExt};

use super::access::ask;
use super::context::Context;
use super::handle::Message;
use super::load;
use super::state::Committed;
use super::walk::{Folder, Folders, Found, Pages};
use super::{Engine, EngineError, no_answer, retention};
use crate::layout::Damaged;
use crate::layout::checkpoint::Nonce;
use crate::layout::key::{self, Key};
use crate::layout::manifest::Manifest;
use crate::protocol::fork::{ForkId, Reference};
use crate::protocol::stream::Command;
use crate::protocol::{Stream, StreamName};
use crate::store::{Listed, StoreTime};

pub(super) use turn::start;

/// Streams looked at, and objects removed, at a time.
const AT_A_TIME: usize = 8;

/// Something that was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// An object's key; for an expired stream, its manifest's.
    pub key: String,
    pub bytes: u64,
    pub why: &'static str,
}

/// What a round found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chunks that nothing names.
    pub chunks: u64,
    /// Streams whose time is over.
    pub expired: u64,
    /// Streams whose first bytes are not kept any more.
    pub trimmed: u64,
    /// References to forks that do not exist.
    pub references: u64,
    /// Log objects below the checkpoint.
    pub entries: u64,
    /// What a start-up probe left behind.
    pub probes: u64,
    pub bytes: u64,
    /// Streams with garbage that could not be removed this time.
    pub left: u64,
}

/// Told of each piece of garbage.
pub type Tell<'a> = &'a (dyn Fn(&Garbage) + Send + Sync);

impl Engine {
    /// Looks through the whole bucket for garbage, and removes it if `remove`. Safe at any moment, whatever else runs.
    pub async fn collect(&self, remove: bool, tell: Tell<'_>) -> Result<Collected, EngineError> {
        let round = Round { engine: self, remove, tell, fences: Mutex::default(), collected: Mutex::default() };
        round.run().await?;
        Ok(round.collected.into_inner())
    }
}

struct Round<'a> {
    engine: &'a Engine,
    remove: bool,
    tell: Tell<'a>,
    /// The shards in whose logs this round has placed an entry, and when that was formed.
    fences: Mutex<BTreeMap<u32, StoreTime>>,
    collected: Mutex<Collected>,
}

impl Round<'_> {
    fn context(&self) -> &Context {
        &self.engine.0.context
    }

    async fn run(&self) -> Result<(), EngineError> {
        self.probes().await?;
        for shard in 0..self.context().shards {
            // One that nobody has used since the start is not loaded, and what is only in its log has nobody who seals it.
            self.engine.wake(shard).await;
            self.old_entries(shard).await?;
        }
        let mut folders = Folders::of(self.context());
        while let Some(some) = folders.next().await? {
            futures::stream::iter(some).for_each_concurrent(AT_A_TIME, |folder| self.look_into(folder)).await;
        }
        Ok(())
    }

    async fn probes(&self) -> Result<(), EngineError> {
        let mut pages = Pages::of(self.context(), key::PROBES);
        while let Some(page) = pages.next().await? {
            for item in page.into_iter().filter(|item| self.is_old(self.now(), item.modified)) {
                if Key::parse(&item.key) == Some(Key::Probe) {
                    let why = "left behind by a start-up probe";
                    self.remove(Garbage { key: item.key, bytes: item.size, why }, |sum| &mut sum.probes).await?;
                }
            }
        }
        Ok(())
    }

    /// Log objects that were to be deleted when the checkpoint was written, or landed there since.
    async fn old_entries(&self, shard: u32) -> Result<(), EngineError> {
        let truncated = load::read_checkpoint(self.context(), shard).await?.truncated();
        let mut pages = Pages::of(self.context(), key::logs(shard));
        while let Some(page) = pages.next().await? {
            let is_old = |item: &Listed| matches!(Key::parse(&item.key), Some(Key::Log { position, .. }) if position < truncated);
            let (old, needed): (Vec<Listed>, Vec<Listed>) = page.into_iter().partition(is_old);
            let removals = old.into_iter().map(|Listed { key, size, .. }| {
                self.remove(Garbage { key, bytes: size, why: "below the checkpoint" }, |sum| &mut sum.entries)
            });
            futures::stream::iter(removals).buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
            if needed.iter().any(|item| Key::parse(&item.key).is_some()) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn look_into(&self, folder: Folder) {
        let name = folder.name.clone();
        if let Err(error) = self.clean(folder).await {
            tracing::warn!(folder = name, %error, "stream left for the next round");
            self.collected.lock().await.left += 1;
        }
    }

    async fn clean(&self, folder: Folder) -> Result<(), EngineError> {
        let mut name = key::name_of(&folder.name);
        let mut unnamed = folder.chunks.clone();
        if folder.has_manifest
            && let Some((own, base)) = load::manifest_in(self.context(), &folder.name).await?
        {
            if let Some(manifest) = &base.manifest {
                leave_out(&mut unnamed, &manifest.own_chunks().collect());
                self.manifest(&own, manifest, &folder).await?;
            }
            name = Some(own);
        }
        unnamed.retain(|chunk| self.is_old(self.now(), chunk.modified));
        if unnamed.is_empty() {
            return Ok(());
        }
        let cell = match &name {
            Some(name) => Some(self.engine.cell(name, true).await?),
            None => None,
        };
        let is_heard_of = cell.as_ref().is_some_and(|cell| is_heard_of(&cell.lock()));
        if !is_heard_of && folder.is_of_a_stream() {
            return Err(damaged(&folder, "it is missing: there are chunks of its stream".to_owned()));
        }
        if let Some(cell) = cell {
            leave_out(&mut unnamed, &named_by_all(&cell.lock()));
        }
        let garbage = match name {
            Some(name) if self.remove => self.fenced(&name, unnamed).await?,
            Some(_) => unnamed,
            None => self.nameless(&folder, unnamed).await?,
        };
        for Found { key, size, .. } in garbage {
            self.remove(Garbage { key, bytes: size, why: "nothing names it" }, |sum| &mut sum.chunks).await?;
        }
        Ok(())
    }

    /// What a manifest says that need not be any more.
    async fn manifest(&self, name: &StreamName, manifest: &Manifest, folder: &Folder) -> Result<(), EngineError> {
        let Some(facts) = manifest.stream.clone() else { return Ok(()) };
        let stream = Stream::try_from(facts).map_err(|Damaged(what)| damaged(folder, what))?;
        self.expire(name, &stream, folder).await?;
        self.drop_dangling(name, &stream).await?;
        if stream.retention.age_seconds.is_some() {
            self.trim(name, manifest).await?;
        }
        Ok(())
    }

    /// Ends a stream whose time is over: nobody may ever ask for it again. The log has the last word.
    async fn expire(&self, name: &StreamName, stream: &Stream, folder: &Folder) -> Result<(), EngineError> {
        if stream.is_alive(self.engine.now()) || stream.is_gone {
            return Ok(());
        }
        if self.remove {
            self.engine.submit(name, Command::Expire, None, None).await?;
        }
        let current = self.engine.cell(name, false).await?.lock().stream.clone();
        // It may have been used since, or only this machine's clock is ahead.
        if current.is_some_and(|stream| self.remove || stream.is_alive(self.engine.now())) {
            return Ok(());
        }
        if self.remove {
            // Its chunks go with it.
            self.engine.reseal(name).await?;
        }
        let bytes = folder.chunks.iter().map(|chunk| chunk.size).sum();
        let garbage = Garbage { key: key::manifest(name), bytes, why: "the stream's time is over" };
        self.count(&garbage, |sum| &mut sum.expired).await;
        Ok(())
    }

    /// Drops references of forks that did not come to be, or whose end was not heard of. A fork that is about to be
    /// created is refused if its reference is older than half of the grace period.
    async fn drop_dangling(&self, name: &StreamName, source: &Stream) -> Result<(), EngineError> {
        for (fork, reference) in source.forks.iter() {
            if !self.is_dangling(self.now(), fork, reference).await? {
                continue;
            }
            if self.remove {
                let (number, _) = self.engine.shard(&fork.name);
                let fence = self.fence(number).await?;
                if !self.is_dangling(fence, fork, reference).await? {
                    continue;
                }
                let drop = Command::DropFork { source: source.incarnation, fork: fork.clone() };
                self.engine.submit(name, drop, None, None).await?;
            }
            let why = "a fork that it is kept for does not exist";
            self.count(&Garbage { key: key::manifest(name), bytes: 0, why }, |sum| &mut sum.references).await;
        }
        Ok(())
    }

    async fn is_dangling(&self, now: StoreTime, fork: &ForkId, held: &Reference) -> Result<bool, EngineError> {
        if now.since(StoreTime(held.since)) <= self.context().settings.grace * 2 {
            return Ok(false);
        }
        let there = self.engine.cell(&fork.name, false).await?.lock().stream.clone();
        Ok(there.is_none_or(|stream| stream.incarnation != fork.incarnation))
    }

    /// A stream that nobody writes to is trimmed by nobody else.
    async fn trim(&self, name: &StreamName, manifest: &Manifest) -> Result<(), EngineError> {
        let Some(trim) = retention::trim(self.context(), manifest) else { return Ok(()) };
        let past = manifest.chunks.iter().take_while(|chunk| chunk.end() <= trim.horizon);
        let bytes = past.map(|chunk| chunk.len).sum();
        if self.remove {
            self.engine.submit(name, Command::Trim(trim), None, None).await?;
            self.engine.reseal(name).await?;
        }
        let garbage = Garbage { key: key::manifest(name), bytes, why: "its first bytes are older than they are kept" };
        self.count(&garbage, |sum| &mut sum.trimmed).await;
        Ok(())
    }

    /// Those of `chunks` that nothing names and nothing will name.
    async fn fenced(&self, name: &StreamName, mut chunks: Vec<Found>) -> Result<Vec<Found>, EngineError> {
        if chunks.is_empty() {
            return Ok(chunks);
        }
        let (number, _) = self.engine.shard(name);
        let fence = self.fence(number).await?;
        chunks.retain(|chunk| self.is_old(fence, chunk.modified));
        if !is_heard_of(&self.engine.refresh(name).await?.lock()) {
            return Ok(chunks);
        }
        let base = self.engine.reseal(name).await?;
        let mut named = named_by_all(&self.engine.cell(name, true).await?.lock());
        named.extend(base.manifest.iter().flat_map(|manifest| manifest.own_chunks()));
        leave_out(&mut chunks, &named);
        Ok(chunks)
    }

    /// A folder without a manifest whose name does not tell the stream: it may be one that has no manifest yet.
    async fn nameless(&self, folder: &Folder, mut chunks: Vec<Found>) -> Result<Vec<Found>, EngineError> {
        for number in 0..self.context().shards {
            let fence = self.fence(number).await?;
            chunks.retain(|chunk| self.is_old(fence, chunk.modified));
            let unsealed = self.engine.0.shards[number as usize].view.cells.unsealed();
            if unsealed.iter().any(|(name, _)| key::folder(name) == folder.name) {
                // It will have a manifest soon.
                return Ok(Vec::new());
            }
        }
        // One may have been written since.
        let has_manifest = load::manifest_in(self.context(), &folder.name).await?.is_some();
        Ok(if has_manifest { Vec::new() } else { chunks })
    }

    async fn fence(&self, number: u32) -> Result<StoreTime, EngineError> {
        let mut fences = self.fences.lock().await;
        if let Some(formed_at) = fences.get(&number) {
            return Ok(*formed_at);
        }
        let shard = &self.engine.0.shards[number as usize];
        let formed_at = ask(shard, Message::Fence, self.engine.patience()).await.map_err(|_| no_answer())?;
        fences.insert(number, formed_at);
        Ok(formed_at)
    }

    async fn remove(&self, garbage: Garbage, count: fn(&mut Collected) -> &mut u64) -> Result<(), EngineError> {
        if self.remove {
            self.context().store.delete(&garbage.key).await?;
        }
        self.count(&garbage, count).await;
        Ok(())
    }

    async fn count(&self, garbage: &Garbage, count: fn(&mut Collected) -> &mut u64) {
        (self.tell)(garbage);
        let mut sum = self.collected.lock().await;
        *count(&mut sum) += 1;
        sum.bytes += garbage.bytes;
    }

    fn now(&self) -> StoreTime {
        self.context().store.last_seen()
    }

    fn is_old(&self, now: StoreTime, modified: StoreTime) -> bool {
        now.since(modified) > self.context().settings.grace
    }
}

fn damaged(folder: &Folder, what: String) -> EngineError {
    EngineError::Damaged { key: key::manifest_in(&folder.name), what }
}

/// Whether there is a manifest or a record of the stream, if only of its end.
fn is_heard_of(committed: &Committed) -> bool {
    let has_manifest = committed.base.as_ref().is_some_and(|base| base.manifest.is_some());
    has_manifest || committed.stream.is_some() || committed.is_unsealed()
}

fn leave_out(chunks: &mut Vec<Found>, named: &HashSet<(u64, u128)>) {
    chunks.retain(|chunk| !named.contains(&chunk.id()));
}

/// Incarnations and nonces of the chunks in a stream's own folder that its manifest or the log names.
pub(super) fn named_by_all(committed: &Committed) -> HashSet<(u64, u128)> {
    let manifest = committed.base.as_ref().and_then(|base| base.manifest.as_deref());
    let mut named: HashSet<(u64, u128)> = manifest.into_iter().flat_map(Manifest::own_chunks).collect();
    if let Some(stream) = &committed.stream {
        let uploaded = committed.runs.iter().filter(|run| run.foreign.is_none()).filter_map(|run| run.nonce);
        named.extend(uploaded.map(|Nonce(nonce)| (stream.incarnation.get(), nonce)));
    }
    named
}

#[cfg(test)]
mod tests;
