//! A stream's rule state as JSON, the same in manifests and checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Damaged;
use crate::clock::Millis;
use crate::protocol::fork::{ForkId, Origin, Reference, Requested};
use crate::protocol::producer::Accepted;
use crate::protocol::stream::Closed;
use crate::protocol::{ContentType, Incarnation, Lifetime, Malformed, Producer, Retention, Stream, StreamName, offset};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub incarnation: u64,
    pub content_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
    pub created_at: Millis,
    pub touched_at: Millis,
    pub tail: u64,
    pub tail_at: Millis,
    pub closed: bool,
    /// Producer id, epoch, sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<(String, u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<String>,
    /// Producer id to epoch and highest sequence number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub producers: BTreeMap<String, (u64, u64)>,
    /// Of a fork: where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginFacts>,
    /// Name and incarnation of each fork, where it branches off, and since when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<(String, u64, u64, Millis)>,
    /// It was deleted, and is kept for its forks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// In seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_age: Option<u64>,
    /// Bytes before this position are not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub horizon: u64,
}

fn is_zero(position: &u64) -> bool {
    *position == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginFacts {
    pub source: String,
    pub incarnation: u64,
    /// The offset that was asked for; absent: the tail at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    pub sub_offset: u64,
    /// Whose offsets the positions up to these have.
    pub lineage: Vec<(u64, u64)>,
}

impl From<&Origin> for OriginFacts {
    fn from(origin: &Origin) -> OriginFacts {
        OriginFacts {
            source: origin.source.name.as_str().to_owned(),
            incarnation: origin.source.incarnation.get(),
            offset: origin.requested.offset.map(|offset| offset.to_string()),
            sub_offset: origin.requested.sub_offset,
            lineage: origin.lineage.iter().map(|(end, incarnation)| (*end, incarnation.get())).collect(),
        }
    }
}

impl TryFrom<OriginFacts> for Origin {
    type Error = Damaged;

    fn try_from(facts: OriginFacts) -> Result<Origin, Damaged> {
        let offset = facts.offset.map(|token| token.parse()).transpose();
        let lineage = facts.lineage.into_iter().map(|(end, of)| Ok((end, incarnation(of)?)));
        let origin = Origin {
            source: fork_id(&facts.source, facts.incarnation)?,
            requested: Requested { offset: offset.map_err(malformed)?, sub_offset: facts.sub_offset },
            lineage: lineage.collect::<Result<_, Damaged>>()?,
        };
        origin.check().map_err(Damaged::new)?;
        Ok(origin)
    }
}

pub(super) fn incarnation(value: u64) -> Result<Incarnation, Damaged> {
    Incarnation::new(value).ok_or_else(|| Damaged::new("an incarnation is out of range"))
}

fn malformed(error: Malformed) -> Damaged {
    Damaged::new(error.what)
}

/// A stream, by a name and a number that were read.
pub fn fork_id(name: &str, number: u64) -> Result<ForkId, Damaged> {
    Ok(ForkId { name: StreamName::new(name).map_err(malformed)?, incarnation: incarnation(number)? })
}

impl From<&Stream> for Facts {
    fn from(stream: &Stream) -> Facts {
        let (ttl_seconds, expires_at) = match stream.lifetime {
            Lifetime::Forever => (None, None),
            Lifetime::Ttl(seconds) => (Some(seconds), None),
            Lifetime::Until(moment) => (None, Some(moment)),
        };
        let closed_by = stream.closed.as_ref().and_then(|closed| closed.by.as_ref());
        Facts {
            incarnation: stream.incarnation.get(),
            content_type: stream.content_type.as_str().to_owned(),
            ttl_seconds,
            expires_at,
            created_at: stream.created_at,
            touched_at: stream.touched_at,
            tail: stream.tail,
            tail_at: stream.tail_at,
            closed: stream.closed.is_some(),
            closed_by: closed_by.map(|by| (by.id.clone(), by.epoch, by.seq)),
            last_seq: stream.last_seq.as_deref().map(str::to_owned),
            producers: stream.producers.iter().map(|(id, a)| (id.clone(), (a.epoch, a.seq))).collect(),
            origin: stream.origin.as_deref().map(OriginFacts::from),
            forks: stream
                .forks
                .iter()
                .map(|(fork, held)| (fork.name.as_str().to_owned(), fork.incarnation.get(), held.position, held.since))
                .collect(),
            gone: stream.is_gone,
            retention_bytes: stream.retention.bytes,
            retention_age: stream.retention.age_seconds,
            horizon: stream.horizon,
        }
    }
}

impl TryFrom<Facts> for Stream {
    type Error = Damaged;

    fn try_from(facts: Facts) -> Result<Stream, Damaged> {
        let lifetime = match (facts.ttl_seconds, facts.expires_at) {
            (None, None) => Lifetime::Forever,
            (Some(seconds), None) => Lifetime::Ttl(seconds),
            (None, Some(moment)) => Lifetime::Until(moment),
            (Some(_), Some(_)) => return Err(Damaged::new("a stream has two lifetimes")),
        };
        if facts.tail >= offset::LIMIT {
            return Err(Damaged::new("a stream is longer than a stream can be"));
        }
        if facts.closed_by.is_some() && !facts.closed {
            return Err(Damaged::new("an open stream was closed by someone"));
        }
        let by = facts.closed_by.map(|(id, epoch, seq)| Producer { id, epoch, seq });
        let accepted = |(id, (epoch, seq))| (id, Accepted { epoch, seq });
        let forks = facts.forks.into_iter().map(|(name, number, position, since)| {
            if position > facts.tail {
                return Err(Damaged::new("a fork branches off where a stream has not got to"));
            }
            Ok((fork_id(&name, number)?, Reference { position, since }))
        });
        let origin = facts.origin.map(Origin::try_from).transpose()?;
        if origin.as_ref().is_some_and(|origin| origin.position() > facts.tail) {
            return Err(Damaged::new("a fork is shorter than what it inherited"));
        }
        if facts.horizon > facts.tail {
            return Err(Damaged::new("a stream starts after its end"));
        }
        Ok(Stream {
            retention: Retention { bytes: facts.retention_bytes, age_seconds: facts.retention_age },
            horizon: facts.horizon,
            origin: origin.map(Arc::new),
            forks: Arc::new(forks.collect::<Result<_, Damaged>>()?),
            is_gone: facts.gone,
            incarnation: incarnation(facts.incarnation)?,
            content_type: ContentType::new(&facts.content_type).map_err(malformed)?,
            lifetime,
            created_at: facts.created_at,
            touched_at: facts.touched_at,
            tail: facts.tail,
            tail_at: facts.tail_at,
            closed: facts.closed.then_some(Closed { by }),
            last_seq: facts.last_seq.map(Into::into),
            producers: Arc::new(facts.producers.into_iter().map(accepted).collect()),
        })
    }
}
