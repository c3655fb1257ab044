//! One shard's checkpoint and log.

use std::collections::{BTreeSet, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::{Check, FOREIGN, Severity, Shard};
use crate::engine::checkpoint::Held;
use crate::engine::load::{self, Loaded};
use crate::engine::state::Cells;
use crate::engine::tail::Missing;
use crate::engine::walk::Pages;
use crate::engine::{EngineError, log};
use crate::layout::checkpoint::{Nonce, Run};
use crate::layout::key::{self, Key};
use crate::protocol::StreamName;
use crate::settings::LONGEST_PIPELINE;

/// Entries read at a time.
const AT_A_TIME: usize = 16;

impl Check<'_> {
    pub(super) async fn log(&self, number: u32) -> Result<Shard, EngineError> {
        let mut shard = Shard { cells: Cells::new(self.context.settings.manifest_cache), head: None };
        match load::load(&self.context, number, &shard.cells).await {
            Ok(Loaded { log, held }) => {
                shard.head = Some(log.next);
                self.count(|checked| checked.entries += log.next - 1 - held.position());
                self.stored_entries(number, Some(log.next), &held).await?;
                for (name, cell) in shard.cells.unsealed() {
                    let runs: Vec<Run> = cell.lock().runs.iter().cloned().collect();
                    self.unsealed(number, &name, &runs, &shard).await?;
                }
            }
            Err(error) => {
                self.damage(error)?;
                // What can be said without a state: the checksums.
                let held = load::read_checkpoint(&self.context, number).await.unwrap_or_default();
                self.stored_entries(number, None, &held).await?;
            }
        }
        Ok(shard)
    }

    /// All log objects there are: those that a load does not read, too, because a replica that is behind needs them.
    async fn stored_entries(&self, number: u32, head: Option<u64>, held: &Held) -> Result<(), EngineError> {
        let (mut present, mut beyond, mut unread) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut pages = Pages::of(&self.context, key::logs(number));
        while let Some(page) = pages.next().await? {
            for item in page {
                let Some(Key::Log { position, .. }) = Key::parse(&item.key) else {
                    self.found(Severity::Foreign, item.key, FOREIGN);
                    continue;
                };
                present.insert(position);
                let was_read = head.is_some_and(|head| held.position() < position && position < head);
                if position < held.truncated() {
                    self.found(Severity::Garbage, item.key, "it is below the checkpoint");
                } else if head.is_some_and(|head| position >= head) {
                    beyond.push(position);
                } else if !was_read {
                    unread.push(position);
                }
            }
        }
        let reads = unread.into_iter().map(|position| self.entry(number, position));
        futures::stream::iter(reads).buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
        let kept = held.truncated().max(1)..=held.position();
        let missing: Vec<u64> = kept.filter(|position| !present.contains(position)).collect();
        if !missing.is_empty() {
            let truncated = load::read_checkpoint(&self.context, number).await?.truncated();
            for position in missing.into_iter().filter(|position| *position >= truncated) {
                self.found(Severity::Damage, key::log(number, position), "it is missing");
            }
        }
        match head {
            Some(head) => self.beyond(number, head, &beyond).await,
            None => Ok(()),
        }
    }

    /// The writer of the entry at a position, if it can be read.
    async fn entry(&self, number: u32, position: u64) -> Result<Option<u128>, EngineError> {
        let key = key::log(number, position);
        let Some(object) = self.context.store.get(&key).await?.value else { return Ok(None) };
        self.count(|checked| {
            (checked.entries, checked.bytes) = (checked.entries + 1, checked.bytes + object.body.len() as u64);
        });
        match log::decode(&key, number, position, &object.body) {
            Ok(entry) => Ok(Some(entry.header.writer)),
            Err(error) => self.damage(error).map(|()| None),
        }
    }

    /// Entries after an absent position. A replica that has several in flight may leave a few behind when it is killed; the
    /// next to write fills the gap, and they are void. More of them, or of several writers, means that the gap was full.
    async fn beyond(&self, number: u32, head: u64, positions: &[u64]) -> Result<(), EngineError> {
        let (Some(first), true) = (positions.first(), self.is_absent(number, head).await?) else { return Ok(()) };
        let mut writers = HashSet::new();
        for position in positions {
            writers.extend(self.entry(number, *position).await?);
        }
        let count = positions.len();
        if writers.len() > 1 || count > LONGEST_PIPELINE as usize {
            let what = format!("it is missing: {count} entries of {} writers come after it", writers.len());
            self.found(Severity::Damage, key::log(number, head), what);
        } else {
            let what = format!(
                "{count} entries from here on come after an absent one, as a replica leaves them that was killed while it wrote"
            );
            self.found(Severity::Note, key::log(number, *first), what);
        }
        Ok(())
    }

    pub(super) async fn is_absent(&self, number: u32, position: u64) -> Result<bool, EngineError> {
        Ok(self.context.store.get_range(&key::log(number, position), 0..1).await?.value.is_none())
    }

    /// The bytes of a stream that no manifest names, and whether they go on where its manifest ends.
    async fn unsealed(&self, number: u32, name: &StreamName, runs: &[Run], shard: &Shard) -> Result<(), EngineError> {
        for run in runs {
            if let Some((key, what)) = self.wrong_run(number, name, run, shard).await? {
                // It may have been sealed since.
                match load::read_manifest(&self.context, name).await {
                    Ok(base) if base.log_position() >= run.position => {}
                    _ => self.found(Severity::Damage, key, what),
                }
            }
        }
        let base = match load::read_manifest(&self.context, name).await {
            Ok(base) => base,
            // It is told of when the folder is looked into.
            Err(EngineError::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let key = key::manifest(name);
        if let Err(error) = shard.cells.rebase(name, base, self.context.page_bytes) {
            self.found(Severity::Damage, key, error.0);
        }
        Ok(())
    }

    /// What is wrong with a run's bytes.
    async fn wrong_run(
        &self,
        number: u32,
        name: &StreamName,
        run: &Run,
        shard: &Shard,
    ) -> Result<Option<(String, String)>, EngineError> {
        let incarnation = shard.cells.get(name).and_then(|cell| cell.lock().stream.as_ref().map(|s| s.incarnation));
        let Some(incarnation) = incarnation else { return Ok(None) };
        if run.foreign.is_some() {
            // It is verified where it belongs.
            return Ok(None);
        }
        if let Some(Nonce(nonce)) = run.nonce {
            let key = key::chunk(name, incarnation, nonce);
            return Ok(self.chunk(&key, nonce, run.len, None).await?.map(|what| (key, what)));
        }
        let key = key::log(number, run.position);
        match self.context.tails.entry(&self.context.store, number, run.position).await {
            Ok(entry) if entry.piece(name, incarnation, run.start, run.len).is_some() => Ok(None),
            Ok(_) => Ok(Some((key, format!("it lacks bytes of stream {name}")))),
            Err(Missing::Object { .. }) => Ok(Some((key, format!("it is missing, with bytes of stream {name}")))),
            Err(Missing::Failed(EngineError::Damaged { key, what })) => Ok(Some((key, what))),
            Err(Missing::Failed(error)) => Err(error),
        }
    }
}
