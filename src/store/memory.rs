//! A store in memory, for tests and simulation, with the manners of S3 that matter: versions are content hashes, so
//! the same bytes written twice have one version, and its clock shows whole seconds.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, LIST_PAGE, LastSeen, Listed, Listing, Object, Put, Reply, Store, StoreResult};
use super::{StoreTime, Version, clip};
use crate::clock::Clock;

#[derive(Debug)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Object>>,
    clock: Clock,
    last_seen: LastSeen,
}

impl MemoryStore {
    pub fn new(clock: Clock) -> MemoryStore {
        MemoryStore { objects: Mutex::default(), clock, last_seen: LastSeen::default() }
    }

    /// A store of its own that has the same objects now.
    pub fn copy(&self) -> MemoryStore {
        let objects = Mutex::new(self.objects().clone());
        MemoryStore { objects, clock: self.clock.clone(), last_seen: LastSeen::default() }
    }

    /// Puts something else in the place of an object, or nothing: what no client of the store does.
    pub fn tamper(&self, key: &str, body: Option<Bytes>) {
        let mut objects = self.objects();
        match body {
            Some(body) => {
                let object = Object { version: Version::of(&body), body, modified: self.now() };
                objects.insert(key.to_owned(), object);
            }
            None => drop(objects.remove(key)),
        }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        // No code that holds it can panic half way through a change.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> StoreTime {
        StoreTime::whole_second(self.clock.now())
    }

    fn reply<T>(&self, value: T) -> StoreResult<T> {
        Ok(Reply { value, at: self.last_seen.saw(self.now()) })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        let found = self.objects().get(key).cloned();
        self.reply(found)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        let found = self.objects().get(key).map(|object| {
            let range = clip(&range, object.body.len() as u64);
            object.body.slice(range.start as usize..range.end as usize)
        });
        self.reply(found)
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        let version = Version::of(&body);
        let mut objects = self.objects();
        let holds = match (&condition, objects.get(key)) {
            (Condition::Absent, found) => found.is_none(),
            (Condition::Unchanged(expected), found) => found.is_some_and(|object| object.version == *expected),
        };
        if holds {
            let object = Object { body, version: version.clone(), modified: self.now() };
            objects.insert(key.to_owned(), object);
        }
        drop(objects);
        self.reply(if holds { Put::Written(version) } else { Put::Conflict })
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.objects().remove(key);
        self.reply(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let limit = limit.clamp(1, LIST_PAGE);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let objects = self.objects();
        let matching =
            objects.range::<str, _>((start, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let mut items: Vec<Listed> = matching
            .take(limit + 1)
            .map(|(key, object)| Listed { key: key.clone(), size: object.body.len() as u64, modified: object.modified })
            .collect();
        drop(objects);
        let more = items.len() > limit;
        items.truncate(limit);
        self.reply(Listing { items, more })
    }

    fn last_seen(&self) -> StoreTime {
        self.last_seen.get()
    }

    fn heard(&self, at: StoreTime) {
        self.last_seen.saw(at);
    }

    fn describe(&self) -> String {
        "memory:".to_owned()
    }
}
