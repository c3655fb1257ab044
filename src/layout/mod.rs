//! What lies in the bucket: keys and versioned codecs, pure.
//!
//! | object | module | written |
//! |---|---|---|
//! | `cluster` | [`cluster`] | once |
//! | `collector` | [`collector`] | compare-and-swap |
//! | `log/{shard}/{position}` | [`entry`] | once |
//! | `checkpoint/{shard}` | [`checkpoint`] | compare-and-swap |
//! | `streams/{key}/manifest` | [`manifest`] | compare-and-swap |
//! | `streams/{key}/{incarnation}/{nonce}` | [`chunk`] | once |
//!
//! Every object carries a format version and a checksum, verified on every read. Objects that are replaced carry a
//! fresh write id, so that no two bodies have the same ETag, and a write of unknown outcome can be recognised.

pub mod checkpoint;
pub mod chunk;
pub mod cluster;
mod codec;
pub mod collector;
pub mod document;
pub mod entry;
pub mod facts;
pub mod key;
pub mod manifest;

/// Where a run of `len` bytes ends that starts at `start`, if it follows what ends at `at` and has bytes.
fn following(at: u64, start: u64, len: u64) -> Option<u64> {
    start.checked_add(len).filter(|end| start == at && *end > at)
}

/// An object's bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub String);

impl Damaged {
    pub fn new(what: impl Into<String>) -> Damaged {
        Damaged(what.into())
    }
}
