//! What a command does to a stream: the rules of create, append, close and delete as pure functions.
//!
//! [`decide`] judges a [`Command`] against a stream's present state and says which [`Effect`]s it has. Effects state
//! results (the position at which bytes start, the epoch that was accepted), so [`fold`] needs no validation: whoever
//! folds the same effects has the same state.

mod decide;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub use self::decide::decide;
use super::fork::{ForkId, ForkRequest, Origin, Reference};
use super::producer::{Accepted, Producer};
use super::{ContentType, Incarnation, Lifetime, Offset, Rejection, Retention};
use crate::clock::Millis;

/// The most producers that one stream remembers.
pub const MAX_PRODUCERS: usize = 10_000;
/// The most forks that one stream may have at a time.
pub const MAX_FORKS: usize = 10_000;

/// All that the rules need to know of a stream. Its bytes are elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub incarnation: Incarnation,
    pub content_type: ContentType,
    pub lifetime: Lifetime,
    pub created_at: Millis,
    /// The last recorded read or write.
    pub touched_at: Millis,
    /// The position after the last byte.
    pub tail: u64,
    /// When the last bytes came; the creation, if there are none.
    pub tail_at: Millis,
    pub closed: Option<Closed>,
    pub last_seq: Option<Arc<str>>,
    pub producers: Arc<BTreeMap<String, Accepted>>,
    /// Where it came from, if it is a fork.
    pub origin: Option<Arc<Origin>>,
    /// Forks of it that exist, or are about to.
    pub forks: Arc<BTreeMap<ForkId, Reference>>,
    /// It was deleted, and is kept for its forks.
    pub is_gone: bool,
    pub retention: Retention,
    /// Bytes before this position are not kept any more.
    pub horizon: u64,
}

/// A closed stream remembers who closed it, so that a retry is told from another writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub by: Option<Producer>,
}

impl Stream {
    pub fn tail_offset(&self) -> Offset {
        self.offset_at(self.tail)
    }

    /// The offset of a position: inherited ones keep those that they have in the source.
    pub fn offset_at(&self, position: u64) -> Offset {
        let inherited = self.origin.as_deref().map_or(&[][..], |origin| &origin.lineage);
        let owner = inherited.iter().find(|(end, _)| position <= *end).map(|(_, incarnation)| *incarnation);
        Offset { position, incarnation: owner.unwrap_or(self.incarnation) }
    }

    /// Whether `offset` can be one of this stream.
    pub fn admits(&self, offset: Offset) -> bool {
        offset.incarnation.admits(self.offset_at(offset.position).incarnation)
    }

    /// Bytes before this position are needed by a fork.
    pub fn frozen(&self) -> u64 {
        self.forks.values().map(|reference| reference.position).max().unwrap_or(0)
    }

    /// Whether it was neither deleted nor has ended by itself at `now`.
    pub fn is_alive(&self, now: Millis) -> bool {
        !self.is_gone && self.lifetime.ends_at(self.touched_at).is_none_or(|end| now < end)
    }

    /// Whether it was deleted, or has ended, and is kept for its forks.
    pub fn is_kept_for_forks(&self, now: Millis) -> bool {
        self.is_gone || !self.forks.is_empty() && !self.is_alive(now)
    }
}

/// The stream that answers to a path at `now`: `NotFound` if there is none, `Gone` if it is only kept for its forks.
pub fn answering(current: Option<&Stream>, now: Millis) -> Result<&Stream, Rejection> {
    match current {
        Some(stream) if stream.is_kept_for_forks(now) => Err(Rejection::Gone),
        Some(stream) if stream.is_alive(now) => Ok(stream),
        _ => Err(Rejection::NotFound),
    }
}

/// A request to change a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create(Create),
    Append(Append),
    Delete,
    /// Note that the stream was read.
    Touch,
    /// Remove the stream if its time is over.
    Expire,
    /// Let go of what is before a position.
    Trim(Trim),
    /// Find the stream to be the fork that is asked for, if there is one. Changes nothing but its retention.
    FindFork(ForkRequest),
    /// Note that there is about to be a fork of it.
    AddFork(AddFork),
    /// Note that a fork of it is no more.
    DropFork {
        source: Incarnation,
        fork: ForkId,
    },
}

