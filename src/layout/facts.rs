//! A stream's rule state as JSON, the same in manifests and checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Damaged;
use crate::clock::Millis;
use crate::protocol::producer::Accepted;
use crate::protocol::stream::Closed;
use crate::protocol::{ContentType, Incarnation, Lifetime, Producer, Stream, offset};

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
        Ok(Stream {
            incarnation: Incarnation::new(facts.incarnation)
                .ok_or_else(|| Damaged::new("an incarnation is out of range"))?,
            content_type: ContentType::new(&facts.content_type).map_err(|e| Damaged::new(e.what))?,
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
