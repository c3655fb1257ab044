//! Faults for tests, on any store: did it apply × did we hear, late landings, refusals in bursts, latency, outages.
//! All chance comes from one seed, all time from tokio.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{Condition, Failure, FailureKind, Listing, Object, Put, Store, StoreError, StoreResult, StoreTime};
use crate::clock::Ids;

/// What goes wrong how often. Chances are in thousandths of the requests; the default is none.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Not applied, and we hear so: 503 SlowDown.
    pub refused: u64,
    /// Not applied, but we don't hear so.
    pub lost: u64,
    /// Applied, but we don't hear so.
    pub unheard: u64,
    /// A PUT that we don't hear of and that is applied only after `landing`, if its condition holds then.
    pub late: u64,
    pub landing: Range<Duration>,
    /// Begins a burst: all requests are refused for `burst`.
    pub bursts: u64,
    pub burst: Duration,
    /// Of every request.
    pub latency: Range<Duration>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    Refused,
    Lost,
    Unheard,
    /// Applied so long after it was reported as unknown. Of a request other than a PUT: lost.
    Late(Duration),
}

#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    ids: Ids,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    faults: Faults,
    outage: bool,
    burst_until: Option<Instant>,
    /// For coming PUTs of keys with a prefix, each used once.
    puts: Vec<(String, Fate)>,
}

impl Faulty {
    /// Without faults until told.
    pub fn new(inner: Arc<dyn Store>, ids: Ids) -> Faulty {
        Faulty { inner, ids, plan: Mutex::default() }
    }

    pub fn set(&self, faults: Faults) {
        self.plan().faults = faults;
    }

    /// While it lasts, no connection comes about: nothing is applied, and we hear so.
    pub fn outage(&self, outage: bool) {
        self.plan().outage = outage;
    }

    /// Decides over the next PUT of a key that starts with `prefix`, for which nothing has been decided yet.
    pub fn next_put(&self, prefix: &str, fate: Fate) {
        self.plan().puts.push((prefix.to_owned(), fate));
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as the request takes, and tells what becomes of it. Chance is drawn before the wait, so that the
    /// order of the calls alone decides over it.
    async fn fate(&self, operation: &'static str, key: &str) -> Result<Fate, StoreError> {
        let fate = self.draw(operation, key);
        let latency = self.between(&self.plan().faults.latency.clone());
        if !latency.is_zero() {
            sleep(latency).await;
        }
        if self.plan().outage {
            return Err(StoreError::NotApplied(failure(operation, key, FailureKind::Unavailable)));
        }
        match fate {
            Fate::Refused => Err(StoreError::NotApplied(failure(operation, key, FailureKind::Throttled))),
            Fate::Lost => Err(unheard(operation, key)),
            Fate::Late(_) if operation != "PUT" => Err(unheard(operation, key)),
            fate => Ok(fate),
        }
    }

    fn draw(&self, operation: &str, key: &str) -> Fate {
        let mut plan = self.plan();
        let decided = plan.puts.iter().position(|(prefix, _)| operation == "PUT" && key.starts_with(prefix));
        if let Some(decided) = decided {
            return plan.puts.remove(decided).1;
        }
        let now = Instant::now();
        let faults = plan.faults.clone();
        if self.happens(faults.bursts) {
            plan.burst_until = Some(now + faults.burst);
        }
        if plan.burst_until.is_some_and(|until| now < until) || self.happens(faults.refused) {
            Fate::Refused
        } else if self.happens(faults.lost) {
            Fate::Lost
        } else if self.happens(faults.unheard) {
            Fate::Unheard
        } else if self.happens(faults.late) {
            Fate::Late(self.between(&faults.landing))
        } else {
            Fate::Answered
        }
    }

    fn happens(&self, thousandths: u64) -> bool {
        thousandths > 0 && self.ids.between(0, 1000) < thousandths
    }

    fn between(&self, range: &Range<Duration>) -> Duration {
        if range.is_empty() {
            return range.start;
        }
        Duration::from_micros(self.ids.between(range.start.as_micros() as u64, range.end.as_micros() as u64))
    }
}

fn failure(operation: &'static str, key: &str, kind: FailureKind) -> Failure {
    Failure { operation, key: key.to_owned(), kind, message: "a fault of the test".to_owned(), retry_after: None }
}

/// Of a read it makes no difference whether it was applied.
fn unheard(operation: &'static str, key: &str) -> StoreError {
    let failure = failure(operation, key, FailureKind::Unavailable);
    match operation {
        "PUT" | "DELETE" => StoreError::Unknown(failure),
        _ => StoreError::NotApplied(failure),
    }
}

fn hear<T>(operation: &'static str, key: &str, fate: Fate, result: StoreResult<T>) -> StoreResult<T> {
    if fate == Fate::Answered { result } else { Err(unheard(operation, key)) }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        let fate = self.fate("GET", key).await?;
        hear("GET", key, fate, self.inner.get(key).await)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        let fate = self.fate("GET", key).await?;
        hear("GET", key, fate, self.inner.get_range(key, range).await)
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        let fate = self.fate("PUT", key).await?;
        if let Fate::Late(landing) = fate {
            let (inner, late_key) = (self.inner.clone(), key.to_owned());
            tokio::spawn(async move {
                sleep(landing).await;
                // Nobody is there any more to hear the result.
                let _ = inner.put(&late_key, body, condition).await;
            });
            return Err(unheard("PUT", key));
        }
        hear("PUT", key, fate, self.inner.put(key, body, condition).await)
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        let fate = self.fate("DELETE", key).await?;
        hear("DELETE", key, fate, self.inner.delete(key).await)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let fate = self.fate("LIST", prefix).await?;
        hear("LIST", prefix, fate, self.inner.list(prefix, after, limit).await)
    }

