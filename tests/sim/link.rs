//! A process's connection to the bucket. What it has sent goes on without it: requests travel, are applied and answered
//! by the network's clock, while the process sleeps or when it is dead.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use headwater::store::faulty::Faulty;
use headwater::store::{Condition, LastSeen, Listing, Object, Put, Reply, Store, StoreResult, StoreTime};
use tokio::runtime::Handle;

use crate::timeline::Timeline;

/// A request that took longer, in virtual milliseconds, counts as trouble.
const SLOW: u64 = 400;

/// When a process had trouble with the bucket: what it knows may be older then than it is meant to be.
#[derive(Debug, Default)]
pub struct Troubles {
    over: Mutex<Vec<(u64, u64)>>,
    /// Requests under way, by when they began.
    under_way: Mutex<BTreeMap<u64, u32>>,
}

impl Troubles {
    pub fn add(&self, from: u64, to: u64) {
        lock(&self.over).push((from, to));
    }

    /// Whether there was any in this time. A request that has never ended is one.
    pub fn any(&self, from: u64, to: u64) -> bool {
        let hangs = lock(&self.under_way).keys().next().is_some_and(|began| *began + SLOW <= to);
        hangs || lock(&self.over).iter().any(|(began, ended)| *began <= to && from <= *ended)
    }

    fn begin(&self, began: u64) {
        *lock(&self.under_way).entry(began).or_default() += 1;
    }

    fn end(&self, began: u64, ended: u64, failed: bool) {
        let mut under_way = lock(&self.under_way);
        match under_way.get_mut(&began) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(under_way.remove(&began)),
        }
        drop(under_way);
        if failed || ended - began > SLOW {
            self.add(began, ended);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub struct Link {
    pub bucket: Arc<Faulty>,
    pub network: Handle,
    pub timeline: Arc<Timeline>,
    pub troubles: Arc<Troubles>,
    /// Of this process alone: it learns the time when it handles an answer.
    pub last_seen: LastSeen,
}

impl Link {
    async fn send<T: Send + 'static>(
        &self,
        request: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> StoreResult<T> {
        let began = self.timeline.ms();
        self.troubles.begin(began);
        // The network is gone only when the run is over.
        let Ok(answer) = self.network.spawn(request).await else { return std::future::pending().await };
        self.troubles.end(began, self.timeline.ms(), answer.is_err());
        answer.map(|reply| Reply { at: self.last_seen.saw(reply.at), ..reply })
    }
}

#[async_trait]
impl Store for Link {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        let (bucket, key) = (Arc::clone(&self.bucket), key.to_owned());
        self.send(async move { bucket.get(&key).await }).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        let (bucket, key) = (Arc::clone(&self.bucket), key.to_owned());
        self.send(async move { bucket.get_range(&key, range).await }).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        let (bucket, key) = (Arc::clone(&self.bucket), key.to_owned());
        self.send(async move { bucket.put(&key, body, condition).await }).await
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        let (bucket, key) = (Arc::clone(&self.bucket), key.to_owned());
        self.send(async move { bucket.delete(&key).await }).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let (bucket, prefix, after) = (Arc::clone(&self.bucket), prefix.to_owned(), after.map(str::to_owned));
        self.send(async move { bucket.list(&prefix, after.as_deref(), limit).await }).await
    }

    fn last_seen(&self) -> StoreTime {
        self.last_seen.get()
    }

    fn heard(&self, at: StoreTime) {
        self.last_seen.saw(at);
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }
}
