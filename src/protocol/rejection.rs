//! Every "no" of the protocol, with the facts that its response headers need.

use super::{Incarnation, Offset};

/// Why a well-formed request was refused in the stream's present state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such stream")]
    NotFound,
    /// An offset of an earlier stream under the same path.
    #[error("the offset belongs to a stream that was deleted; another one (incarnation {current}) has its path now")]
    Replaced { current: Incarnation },
    /// An offset before what is kept of the stream.
    #[error("the offset is before the stream's earliest one ({earliest}): what was there is not kept any more")]
    Trimmed { earliest: Offset },
    /// An offset that the stream has not reached.
    #[error("the offset is past the stream's end ({tail})")]
    BeyondTail { tail: Offset },
    /// A PUT on an existing stream whose configuration differs.
    #[error("the stream exists with a different {what}")]
    Exists { what: &'static str },
    #[error("the stream is closed")]
    Closed { tail: Offset },
    #[error("the stream's content type is {expected}, not {received}")]
    ContentTypeMismatch { expected: String, received: String },
    #[error("Stream-Seq is not greater than the last one ({last})")]
    SeqRegression { last: String },
    #[error("the producer's epoch is stale: the current one is {current}")]
    StaleEpoch { current: u64 },
    #[error("a new producer epoch must start at Producer-Seq 0")]
    EpochStartsAtZero,
    #[error("Producer-Seq {received} leaves a gap: expected {expected}")]
    ProducerGap { expected: u64, received: u64 },
    /// The stream was deleted, and is kept only for its forks.
    #[error("the stream was deleted; its data is kept for its forks")]
    Gone,
    #[error("the stream to fork does not exist")]
    NoSource,
    #[error("the stream to fork was deleted")]
    SourceGone,
    #[error("{what}")]
    ForkOffset { what: &'static str },
    /// A limit of this server.
    #[error("{what}")]
    TooMany { what: &'static str },
}

impl Rejection {
    /// A PUT on a stream that was deleted, and is kept only for its forks.
    pub const KEPT_FOR_FORKS: Rejection = Rejection::Exists { what: "stream, deleted but kept for its forks" };

    /// What is wrong with the source of a fork, instead of with the fork.
    pub fn of_source(self) -> Rejection {
        match self {
            Rejection::NotFound => Rejection::NoSource,
            Rejection::Gone => Rejection::SourceGone,
            other => other,
        }
    }

    /// That a stream exists otherwise than it was asked for, if something differs: the first that does.
    pub fn of_differences<const N: usize>(differences: [(&'static str, bool); N]) -> Result<(), Rejection> {
        match differences.into_iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(Rejection::Exists { what }),
            None => Ok(()),
        }
    }
}
