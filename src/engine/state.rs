//! Committed state: what the bucket says of a shard's streams. One fold for own, foreign and replayed entries.
//!
//! A stream's state is its manifest plus the log's records past the manifest's log position. A [`Cell`] holds what is
//! known of one stream. Cells with records that no manifest has are pinned; the rest is a cache of manifests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::clock::Millis;
use crate::layout::checkpoint::{Nonce, Release, Run, Unsealed};
use crate::layout::entry::Entry;
use crate::layout::manifest::{Foreign, Manifest};
use crate::layout::{Damaged, facts::Facts};
use crate::protocol::stream::{self, Appended, Data, Effect, Inherited};
use crate::protocol::{Stream, StreamName, page};
use crate::store::Version;

/// What is known of one stream, shared by the shard's task, which changes it, and by readers.
#[derive(Debug, Default)]
pub(super) struct Cell(Mutex<Committed>);

impl Cell {
    pub fn lock(&self) -> MutexGuard<'_, Committed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Committed> for Cell {
    fn from(committed: Committed) -> Cell {
        Cell(Mutex::new(committed))
    }
}

/// A manifest as it was read, or the knowledge that there is none.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub manifest: Option<Arc<Manifest>>,
    pub version: Option<Version>,
}

impl Base {
    /// All records of the stream up to this position are in the manifest.
    pub fn log_position(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.log_position)
    }
}

#[derive(Debug, Default)]
pub(super) struct Committed {
    /// The stream after all records read so far. Meaningless while there are `pending` records.
    pub stream: Option<Arc<Stream>>,
    /// The manifest; absent until someone needs it.
    pub base: Option<Base>,
    /// Records that can't be folded before the manifest has been read.
    pending: Vec<(u64, Millis, Effect)>,
    /// Whether `stream` is known without the manifest.
    known: bool,
    /// Where the bytes lie that no manifest names, in order.
    pub runs: VecDeque<Run>,
    /// Page ends among these bytes.
    pub page_ends: VecDeque<u64>,
    /// The position of the last record.
    pub last: u64,
    /// The time of the oldest record that is not in the manifest.
    pub unsealed_since: Option<Millis>,
    /// Chunks uploaded for appends to incarnations that are gone.
    pub garbage: Vec<(u64, u128)>,
    /// Forks under this name that are gone: their sources still have to be told.
    pub releases: Vec<Release>,
}

impl Committed {
    /// Whether `stream` may be looked at.
    pub fn is_known(&self) -> bool {
        self.known || self.base.is_some()
    }

    /// Whether it is known, and its manifest too if that is asked for.
    pub fn is_enough(&self, manifest: bool) -> bool {
        if manifest { self.base.is_some() } else { self.is_known() }
    }

    /// Whether it has records that the manifest lacks.
    pub fn is_unsealed(&self) -> bool {
        self.unsealed_since.is_some()
    }

