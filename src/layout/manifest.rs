//! Manifests: one stream as of a position of its shard's log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::document::Document;
use super::facts::{Facts, fork_id};
use super::{Damaged, following};
use crate::clock::Millis;
use crate::protocol::fork::ForkId;
use crate::protocol::{Stream, StreamName, page};

/// Everything of a stream that the log's records up to `log_position` say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The stream's name (the key may hold only a hash of it).
    pub name: String,
    /// All records of this stream at or below this position are in here.
    pub log_position: u64,
    /// `None`: the stream was deleted. The manifest stays, so that a late write by a replica that has not heard of
    /// the deletion meets it instead of an absent key.
    pub stream: Option<Facts>,
    /// Sealed runs, in order, without gaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<ChunkRef>,
    /// Chunks before the stream's horizon, which its forks still need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<ChunkRef>,
    /// Bytes after the chunks, too few for a chunk of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<Inline>,
}

impl Manifest {
    /// All chunks that it names.
    pub fn named(&self) -> impl Iterator<Item = &ChunkRef> {
        self.kept.iter().chain(&self.chunks)
    }

    /// Incarnations and nonces of those that lie in the stream's own folder.
    pub fn own_chunks(&self) -> impl Iterator<Item = (u64, u128)> {
        let incarnation = self.stream.as_ref().map(|facts| facts.incarnation);
        let own = self.named().filter(|chunk| chunk.foreign.is_none());
        own.filter_map(move |chunk| Some((incarnation?, chunk.nonce)))
    }

    /// Where its bytes end.
    pub fn end(&self) -> u64 {
        let chunks = self.chunks.last().map(ChunkRef::end);
        // A fork may have begun with nothing at its source's horizon.
        let nothing = || self.stream.as_ref().map_or(0, |facts| facts.horizon);
        self.inline.as_ref().map(Inline::end).or(chunks).unwrap_or_else(nothing)
    }
}

impl Document for Manifest {
    const FORMAT: &'static str = "headwater-manifest";
    const VERSION: u32 = 1;

    /// Its parts are the whole stream: from its start to its end, without gaps.
    fn check(&self) -> Result<(), Damaged> {
        StreamName::new(&self.name).map_err(|error| Damaged::new(error.what))?;
        let horizon = self.stream.as_ref().map_or(0, |facts| facts.horizon);
        let first = self.chunks.first().map_or(horizon, |chunk| chunk.start);
        if first > horizon {
            return Err(Damaged::new(format!("it has bytes from {first} on of a stream that starts at {horizon}")));
        }
        let mut at = first;
        for chunk in &self.chunks {
            at = following(at, chunk.start, chunk.len)
                .ok_or_else(|| Damaged::new(format!("after {at} bytes it has a chunk of others")))?;
            chunk.foreign.as_ref().map_or(Ok(()), |foreign| foreign.check(chunk.len))?;
        }
        if let Some(inline) = &self.inline {
            let ends = [0].iter().chain(&inline.ends);
            if inline.start != at
                || !ends.is_sorted()
                || inline.ends.last().map(|end| *end as usize) != Some(inline.data.len())
            {
                return Err(Damaged::new(format!(
                    "after {at} bytes its inline data is of others, or not whole messages"
                )));
            }
            at = at.saturating_add(inline.data.len() as u64);
        }
        let stream = self.stream.clone().map(Stream::try_from).transpose()?;
        let tail = stream.map_or(0, |stream| stream.tail);
        if at != tail {
            return Err(Damaged::new(format!("it names {at} bytes of a stream of {tail}")));
        }
        Ok(())
    }
}

/// A run of a stream's bytes that lies in a chunk object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    #[serde(rename = "s")]
    pub start: u64,
    #[serde(rename = "l")]
    pub len: u64,
    #[serde(rename = "n", with = "hex128")]
    pub nonce: u128,
    /// When its last bytes came.
    #[serde(rename = "t")]
    pub at: Millis,
    /// The page ends in `(start, start + len]`, each as its distance from the multiple that it follows.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub overshoots: Vec<u32>,
    /// Of a fork: the chunk is another stream's.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
}

/// A chunk of another stream, that a fork inherited. It may have more bytes than the fork has of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    #[serde(rename = "n")]
    pub name: String,
    #[serde(rename = "i")]
    pub incarnation: u64,
    /// All its bytes.
    #[serde(rename = "w")]
    pub whole: u64,
}

impl Foreign {
    pub fn owner(&self) -> Result<ForkId, Damaged> {
        fork_id(&self.name, self.incarnation)
    }

