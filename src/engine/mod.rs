//! The engine: keeps the histories of all streams, in a bucket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Millis;
use crate::clock::{Clock, Ids};
use crate::protocol::stream::{Append, Create, Outcome};
use crate::protocol::{Incarnation, ReadFrom, Rejection, Stream, StreamName};
use crate::settings::EngineSettings;
use crate::store::Store;

/// Why the engine did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The protocol says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A limit of this server is reached. Nothing was done.
    #[error("{what}")]
    Overloaded { what: &'static str, retry_after: Duration },
    /// The store does not answer, or the server is stopping. Nothing was done.
    #[error("{why}")]
    Unavailable { why: String, retry_after: Duration },
    /// The store has not confirmed the write in time. It may still be committed.
    #[error("the store has not confirmed the write in time; it may still be committed")]
    Unconfirmed { retry_after: Duration },
    /// An object of the store is damaged or missing.
    #[error("object {key} is damaged: {what}")]
    Damaged { key: String, what: String },
}

/// Keeps streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {}

/// Permission to hold `bytes` of request body in memory; given back on drop.
#[derive(Debug)]
pub struct Admission {}

/// Where in a stream a response starts and ends, and all that its headers say. Holds no bytes: see [`Engine::fetch`].
#[derive(Debug, Clone)]
pub struct Page {
    /// The stream as it was committed when the page was located.
    pub stream: Arc<Stream>,
    pub start: u64,
    pub end: u64,
    /// When the bytes that end at `end` came, as far as it is known (the same on every replica): the cursor's time.
    pub ends_at: Millis,
}

impl Page {
    /// No more data than this, at the time.
    pub fn reaches_tail(&self) -> bool {
        self.end == self.stream.tail
    }

    /// It reaches the end of a closed stream.
    pub fn is_final(&self) -> bool {
        self.reaches_tail() && self.stream.closed.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Where a response's bytes came from, for the `Server-Timing` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Memory,
    Store,
}

/// Tells that something of a stream changed: bytes, closure, deletion.
#[derive(Debug)]
pub struct Changes {}

impl Changes {
    /// Returns when the stream has changed since these changes were asked for or last awaited.
    pub async fn next(&mut self) {
        todo!()
    }
}

impl Engine {
    /// Opens the bucket, which is set up if it is new. Reads what all replicas must agree on; shards are loaded when
    /// they are first used.
    pub async fn open(
        _store: Arc<dyn Store>,
        _settings: EngineSettings,
        _clock: Clock,
        _ids: Ids,
    ) -> Result<Engine, EngineError> {
        todo!()
    }

    /// Asks for room for a body of (up to) `bytes`, before it is read. Past the limit: `Overloaded`.
    pub fn admit(&self, _bytes: u64) -> Result<Admission, EngineError> {
        todo!()
    }

    /// A number for a stream that is about to be created.
    pub fn new_incarnation(&self) -> Incarnation {
        todo!()
    }

    pub async fn create(
        &self,
        _name: &StreamName,
        _create: Create,
        _admission: Admission,
    ) -> Result<Outcome, EngineError> {
        todo!()
    }

    pub async fn append(
        &self,
        _name: &StreamName,
        _append: Append,
        _admission: Admission,
    ) -> Result<Outcome, EngineError> {
        todo!()
    }

    pub async fn delete(&self, _name: &StreamName) -> Result<(), EngineError> {
        todo!()
    }

    /// The stream's present state (HEAD). Does not count as a use.
    pub async fn stat(&self, _name: &StreamName) -> Result<Arc<Stream>, EngineError> {
        todo!()
    }

    /// Finds the page that starts at `from`. Counts as a use of the stream (it renews a TTL).
    pub async fn locate(&self, _name: &StreamName, _from: ReadFrom) -> Result<Page, EngineError> {
        todo!()
    }

    /// Like [`locate`](Engine::locate), with a subscription that was made before the state was looked at, so that no
    /// change is missed between the two. Counts as a use only if `touch`.
    pub async fn follow(
        &self,
        _name: &StreamName,
        _from: ReadFrom,
        _touch: bool,
    ) -> Result<(Page, Changes), EngineError> {
        todo!()
    }

    /// The page's bytes as the protocol serves them (JSON mode: an array). Shared by all who ask for the same page.
    pub async fn fetch(&self, _name: &StreamName, _page: &Page) -> Result<(Bytes, Source), EngineError> {
        todo!()
    }

    /// Whether the store answers (readiness).
    pub async fn ready(&self) -> Result<(), EngineError> {
        todo!()
    }

    /// The wall clock in use.
    pub fn now(&self) -> Millis {
        todo!()
    }

    /// Stops taking work, and returns when all commits under way are settled.
    pub async fn drain(&self) {
        todo!()
    }
}
