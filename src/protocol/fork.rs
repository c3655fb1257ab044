//! Forks (§4.2): what a fork inherits, where it branches off, and when its source is really gone.

use super::{ContentType, Incarnation, Lifetime, Offset, Rejection, Retention, Stream, StreamName};
use crate::clock::Millis;

/// One fork of a stream, named for good: the same path may be forked to again after a deletion.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForkId {
    pub name: StreamName,
    pub incarnation: Incarnation,
}

/// What a source remembers of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Where it branches off: bytes before are needed for as long as the fork lives.
    pub position: u64,
    /// When the fork was prepared, by the store's clock.
    pub since: Millis,
}

/// What a fork remembers of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub source: ForkId,
    pub requested: Requested,
    /// Whose offsets the inherited positions have: up to each of these positions, in rising order. The last one is where
    /// the fork branches off.
    pub lineage: Vec<(u64, Incarnation)>,
}

impl Origin {
    /// Where the fork branches off.
    pub fn position(&self) -> u64 {
        self.lineage.last().map_or(0, |(end, _)| *end)
    }

    /// What of it can't be.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.lineage.is_empty() || !self.lineage.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err("what a fork inherited does not go on where it ended");
        }
        Ok(())
    }
}

/// The point that a fork was asked for: a repeated request must ask for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requested {
    /// Absent: the source's tail at the time.
    pub offset: Option<Offset>,
    pub sub_offset: u64,
}

/// A PUT with `Stream-Forked-From`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRequest {
    pub source: StreamName,
    pub requested: Requested,
    /// Absent: the source's.
    pub content_type: Option<ContentType>,
    /// Absent: the source's.
    pub lifetime: Option<Lifetime>,
    pub closed: bool,
    /// A fork's own; it inherits none.
    pub retention: Option<Retention>,
}

impl ForkRequest {
    /// Whether the stream that is there is what this asks for.
    pub fn is_met_by(&self, stream: &Stream) -> Result<(), Rejection> {
        let origin = stream.origin.as_deref();
        let other_source = origin.is_none_or(|origin| origin.source.name != self.source);
        Rejection::of_differences([
            ("source", other_source),
            ("fork offset", origin.is_some_and(|origin| origin.requested != self.requested)),
            ("content type", self.content_type.as_ref().is_some_and(|asked| *asked != stream.content_type)),
            ("lifetime", self.lifetime.is_some_and(|asked| asked != stream.lifetime)),
            ("closure status", stream.closed.is_some() != self.closed),
        ])
    }
}

/// Whose offsets the positions up to `position` of a stream have: what a fork at `position` inherits.
pub fn lineage(stream: &Stream, position: u64) -> Vec<(u64, Incarnation)> {
    let inherited = stream.origin.as_deref().map_or(&[][..], |origin| &origin.lineage);
    let mut lineage: Vec<(u64, Incarnation)> = Vec::new();
    for (end, incarnation) in inherited {
        lineage.push(((*end).min(position), *incarnation));
        if *end >= position {
            return lineage;
        }
    }
    lineage.push((position, stream.incarnation));
    lineage
}

/// Where a fork of `source` branches off that asks for `offset` (the tail, if it does not say).
pub fn position(source: &Stream, offset: Option<Offset>) -> Result<u64, Rejection> {
    let Some(offset) = offset else { return Ok(source.tail) };
    if offset.position > source.tail {
        return Err(Rejection::BeyondTail { tail: source.tail_offset() });
    }
    if offset.position < source.horizon {
        return Err(Rejection::ForkOffset { what: "Stream-Fork-Offset is before what is kept of the stream" });
    }
    if !source.admits(offset) {
        return Err(Rejection::ForkOffset { what: "Stream-Fork-Offset is of another stream" });
    }
    Ok(offset.position)
}