    pub(super) fn check(&self, len: u64) -> Result<(), Damaged> {
        self.owner()?;
        if self.whole < len { Err(Damaged::new("more is inherited of a chunk than it has")) } else { Ok(()) }
    }
}

impl ChunkRef {
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The length of the whole chunk, of which a fork may have less.
    pub fn whole(&self) -> u64 {
        self.foreign.as_ref().map_or(self.len, |foreign| foreign.whole)
    }

    /// The page ends that lie in this chunk.
    pub fn page_ends(&self, page_bytes: u64) -> impl Iterator<Item = u64> {
        self.overshoots.iter().scan(self.start, move |previous, overshoot| {
            *previous = page::target(*previous, page_bytes).saturating_add(u64::from(*overshoot));
            Some(*previous)
        })
    }

    /// The first page end after `position` that lies in this chunk.
    pub fn page_end_after(&self, position: u64, page_bytes: u64) -> Option<u64> {
        self.page_ends(page_bytes).find(|end| *end > position)
    }

    /// What [`page_ends`](ChunkRef::page_ends) needs, for the page ends of a run that starts at `start`.
    pub fn overshoots(start: u64, page_ends: &[u64], page_bytes: u64) -> Vec<u32> {
        let mut previous = start;
        let distance = |end: &u64| {
            let beyond = end.saturating_sub(page::target(previous, page_bytes));
            previous = *end;
            u32::try_from(beyond).unwrap_or(u32::MAX)
        };
        page_ends.iter().map(distance).collect()
    }
}

/// A small run of a stream's bytes, kept in the manifest itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inline {
    pub start: u64,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Bytes,
    /// Where each message ends, counted from the run's start.
    pub ends: Vec<u32>,
    /// When the last bytes came.
    pub at: Millis,
}

impl Inline {
    pub fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

fn to_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

/// 128-bit numbers in hexadecimal: JSON's numbers do not hold them.
pub(super) mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::document;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        Manifest {
            name: "chat/1".to_owned(),
            log_position: 12,
            stream: Some(Facts {
                incarnation: 9,
                content_type: "text/plain".to_owned(),
                ttl_seconds: Some(60),
                expires_at: None,
                created_at: 1,
                touched_at: 2,
                tail: 105,
                tail_at: 3,
                closed: true,
                closed_by: Some(("p".to_owned(), 0, 1)),
                last_seq: Some("a".to_owned()),
                producers: [("p".to_owned(), (0, 1))].into(),
                origin: None,
                forks: Vec::new(),
                gone: false,
                retention_bytes: None,
                retention_age: None,
                horizon: 0,
            }),
            chunks: vec![ChunkRef { start: 0, len: 100, nonce: 0xabc, at: 2, overshoots: vec![0, 3], foreign: None }],
            kept: Vec::new(),
            inline: Some(Inline { start: 100, data: Bytes::from_static(b"hello"), ends: vec![5], at: 3 }),
        }
    }

    #[test]
    fn the_format_has_not_changed() {
        let golden = include_str!("../../tests/golden/manifest-v1.json");
        assert_eq!(String::from_utf8_lossy(&document::encode(&manifest(), 77)), golden.trim());
        assert_eq!(document::decode::<Manifest>(golden.as_bytes()), Ok(manifest()));
        assert!(document::was_written_as(golden.as_bytes(), 77) && !document::was_written_as(golden.as_bytes(), 78));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at: prop::sample::Index, byte: u8) {
            let object = document::encode(&manifest(), 1);
            let mut changed = object.to_vec();
            let at = at.index(object.len());
            prop_assume!(changed[at] != byte);
            changed[at] = byte;
            // The write id is not covered by the checksum: a damaged one only fails to be recognised.
            match document::decode::<Manifest>(&changed) {
                Err(_) => {}
                Ok(read) => prop_assert_eq!(read, manifest()),
            }
        }

        #[test]
        fn page_ends_survive_as_overshoots(start in 0u64..100, steps in proptest::collection::vec(1u32..40, 1..40), page in 1u64..30) {
            let ends: Vec<u32> = steps.iter().scan(0, |sum, n| { *sum += n; Some(*sum) }).collect();
            let page_ends = page::ends_in(start, &ends, page);
            let len = u64::from(ends[ends.len() - 1]);
            let chunk = ChunkRef { start, len, nonce: 0, at: 0, overshoots: ChunkRef::overshoots(start, &page_ends, page), foreign: None };
            for position in start..start + len {
                let expected = page_ends.iter().copied().find(|end| *end > position);
                prop_assert_eq!(chunk.page_end_after(position, page), expected);
            }
        }
    }
}
