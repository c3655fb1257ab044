//! The simulated bucket. It remembers what was ever written, also what has been deleted since: no replica sees that, the
//! checks do.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use headwater::clock::Clock;
use headwater::store::memory::MemoryStore;
use headwater::store::{Condition, LIST_PAGE, Listed, Listing, Object, Put, Store, StoreResult, StoreTime};

use crate::timeline::{Moment, START, Timeline};

#[derive(Debug)]
pub struct Bucket {
    store: MemoryStore,
    timeline: Arc<Timeline>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
pub struct Seen {
    /// The first object at each position of each shard's log. What lands where something was deleted is not the log.
    pub log: BTreeMap<(u32, u64), (Moment, Bytes)>,
    /// Every chunk there ever was, by key.
    pub chunks: BTreeMap<String, Bytes>,
    /// What was done to the bucket, in order: time, key, and whether it was a PUT that was written or refused, or a DELETE.
    pub changes: Vec<(u64, String, Option<bool>)>,
}

impl Bucket {
    pub fn new(timeline: &Arc<Timeline>) -> Bucket {
        let now = Arc::clone(timeline);
        let clock = Clock::of(move || START + now.ms());
        Bucket { store: MemoryStore::new(clock), timeline: Arc::clone(timeline), seen: Mutex::default() }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All objects that are there.
    pub async fn objects(&self) -> Vec<Listed> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let after = all.last().map(|item| item.key.clone());
            let listing =
                self.store.list("", after.as_deref(), LIST_PAGE).await.unwrap_or_else(|e| panic!("{e}")).value;
            all.extend(listing.items);
            if !listing.more {
                return all;
            }
        }
    }
}

fn log_position(key: &str) -> Option<(u32, u64)> {
    let (shard, position) = key.strip_prefix("log/")?.split_once('/')?;
    Some((shard.parse().ok()?, position.parse().ok()?))
}

#[async_trait]
impl Store for Bucket {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        self.store.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        self.store.get_range(key, range).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        let reply = self.store.put(key, body.clone(), condition).await?;
        let written = matches!(reply.value, Put::Written(_));
        let mut seen = self.seen();
        seen.changes.push((self.timeline.ms(), key.to_owned(), Some(written)));
        if written && let Some(position) = log_position(key) {
            seen.log.entry(position).or_insert_with(|| (self.timeline.mark(), body));
        } else if written && key.starts_with("streams/") && !key.ends_with("/manifest") {
            seen.chunks.insert(key.to_owned(), body);
        }
        Ok(reply)
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.seen().changes.push((self.timeline.ms(), key.to_owned(), None));
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        self.store.list(prefix, after, limit).await
    }

    fn last_seen(&self) -> StoreTime {
        self.store.last_seen()
    }

    fn heard(&self, at: StoreTime) {
        self.store.heard(at);
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }
}