    /// Bytes in the log.
    pub fn unsealed_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.len).sum()
    }

    /// The manifest, if it is of the stream's present incarnation.
    pub fn own_manifest(&self) -> Option<&Arc<Manifest>> {
        let manifest = self.base.as_ref()?.manifest.as_ref()?;
        let incarnation = self.stream.as_ref()?.incarnation.get();
        (manifest.stream.as_ref()?.incarnation == incarnation).then_some(manifest)
    }

    /// Where the bytes start that are not in the manifest.
    pub fn unsealed_start(&self) -> u64 {
        let tail = self.stream.as_ref().map_or(0, |stream| stream.tail);
        self.runs.front().map_or(tail, |run| run.start)
    }

    /// Takes in a record of the entry at `position`. False if the manifest has it already.
    pub fn fold(&mut self, position: u64, at: Millis, effect: &Effect, page_bytes: u64) -> Result<bool, Damaged> {
        if self.base.as_ref().is_some_and(|base| position <= base.log_position()) {
            return self.check_included(effect).map(|()| false);
        }
        self.last = position;
        self.unsealed_since.get_or_insert(at);
        if !self.is_known() {
            if !matches!(effect, Effect::Created { .. } | Effect::Forked(_)) {
                self.pending.push((position, at, effect.clone()));
                return Ok(true);
            }
            // What was there before does not matter to what there is now.
            self.pending.clear();
            self.known = true;
        }
        self.apply(position, at, effect, page_bytes)?;
        Ok(true)
    }

    /// That the manifest says so is not enough: were the log's end lost, new entries would be where it has been.
    fn check_included(&self, effect: &Effect) -> Result<(), Damaged> {
        let (Effect::Appended(appended), Some(stream)) = (effect, &self.stream) else { return Ok(()) };
        let end = appended.start.saturating_add(appended.body.data.len());
        if appended.incarnation == stream.incarnation && end > stream.tail {
            let tail = stream.tail;
            return Err(Damaged::new(format!(
                "a manifest has its records, but not what is appended up to {end}: only {tail}"
            )));
        }
        Ok(())
    }

    fn apply(&mut self, position: u64, at: Millis, effect: &Effect, page_bytes: u64) -> Result<(), Damaged> {
        let known = self.stream.as_ref().map(|stream| (stream.incarnation, stream.tail));
        match effect {
            Effect::Created { .. } | Effect::Forked(_) => {}
            Effect::Appended(Appended { incarnation, start, .. }) if known == Some((*incarnation, *start)) => {}
            Effect::Appended(Appended { start, .. }) => {
                let tail = known.map_or_else(|| "is not there".to_owned(), |(_, tail)| format!("ends at {tail}"));
                return Err(Damaged::new(format!("it appends at {start} to a stream that {tail}")));
            }
            Effect::Deleted { incarnation }
            | Effect::Touched { incarnation }
            | Effect::RetentionSet { incarnation, .. }
            | Effect::Trimmed { incarnation, .. }
            | Effect::ForkAdded { incarnation, .. }
            | Effect::ForkDropped { incarnation, .. } => {
                if known.is_none_or(|(known, _)| known != *incarnation) {
                    return Err(Damaged::new("it changes a stream that is not there"));
                }
            }
        }
        let before = self.stream.take();
        let incarnation = before.as_ref().map(|stream| stream.incarnation);
        let origin = before.as_ref().and_then(|stream| stream.origin.clone());
        let after = stream::fold(before.map(Arc::unwrap_or_clone), effect, at);
        let gone = incarnation.filter(|old| after.as_ref().is_none_or(|stream| stream.incarnation != *old));
        if let Some(old) = gone {
            let uploaded = self.runs.iter().filter(|run| run.foreign.is_none()).filter_map(|run| run.nonce);
            self.garbage.extend(uploaded.map(|Nonce(nonce)| (old.get(), nonce)));
            self.releases.extend(origin.map(|origin| Release {
                source: origin.source.name.as_str().to_owned(),
                source_incarnation: origin.source.incarnation.get(),
                incarnation: old.get(),
            }));
            self.runs.clear();
            self.page_ends.clear();
        }
        if let (Effect::Appended(appended), Some(stream)) = (effect, &after)
            && appended.incarnation == stream.incarnation
            && !appended.body.data.is_empty()
        {
            self.take_bytes(position, at, appended, page_bytes);
        }
        if let Effect::Forked(forked) = effect {
            self.inherit(position, &forked.inherited);
        }
        self.stream = after.map(Arc::new);
        Ok(())
    }

    fn inherit(&mut self, position: u64, inherited: &[Inherited]) {
        for part in inherited {
            let Inherited { owner, start, len, at, nonce, whole, page_ends } = part;
            let (name, incarnation) = (owner.name.as_str().to_owned(), owner.incarnation.get());
            let foreign = Some(Foreign { name, incarnation, whole: *whole });
            self.runs.push_back(Run {
                start: *start,
                len: *len,
                at: *at,
                position,
                nonce: Some(Nonce(*nonce)),
                foreign,
            });
            self.page_ends.extend(page_ends);
        }
    }

    fn take_bytes(&mut self, position: u64, at: Millis, appended: &Appended, page_bytes: u64) {
        self.page_ends.extend(page::ends_in(appended.start, &appended.body.ends, page_bytes));
        let nonce = match appended.body.data {
            Data::Inline(_) => None,
            Data::Chunk { nonce, .. } => Some(Nonce(nonce)),
        };
        let len = appended.body.data.len();
        match self.runs.back_mut() {
            // An entry holds each stream's inline bytes in one piece.
            Some(run) if run.position == position && run.nonce.is_none() && nonce.is_none() => {
                run.len += len;
                run.at = at;
            }
            _ => self.runs.push_back(Run { start: appended.start, len, at, position, nonce, foreign: None }),
        }
    }

    /// Takes in the manifest as it was read, or written. Older news than what is known changes nothing.
    pub fn rebase(&mut self, base: Base, page_bytes: u64) -> Result<(), Damaged> {
        let sealed_to = base.log_position();
        if self.base.as_ref().is_some_and(|known| known.log_position() > sealed_to) {
            return Ok(());
        }
        if base.manifest.is_none() && !self.pending.is_empty() {
            // A stream of which a checkpoint knows nothing has a manifest, and keeps it for ever.
            return Err(Damaged::new("it is missing, although the log has records of its stream"));
        }
        let manifest_stream = || -> Result<Option<Arc<Stream>>, Damaged> {
            let facts = base.manifest.as_ref().and_then(|manifest| manifest.stream.clone());
            facts.map(|facts| Stream::try_from(facts).map(Arc::new)).transpose()
        };
        if self.is_known() && self.last > sealed_to {
            self.forget_up_to(sealed_to);
        } else if self.is_known() || self.last <= sealed_to {
            // The manifest has all that is known here, and perhaps more.
            let stream = manifest_stream()?;
            *self = Committed { stream, last: sealed_to, ..Committed::default() };
        } else {
            let (last, unsealed_since) = (self.last, self.unsealed_since);
            let mut after = Committed { stream: manifest_stream()?, last, unsealed_since, ..Committed::default() };
            for (position, at, effect) in self.pending.iter().filter(|(position, ..)| *position > sealed_to) {
                after.apply(*position, *at, effect, page_bytes)?;
            }
            // Only now: if it does not follow, the records are still there to contradict the next manifest that is read.
            *self = after;
        }
        self.base = Some(base);
        // Else bytes between the two are lost, and what would be sealed next would say so for good.
        let (sealed, start) = (self.own_manifest().map(|manifest| manifest.end()), self.unsealed_start());
        let horizon = self.stream.as_ref().map_or(0, |stream| stream.horizon);
        if self.stream.is_some() && sealed.map_or(start > horizon, |sealed| sealed != start) {
            let sealed = sealed.unwrap_or(horizon);
            // What the log says stays known: the next who asks must meet the same contradiction.
            (self.known, self.base) = (true, None);
            return Err(Damaged::new(format!("it has bytes up to {sealed}, and the log goes on at {start}")));
        }
        Ok(())
    }

    /// Drops what a manifest at `position` has.
    fn forget_up_to(&mut self, position: u64) {
        while self.runs.front().is_some_and(|run| run.position <= position) {
            self.runs.pop_front();
        }
        let start = self.unsealed_start();
        while self.page_ends.front().is_some_and(|end| *end <= start) {
            self.page_ends.pop_front();
        }
        let touched = self.stream.as_ref().map(|stream| stream.touched_at);
        self.unsealed_since = self.runs.front().map(|run| run.at).or(touched).or(self.unsealed_since);
    }

    /// As a checkpoint keeps it; `None` if that needs the manifest to be read first.
    pub fn to_unsealed(&self, name: &StreamName) -> Option<Unsealed> {
        self.is_known().then(|| Unsealed {
            name: name.as_str().to_owned(),
            last: self.last,
            stream: self.stream.as_deref().map(Facts::from),
            runs: self.runs.iter().cloned().collect(),
            page_ends: self.page_ends.iter().copied().collect(),
            garbage: self.garbage.iter().map(|(incarnation, nonce)| (*incarnation, Nonce(*nonce))).collect(),
            releases: self.releases.clone(),
        })
    }

    /// As a checkpoint kept it, written at time `at`.
    pub fn from_unsealed(unsealed: Unsealed, at: Millis) -> Result<Committed, Damaged> {
        let stream = unsealed.stream.map(Stream::try_from).transpose()?.map(Arc::new);
        let since = unsealed.runs.first().map(|run| run.at).or(stream.as_ref().map(|stream| stream.touched_at));
        Ok(Committed {
            stream,
            known: true,
            runs: unsealed.runs.into(),
            page_ends: unsealed.page_ends.into(),
            last: unsealed.last,
            unsealed_since: Some(since.unwrap_or(at)),
            garbage: unsealed.garbage.into_iter().map(|(incarnation, Nonce(nonce))| (incarnation, nonce)).collect(),
            releases: unsealed.releases,
            ..Committed::default()
        })
    }

    /// Bytes of memory, roughly.
    fn weight(&self) -> u32 {
        let manifest = self.base.as_ref().and_then(|base| base.manifest.as_ref());
        let inline =
            manifest.and_then(|m| m.inline.as_ref()).map_or(0, |inline| inline.data.len() + inline.ends.len() * 4);
        let chunks: usize = manifest.map_or(0, |m| m.chunks.iter().map(|chunk| 80 + chunk.overshoots.len() * 4).sum());
        let producers = |stream: &Arc<Stream>| stream.producers.keys().map(|id| 80 + id.len()).sum::<usize>();
        let forks =
            |stream: &Arc<Stream>| stream.forks.keys().map(|fork| 120 + fork.name.as_str().len()).sum::<usize>();
        let others = self.stream.as_ref().map_or(0, |stream| producers(stream) + forks(stream));
        u32::try_from(600 + inline + chunks + others).unwrap_or(u32::MAX)
    }
}

