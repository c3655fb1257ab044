//! The last committed bytes, and pages as they are served: each is fetched and encoded once, however many ask.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::EngineError;
use crate::layout::entry::{Entry, Placed};
use crate::layout::key;
use crate::protocol::stream::{Appended, Data, Effect};
use crate::protocol::{Incarnation, StreamName};
use crate::store::Store;

/// One entry's bytes, found by stream. The bytes are slices of the entry's object.
#[derive(Debug, Default)]
pub(super) struct EntryData {
    pieces: HashMap<(StreamName, Incarnation), Piece>,
    weight: u32,
}

/// The bytes of one stream in one entry, and where each message ends, counted from the first byte.
#[derive(Debug, Clone, Default)]
pub(super) struct Piece {
    pub data: Bytes,
    pub ends: Vec<u32>,
}

impl EntryData {
    pub fn new(entry: &Entry, object: &Bytes) -> EntryData {
        let mut pieces: HashMap<(StreamName, Incarnation), (usize, Piece)> = HashMap::new();
        for Placed { record, data_at } in &entry.records {
            let Effect::Appended(Appended { incarnation, body, .. }) = &record.effect else { continue };
            let Data::Inline(bytes) = &body.data else { continue };
            let start = *data_at as usize;
            let (first, piece) =
                pieces.entry((record.name.clone(), *incarnation)).or_insert_with(|| (start, Piece::default()));
            let before = u32::try_from(piece.data.len()).unwrap_or(u32::MAX);
            piece.ends.extend(body.ends.iter().map(|end| before + end));
            // An entry holds each stream's bytes in one run.
            piece.data = object.slice(*first..start + bytes.len());
        }
        let overhead: usize =
            pieces.iter().map(|((name, _), (_, p))| 160 + name.as_str().len() + p.ends.len() * 4).sum();
        let weight = u32::try_from(object.len() + overhead).unwrap_or(u32::MAX);
        EntryData { pieces: pieces.into_iter().map(|(key, (_, piece))| (key, piece)).collect(), weight }
    }

    pub fn piece(&self, name: &StreamName, incarnation: Incarnation) -> Option<&Piece> {
        self.pieces.get(&(name.clone(), incarnation))
    }
}

/// A page as it is served.
pub(super) type PageKey = (StreamName, Incarnation, u64, u64);

/// Recent entries and served pages, each bounded in bytes.
#[derive(Debug)]
pub(super) struct Tails {
    entries: Cache<(u32, u64), Arc<EntryData>>,
    pages: Cache<PageKey, Bytes>,
}

/// Why bytes could not be had.
#[derive(Debug, Clone)]
pub(super) enum Missing {
    /// There is no such object: whoever named it may have had old news.
    Object {
        key: String,
    },
    Failed(EngineError),
}

impl From<EngineError> for Missing {
    fn from(error: EngineError) -> Missing {
        Missing::Failed(error)
    }
}

impl Tails {
    pub fn new(entry_bytes: u64, page_bytes: u64) -> Tails {
        // Least recently used: what was written last is what live readers ask for, however seldom it was asked before.
        let entries = Cache::builder()
            .max_capacity(entry_bytes)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, entry: &Arc<EntryData>| entry.weight)
            .build();
        let pages = Cache::builder()
            .max_capacity(page_bytes)
            .weigher(|(name, ..): &PageKey, page: &Bytes| {
                u32::try_from(page.len() + name.as_str().len() + 160).unwrap_or(u32::MAX)
            })
            .build();
        Tails { entries, pages }
    }

    /// Takes in an entry that was committed or read.
    pub async fn remember(&self, shard: u32, position: u64, data: Arc<EntryData>) {
        self.entries.insert((shard, position), data).await;
    }

    /// The entry's data, from memory or from the store.
    pub async fn entry(&self, store: &dyn Store, shard: u32, position: u64) -> Result<Arc<EntryData>, Missing> {
        let fetch = async {
            let key = key::log(shard, position);
            let object = store.get(&key).await.map_err(EngineError::from)?.value;
            let body = object.ok_or(Missing::Object { key: key.clone() })?.body;
            let entry = super::log::decode(&key, shard, position, &body)?;
            Ok(Arc::new(EntryData::new(&entry, &body)))
        };
        self.entries.try_get_with((shard, position), fetch).await.map_err(|error: Arc<Missing>| Missing::clone(&error))
    }

    /// Whether the entry's data is in memory.
    pub fn has_entry(&self, shard: u32, position: u64) -> bool {
        self.entries.contains_key(&(shard, position))
    }

    /// The page, made by `make` if it is not in memory; concurrent callers share one making.
    pub async fn page(
        &self,
        key: PageKey,
        make: impl Future<Output = Result<Bytes, Missing>>,
    ) -> Result<Bytes, Missing> {
        self.pages.try_get_with(key, make).await.map_err(|error: Arc<Missing>| Missing::clone(&error))
    }
}
