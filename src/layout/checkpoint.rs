//! Checkpoints: a shard's log folded up to a position, so that a cold replica need not read it from the start.

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::facts::Facts;
use super::manifest::hex128;
use crate::clock::Millis;

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
}

/// A chunk's random name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "hex128")] pub u128);
