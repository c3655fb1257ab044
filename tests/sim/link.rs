//! A replica's connection to the simulated bucket: slow, lossy, and sometimes cut.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater::clock::Ids;
use headwater::store::memory::MemoryStore;
use headwater::store::{
    Condition, Failure, FailureKind, LastSeen, Listing, Object, Put, Reply, Store, StoreError, StoreResult, StoreTime,
};

/// How bad it is, changed while the simulation runs.
#[derive(Debug, Default)]
pub struct Weather {
    /// Of a thousand requests, how many go wrong.
    pub faults: AtomicU64,
    /// Nothing gets through.
    pub cut: AtomicBool,
}

/// What becomes of a request: did it happen, and did the replica hear of it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Refused,
    LostBefore,
    LostAfter,
    /// It happens when everyone has stopped waiting for it.
    Late,
}

#[derive(Debug)]
pub struct Link {
    pub bucket: Arc<MemoryStore>,
    pub weather: Arc<Weather>,
    pub ids: Ids,
    pub last_seen: LastSeen,
    /// Longest delay of a request that happens late, in milliseconds.
    pub latest: u64,
}

impl Link {
    async fn travel(&self) {
        let slow = self.ids.between(0, 100) < 3;
        let millis = if slow { self.ids.between(100, 3_000) } else { self.ids.between(1, 30) };
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn fate(&self) -> Fate {
        if self.weather.cut.load(Ordering::Relaxed) {
            return Fate::LostBefore;
        }
        if self.ids.between(0, 1000) >= self.weather.faults.load(Ordering::Relaxed) {
            return Fate::Fine;
        }
        [Fate::Refused, Fate::LostBefore, Fate::LostAfter, Fate::Late][self.ids.between(0, 4) as usize]
    }

    fn failure(operation: &'static str, key: &str, kind: FailureKind) -> Failure {
        Failure { operation, key: key.to_owned(), kind, message: "simulated".to_owned(), retry_after: None }
    }

    fn heard<T>(&self, reply: StoreResult<T>) -> StoreResult<T> {
        reply.map(|reply| Reply { at: self.last_seen.saw(reply.at), ..reply })
    }

    async fn read<T>(&self, key: &str, answer: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        self.travel().await;
        match self.fate() {
            Fate::Fine => {
                let reply = answer.await;
                self.travel().await;
                self.heard(reply)
            }
            Fate::Refused => Err(StoreError::NotApplied(Self::failure("GET", key, FailureKind::Throttled))),
            _ => {
                self.travel().await;
                Err(StoreError::Unknown(Self::failure("GET", key, FailureKind::Unavailable)))
            }
        }
    }
}

#[async_trait]
impl Store for Link {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        self.read(key, self.bucket.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        self.read(key, self.bucket.get_range(key, range)).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        self.travel().await;
        let fate = self.fate();
        let unknown = || Err(StoreError::Unknown(Self::failure("PUT", key, FailureKind::Unavailable)));
        match fate {
            Fate::Fine => {
                let reply = self.bucket.put(key, body, condition).await;
                self.travel().await;
                self.heard(reply)
            }
            Fate::Refused => Err(StoreError::NotApplied(Self::failure("PUT", key, FailureKind::Throttled))),
            Fate::LostBefore => unknown(),
            Fate::LostAfter => {
                let _ = self.bucket.put(key, body, condition).await;
                unknown()
            }
            Fate::Late => {
                let (bucket, key) = (Arc::clone(&self.bucket), key.to_owned());
                let delay = Duration::from_millis(self.ids.between(10, self.latest));
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = bucket.put(&key, body, condition).await;
                });
                unknown()
            }
        }
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.read(key, self.bucket.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        self.read(prefix, self.bucket.list(prefix, after, limit)).await
    }

    fn last_seen(&self) -> StoreTime {
        self.last_seen.get()
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }
}