/// All cells of a shard that are in memory. Changed by the shard's task alone. In order, so that a run can be repeated
/// exactly.
#[derive(Debug)]
pub(super) struct Cells {
    pinned: RwLock<BTreeMap<StreamName, Arc<Cell>>>,
    idle: RwLock<moka::sync::Cache<StreamName, Arc<Cell>>>,
    idle_bytes: u64,
}

impl Cells {
    pub fn new(idle_bytes: u64) -> Cells {
        Cells { pinned: RwLock::default(), idle: RwLock::new(idle_cache(idle_bytes)), idle_bytes }
    }

    fn idle(&self) -> RwLockReadGuard<'_, moka::sync::Cache<StreamName, Arc<Cell>>> {
        self.idle.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, name: &StreamName) -> Option<Arc<Cell>> {
        let pinned = self.pinned.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        pinned.or_else(|| self.idle().get(name))
    }

    /// The stream's cell, from now on pinned.
    fn pin(&self, name: &StreamName) -> Arc<Cell> {
        let mut pinned = self.pinned.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = pinned.get(name) {
            return Arc::clone(cell);
        }
        let cell = self.idle().remove(name).unwrap_or_default();
        pinned.insert(name.clone(), Arc::clone(&cell));
        cell
    }

    /// Takes in a manifest that was read. Returns the stream's cell.
    pub fn rebase(&self, name: &StreamName, base: Base, page_bytes: u64) -> Result<Arc<Cell>, Damaged> {
        let cell = self.get(name).unwrap_or_default();
        cell.lock().rebase(base, page_bytes)?;
        self.settle(name, &cell);
        Ok(cell)
    }

    /// Puts a cell where it belongs.
    fn settle(&self, name: &StreamName, cell: &Arc<Cell>) {
        if cell.lock().is_unsealed() {
            self.pinned.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Arc::clone(cell));
        } else {
            // In this order, so that a reader finds it in one or the other.
            self.idle().insert(name.clone(), Arc::clone(cell));
            self.pinned.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
    }

    /// Folds a valid entry. Returns the streams that look different to readers now.
    pub fn fold(&self, entry: &Entry, page_bytes: u64) -> Result<Vec<StreamName>, Damaged> {
        let mut by_stream: BTreeMap<&StreamName, Vec<&Effect>> = BTreeMap::new();
        for placed in &entry.records {
            by_stream.entry(&placed.record.name).or_default().push(&placed.record.effect);
        }
        let mut changed = Vec::new();
        for (name, effects) in by_stream {
            let cell = self.pin(name);
            // All of a stream's records at once: no reader sees a create without its body.
            let mut committed = cell.lock();
            let mut visible = false;
            for effect in effects {
                let taken = committed.fold(entry.header.position, entry.header.at, effect, page_bytes)?;
                visible |= taken && !matches!(effect, Effect::Touched { .. });
            }
            let is_unsealed = committed.is_unsealed();
            drop(committed);
            if !is_unsealed {
                self.settle(name, &cell);
            }
            if visible {
                changed.push(name.clone());
            }
        }
        Ok(changed)
    }

    /// What a checkpoint kept.
    pub fn restore(&self, name: StreamName, committed: Committed) {
        self.pinned.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(Cell::from(committed)));
    }

    /// Every stream with records that no manifest has.
    pub fn unsealed(&self) -> Vec<(StreamName, Arc<Cell>)> {
        let pinned = self.pinned.read().unwrap_or_else(PoisonError::into_inner);
        pinned.iter().map(|(name, cell)| (name.clone(), Arc::clone(cell))).collect()
    }

    pub fn clear(&self) {
        self.pinned.write().unwrap_or_else(PoisonError::into_inner).clear();
        // A new cache: moka's `remove` still hands out what was invalidated but not swept yet.
        *self.idle.write().unwrap_or_else(PoisonError::into_inner) = idle_cache(self.idle_bytes);
    }
}

fn idle_cache(bytes: u64) -> moka::sync::Cache<StreamName, Arc<Cell>> {
    let name_weight = |name: &StreamName| u32::try_from(name.as_str().len()).unwrap_or(u32::MAX);
    moka::sync::Cache::builder()
        .max_capacity(bytes)
        .weigher(move |name: &StreamName, cell: &Arc<Cell>| cell.lock().weight().saturating_add(name_weight(name)))
        .build()
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
