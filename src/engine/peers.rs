//! Other replicas, as far as the engine asks them.
//!
//! Each shard has one replica that is its *home*. Nothing depends on there being one, or only one: agreement is the log's
//! alone. But the others learn what is new from it, instead of from the bucket.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::error::no_answer;
use super::handle::{Confirmed, Witness};
use super::{Engine, EngineError, access};
use crate::protocol::StreamName;
use crate::store::StoreTime;

/// The most bytes that are passed on at a time; who needs more has them from the bucket.
const PART_BYTES: usize = 8 << 20;

/// The other replicas of the bucket.
#[async_trait]
pub trait Peers: std::fmt::Debug + Send + Sync {
    /// Whether another replica is home of the shard.
    fn has_other_home(&self, shard: u32) -> bool;

    /// The shard's log from position `next` on, as its home has it. If it ends there, the home waits up to `wait` for more.
    /// `None` if the home can't be asked or can't tell; then the bucket can.
    async fn log_after(&self, shard: u32, next: u64, wait: Duration) -> Option<LogPart>;
}

/// Log objects, one position after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPart {
    /// The first one's position.
    pub from: u64,
    pub objects: Vec<Bytes>,
    /// The position after them was absent at this time; none if there may be more.
    pub absent_at: Option<StoreTime>,
}

/// What a replica knows of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardState {
    /// The position at which its log goes on.
    pub log_position: u64,
    /// Streams with something in the log that is in no manifest yet, and their bytes there.
    pub unsealed_streams: u64,
    pub unsealed_bytes: u64,
}

impl Engine {
    /// From now on there are others.
    pub fn join(&self, peers: Arc<dyn Peers>) {
        if self.0.context.peers.set(peers).is_err() {
            tracing::error!("this replica has joined the others already");
        }
    }

    /// How many shards the bucket has.
    pub fn shards(&self) -> u32 {
        self.0.context.shards
    }

    /// The shard of a stream.
    pub fn shard_of(&self, name: &StreamName) -> u32 {
        self.shard(name).0
    }

    /// Identifies the bucket. Known to those alone who may read it.
    pub fn cluster_id(&self) -> &str {
        &self.0.context.cluster_id
    }

    /// What is known of a shard here, if it is in use.
    pub fn shard_state(&self, shard: u32) -> Option<ShardState> {
        let view = &self.0.shards.get(shard as usize)?.view;
        let Confirmed { head, .. } = (*view.confirmed.borrow())?;
        let (mut unsealed_streams, mut unsealed_bytes) = (0, 0);
        for (_, cell) in view.cells.unsealed() {
            unsealed_streams += 1;
            unsealed_bytes += cell.lock().runs.iter().map(|run| run.len).sum::<u64>();
        }
        Some(ShardState { log_position: head, unsealed_streams, unsealed_bytes })
    }

    /// For a replica that follows this one, the shard's home: its log from `next` on, not older than the bucket by more than
    /// the sync interval. If it ends there, waits up to `wait` for more. `None` if what was asked for is not in memory; an
    /// error if the store does not answer.
    pub async fn log_after(&self, shard: u32, next: u64, wait: Duration) -> Result<Option<LogPart>, EngineError> {
        let Some(handle) = self.0.shards.get(shard as usize) else { return Ok(None) };
        let (now, end) = (Instant::now(), Instant::now() + wait);
        let since = self.reads_since(now);
        // While somebody waits here, the shard looks for what others have written.
        let mut confirmed = handle.view.confirmed.subscribe();
        let (settings, store) = (&self.0.context.settings, &self.0.context.store);
        // Cut off from the store, it would not know what others write who do without it.
        let is_usable = self.freshen(handle, since).await?;
        if !is_usable || !handle.view.is_confirmed(since, store.last_seen(), settings.grace) {
            return Err(no_answer());
        }
        if handle.view.head() < next {
            // Somebody else has written.
            access::confirm(handle, now, Witness::Store, self.patience()).await?;
        }
        loop {
            let Some(Confirmed { at, known_at, head }) = *confirmed.borrow_and_update() else { return Ok(None) };
            if head > next {
                return Ok(self.recent(shard, next..head, known_at));
            }
            if head < next {
                return Ok(None);
            }
            if !matches!(timeout_at(end, confirmed.changed()).await, Ok(Ok(()))) {
                let is_old = at.elapsed() > settings.sync_interval * 2;
                let part = LogPart { from: next, objects: Vec::new(), absent_at: Some(known_at) };
                return Ok(Some(part).filter(|_| !is_old));
            }
        }
    }

    /// Log objects from memory.
    fn recent(&self, shard: u32, range: Range<u64>, known_at: StoreTime) -> Option<LogPart> {
        let mut part = LogPart { from: range.start, ..LogPart::default() };
        let mut bytes = 0;
        for position in range {
            let object = self.0.context.tails.object(shard, position)?;
            bytes += object.len();
            if bytes > PART_BYTES && !part.objects.is_empty() {
                return Some(part);
            }
            part.objects.push(object);
        }
        part.absent_at = Some(known_at);
        Some(part)
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
