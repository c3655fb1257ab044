//! Why the engine did not do what it was asked.

use std::time::Duration;

use crate::layout::key;
use crate::protocol::{Rejection, StreamName};
use crate::store::{FailureKind, StoreError};

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

/// When to come back after an answer that knows no better time.
pub(super) fn retry_after() -> Duration {
    Duration::from_secs(1)
}

pub(super) fn stopping() -> EngineError {
    EngineError::Unavailable { why: "the server is stopping".to_owned(), retry_after: retry_after() }
}

pub(super) fn no_answer() -> EngineError {
    let why = "the store does not answer; nothing was done".to_owned();
    EngineError::Unavailable { why, retry_after: retry_after() }
}

/// It has been idle for long, and others have not.
pub(super) fn behind() -> EngineError {
    let why = "this server is still reading what others have written; nothing was done".to_owned();
    EngineError::Unavailable { why, retry_after: retry_after() }
}

/// A manifest has records of positions that the log does not have.
pub(super) fn log_is_short(shard: u32, head: u64, name: &StreamName, sealed_to: u64) -> EngineError {
    let what = format!("the log ends before position {head}, but {name} has records up to {sealed_to}");
    EngineError::Damaged { key: key::checkpoint(shard), what }
}

pub(super) fn damaged_cluster(what: &str) -> EngineError {
    EngineError::Damaged { key: key::CLUSTER.to_owned(), what: what.to_owned() }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> EngineError {
        let failure = error.failure();
        if failure.kind == FailureKind::Broken {
            return EngineError::Damaged { key: failure.key.clone(), what: failure.message.clone() };
        }
        let retry_after = failure.retry_after.unwrap_or(retry_after());
        EngineError::Unavailable { why: format!("the store does not answer: {error}"), retry_after }
    }
}
