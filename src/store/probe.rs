//! The store contract, tried on the store itself at every start: a store that accepts conditions but ignores them, or
//! checks them without atomicity, would lose acknowledged writes silently.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures::future::join_all;

use super::{Condition, Failure, Object, Put, Store, StoreError, StoreTime, Version};
use crate::clock::Ids;

const RACERS: usize = 8;
/// How often a PUT is sent whose outcome stays unknown.
const SENDS: u32 = 5;

/// Why a store must not be used, or cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ProbeFailure {
    pub what: String,
    /// The store did not answer, which may pass; else it answered wrongly.
    pub is_transient: bool,
}

/// Tries every primitive that the log relies on, under `probe/{random id}/`, and cleans up.
pub async fn probe(store: &dyn Store, ids: &Ids) -> Result<(), ProbeFailure> {
    let probe = Probe { store, prefix: format!("probe/{:032x}/", ids.id()) };
    let result = probe.run().await;
    probe.clean_up().await;
    result
}

struct Probe<'a> {
    store: &'a dyn Store,
    prefix: String,
}

impl Probe<'_> {
    async fn run(&self) -> Result<(), ProbeFailure> {
        self.conditions().await?;
        self.missing_key().await?;
        self.ranges().await?;
        self.listing().await?;
        self.racing_creators().await?;
        self.racing_updaters().await?;
        self.deletion().await
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn conditions(&self) -> Result<(), ProbeFailure> {
        let key = self.key("conditions");
        if self.get(&key).await?.is_some() {
            return refuse("GET of a key that was never written found an object");
        }
        let Some(first) = self.put(&key, "first", Condition::Absent).await? else {
            return refuse("PUT with If-None-Match on a new key was rejected");
        };
        self.expect(&key, "first", Some(&first), "GET after a PUT").await?;
        if self.put(&key, "second", Condition::Absent).await?.is_some() {
            return refuse("PUT with If-None-Match on an existing key was accepted");
        }
        self.expect(&key, "first", Some(&first), "GET after a rejected PUT").await?;
        let Some(third) = self.put(&key, "third", Condition::Unchanged(first.clone())).await? else {
            return refuse("PUT with If-Match of the current ETag was rejected");
        };
        self.expect(&key, "third", Some(&third), "GET after an update").await?;
        if self.put(&key, "fourth", Condition::Unchanged(first)).await?.is_some() {
            return refuse("PUT with If-Match of an old ETag was accepted");
        }
        self.expect(&key, "third", Some(&third), "GET after a rejected update").await
    }

    async fn missing_key(&self) -> Result<(), ProbeFailure> {
        let elsewhere = self.key("elsewhere");
        let Some(version) = self.put(&elsewhere, "an object", Condition::Absent).await? else {
            return refuse("PUT with If-None-Match on a new key was rejected");
        };
        let missing = self.key("missing");
        let put = self.put(&missing, "an object", Condition::Unchanged(version)).await?;
        if put.is_some() || self.get(&missing).await?.is_some() {
            return refuse("PUT with If-Match on a key without an object was accepted");
        }
        Ok(())
    }

    async fn ranges(&self) -> Result<(), ProbeFailure> {
        let key = self.key("ranges");
        self.put(&key, "0123456789", Condition::Absent).await?;
        for (range, expected) in [(2..5, "234"), (8..20, "89"), (10..20, ""), (50..60, "")] {
            let bytes = self.get_range(&key, range.clone()).await?;
            if bytes.as_deref() != Some(expected.as_bytes()) {
                return refuse(format!("GET of bytes {}..{} gave {bytes:?}", range.start, range.end));
            }
        }
        match self.get_range(&self.key("missing"), 0..10).await? {
            Some(_) => refuse("ranged GET of a key that was never written found an object"),
            None => Ok(()),
        }
    }

    async fn listing(&self) -> Result<(), ProbeFailure> {
        let names = ["list/a-b", "list/a/b", "list/a0", "list/b", "list/c"];
        for name in ["list/c", "list/a/b", "list/a0", "list/b", "list/a-b", "listed"] {
            self.put(&self.key(name), name, Condition::Absent).await?;
        }
        let expected: Vec<String> = names.iter().map(|name| self.key(name)).collect();
        let prefix = self.key("list/");
        let all = self.list(&prefix, None, 100).await?;
        if all != (expected.clone(), false) {
            return refuse(format!("LIST gave {all:?} instead of {expected:?}"));
        }
        let rest = self.list(&prefix, Some(&expected[1]), 2).await?;
        if rest != (expected[2..4].to_vec(), true) {
            return refuse(format!("LIST of two keys after {} gave {rest:?}", expected[1]));
        }
        Ok(())
    }

    async fn racing_creators(&self) -> Result<(), ProbeFailure> {
        self.race("create", "PUTs with If-None-Match", &Condition::Absent).await
    }

    async fn racing_updaters(&self) -> Result<(), ProbeFailure> {
        let Some(version) = self.put(&self.key("update"), "before the race", Condition::Absent).await? else {
            return refuse("PUT with If-None-Match on a new key was rejected");
        };
        self.race("update", "PUTs with If-Match", &Condition::Unchanged(version)).await
    }

    /// Exactly one of several PUTs at a time may be accepted, and it is the one whose bytes are there.
    async fn race(&self, name: &str, what: &str, condition: &Condition) -> Result<(), ProbeFailure> {
        let key = self.key(name);
        let bodies: Vec<String> = (0..RACERS).map(|racer| format!("racer {racer}")).collect();
        let puts = bodies.iter().map(|body| self.store.put(&key, Bytes::from(body.clone()), condition.clone()));
        let (mut won, mut perhaps, mut failed) = (Vec::new(), Vec::new(), None);
        for (body, result) in bodies.iter().zip(join_all(puts).await) {
            match result {
                Ok(reply) if reply.value == Put::Conflict => {}
                Ok(_) => won.push(body.as_str()),
                Err(StoreError::Unknown(_)) => perhaps.push(body.as_str()),
                Err(StoreError::NotApplied(failure)) => failed = Some(failure),
            }
        }
        if won.len() > 1 {
            return refuse(format!("{} of {RACERS} racing {what} were accepted", won.len()));
        }
        let found = self.get(&key).await?.map(|object| object.body);
        let found = found.as_deref().unwrap_or_default();
        let is_winner = |body: &&str| body.as_bytes() == found;
        match (won.first(), failed) {
            (Some(winner), _) if is_winner(winner) => Ok(()),
            (Some(_), _) => {
                refuse(format!("one of {RACERS} racing {what} was accepted, but another's bytes are there"))
            }
            (None, _) if perhaps.iter().any(is_winner) => Ok(()),
            (None, Some(failure)) => Err(unanswered(&failure)),
            (None, None) => refuse(format!("none of {RACERS} racing {what} was accepted")),
        }
    }

    async fn deletion(&self) -> Result<(), ProbeFailure> {
        let key = self.key("conditions");
        for _ in 0..2 {
            self.store.delete(&key).await.map_err(|error| unanswered(error.failure()))?;
            if self.get(&key).await?.is_some() {
                return refuse("GET after a DELETE still found the object");
            }
        }
        Ok(())
    }

    async fn expect(&self, key: &str, body: &str, version: Option<&Version>, what: &str) -> Result<(), ProbeFailure> {
        let Some(object) = self.get(key).await? else { return refuse(format!("{what} found no object")) };
        if object.body != body.as_bytes() {
            return refuse(format!("{what} gave other bytes than were written"));
        }
        if version.is_some_and(|version| object.version != *version) {
            return refuse(format!("{what} gave another ETag than the PUT"));
        }
        match object.modified {
            StoreTime(0) => refuse(format!("{what} gave no Last-Modified")),
            _ => Ok(()),
        }
    }

    /// The new version, or `None` if it was rejected. A PUT whose outcome is unknown is sent again; whether a later
    /// rejection is due to an earlier sending is told by what is there.
    async fn put(&self, key: &str, body: &str, condition: Condition) -> Result<Option<Version>, ProbeFailure> {
        let mut last = None;
        for _ in 0..SENDS {
            match self.store.put(key, Bytes::copy_from_slice(body.as_bytes()), condition.clone()).await {
                Ok(reply) => {
                    self.check_clock("PUT", reply.at)?;
                    return match reply.value {
                        Put::Written(version) => Ok(Some(version)),
                        Put::Conflict if last.is_none() => Ok(None),
                        Put::Conflict => {
                            let found = self.get(key).await?;
                            Ok(found.filter(|object| object.body == body.as_bytes()).map(|object| object.version))
                        }
                    };
                }
                Err(StoreError::NotApplied(failure)) => return Err(unanswered(&failure)),
                Err(StoreError::Unknown(failure)) => last = Some(unanswered(&failure)),
            }
        }
        Err(last.unwrap_or_else(|| unreachable!("it was sent at least once")))
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, ProbeFailure> {
        let reply = self.store.get(key).await.map_err(|error| unanswered(error.failure()))?;
        self.check_clock("GET", reply.at)?;
        Ok(reply.value)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ProbeFailure> {
        let reply = self.store.get_range(key, range).await.map_err(|error| unanswered(error.failure()))?;
        self.check_clock("ranged GET", reply.at)?;
        Ok(reply.value)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<(Vec<String>, bool), ProbeFailure> {
        let reply = self.store.list(prefix, after, limit).await.map_err(|error| unanswered(error.failure()))?;
        Ok((reply.value.items.into_iter().map(|item| item.key).collect(), reply.value.more))
    }

    fn check_clock(&self, what: &str, at: StoreTime) -> Result<(), ProbeFailure> {
        match at {
            StoreTime(0) => refuse(format!("the answer to a {what} had no Date")),
            _ => Ok(()),
        }
    }

    /// As well as it goes: what stays lies under a prefix that nothing else uses.
    async fn clean_up(&self) {
        let Ok(listing) = self.store.list(&self.prefix, None, 1000).await else { return };
        for item in listing.value.items {
            if let Err(error) = self.store.delete(&item.key).await {
                tracing::warn!(%error, "an object of the store probe stays behind");
            }
        }
    }
}

fn refuse<T>(what: impl fmt::Display) -> Result<T, ProbeFailure> {
    let what = format!("{what}: this store cannot keep streams safely");
    Err(ProbeFailure { what, is_transient: false })
}

fn unanswered(failure: &Failure) -> ProbeFailure {
    ProbeFailure { what: failure.to_string(), is_transient: failure.kind.is_transient() }
}
