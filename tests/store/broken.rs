//! Stores that accept conditions but don't keep them, as real ones have done: the probe must refuse each, and say why.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater::clock::{Clock, Ids};
use headwater::store::memory::MemoryStore;
use headwater::store::probe::probe;
use headwater::store::{Condition, Listing, Object, Put, Reply, Store, StoreResult, StoreTime};

#[derive(Debug, Clone, Copy)]
enum Defect {
    IgnoresIfNoneMatch,
    IgnoresIfMatch,
    IgnoresIfMatchOnMissingKeys,
    /// Looks, then writes: right as long as there is one writer.
    ChecksWithoutAtomicity,
    ListsOutOfOrder,
    IgnoresStartAfter,
    HasNoClock,
}

#[derive(Debug)]
struct Broken {
    inner: MemoryStore,
    defect: Defect,
}

impl Broken {
    async fn overwrite(&self, key: &str, body: Bytes) -> StoreResult<Put> {
        self.inner.delete(key).await?;
        self.inner.put(key, body, Condition::Absent).await
    }

    async fn holds(&self, key: &str, condition: &Condition) -> bool {
        let found = self.inner.get(key).await.ok().and_then(|reply| reply.value);
        match condition {
            Condition::Absent => found.is_none(),
            Condition::Unchanged(version) => found.is_some_and(|object| object.version == *version),
        }
    }
}

#[async_trait]
impl Store for Broken {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        let reply = self.inner.get(key).await?;
        let at = if matches!(self.defect, Defect::HasNoClock) { StoreTime(0) } else { reply.at };
        Ok(Reply { value: reply.value, at })
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        self.inner.get_range(key, range).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        match (self.defect, &condition) {
            (Defect::IgnoresIfNoneMatch, Condition::Absent) => self.overwrite(key, body).await,
            (Defect::IgnoresIfMatch, Condition::Unchanged(_)) => self.overwrite(key, body).await,
            (Defect::IgnoresIfMatchOnMissingKeys, Condition::Unchanged(_))
                if self.holds(key, &Condition::Absent).await =>
            {
                self.overwrite(key, body).await
            }
            (Defect::ChecksWithoutAtomicity, condition) if self.holds(key, condition).await => {
                tokio::task::yield_now().await;
                self.overwrite(key, body).await
            }
            _ => self.inner.put(key, body, condition).await,
        }
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let after = after.filter(|_| !matches!(self.defect, Defect::IgnoresStartAfter));
        let mut reply = self.inner.list(prefix, after, limit).await?;
        if matches!(self.defect, Defect::ListsOutOfOrder) {
            reply.value.items.reverse();
        }
        Ok(reply)
    }

    fn last_seen(&self) -> StoreTime {
        self.inner.last_seen()
    }

    fn heard(&self, at: StoreTime) {
        self.inner.heard(at);
    }

    fn describe(&self) -> String {
        format!("{:?}", self.defect)
    }
}

#[tokio::test]
async fn the_probe_refuses_stores_that_break_the_contract_and_names_the_breach() {
    for (defect, expected) in [
        (Defect::IgnoresIfNoneMatch, "PUT with If-None-Match on an existing key was accepted"),
        (Defect::IgnoresIfMatch, "PUT with If-Match of an old ETag was accepted"),
        (Defect::IgnoresIfMatchOnMissingKeys, "PUT with If-Match on a key without an object was accepted"),
        (Defect::ChecksWithoutAtomicity, "8 of 8 racing PUTs with If-None-Match were accepted"),
        (Defect::ListsOutOfOrder, "LIST gave"),
        (Defect::IgnoresStartAfter, "LIST of two keys after"),
        (Defect::HasNoClock, "the answer to a GET had no Date"),
    ] {
        let store: Arc<dyn Store> = Arc::new(Broken { inner: MemoryStore::new(Clock::system()), defect });
        let failure = probe(&*store, &Ids::seeded(1)).await.expect_err(expected);
        assert!(failure.what.starts_with(expected), "{defect:?}: {failure}");
        assert!(failure.what.ends_with("this store cannot keep streams safely"), "{defect:?}: {failure}");
        assert!(!failure.is_transient, "{defect:?}");
    }
}
