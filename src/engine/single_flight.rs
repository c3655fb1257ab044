//! Making something once for all who want it at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is being made, by key. What has been made is for a cache to keep.
///
/// moka's futures could do this too, but its caches look at the machine's clock, and wake the tasks that use them when
/// it says so: a simulation could not be repeated exactly.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V>(Mutex<HashMap<K, Flight<V>>>);

/// Empty until it is made. Who holds the lock is at it.
type Slot<V> = Arc<tokio::sync::Mutex<Option<V>>>;

#[derive(Debug)]
struct Flight<V> {
    slot: Slot<V>,
    wanted_by: usize,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> SingleFlight<K, V> {
        SingleFlight(Mutex::default())
    }
}

impl<K: Hash + Eq, V> SingleFlight<K, V> {
    fn flights(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SingleFlight<K, V> {
    /// What `make` gives; or what it gives to someone who asked for the same key before and does not have it yet. When
    /// that one goes away, the next one makes it.
    pub async fn make(&self, key: &K, make: impl Future<Output = V>) -> V {
        let waiting = self.join(key);
        let mut made = waiting.slot.lock().await;
        if let Some(made) = &*made {
            return made.clone();
        }
        let value = make.await;
        *made = Some(value.clone());
        // Whoever comes later makes it anew.
        self.flights().remove(key);
        value
    }

    fn join<'a>(&'a self, key: &'a K) -> Waiting<'a, K, V> {
        let mut flights = self.flights();
        let new = || Flight { slot: Slot::default(), wanted_by: 0 };
        let flight = flights.entry(key.clone()).or_insert_with(new);
        flight.wanted_by += 1;
        Waiting { slot: Arc::clone(&flight.slot), key, all: self }
    }
}

/// One who wants it.
struct Waiting<'a, K: Hash + Eq, V> {
    slot: Slot<V>,
    key: &'a K,
    all: &'a SingleFlight<K, V>,
}

impl<K: Hash + Eq, V> Drop for Waiting<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.all.flights();
        // There may be another flight by now.
        let Some(flight) = flights.get_mut(self.key).filter(|flight| Arc::ptr_eq(&flight.slot, &self.slot)) else {
            return;
        };
        flight.wanted_by -= 1;
        if flight.wanted_by == 0 {
            flights.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    async fn slowly(made: &AtomicU32) -> u32 {
        sleep(Duration::from_millis(10)).await;
        made.fetch_add(1, Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_shares_and_who_asks_later_does_not() {
        let (flights, made) = (SingleFlight::default(), AtomicU32::new(0));
        let all = join_all((0..9).map(|n| flights.make(&[0, 1][n % 2], slowly(&made)))).await;
        assert_eq!(all, [0, 1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(flights.make(&0, slowly(&made)).await, 2);
        assert!(flights.flights().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_first_goes_away_the_next_one_makes_it() {
        let (flights, made) = (SingleFlight::default(), AtomicU32::new(0));
        let leaves = timeout(Duration::from_millis(5), flights.make(&0, slowly(&made)));
        let (left, stayed) = tokio::join!(leaves, flights.make(&0, slowly(&made)));
        assert!(left.is_err());
        assert_eq!((stayed, made.load(Ordering::Relaxed)), (0, 1));
        assert!(flights.flights().is_empty());
    }
}
