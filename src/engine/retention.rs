//! Which bytes of a stream its retention lets go.

use super::context::Context;
use crate::clock::Millis;
use crate::layout::facts::Facts;
use crate::layout::manifest::{ChunkRef, Manifest};
use crate::protocol::stream::Trim;
use crate::protocol::{Incarnation, Retention};

/// What is to be said in the log, if it is worth it, so that the stream lets go of what it need not keep.
pub(super) fn trim(context: &Context, manifest: &Manifest) -> Option<Trim> {
    let facts = manifest.stream.as_ref()?;
    // Not by this machine's clock alone, which may be ahead.
    let now = context.clock.now().min(context.store.last_seen().0);
    let horizon = new_horizon(facts, manifest, now, context.page_bytes)?;
    let retention = Retention { bytes: facts.retention_bytes, age_seconds: facts.retention_age };
    Some(Trim { incarnation: Incarnation::new(facts.incarnation)?, horizon, retention })
}

/// Where the stream is to start from now on, if it is worth a write: a page end before which at least one chunk lies whole.
/// Only sealed bytes are let go.
fn new_horizon(stream: &Facts, manifest: &Manifest, now: Millis, page_bytes: u64) -> Option<u64> {
    let first = manifest.chunks.first()?;
    let by_bytes = stream.retention_bytes.map(|bytes| stream.tail.saturating_sub(bytes));
    let by_age = stream.retention_age.map(|seconds| {
        let limit = now.saturating_sub(seconds.saturating_mul(1000));
        let old = manifest.chunks.iter().take_while(|chunk| chunk.at < limit);
        old.last().map_or(0, ChunkRef::end)
    });
    let limit = by_bytes.max(by_age)?.min(stream.tail.saturating_sub(1));
    if limit < first.end() {
        return None;
    }
    let reached = manifest.chunks.iter().take_while(|chunk| chunk.start < limit);
    let page_ends = reached.flat_map(|chunk| chunk.page_ends(page_bytes)).take_while(|end| *end <= limit);
    page_ends.last().filter(|horizon| *horizon > stream.horizon && *horizon >= first.end())
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
