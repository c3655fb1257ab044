//! Making something once for all who want it at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

/// What is being made, by key. What has been made is for a cache to keep.
///
/// Any of those who wait drives the making: one who is not polled for a while, because its client takes no more of its
/// response, holds up nobody else.
///
/// moka's futures could do this too, but its caches look at the machine's clock, and wake the tasks that use them when
/// it says so: a simulation could not be repeated exactly.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V>(Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>)
where
    V: Clone;

impl<K, V: Clone> Default for SingleFlight<K, V> {
    fn default() -> SingleFlight<K, V> {
        SingleFlight(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> SingleFlight<K, V> {
    fn flights(&self) -> MutexGuard<'_, HashMap<K, WeakShared<BoxFuture<'static, V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone, V: Clone + Send + 'static> SingleFlight<K, V> {
    /// What `make` gives; or what it gives to someone who asked for the same key before and does not have it yet. It ends
    /// unfinished when nobody waits any more.
    pub async fn make(&self, key: &K, make: impl Future<Output = V> + Send + 'static) -> V {
        let mut waiting = self.join(key, make);
        match &mut waiting.making {
            Some(making) => making.await,
            // There is one until `waiting` is dropped.
            None => unreachable!("nothing is being made"),
        }
    }

    fn join<'a>(&'a self, key: &'a K, make: impl Future<Output = V> + Send + 'static) -> Waiting<'a, K, V> {
        let mut flights = self.flights();
        let under_way = flights.get(key).and_then(WeakShared::upgrade).filter(|making| making.peek().is_none());
        let making = under_way.unwrap_or_else(|| {
            let making = make.boxed().shared();
            flights.extend(making.downgrade().map(|weak| (key.clone(), weak)));
            making
        });
        Waiting { making: Some(making), key, all: self }
    }
}

/// One who wants it.
struct Waiting<'a, K: Hash + Eq, V: Clone> {
    making: Option<Shared<BoxFuture<'static, V>>>,
    key: &'a K,
    all: &'a SingleFlight<K, V>,
}

impl<K: Hash + Eq, V: Clone> Drop for Waiting<'_, K, V> {
    fn drop(&mut self) {
        self.making = None;
        let mut flights = self.all.flights();
        // There may be another flight by now.
        let under_way = flights.get(self.key).and_then(WeakShared::upgrade).filter(|making| making.peek().is_none());
        if under_way.is_none() {
            flights.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    async fn slowly(made: Arc<AtomicU32>) -> u32 {
        sleep(Duration::from_millis(10)).await;
        made.fetch_add(1, Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_shares_and_who_asks_later_does_not() {
        let (flights, made) = (SingleFlight::default(), Arc::new(AtomicU32::new(0)));
        let all = join_all((0..9).map(|n| flights.make(&[0, 1][n % 2], slowly(Arc::clone(&made))))).await;
        assert_eq!(all, [0, 1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(flights.make(&0, slowly(Arc::clone(&made))).await, 2);
        assert!(flights.flights().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_first_goes_away_the_next_one_goes_on() {
        let (flights, made) = (SingleFlight::default(), Arc::new(AtomicU32::new(0)));
        let leaves = timeout(Duration::from_millis(5), flights.make(&0, slowly(Arc::clone(&made))));
        let (left, stayed) = tokio::join!(leaves, flights.make(&0, slowly(Arc::clone(&made))));
        assert!(left.is_err());
        assert_eq!((stayed, made.load(Ordering::Relaxed)), (0, 1));
        assert!(flights.flights().is_empty());
        let alone = timeout(Duration::from_millis(5), flights.make(&0, slowly(Arc::clone(&made)))).await;
        assert!(alone.is_err() && flights.flights().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_is_not_polled_any_more_holds_up_nobody() {
        let (flights, made) = (SingleFlight::default(), Arc::new(AtomicU32::new(0)));
        let mut stalled = Box::pin(flights.make(&0, slowly(Arc::clone(&made))));
        assert!(futures::poll!(&mut stalled).is_pending());
        let other = timeout(Duration::from_secs(1), flights.make(&0, slowly(Arc::clone(&made)))).await;
        assert_eq!(other, Ok(0));
        assert_eq!(stalled.await, 0);
        assert!(flights.flights().is_empty());
    }
}
