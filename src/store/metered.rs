//! Counts the requests to a store: they are what a bucket costs.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, Listing, Object, Put, Store, StoreResult, StoreTime};

const OPERATIONS: [&str; 5] = ["get", "get_range", "put", "delete", "list"];
const OUTCOMES: [&str; 4] = ["ok", "conflict", "not_found", "error"];

#[derive(Debug, Clone, Copy)]
enum Operation {
    Get,
    GetRange,
    Put,
    Delete,
    List,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Ok,
    Conflict,
    NotFound,
    Error,
}

#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn Store>,
    requests: [[AtomicU64; OUTCOMES.len()]; OPERATIONS.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StoreCounts {
    requests: [[u64; OUTCOMES.len()]; OPERATIONS.len()],
    /// Bytes of objects that were read.
    pub bytes_in: u64,
    /// Bytes of objects that were sent, written or not.
    pub bytes_out: u64,
}

impl Metered {
    pub fn new(inner: Arc<dyn Store>) -> Metered {
        Metered { inner, requests: Default::default(), bytes_in: AtomicU64::new(0), bytes_out: AtomicU64::new(0) }
    }

    pub fn snapshot(&self) -> StoreCounts {
        StoreCounts {
            requests: self.requests.each_ref().map(|row| row.each_ref().map(|count| count.load(Ordering::Relaxed))),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }

    fn count<T>(&self, operation: Operation, result: &StoreResult<T>, outcome: impl FnOnce(&T) -> (Outcome, usize)) {
        let (outcome, bytes) = result.as_ref().map_or((Outcome::Error, 0), |reply| outcome(&reply.value));
        self.requests[operation as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl StoreCounts {
    /// Requests of one operation (`get`, `get_range`, `put`, `delete`, `list`) with one outcome (`ok`, `conflict`,
    /// `not_found`, `error`).
    pub fn requests(&self, operation: &str, outcome: &str) -> u64 {
        let row = OPERATIONS.iter().position(|name| *name == operation);
        let column = OUTCOMES.iter().position(|name| *name == outcome);
        row.zip(column).map_or(0, |(row, column)| self.requests[row][column])
    }

    /// Requests of one operation, however they ended.
    pub fn all(&self, operation: &str) -> u64 {
        OUTCOMES.iter().map(|outcome| self.requests(operation, outcome)).sum()
    }

    /// In Prometheus' text format.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::from(
            "# HELP headwater_store_requests_total Requests to the store by operation and outcome.\n\
             # TYPE headwater_store_requests_total counter\n",
        );
        for (operation, row) in OPERATIONS.iter().zip(self.requests) {
            for (outcome, count) in OUTCOMES.iter().zip(row) {
                let labels = format!("operation=\"{operation}\",outcome=\"{outcome}\"");
                // Writing to a string cannot fail.
                let _ = writeln!(text, "headwater_store_requests_total{{{labels}}} {count}");
            }
        }
        text.push_str("# HELP headwater_store_bytes_total Bytes of objects read (in) and sent (out).\n");
        text.push_str("# TYPE headwater_store_bytes_total counter\n");
        let _ = writeln!(text, "headwater_store_bytes_total{{direction=\"in\"}} {}", self.bytes_in);
        let _ = writeln!(text, "headwater_store_bytes_total{{direction=\"out\"}} {}", self.bytes_out);
        text
    }
}

#[async_trait]
impl Store for Metered {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        let result = self.inner.get(key).await;
        self.count(Operation::Get, &result, |found| match found {
            Some(object) => (Outcome::Ok, object.body.len()),
            None => (Outcome::NotFound, 0),
        });
        result
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        let result = self.inner.get_range(key, range).await;
        self.count(Operation::GetRange, &result, |found| match found {
            Some(body) => (Outcome::Ok, body.len()),
            None => (Outcome::NotFound, 0),
        });
        result
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        self.bytes_out.fetch_add(body.len() as u64, Ordering::Relaxed);
        let result = self.inner.put(key, body, condition).await;
        self.count(Operation::Put, &result, |put| match put {
            Put::Written(_) => (Outcome::Ok, 0),
            Put::Conflict => (Outcome::Conflict, 0),
        });
        result
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        let result = self.inner.delete(key).await;
        self.count(Operation::Delete, &result, |()| (Outcome::Ok, 0));
        result
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let result = self.inner.list(prefix, after, limit).await;
        self.count(Operation::List, &result, |_| (Outcome::Ok, 0));
        result
    }

    fn last_seen(&self) -> StoreTime {
        self.inner.last_seen()
    }

    fn heard(&self, at: StoreTime) {
        self.inner.heard(at);
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Ids};
    use crate::store::faulty::Faulty;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn requests_are_counted_by_operation_and_outcome() {
        let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::new(Clock::tokio(1000))), Ids::seeded(1)));
        let store = Metered::new(faulty.clone());
        let put = || store.put("k", Bytes::from_static(b"1234"), Condition::Absent);
        assert!(put().await.is_ok() && put().await.is_ok());
        assert!(store.get("k").await.is_ok() && store.get("l").await.is_ok());
        assert!(store.get_range("k", 1..3).await.is_ok() && store.list("", None, 9).await.is_ok());
        faulty.outage(true);
        assert!(store.delete("k").await.is_err());
        let counts = store.snapshot();
        for (operation, outcome) in [
            ("put", "ok"),
            ("put", "conflict"),
            ("get", "ok"),
            ("get", "not_found"),
            ("get_range", "ok"),
            ("list", "ok"),
            ("delete", "error"),
        ] {
            assert_eq!(counts.requests(operation, outcome), 1, "{operation} {outcome}");
        }
        assert_eq!((counts.bytes_in, counts.bytes_out, counts.all("put")), (6, 8, 2));
        let text = counts.to_prometheus();
        assert!(text.contains("headwater_store_requests_total{operation=\"put\",outcome=\"conflict\"} 1\n"), "{text}");
        assert!(text.contains("headwater_store_bytes_total{direction=\"in\"} 6\n"), "{text}");
    }
}
