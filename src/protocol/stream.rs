//! What a command does to a stream: the rules of create, append, close and delete as pure functions.
//!
//! [`decide`] judges a [`Command`] against a stream's present state and says which [`Effect`]s it has. Effects state
//! results (the position at which bytes start, the epoch that was accepted), so [`fold`] needs no validation: whoever
//! folds the same effects has the same state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::producer::{self, Accepted, Producer, Verdict};
use super::{ContentType, Incarnation, Lifetime, Offset, Rejection};
use crate::clock::Millis;

/// The most producers that one stream remembers.
pub const MAX_PRODUCERS: usize = 10_000;

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
}

/// A closed stream remembers who closed it, so that a retry is told from another writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub by: Option<Producer>,
}

impl Stream {
    pub fn tail_offset(&self) -> Offset {
        Offset { position: self.tail, incarnation: self.incarnation }
    }

    /// Whether it has not ended by itself at `now`.
    pub fn is_alive(&self, now: Millis) -> bool {
        self.lifetime.ends_at(self.touched_at).is_none_or(|end| now < end)
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
    Appended(Appended),
    Deleted {
        incarnation: Incarnation,
    },
    Touched {
        incarnation: Incarnation,
    },
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

/// Judges `command` on `current`, the stream that has the path now (if any), at `now`.
pub fn decide(current: Option<&Stream>, command: &Command, now: Millis) -> Result<Decision, Rejection> {
    let alive = current.filter(|stream| stream.is_alive(now));
    match command {
        Command::Create(create) => decide_create(alive, create, now),
        Command::Append(append) => decide_append(alive.ok_or(Rejection::NotFound)?, append),
        Command::Delete => {
            let incarnation = alive.ok_or(Rejection::NotFound)?.incarnation;
            Ok(Decision { effects: vec![Effect::Deleted { incarnation }], outcome: None })
        }
        Command::Touch => {
            let due = alive.filter(|stream| stream.lifetime.needs_renewal(stream.touched_at, now));
            let effects = due.map(|stream| Effect::Touched { incarnation: stream.incarnation });
            Ok(Decision { effects: effects.into_iter().collect(), outcome: None })
        }
        Command::Expire => {
            let dead = current.filter(|stream| !stream.is_alive(now));
            let effects = dead.map(|stream| Effect::Deleted { incarnation: stream.incarnation });
            Ok(Decision { effects: effects.into_iter().collect(), outcome: None })
        }
    }
}

fn decide_create(alive: Option<&Stream>, create: &Create, now: Millis) -> Result<Decision, Rejection> {
    if let Some(stream) = alive {
        let difference = [
            ("content type", stream.content_type != create.content_type),
            ("lifetime", stream.lifetime != create.lifetime),
            ("closure status", stream.closed.is_some() != create.closed),
        ];
        return match difference.into_iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(Rejection::Exists { what }),
            None => Ok(Decision { effects: Vec::new(), outcome: Some(outcome(stream, false, None)) }),
        };
    }
    let created = Effect::Created {
        incarnation: create.incarnation,
        content_type: create.content_type.clone(),
        lifetime: create.lifetime,
    };
    let mut effects = vec![created];
    if create.closed || !create.body.data.is_empty() {
        effects.push(Effect::Appended(Appended {
            incarnation: create.incarnation,
            start: 0,
            body: create.body.clone(),
            seq: None,
            producer: None,
            close: create.closed,
        }));
    }
    let stream = effects.iter().fold(None, |stream, effect| fold(stream, effect, now));
    let outcome = stream.as_ref().map(|stream| outcome(stream, true, None));
    Ok(Decision { effects, outcome })
}

/// The order of the checks is the protocol's error precedence: a zombie producer first (it must learn of its epoch
/// even when the stream is closed), then closed, content type, producer sequence, `Stream-Seq`.
fn decide_append(stream: &Stream, append: &Append) -> Result<Decision, Rejection> {
    let known = append.producer.as_ref().and_then(|p| stream.producers.get(&p.id).copied());
    if let (Some(producer), Some(known)) = (&append.producer, known)
        && producer.epoch < known.epoch
    {
        return Err(Rejection::StaleEpoch { current: known.epoch });
    }
    if let Some(closed) = &stream.closed {
        return decide_on_closed(stream, closed, append, known);
    }
    if let Some(received) = append.content_type.as_ref().filter(|_| !append.body.data.is_empty())
        && *received != stream.content_type
    {
        let (expected, received) = (stream.content_type.as_str().to_owned(), received.as_str().to_owned());
        return Err(Rejection::ContentTypeMismatch { expected, received });
    }
    if let Some(producer) = &append.producer {
        if let Verdict::Duplicate(accepted) = producer::judge(known, producer)? {
            let outcome = Some(outcome(stream, false, Some(accepted)));
            return Ok(Decision { effects: Vec::new(), outcome });
        }
        if known.is_none() && stream.producers.len() >= MAX_PRODUCERS {
            return Err(Rejection::TooMany { what: "the stream has as many producers as this server remembers" });
        }
    }
    if let (Some(seq), Some(last)) = (&append.seq, &stream.last_seq)
        && seq.as_bytes() <= last.as_bytes()
    {
        return Err(Rejection::SeqRegression { last: last.to_string() });
    }
    Ok(accept(stream, append))
}

/// A closed stream takes nothing more; a retry of what closed it, and a close without a body, succeed again.
fn decide_on_closed(
    stream: &Stream,
    closed: &Closed,
    append: &Append,
    known: Option<Accepted>,
) -> Result<Decision, Rejection> {
    let repeats = match &append.producer {
        Some(producer) => closed.by.as_ref() == Some(producer),
        None => append.close && append.body.data.is_empty(),
    };
    if repeats {
        let accepted = append.producer.as_ref().and(known);
        return Ok(Decision { effects: Vec::new(), outcome: Some(outcome(stream, false, accepted)) });
    }
    Err(Rejection::Closed { tail: stream.tail_offset() })
}

fn accept(stream: &Stream, append: &Append) -> Decision {
    let mut after = outcome(stream, true, append.producer.as_ref().map(|p| Accepted { epoch: p.epoch, seq: p.seq }));
    after.tail.position += append.body.data.len();
    after.closed = append.close;
    let appended = Appended {
        incarnation: stream.incarnation,
        start: stream.tail,
        body: append.body.clone(),
        seq: append.seq.clone(),
        producer: append.producer.clone(),
        close: append.close,
    };
    Decision { effects: vec![Effect::Appended(appended)], outcome: Some(after) }
}

fn outcome(stream: &Stream, fresh: bool, producer: Option<Accepted>) -> Outcome {
    Outcome {
        tail: stream.tail_offset(),
        closed: stream.closed.is_some(),
        content_type: stream.content_type.clone(),
        lifetime: stream.lifetime,
        fresh,
        producer,
    }
}

/// The stream after `effect`, which happened at `at`. An effect on an incarnation that is not there changes nothing.
pub fn fold(stream: Option<Stream>, effect: &Effect, at: Millis) -> Option<Stream> {
    match effect {
        Effect::Created { incarnation, content_type, lifetime } => Some(Stream {
            incarnation: *incarnation,
            content_type: content_type.clone(),
            lifetime: *lifetime,
            created_at: at,
            touched_at: at,
            tail: 0,
            tail_at: at,
            closed: None,
            last_seq: None,
            producers: Arc::default(),
        }),
        Effect::Appended(appended) => {
            let mut stream = stream?;
            if stream.incarnation == appended.incarnation {
                stream.take(appended, at);
            }
            Some(stream)
        }
        Effect::Deleted { incarnation } => stream.filter(|stream| stream.incarnation != *incarnation),
        Effect::Touched { incarnation } => stream.map(|mut stream| {
            if stream.incarnation == *incarnation {
                stream.touched_at = stream.touched_at.max(at);
            }
            stream
        }),
    }
}

impl Stream {
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
