//! Faults for tests, on any store: did it apply × did we hear, late landings, refusals in bursts, latency, outages, and
//! cuts that hit some keys or one direction only. All chance comes from one seed, all time from tokio.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::StoreTime;
use super::{Condition, Failure, FailureKind, LastSeen, Listing, Object, Put, Reply, Store, StoreError, StoreResult};
use crate::clock::Ids;

/// What goes wrong how often. Chances are in thousandths of the requests; the default is none.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Not applied, and we hear so: 503 SlowDown, or 429.
    pub refused: u64,
    /// Not applied, but we don't hear so.
    pub lost: u64,
    /// Applied, but we don't hear so.
    pub unheard: u64,
    /// A PUT or DELETE that we don't hear of and that is applied only after `landing`, a PUT if its condition holds then.
    pub late: u64,
    pub landing: Range<Duration>,
    /// Begins a burst: all requests are refused for `burst`.
    pub bursts: u64,
    pub burst: Duration,
    /// Of every request, on its way and of its answer.
    pub latency: Range<Duration>,
    /// Requests that take `slowness` instead.
    pub slow: u64,
    pub slowness: Range<Duration>,
    /// After that long without an answer, we give up.
    pub patience: Range<Duration>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    Refused,
    Lost,
    Unheard,
    /// Applied so long after it was reported as unknown. Of a request other than a PUT or DELETE: lost.
    Late(Duration),
}

/// What does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Requests,
    /// Everything is applied, and nothing is heard of it.
    Answers,
}

/// No way to or from all keys that start with `prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub prefix: String,
    pub direction: Direction,
}

/// One client's connection to a store: a client that does not hear an answer does not learn its time either.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    ids: Ids,
    last_seen: LastSeen,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    faults: Faults,
    outage: bool,
    cuts: Vec<Cut>,
    burst_until: Option<Instant>,
    /// For coming PUTs of keys with a prefix, each used once.
    puts: Vec<(String, Fate)>,
}

/// All that chance has to say of a request, drawn before it is sent, so that the order of the calls alone decides.
#[derive(Debug)]
struct Trip {
    operation: &'static str,
    key: String,
    fate: Fate,
    there: Duration,
    back: Duration,
    patience: Duration,
    retry_after: Option<Duration>,
}

impl Faulty {
    /// Without faults until told.
    pub fn new(inner: Arc<dyn Store>, ids: Ids) -> Faulty {
        Faulty { inner, ids, last_seen: LastSeen::default(), plan: Mutex::default() }
    }

    pub fn set(&self, faults: Faults) {
        self.plan().faults = faults;
    }

    /// While it lasts, no connection comes about: nothing is applied, and we hear so.
    pub fn outage(&self, outage: bool) {
        self.plan().outage = outage;
    }

    /// From now on these are cut, and no others.
    pub fn cut(&self, cuts: Vec<Cut>) {
        self.plan().cuts = cuts;
    }

    /// Decides over the next PUT of a key that starts with `prefix`, for which nothing has been decided yet.
    pub fn next_put(&self, prefix: &str, fate: Fate) {
        self.plan().puts.push((prefix.to_owned(), fate));
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self, key: &str, direction: Direction) -> bool {
        self.plan().cuts.iter().any(|cut| cut.direction == direction && key.starts_with(&cut.prefix))
    }

    fn draw(&self, operation: &'static str, key: &str) -> Trip {
        let fate = self.draw_fate(operation, key);
        let Faults { latency, slow, slowness, patience, .. } = self.plan().faults.clone();
        let way = || if self.happens(slow) { self.between(&slowness) } else { self.between(&latency) };
        let (there, back) = (way(), way());
        // 503 SlowDown says nothing of when to come back; 429 does.
        let retry_after = (fate == Fate::Refused && self.ids.between(0, 2) == 0).then_some(Duration::from_secs(1));
        Trip { operation, key: key.to_owned(), fate, there, back, patience: self.between(&patience), retry_after }
    }

    fn draw_fate(&self, operation: &str, key: &str) -> Fate {
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

    /// Takes the request through its fate. `apply` is what the store does with it.
    async fn carry<T>(&self, trip: Trip, apply: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        wait(trip.there).await;
        if self.plan().outage {
            return Err(StoreError::NotApplied(trip.failure(FailureKind::Unavailable)));
        }
        if trip.fate == Fate::Refused {
            wait(trip.back).await;
            return Err(StoreError::NotApplied(trip.failure(FailureKind::Throttled)));
        }
        let arrives =
            matches!(trip.fate, Fate::Answered | Fate::Unheard) && !self.is_cut(&trip.key, Direction::Requests);
        let answer = if arrives { Some(apply.await) } else { None };
        wait(trip.back).await;
        match answer {
            Some(answer) if trip.fate == Fate::Answered && !self.is_cut(&trip.key, Direction::Answers) => {
                answer.map(|reply| Reply { at: self.last_seen.saw(reply.at), ..reply })
            }
            _ => {
                wait(trip.patience).await;
                Err(trip.unheard())
            }
        }
    }

    /// Lets `apply` happen when everyone has stopped waiting for it, whose result nobody hears.
    fn land_late<T>(&self, trip: &Trip, apply: impl Future<Output = StoreResult<T>> + Send + 'static) {
        let Fate::Late(landing) = trip.fate else { return };
        tokio::spawn(async move {
            sleep(landing).await;
            let _ = apply.await;
        });
    }
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl Trip {
    fn failure(&self, kind: FailureKind) -> Failure {
        let message = "a fault of the test".to_owned();
        Failure { operation: self.operation, key: self.key.clone(), kind, message, retry_after: self.retry_after }
    }

    /// Of a read it makes no difference whether it was applied.
    fn unheard(&self) -> StoreError {
        let failure = self.failure(FailureKind::Unavailable);
        match self.operation {
            "PUT" | "DELETE" => StoreError::Unknown(failure),
            _ => StoreError::NotApplied(failure),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        self.carry(self.draw("GET", key), self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        self.carry(self.draw("GET", key), self.inner.get_range(key, range)).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        let trip = self.draw("PUT", key);
        let (inner, own_key) = (Arc::clone(&self.inner), key.to_owned());
        let (late_body, late_condition) = (body.clone(), condition.clone());
        self.land_late(&trip, async move { inner.put(&own_key, late_body, late_condition).await });
        self.carry(trip, self.inner.put(key, body, condition)).await
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        let trip = self.draw("DELETE", key);
        let (inner, own_key) = (Arc::clone(&self.inner), key.to_owned());
        self.land_late(&trip, async move { inner.delete(&own_key).await });
        self.carry(trip, self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        self.carry(self.draw("LIST", prefix), self.inner.list(prefix, after, limit)).await
    }

    fn last_seen(&self) -> StoreTime {
        self.last_seen.get()
    }

    fn heard(&self, at: StoreTime) {
        self.last_seen.saw(at);
    }

    fn describe(&self) -> String {
        format!("{} with faults", self.inner.describe())
    }
}

#[cfg(test)]
#[path = "faulty_tests.rs"]
mod tests;