/// What is to be let go of which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    pub incarnation: Incarnation,
    pub horizon: u64,
    /// What this follows from. By now the stream may have another one.
    pub retention: Retention,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddFork {
    pub fork: ForkId,
    /// Where it is to branch off; absent: at the tail.
    pub offset: Option<Offset>,
    /// How far past that, if it is the stream that was looked at for it.
    pub beyond: Option<(u64, Incarnation)>,
    pub content_type: Option<ContentType>,
    /// When it was prepared, by the store's clock.
    pub since: Millis,
}

/// PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Taken for the new stream, if there is to be one.
    pub incarnation: Incarnation,
    pub content_type: ContentType,
    pub lifetime: Lifetime,
    pub closed: bool,
    pub body: Body,
    pub fork: Option<Box<Branch>>,
    /// Absent: as it is, or nothing is let go.
    pub retention: Option<Retention>,
}

/// What makes a new stream a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    pub request: ForkRequest,
    pub origin: Arc<Origin>,
    pub inherited: Arc<[Inherited]>,
    /// What follows the inherited chunks up to where the fork branches off.
    pub rest: Body,
    /// Where the source started when it was asked, or where the fork branches off if that is before.
    pub horizon: u64,
    /// When the source was asked, by the store's clock: long after that it may have forgotten it.
    pub prepared_at: Millis,
}

/// A run of bytes in a chunk of another stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    pub owner: ForkId,
    pub start: u64,
    pub len: u64,
    pub at: Millis,
    pub nonce: u128,
    /// The length of the chunk, which may have more than is inherited.
    pub whole: u64,
    pub page_ends: Vec<u64>,
}

/// POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Absent only without a body.
    pub content_type: Option<ContentType>,
    pub body: Body,
    pub seq: Option<Arc<str>>,
    pub producer: Option<Producer>,
    pub close: bool,
}

/// Bytes to append, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    pub data: Data,
    /// Where each message ends, counted from the body's start; the last is the body's length.
    pub ends: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Inline(Bytes),
    /// Uploaded beforehand as a chunk of its own, because it is large.
    Chunk {
        nonce: u128,
        len: u64,
    },
}

impl Default for Data {
    fn default() -> Data {
        Data::Inline(Bytes::new())
    }
}

