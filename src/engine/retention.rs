//! Which bytes of a stream its retention lets go.

use crate::clock::Millis;
use crate::layout::manifest::{ChunkRef, Manifest};
use crate::protocol::Stream;

/// Where the stream is to start from now on, if it is worth a write: a page end before which at least one chunk lies whole.
/// Only sealed bytes are let go.
pub(super) fn new_horizon(stream: &Stream, manifest: &Manifest, now: Millis, page_bytes: u64) -> Option<u64> {
    let first = manifest.chunks.first()?;
    let by_bytes = stream.retention.bytes.map(|bytes| stream.tail.saturating_sub(bytes));
    let by_age = stream.retention.age_seconds.map(|seconds| {
        let limit = now.saturating_sub(seconds.saturating_mul(1000));
        let old = manifest.chunks.iter().take_while(|chunk| chunk.at < limit);
        old.last().map_or(0, ChunkRef::end)
    });
    let limit = by_bytes.max(by_age)?.min(stream.tail.saturating_sub(1));
    if limit < first.end() {
        return None;
    }
    let reached = manifest.chunks.iter().take_while(|chunk| chunk.start < limit);
    let page_ends = reached.flat_map(|chunk| page_ends(chunk, page_bytes)).take_while(|end| *end <= limit);
    page_ends.last().filter(|horizon| *horizon > stream.horizon && *horizon >= first.end())
}

fn page_ends(chunk: &ChunkRef, page_bytes: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(chunk.page_end_after(chunk.start, page_bytes), move |end| {
        chunk.page_end_after(*end, page_bytes)
    })
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
