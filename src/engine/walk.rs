//! All objects of streams, folder by folder, in order of their keys.

use super::EngineError;
use super::context::Context;
use crate::layout::key::{self, Key};
use crate::store::{LIST_PAGE, Listed, StoreTime};

/// What lies in one stream's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    pub name: String,
    pub has_manifest: bool,
    pub chunks: Vec<Found>,
}

impl Folder {
    /// Whether there was a stream: more than one chunk of one incarnation is uploaded only for one that exists. A create
    /// that came to nothing leaves one behind.
    pub fn is_of_a_stream(&self) -> bool {
        let mut incarnations: Vec<u64> = self.chunks.iter().map(|chunk| chunk.incarnation).collect();
        incarnations.sort_unstable();
        self.has_manifest || incarnations.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// A chunk's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub key: String,
    pub incarnation: u64,
    pub nonce: u128,
    pub size: u64,
    pub modified: StoreTime,
}

impl Found {
    /// Its incarnation and nonce, by which manifests and the log name it.
    pub fn id(&self) -> (u64, u128) {
        (self.incarnation, self.nonce)
    }
}

/// The objects under a prefix, a page at a time.
pub(super) struct Pages<'a> {
    context: &'a Context,
    prefix: String,
    after: Option<String>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    pub fn of(context: &'a Context, prefix: impl Into<String>) -> Pages<'a> {
        Pages { context, prefix: prefix.into(), after: None, is_over: false }
    }

    pub async fn next(&mut self) -> Result<Option<Vec<Listed>>, EngineError> {
        if self.is_over {
            return Ok(None);
        }
        let listing = self.context.store.list(&self.prefix, self.after.as_deref(), LIST_PAGE).await?.value;
        self.is_over = !listing.more;
        self.after = listing.items.last().map(|item| item.key.clone());
        Ok(Some(listing.items).filter(|items| !items.is_empty()))
    }
}

/// The folders of all streams.
pub(super) struct Folders<'a> {
    pages: Pages<'a>,
    /// The last folder seen: there may be more of it on the next page.
    open: Option<Folder>,
    /// Keys under the prefix that are none of headwater's.
    pub foreign: Vec<String>,
}

impl<'a> Folders<'a> {
    pub fn of(context: &'a Context) -> Folders<'a> {
        Folders { pages: Pages::of(context, key::STREAMS), open: None, foreign: Vec::new() }
    }

    /// The folders that are complete after one more page; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Folder>>, EngineError> {
        let Some(page) = self.pages.next().await? else { return Ok(self.open.take().map(|last| vec![last])) };
        let mut complete = Vec::new();
        for item in page {
            let (name, chunk) = match Key::parse(&item.key) {
                Some(Key::Manifest { folder }) => (folder, None),
                Some(Key::Chunk { folder, incarnation, nonce }) => {
                    let Listed { key, size, modified } = item;
                    (folder, Some(Found { key, incarnation, nonce, size, modified }))
                }
                _ => {
                    self.foreign.push(item.key);
                    continue;
                }
            };
            if self.open.as_ref().is_none_or(|open| open.name != name) {
                complete.extend(self.open.replace(Folder { name, has_manifest: false, chunks: Vec::new() }));
            }
            let Some(open) = &mut self.open else { continue };
            match chunk {
                Some(chunk) => open.chunks.push(chunk),
                None => open.has_manifest = true,
            }
        }
        Ok(Some(complete))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::clock::Clock;
    use crate::protocol::{Incarnation, StreamName};
    use crate::store::memory::MemoryStore;
    use crate::store::{Condition, Store};

    #[tokio::test]
    async fn folders_are_whole_also_when_a_page_ends_within_one() {
        let store = Arc::new(MemoryStore::new(Clock::tokio(1_000_000)));
        let incarnation = Incarnation::new(7).unwrap_or(Incarnation::ANY);
        let name = |text: &str| StreamName::new(text).unwrap_or_else(|e| panic!("{e}"));
        let counts = [("a", 3, true), ("b/c", 2_500, true), ("d", 1, false)];
        for (stream, chunks, has_manifest) in counts {
            let stream = name(stream);
            let manifest = has_manifest.then(|| key::manifest(&stream));
            for key in (0..chunks).map(|nonce| key::chunk(&stream, incarnation, nonce)).chain(manifest) {
                store.put(&key, Bytes::new(), Condition::Absent).await.unwrap_or_else(|e| panic!("{e}"));
            }
        }
        store.put("streams/readme", Bytes::new(), Condition::Absent).await.unwrap_or_else(|e| panic!("{e}"));
        let context = crate::engine::context::for_tests(store, 1);
        let mut folders = Folders::of(&context);
        let mut seen = Vec::new();
        while let Some(some) = folders.next().await.unwrap_or_else(|e| panic!("{e}")) {
            seen.extend(some.into_iter().map(|folder| (folder.name, folder.chunks.len(), folder.has_manifest)));
        }
        let expected = counts.map(|(stream, chunks, has)| (key::folder(&name(stream)), chunks as usize, has));
        assert_eq!(seen, expected);
        assert_eq!(folders.foreign, ["streams/readme"]);
    }
}