impl Data {
    pub fn len(&self) -> u64 {
        match self {
            Data::Inline(bytes) => bytes.len() as u64,
            Data::Chunk { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a command changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A new, empty, open stream; what was there before is gone.
    Created {
        incarnation: Incarnation,
        content_type: ContentType,
        lifetime: Lifetime,
    },
    /// A new, open stream that has what was in another one up to a position.
    Forked(Forked),
    Appended(Appended),
    Deleted {
        incarnation: Incarnation,
    },
    Touched {
        incarnation: Incarnation,
    },
    RetentionSet {
        incarnation: Incarnation,
        retention: Retention,
    },
    /// Bytes before a position, which a page ends at, are not kept any more.
    Trimmed {
        incarnation: Incarnation,
        horizon: u64,
    },
    ForkAdded {
        incarnation: Incarnation,
        fork: ForkId,
        position: u64,
        /// By the store's clock.
        since: Millis,
    },
    /// If the stream is deleted and this was the last fork, it is gone for good.
    ForkDropped {
        incarnation: Incarnation,
        fork: ForkId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forked {
    pub incarnation: Incarnation,
    pub content_type: ContentType,
    pub lifetime: Lifetime,
    pub origin: Arc<Origin>,
    /// Bytes before this position were not kept any more. The inherited chunks may have some of them.
    pub horizon: u64,
    pub inherited: Arc<[Inherited]>,
}

impl Forked {
    /// Where the inherited chunks end. What else there is before the fork branches off is appended then.
    pub fn tail(&self) -> u64 {
        self.inherited.last().map_or(self.horizon, |last| last.start + last.len)
    }

    /// What of it can't be.
    pub fn check(&self) -> Result<(), &'static str> {
        self.origin.check()?;
        let start = self.inherited.first().map_or(self.horizon, |run| run.start);
        if [start, self.horizon, self.tail(), self.origin.position()].is_sorted() {
            Ok(())
        } else {
            Err("a fork inherited what is not between the source's start and where it branches off")
        }
    }
}

/// Bytes were appended, or the stream was closed, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    pub incarnation: Incarnation,
    /// The position of the first byte: the tail before.
    pub start: u64,
    pub body: Body,
    pub seq: Option<Arc<str>>,
    pub producer: Option<Producer>,
    pub close: bool,
}

/// What to tell the client once the effects are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The tail after the command.
    pub tail: Offset,
    pub closed: bool,
    /// The stream's content type and lifetime (responses to PUT repeat them).
    pub content_type: ContentType,
    pub lifetime: Lifetime,
    /// Bytes before this position are not kept any more.
    pub horizon: u64,
    /// For a create: the stream was made now. For an append: the bytes are new, not a duplicate's.
    pub fresh: bool,
    /// The producer's epoch and highest accepted sequence number.
    pub producer: Option<Accepted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub effects: Vec<Effect>,
    pub outcome: Option<Outcome>,
}

/// The stream after `effect`, which happened at `at`. An effect on an incarnation that is not there changes nothing.
pub fn fold(stream: Option<Stream>, effect: &Effect, at: Millis) -> Option<Stream> {
    match effect {
        Effect::Created { incarnation, content_type, lifetime } => {
            Some(Stream::new(*incarnation, content_type.clone(), *lifetime, at))
        }
        Effect::Forked(forked) => Some(Stream {
            tail: forked.tail(),
            origin: Some(Arc::clone(&forked.origin)),
            horizon: forked.horizon,
            ..Stream::new(forked.incarnation, forked.content_type.clone(), forked.lifetime, at)
        }),
        Effect::Appended(appended) => {
            let mut stream = stream?;
            if stream.incarnation == appended.incarnation {
                stream.take(appended, at);
            }
            Some(stream)
        }
        Effect::Deleted { incarnation } => stream.and_then(|stream| match stream.incarnation == *incarnation {
            true => (!stream.forks.is_empty()).then_some(Stream { is_gone: true, ..stream }),
            false => Some(stream),
        }),
        Effect::RetentionSet { incarnation, retention } => {
            stream.map(|stream| match stream.incarnation == *incarnation {
                true => Stream { retention: *retention, ..stream },
                false => stream,
            })
        }
        Effect::Trimmed { incarnation, horizon } => stream.map(|stream| match stream.incarnation == *incarnation {
            true => Stream { horizon: stream.horizon.max(*horizon), ..stream },
            false => stream,
        }),
        Effect::ForkAdded { incarnation, fork, position, since } => stream.map(|mut stream| {
            if stream.incarnation == *incarnation {
                let reference = Reference { position: *position, since: *since };
                Arc::make_mut(&mut stream.forks).insert(fork.clone(), reference);
            }
            stream
        }),
        Effect::ForkDropped { incarnation, fork } => stream.and_then(|mut stream| {
            if stream.incarnation == *incarnation {
                Arc::make_mut(&mut stream.forks).remove(fork);
            }
            let is_kept = !stream.is_gone || !stream.forks.is_empty();
            is_kept.then_some(stream)
        }),
        Effect::Touched { incarnation } => stream.map(|mut stream| {
            if stream.incarnation == *incarnation {
                stream.touched_at = stream.touched_at.max(at);
            }
            stream
        }),
    }
}

impl Stream {
    /// An empty, open stream.
    pub fn new(incarnation: Incarnation, content_type: ContentType, lifetime: Lifetime, at: Millis) -> Stream {
        Stream {
            incarnation,
            content_type,
            lifetime,
            created_at: at,
            touched_at: at,
            tail: 0,
            tail_at: at,
            closed: None,
            last_seq: None,
            producers: Arc::default(),
            origin: None,
            forks: Arc::default(),
            is_gone: false,
            retention: Retention::default(),
            horizon: 0,
        }
    }

    fn take(&mut self, appended: &Appended, at: Millis) {
        assert_eq!(self.tail, appended.start, "an append must start at the tail");
        let length = appended.body.data.len();
        self.tail += length;
        self.touched_at = self.touched_at.max(at);
        if length > 0 {
            self.tail_at = at;
        }
        if let Some(seq) = &appended.seq {
            self.last_seq = Some(seq.clone());
        }
        if let Some(producer) = &appended.producer {
            let accepted = Accepted { epoch: producer.epoch, seq: producer.seq };
            Arc::make_mut(&mut self.producers).insert(producer.id.clone(), accepted);
        }
        if appended.close {
            self.closed = Some(Closed { by: appended.producer.clone() });
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
