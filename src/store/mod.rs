//! Few verbs on keys and bytes: all that headwater asks of a bucket.
//!
//! A store keeps objects under keys and offers exactly the primitives the log's safety argument uses: GET, ranged
//! GET, PUT if absent, PUT if unchanged, DELETE, LIST. Everything above this seam is one engine; everything below
//! is a vendor. Two promises matter more than the rest:
//!
//! - a *conflict* is an answer, not an error ([`Put::Conflict`]);
//! - an error says whether the operation certainly did not happen ([`StoreError::NotApplied`]) or may have
//!   happened, or may still happen later ([`StoreError::Unknown`]). Nobody above guesses.
//!
//! Every answer carries the *store's* clock ([`Reply::at`]), because durations that decide whether old log entries
//! may be trusted must not depend on a replica's clock (a suspended machine's stands still).

pub mod faulty;
pub mod local;
pub mod memory;
pub mod metered;
mod open;
pub mod probe;
pub mod s3;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::clock::Millis;

pub use open::{StoreUrl, open};

/// The most objects that one [`Store::list`] gives, as S3 has it.
pub const LIST_PAGE: usize = 1000;

/// The verbs. Implementations must be safe to call concurrently, from any task, and to drop at any await point
/// (a dropped PUT or DELETE has an unknown outcome).
///
/// Keys that every store takes have at most 1,024 bytes with the store's prefix, segments between slashes of 1 to 255
/// bytes, none of them `.` or `..`, and no key is the start of another up to a slash: some stores keep them in
/// directories.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The whole object, or `None` if there is none. Read-after-write consistent.
    async fn get(&self, key: &str) -> StoreResult<Option<Object>>;

    /// The bytes of `range` that exist (an object shorter than `range.end` gives fewer), or `None` if there is no
    /// such object. A range that starts at or past the end gives no bytes.
    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>>;

    /// Writes the whole object atomically if `condition` holds, else changes nothing and answers `Conflict`.
    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put>;

    /// Removes the object; removing one that is not there succeeds.
    async fn delete(&self, key: &str) -> StoreResult<()>;

    /// Up to `limit` objects (at least one is asked for, and at most [`LIST_PAGE`] are given) whose keys start with
    /// `prefix` and are greater than `after`, in byte order of keys.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing>;

    /// The latest time that any answer of this store has carried; zero before the first.
    fn last_seen(&self) -> StoreTime;

    /// An answer to another replica has carried this time: it counts as seen.
    fn heard(&self, at: StoreTime);

    /// What to call this store in messages: `local:./data`, `s3://bucket/prefix at http://…`.
    fn describe(&self) -> String;
}

pub type StoreResult<T> = Result<Reply<T>, StoreError>;

/// An answer and the store's clock when it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<T> {
    pub value: T,
    pub at: StoreTime,
}

/// A moment on the store's clock (the `Date` of its responses), in milliseconds since the Unix epoch. S3's has a
/// resolution of one second.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub Millis);

/// How far two readings of that clock may be apart for no reason: it shows whole seconds, and not the same ones everywhere.
pub const CLOCK_STEP: Duration = Duration::from_secs(2);

impl StoreTime {
    /// As a `Date` header shows it: without the fraction of a second.
    pub fn whole_second(millis: Millis) -> StoreTime {
        StoreTime(millis / 1000 * 1000)
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: StoreTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The latest store time seen, shared by every request of one store.
#[derive(Debug, Default)]
pub struct LastSeen(AtomicU64);

impl LastSeen {
    /// Takes note of `at` and hands it back.
    pub fn saw(&self, at: StoreTime) -> StoreTime {
        self.0.fetch_max(at.0, Ordering::AcqRel);
        at
    }

    pub fn get(&self) -> StoreTime {
        StoreTime(self.0.load(Ordering::Acquire))
    }
}

/// Names one content of one key for [`Condition::Unchanged`]: the ETag. Two writes of the same bytes may have the
/// same version (S3's is a content hash), so every object that is ever updated carries a fresh write id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

impl Version {
    /// As the stores of this program make it: from the content alone, quoted like an ETag.
    fn of(body: &[u8]) -> Version {
        let digest = Sha256::digest(body);
        Version(format!("\"{}\"", digest[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
    }
}

/// What must hold for a PUT to happen. There is no unconditional PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key has no object (`If-None-Match: *`).
    Absent,
    /// The key's object is still this version (`If-Match`). An absent key is a conflict.
    Unchanged(Version),
}

/// The outcome of a PUT that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Written(Version),
    /// The condition did not hold; nothing was written by this attempt.
    Conflict,
}

#[derive(Debug, Clone)]
pub struct Object {
    pub body: Bytes,
    pub version: Version,
    /// When it was written, by the store's clock.
    pub modified: StoreTime,
}

#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub items: Vec<Listed>,
    /// There are more after the last item.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub size: u64,
    pub modified: StoreTime,
}

/// Why the store gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The operation certainly had no effect and never will.
    #[error("{0}")]
    NotApplied(Failure),
    /// The operation may have been applied, or may still be (a time-out, a reset, a 5xx after sending).
    #[error("{0} (it may have been applied)")]
    Unknown(Failure),
}

impl StoreError {
    pub fn failure(&self) -> &Failure {
        match self {
            StoreError::NotApplied(failure) | StoreError::Unknown(failure) => failure,
        }
    }
}

/// The part of `range` that an object of `length` bytes has.
fn clip(range: &Range<u64>, length: u64) -> Range<u64> {
    let start = range.start.min(length);
    start..range.end.clamp(start, length)
}

#[derive(Debug, Clone)]
pub struct Failure {
    /// `GET`, `PUT`, …
    pub operation: &'static str,
    pub key: String,
    pub kind: FailureKind,
    /// The vendor's words, without secrets.
    pub message: String,
    /// How long the store asked to be left alone.
    pub retry_after: Option<Duration>,
}

/// What the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// 429, 503 SlowDown: try again later, with growing pauses.
    Throttled,
    /// Timed out, reset, refused, 5xx, 409: try again.
    Unavailable,
    /// Bad credentials, no permission, no bucket: trying again will not help.
    Denied,
    /// The answer made no sense (damaged data, a missing header): trying again will not help.
    Broken,
}

impl FailureKind {
    pub fn is_transient(self) -> bool {
        matches!(self, FailureKind::Throttled | FailureKind::Unavailable)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.key, self.message)
    }
}