    fn last_seen(&self) -> StoreTime {
        self.inner.last_seen()
    }

    fn describe(&self) -> String {
        format!("{} with faults", self.inner.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::memory::MemoryStore;

    fn stores(seed: u64) -> (Arc<MemoryStore>, Faulty) {
        let memory = Arc::new(MemoryStore::new(Clock::tokio(1000)));
        let faulty = Faulty::new(memory.clone(), Ids::seeded(seed));
        (memory, faulty)
    }

    async fn put(store: &impl Store, key: &str) -> StoreResult<Put> {
        store.put(key, Bytes::from_static(b"x"), Condition::Absent).await
    }

    async fn has(store: &impl Store, key: &str) -> bool {
        store.get(key).await.is_ok_and(|reply| reply.value.is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn a_decided_fate_meets_one_put_of_its_prefix() {
        let (memory, faulty) = stores(1);
        for (fate, unknown, applied) in [
            (Fate::Answered, None, true),
            (Fate::Refused, Some(false), false),
            (Fate::Lost, Some(true), false),
            (Fate::Unheard, Some(true), true),
        ] {
            let key = format!("log/{fate:?}");
            faulty.next_put("log/", fate);
            assert!(put(&faulty, &format!("other/{fate:?}")).await.is_ok());
            let outcome = put(&faulty, &key).await;
            assert_eq!(outcome.err().map(|error| matches!(error, StoreError::Unknown(_))), unknown, "{fate:?}");
            assert_eq!(has(&*memory, &key).await, applied, "{fate:?}");
            assert!(put(&faulty, &key).await.is_ok(), "{fate:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_put_lands_only_if_its_condition_holds_then() {
        let (memory, faulty) = stores(1);
        for key in ["free", "taken"] {
            faulty.next_put("", Fate::Late(Duration::from_secs(5)));
            assert!(matches!(put(&faulty, key).await, Err(StoreError::Unknown(_))));
            assert!(!has(&*memory, key).await);
        }
        let rival = memory.put("taken", Bytes::from_static(b"rival"), Condition::Absent).await;
        assert!(rival.is_ok());
        sleep(Duration::from_secs(6)).await;
        assert!(has(&*memory, "free").await);
        let taken = memory.get("taken").await.ok().and_then(|reply| reply.value).map(|object| object.body);
        assert_eq!(taken.as_deref(), Some(&b"rival"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_lasts_until_it_is_over() {
        let (memory, faulty) = stores(1);
        faulty.outage(true);
        for _ in 0..3 {
            assert!(matches!(put(&faulty, "k").await, Err(StoreError::NotApplied(_))));
        }
        assert!(faulty.get("k").await.is_err() && !has(&*memory, "k").await);
        faulty.outage(false);
        assert!(put(&faulty, "k").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_faults() {
        let mut histories = Vec::new();
        for seed in [7, 7, 8] {
            let (_, faulty) = stores(seed);
            let (latency, landing) = (Duration::ZERO..Duration::from_millis(9), Duration::ZERO..Duration::from_secs(1));
            faulty.set(Faults {
                refused: 100,
                lost: 100,
                unheard: 100,
                late: 100,
                landing,
                bursts: 50,
                burst: Duration::from_millis(30),
                latency,
            });
            let (started, mut history) = (Instant::now(), Vec::new());
            for i in 0..100 {
                let outcome = put(&faulty, &format!("{i}")).await;
                history.push((started.elapsed(), format!("{:?}", outcome.map(|reply| reply.value))));
            }
            histories.push(history);
        }
        assert_eq!(histories[0], histories[1]);
        assert_ne!(histories[0], histories[2]);
    }
}
