//! Checkpoints bound what a cold load has to read, and tell which entries nobody needs any more.

use std::time::Duration;

use super::EngineError;
use super::cas::{self, Replaced};
use super::context::Context;
use super::load;
use super::log::Log;
use crate::layout::checkpoint::{Checkpoint, Published, Unsealed};
use crate::layout::document::Document;
use crate::layout::{document, key};
use crate::store::{Condition, StoreTime, Version};

/// The checkpoint that was last read or written.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub checkpoint: Option<Checkpoint>,
    pub version: Option<Version>,
    /// It may have been replaced after this time: what freshness may be taken from.
    pub asked_at: StoreTime,
    /// It was in place at this time, or before: what a grace period may be counted from.
    pub known_at: StoreTime,
}

impl Held {
    pub fn position(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.position)
    }

    /// Positions below this one may have been deleted.
    pub fn truncated(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.truncated)
    }

    /// If this is the one that was known before, it has been in place for longer.
    pub fn known_since(mut self, before: &Held) -> Held {
        if self.version == before.version {
            self.known_at = self.known_at.min(before.known_at);
        }
        self
    }

    /// Whether there are entries that nobody will need once this checkpoint has been in place for long enough.
    pub fn has_leftovers(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.floor > checkpoint.truncated.max(1))
    }

    /// The checkpoint to write next; `None` if this replica is behind the one in place, which must never go back: what
    /// that one covers may have been deleted. An entry may be deleted only once a checkpoint that does not need it has been in
    /// place for the grace period: whoever loaded an earlier one has finished or started over by then.
    pub fn next(
        &self,
        shard: u32,
        log: &Log,
        unsealed: Vec<Unsealed>,
        now: StoreTime,
        grace: Duration,
    ) -> Option<Checkpoint> {
        let position = log.next - 1;
        if position < self.position() {
            return None;
        }
        // Bytes in chunks of their own need no entry.
        let in_log = |stream: &Unsealed| stream.runs.iter().find(|run| run.nonce.is_none()).map(|run| run.position);
        let floor = unsealed.iter().filter_map(in_log).min().unwrap_or(position + 1);
        let mut published = Vec::new();
        let mut truncated = 0;
        if let Some(held) = &self.checkpoint {
            truncated = held.truncated;
            published.clone_from(&held.published);
            published.push(Published { floor: held.floor, at: self.known_at.0 });
        }
        let old = |published: &&Published| now.since(StoreTime(published.at)) >= grace;
        truncated = published.iter().filter(old).map(|published| published.floor).fold(truncated, u64::max);
        published.retain(|published| published.floor > truncated);
        published.dedup_by_key(|published| published.floor);
        assert!(truncated <= position + 1, "what this checkpoint does not cover must not be deleted");
        Some(Checkpoint { shard, position, id: log.last_id, at: log.last_at, floor, truncated, published, unsealed })
    }
}

/// Writes `next` in place of `held`. If someone else's checkpoint came first, that one is returned.
pub(super) async fn publish(context: &Context, shard: u32, held: Held, next: Checkpoint) -> Result<Held, EngineError> {
    // One that could not be read again would be the end of the shard.
    next.check().map_err(|error| EngineError::Damaged { key: key::checkpoint(shard), what: error.0 })?;
    let write_id = context.ids.id();
    let asked_at = context.store.last_seen();
    let body = document::encode(&next, write_id);
    let condition = held.version.clone().map_or(Condition::Absent, Condition::Unchanged);
    match cas::replace(context, &key::checkpoint(shard), &body, write_id, condition).await? {
        Replaced::Written(version) => {
            let known_at = context.store.last_seen();
            let (position, unsealed) = (next.position, next.unsealed.len());
            tracing::debug!(shard, position, unsealed, floor = next.floor, "checkpoint written");
            truncate(context, shard, held.truncated(), next.truncated).await;
            Ok(Held { checkpoint: Some(next), version: Some(version), asked_at, known_at })
        }
        Replaced::Lost => load::read_checkpoint(context, shard).await,
    }
}

/// Deletes the entries of positions `from..to`. What fails is left for `headwater gc`.
async fn truncate(context: &Context, shard: u32, from: u64, to: u64) {
    let from = from.max(1);
    let positions: Vec<u64> = (from..to).collect();
    for window in positions.chunks(32) {
        let keys: Vec<String> = window.iter().map(|position| key::log(shard, *position)).collect();
        let deletions = keys.iter().map(|key| context.store.delete(key));
        for error in futures::future::join_all(deletions).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "old log entry not deleted");
        }
    }
    if to > from {
        tracing::debug!(shard, from, to, "log truncated");
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
