//! The last committed bytes, and pages as they are served: each is fetched and encoded once, however many ask.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::EngineError;
use super::shared::Shared;
use super::single_flight::SingleFlight;
use crate::layout::entry::{Entry, Placed};
use crate::layout::key;
use crate::protocol::stream::{Appended, Data, Effect};
use crate::protocol::{Incarnation, StreamName};
use crate::store::Store;

/// One entry's bytes, found by stream. The bytes are slices of the entry's object.
#[derive(Debug, Default)]
pub(super) struct EntryData {
    object: Bytes,
    pieces: HashMap<(StreamName, Incarnation), Vec<Piece>>,
    weight: u32,
}

/// A run of one stream's bytes in one entry.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// The position of the first byte in the stream.
    start: u64,
    pub data: Bytes,
    /// Where each message ends, counted from the first byte.
    pub ends: Vec<u32>,
}

impl EntryData {
    pub fn new(entry: &Entry, object: &Bytes) -> EntryData {
        let mut pieces: HashMap<(StreamName, Incarnation), Vec<Piece>> = HashMap::new();
        for Placed { record, data_at } in &entry.records {
            let Effect::Appended(Appended { incarnation, start, body, .. }) = &record.effect else { continue };
            let Data::Inline(bytes) = &body.data else { continue };
            let runs = pieces.entry((record.name.clone(), *incarnation)).or_default();
            match runs.last_mut() {
                // An entry holds each stream's bytes side by side, so that a run of them is one slice.
                Some(run) if run.start + run.data.len() as u64 == *start => {
                    let before = run.data.len();
                    run.ends.extend(body.ends.iter().map(|end| before as u32 + end));
                    let end = *data_at as usize + bytes.len();
                    run.data = object.slice(*data_at as usize - before..end);
                }
                _ => runs.push(Piece { start: *start, data: bytes.clone(), ends: body.ends.clone() }),
            }
        }
        let overhead = |((name, _), runs): (&(StreamName, Incarnation), &Vec<Piece>)| {
            120 + name.as_str().len() + runs.iter().map(|run| 64 + run.ends.len() * 4).sum::<usize>()
        };
        let overhead: usize = pieces.iter().map(overhead).sum();
        let weight = u32::try_from(object.len() + overhead).unwrap_or(u32::MAX);
        EntryData { object: object.clone(), pieces, weight }
    }

    /// Of an entry that counts for nothing: it has no bytes of any stream.
    pub fn void(object: &Bytes) -> EntryData {
        let weight = u32::try_from(object.len()).unwrap_or(u32::MAX);
        EntryData { object: object.clone(), pieces: HashMap::new(), weight }
    }

    /// The run that starts at `start`, if it has `len` bytes.
    pub fn piece(&self, name: &StreamName, incarnation: Incarnation, start: u64, len: u64) -> Option<&Piece> {
        let runs = self.pieces.get(&(name.clone(), incarnation))?;
        runs.iter().find(|run| run.start == start && run.data.len() as u64 == len)
    }
}

/// A page as it is served.
pub(super) type PageKey = (StreamName, Incarnation, u64, u64);

/// Recent entries and served pages, each bounded in bytes.
#[derive(Debug)]
pub(super) struct Tails {
    entries: Cache<(u32, u64), Arc<EntryData>>,
    entries_under_way: SingleFlight<(u32, u64), Result<Arc<EntryData>, Missing>>,
    pages: Shared<PageKey, Missing>,
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
        let pages = Shared::new(page_bytes, |(name, ..): &PageKey| name.as_str().len() + 160);
        Tails { entries, entries_under_way: SingleFlight::default(), pages }
    }

    /// Takes in an entry that was committed or read.
    pub fn remember(&self, shard: u32, position: u64, data: Arc<EntryData>) {
        self.entries.insert((shard, position), data);
    }

    /// The entry's data, from memory or from the store.
    pub async fn entry(&self, store: &Arc<dyn Store>, shard: u32, position: u64) -> Result<Arc<EntryData>, Missing> {
        if let Some(data) = self.entries.get(&(shard, position)) {
            return Ok(data);
        }
        let (store, entries) = (Arc::clone(store), self.entries.clone());
        let fetch = async move {
            let key = key::log(shard, position);
            let object = store.get(&key).await.map_err(EngineError::from)?.value;
            let body = object.ok_or(Missing::Object { key: key.clone() })?.body;
            let entry = super::log::decode(&key, shard, position, &body)?;
            let data = Arc::new(EntryData::new(&entry, &body));
            entries.insert((shard, position), Arc::clone(&data));
            Ok(data)
        };
        self.entries_under_way.make(&(shard, position), fetch).await
    }

    /// The log object at a position, if it is in memory.
    pub fn object(&self, shard: u32, position: u64) -> Option<Bytes> {
        self.entries.get(&(shard, position)).map(|entry| entry.object.clone())
    }

    /// Whether the entry's data is in memory.
    pub fn has_entry(&self, shard: u32, position: u64) -> bool {
        self.entries.contains_key(&(shard, position))
    }

    /// The page, made by `make` if it is not in memory; concurrent callers share one making.
    pub async fn page(
        &self,
        key: PageKey,
        make: impl Future<Output = Result<Bytes, Missing>> + Send + 'static,
    ) -> Result<Bytes, Missing> {
        let len = key.3 - key.2;
        self.pages.get(key, len, make).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::entry::{self, Header};
    use crate::protocol::stream::Body;

    fn appended(start: u64, data: Data, ends: Vec<u32>) -> Effect {
        let incarnation = Incarnation::new(1).unwrap_or(Incarnation::ANY);
        Effect::Appended(Appended {
            incarnation,
            start,
            body: Body { data, ends },
            seq: None,
            producer: None,
            close: false,
        })
    }

    #[test]
    fn bytes_around_an_uploaded_chunk_are_told_apart() {
        let name = |text| StreamName::new(text).unwrap_or_else(|e| panic!("{e}"));
        let inline = |text: &'static str| Data::Inline(Bytes::from_static(text.as_bytes()));
        let records = [
            (name("a"), appended(0, inline("one"), vec![3])),
            (name("b"), appended(9, inline("other"), vec![5])),
            (name("a"), appended(3, inline("two"), vec![1, 3])),
            (name("a"), appended(6, Data::Chunk { nonce: 7, len: 100 }, vec![100])),
            (name("a"), appended(106, inline("three"), vec![5])),
        ];
        let header = Header { shard: 0, position: 1, id: 1, prev: 0, writer: 1, at: 0 };
        let object = entry::encode(&header, records.iter().map(|(name, effect)| (name, effect)));
        let entry = entry::decode(&object).unwrap_or_else(|e| panic!("{e}"));
        let data = EntryData::new(&entry, &object);
        let incarnation = Incarnation::new(1).unwrap_or(Incarnation::ANY);
        let piece = |text, start, len| {
            data.piece(&name(text), incarnation, start, len).map(|p| (p.data.clone(), p.ends.clone()))
        };
        assert_eq!(piece("a", 0, 6), Some((Bytes::from_static(b"onetwo"), vec![3, 4, 6])));
        assert_eq!(piece("a", 106, 5), Some((Bytes::from_static(b"three"), vec![5])));
        assert_eq!(piece("b", 9, 5), Some((Bytes::from_static(b"other"), vec![5])));
        assert_eq!((piece("a", 3, 3), piece("a", 0, 7)), (None, None));
    }
}
