//! Checkpoints: a shard's log folded up to a position, so that a cold replica need not read it from the start.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::facts::Facts;
use super::manifest::{Foreign, hex128};
use super::{Damaged, following};
use crate::clock::Millis;
use crate::protocol::{Stream, StreamName, offset};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub shard: u32,
    /// Every position up to this one was read; the last valid entry among them was `id`, of time `at`.
    pub position: u64,
    #[serde(with = "hex128")]
    pub id: u128,
    pub at: Millis,
    /// No entry below this position is needed by whoever starts from this checkpoint.
    pub floor: u64,
    /// Positions below this one have been deleted.
    pub truncated: u64,
    /// Earlier checkpoints of which the floor is not yet reached by `truncated`.
    #[serde(default)]
    pub published: Vec<Published>,
    /// Streams with records that are not in their manifests.
    pub unsealed: Vec<Unsealed>,
}

impl Document for Checkpoint {
    const FORMAT: &'static str = "headwater-checkpoint";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), Damaged> {
        let wrong = |what: &str| Err(Damaged::new(what));
        if self.position >= offset::LIMIT {
            return wrong("its position is further than a log can be");
        }
        // Earlier floors may be above this one: who wrote those may have known of a seal that this writer had not heard of.
        let floors = self.published.iter().map(|published| published.floor).chain([self.truncated, self.floor]);
        if floors.max().is_some_and(|floor| floor > self.position + 1) {
            return wrong("entries that it does not cover may be deleted");
        }
        if !self.unsealed.is_sorted_by(|a, b| a.name < b.name) {
            return wrong("a stream is named twice");
        }
        self.unsealed.iter().try_for_each(|stream| stream.check(self.floor..=self.position))
    }
}

/// When (by the store's clock) a checkpoint with this floor was known to be in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub floor: u64,
    pub at: Millis,
}

/// One stream's records that are not in its manifest, folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsealed {
    pub name: String,
    /// The position of the last such record.
    pub last: u64,
    /// Its state after the last; `None`: deleted.
    pub stream: Option<Facts>,
    /// Where its bytes lie that no manifest names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// Page ends among these bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub page_ends: Vec<u64>,
    /// Chunks that were uploaded for incarnations since replaced, to be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub garbage: Vec<(u64, Nonce)>,
    /// Forks under this name that are gone, and their sources, which still have to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Release>,
}

/// A source that need not keep its bytes for a fork any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub source: String,
    pub source_incarnation: u64,
    /// The fork's.
    pub incarnation: u64,
}

impl Unsealed {
    /// `kept` are the positions that must still be there.
    fn check(&self, kept: RangeInclusive<u64>) -> Result<(), Damaged> {
        let wrong = |what: &str| Err(Damaged::new(format!("stream {}: {what}", self.name)));
        StreamName::new(&self.name).map_err(|error| Damaged::new(error.what))?;
        let stream = self.stream.clone().map(Stream::try_from).transpose()?;
        let tail = stream.map_or(0, |stream| stream.tail);
        let start = self.runs.first().map_or(tail, |run| run.start);
        let mut at = start;
        for run in &self.runs {
            let Some(end) = following(at, run.start, run.len) else { return wrong("its bytes have gaps") };
            if run.position > self.last || run.nonce.is_none() && !kept.contains(&run.position) {
                return wrong("its bytes are in an entry that is not kept");
            }
            at = end;
            run.foreign.as_ref().map_or(Ok(()), |foreign| foreign.check(run.len))?;
        }
        if at != tail || self.last > *kept.end() {
            return wrong("its bytes do not end where it does");
        }
        let page_ends = [start].into_iter().chain(self.page_ends.iter().copied());
        if !page_ends.is_sorted_by(|a, b| a < b) || self.page_ends.last().is_some_and(|end| *end > tail) {
            return wrong("its pages do not end within its bytes");
        }
        Ok(())
    }
}

/// A run of unsealed bytes, in the log or in a chunk that was uploaded for one append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub start: u64,
    pub len: u64,
    pub at: Millis,
    /// The position of the record (and entry).
    pub position: u64,
    /// The chunk that holds the bytes; absent if the entry itself does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// Of a fork: the chunk is another stream's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
}

/// A chunk's random name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "hex128")] pub u128);
