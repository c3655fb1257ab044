//! Buffers that many are sent: each is made once, cached, and counted for as long as anybody holds it.
//!
//! A cache bounds only what is in it. A client that takes its response slowly holds the response's bytes long after the
//! cache has let go of them, and ten thousand of them, each at another offset, hold ten thousand pages.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache;

use super::EngineError;
use super::admission::{Admission, Gate};
use super::single_flight::SingleFlight;

/// Memory beside the cache, if the cache is smaller than this: one page at least must always fit.
const LEAST_ROOM: u64 = 64 << 20;

pub struct Shared<K, E: Clone> {
    cache: Cache<K, Bytes>,
    under_way: SingleFlight<K, Result<Bytes, E>>,
    room: Arc<Gate>,
}

impl<K, E: Clone> fmt::Debug for Shared<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("room", &self.room).finish_non_exhaustive()
    }
}

impl<K, E> Shared<K, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    E: From<EngineError> + Clone + Send + Sync + 'static,
{
    /// As much as `capacity`, and at least 64 MiB, may be held beside the cache. `overhead` is what a key takes.
    pub fn new(capacity: u64, overhead: impl Fn(&K) -> usize + Send + Sync + 'static) -> Shared<K, E> {
        let weigh = move |key: &K, bytes: &Bytes| u32::try_from(bytes.len() + overhead(key)).unwrap_or(u32::MAX);
        let room = capacity.saturating_add(capacity.max(LEAST_ROOM));
        Shared {
            cache: Cache::builder().max_capacity(capacity).weigher(weigh).build(),
            under_way: SingleFlight::default(),
            room: Arc::new(Gate::new(room, "responses that are being sent take as much memory as they may")),
        }
    }

    /// The buffer, made by `make` if it is not there; concurrent callers share one making. `len` is its length, roughly:
    /// there must be room for it before it is made.
    pub async fn get(
        &self,
        key: K,
        len: u64,
        make: impl Future<Output = Result<Bytes, E>> + Send + 'static,
    ) -> Result<Bytes, E> {
        if let Some(bytes) = self.cache.get(&key) {
            return Ok(bytes);
        }
        let (cache, room, made_for) = (self.cache.clone(), Arc::clone(&self.room), key.clone());
        let counted = async move {
            let mut admission = admit(&room, &cache, len)?;
            let bytes = make.await?;
            if bytes.len() as u64 > len {
                admission.merge(admit(&room, &cache, bytes.len() as u64 - len)?);
            }
            let bytes = admission.cover(bytes);
            cache.insert(made_for, bytes.clone());
            Ok(bytes)
        };
        self.under_way.make(&key, counted).await
    }
}

fn admit<K>(room: &Gate, cache: &Cache<K, Bytes>, len: u64) -> Result<Admission, EngineError>
where
    K: Hash + Eq + Send + Sync + 'static,
{
    if let Ok(admission) = room.admit_part(len) {
        return Ok(admission);
    }
    // What the cache has given up is dropped now and then only.
    cache.run_pending_tasks();
    room.admit_part(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn page(shared: &Shared<u64, EngineError>, key: u64, len: usize) -> Result<Bytes, EngineError> {
        shared.get(key, len as u64, async move { Ok(Bytes::from(vec![0; len])) }).await
    }

    #[tokio::test]
    async fn what_is_held_beside_the_cache_is_bounded_and_given_back() {
        let shared = Shared::new(1 << 20, |_| 0);
        let mut held = Vec::new();
        for key in 0..80 {
            match page(&shared, key, 1 << 20).await {
                Ok(page) => held.push(page),
                Err(error) => assert!(matches!(error, EngineError::Overloaded { .. }), "{error}"),
            }
        }
        assert!((60..=65).contains(&held.len()), "{} MiB are held", held.len());
        assert!(page(&shared, 0, 1 << 20).await.is_ok() || page(&shared, 64, 1 << 20).await.is_ok(), "not shared");
        assert!(page(&shared, 99, 1 << 20).await.is_err());
        // A slice counts as the whole.
        let slices = held.iter().map(|page| page.slice(..1)).collect::<Vec<_>>();
        drop(held);
        assert!(page(&shared, 99, 1 << 20).await.is_err());
        drop(slices);
        // Moka frees what it has dropped once no thread of the process looks at any cache: not always at once.
        for _ in 0..1_000 {
            if page(&shared, 99, 1 << 20).await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("nothing is given back");
    }

    #[tokio::test]
    async fn one_buffer_that_is_larger_than_all_room_is_made_all_the_same() {
        let shared = Shared::new(1 << 20, |_| 0);
        let page = page(&shared, 1, 200 << 20).await;
        assert_eq!(page.map(|page| page.len()).ok(), Some(200 << 20));
    }

    #[tokio::test]
    async fn what_turns_out_longer_than_it_was_said_to_be_is_counted_whole() {
        let shared: Shared<i32, EngineError> = Shared::new(1 << 20, |_| 0);
        let long = |key| shared.get(key, 1, async { Ok(Bytes::from(vec![0; 30 << 20])) });
        let held = (long(1).await, long(2).await);
        assert!(held.0.is_ok() && held.1.is_ok() && long(3).await.is_err());
    }
}
