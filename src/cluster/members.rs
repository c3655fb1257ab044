//! Who is there. By default each replica keeps an object `replicas/ID` in the bucket, written anew in every interval, and
//! looks for those of the others; how old they are is told by the store's clock. With `--peers`, the addresses are given, and a
//! host name with many addresses (DNS) gives them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::lookup_host;
use tokio::time::{MissedTickBehavior, interval};

use super::{Cluster, Replica, ReplicaStatus, home};
use crate::clock::Ids;
use crate::layout::document::{self, Document};
use crate::layout::{Damaged, key};
use crate::settings::ClusterSettings;
use crate::store::{CLOCK_STEP, Condition, LIST_PAGE, Put, Store, StoreError, StoreTime, Version};

/// A replica is gone that has not written for so many intervals.
const GONE_AFTER: u32 = 3;
/// And its object is removed after so many.
const FORGOTTEN_AFTER: u32 = 30;

/// The object of a replica.
#[derive(Debug, Serialize, Deserialize)]
struct Heartbeat {
    address: String,
    /// How often it is written, in milliseconds.
    interval: u64,
}

impl Document for Heartbeat {
    const FORMAT: &'static str = "headwater-replica";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), Damaged> {
        Ok(())
    }
}

/// All replicas that are there, and each shard's home.
#[derive(Debug)]
pub struct Members {
    own: Replica,
    /// The others, by id.
    others: BTreeMap<String, Other>,
    /// By shard; `None`: this replica.
    homes: Vec<Option<Replica>>,
    /// This replica is stopping.
    is_leaving: bool,
}

#[derive(Debug)]
struct Other {
    replica: Replica,
    is_suspected: bool,
    /// It is being asked whether it is ready.
    is_doubted: bool,
}

impl Members {
    pub fn new(own: Replica, shards: u32) -> Members {
        let homes = vec![None; shards as usize];
        Members { own, others: BTreeMap::new(), homes, is_leaving: false }
    }

    pub fn other_home(&self, shard: u32) -> Option<Replica> {
        self.homes.get(shard as usize)?.clone()
    }

    pub fn has_other_home(&self, shard: u32) -> bool {
        self.homes.get(shard as usize).is_some_and(Option::is_some)
    }

    pub fn has(&self, id: &str) -> bool {
        self.others.contains_key(id)
    }

    /// Whether it was trusted before.
    pub fn suspect(&mut self, id: &str) -> bool {
        let is_news = self.others.get_mut(id).is_some_and(|other| !std::mem::replace(&mut other.is_suspected, true));
        if is_news {
            self.settle();
        }
        is_news
    }

    /// Whether it is to be asked if it is ready.
    pub fn doubt(&mut self, id: &str) -> bool {
        let other = self.others.get_mut(id).filter(|other| !other.is_suspected);
        other.is_some_and(|other| !std::mem::replace(&mut other.is_doubted, true))
    }

    pub fn believe(&mut self, id: &str) {
        if let Some(other) = self.others.get_mut(id) {
            other.is_doubted = false;
        }
    }

    pub fn trust(&mut self, id: &str) {
        if let Some(other) = self.others.get_mut(id) {
            other.is_suspected = false;
            self.settle();
        }
    }

    pub fn all(&self) -> Vec<ReplicaStatus> {
        let own = ReplicaStatus { replica: self.own.clone(), suspected: false };
        let status = |other: &Other| ReplicaStatus { replica: other.replica.clone(), suspected: other.is_suspected };
        let others = self.others.values().map(status);
        std::iter::once(own).chain(others).collect()
    }

    /// From now on these are the others. This replica's own address is not among theirs.
    pub fn are(&mut self, others: BTreeSet<Replica>) {
        for replica in others.iter().filter(|replica| !self.others.contains_key(&replica.id)) {
            tracing::info!(replica = replica.id, address = replica.address, "replica found");
        }
        let mut known = std::mem::take(&mut self.others);
        let others = others.into_iter().map(|replica| {
            let new = || Other { replica: replica.clone(), is_suspected: false, is_doubted: false };
            (replica.id.clone(), known.remove(&replica.id).unwrap_or_else(new))
        });
        self.others = others.collect();
        for replica in known.into_values().map(|other| other.replica) {
            tracing::info!(replica = replica.id, address = replica.address, "replica gone");
        }
        self.settle();
    }

    fn settle(&mut self) {
        let trusted = self.others.values().filter(|other| !other.is_suspected);
        let mut ids: Vec<&str> = trusted.map(|other| other.replica.id.as_str()).collect();
        if !self.is_leaving || ids.is_empty() {
            ids.push(&self.own.id);
        }
        let home = |shard| home::of(shard, ids.iter().copied()).and_then(|id| self.others.get(id));
        for (shard, known) in (0..).zip(&mut self.homes) {
            *known = home(shard).map(|other| other.replica.clone());
        }
    }
}

impl Cluster {
    /// Tells the others that this replica is stopping: its shards are theirs.
    pub async fn leave(&self, store: &dyn Store) {
        {
            let mut members = self.members();
            members.is_leaving = true;
            members.settle();
        }
        let left = tokio::time::timeout(Duration::from_secs(2), store.delete(&key::replica(&self.own.id))).await;
        if !matches!(left, Ok(Ok(_))) {
            tracing::warn!("the other replicas could not be told that this one stops");
        }
    }
}

/// Looks for the others once, and then in every interval, for as long as the cluster is in use.
pub async fn start(cluster: &Arc<Cluster>, store: Arc<dyn Store>, settings: &ClusterSettings, ids: Ids) {
    let mut finder = match settings.peers.is_empty() {
        true => Finder::Heartbeats(Heartbeats {
            store,
            interval: settings.heartbeat_interval,
            version: None,
            known: BTreeMap::new(),
            ids,
        }),
        false => Finder::List(settings.peers.iter().map(|peer| (peer.clone(), BTreeSet::new())).collect()),
    };
    finder.look(cluster).await;
    let (weak, period) = (Arc::downgrade(cluster), settings.heartbeat_interval);
    tokio::spawn(async move { go_on(weak, finder, period).await });
}

async fn go_on(cluster: Weak<Cluster>, mut finder: Finder, period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(cluster) = cluster.upgrade().filter(|cluster| !cluster.members().is_leaving) else { return };
        finder.look(&cluster).await;
    }
}

enum Finder {
    Heartbeats(Heartbeats),
    /// Each with the addresses that it had when it was last looked up.
    List(BTreeMap<String, BTreeSet<String>>),
}

impl Finder {
    async fn look(&mut self, cluster: &Cluster) {
        let found = match self {
            Finder::Heartbeats(heartbeats) => heartbeats.beat(&cluster.own).await,
            Finder::List(peers) => Ok(resolve(peers, &cluster.own).await),
        };
        match found {
            Ok(others) => cluster.others_are(others),
            // Those who were there are likely to be there still.
            Err(error) => tracing::warn!(%error, "the other replicas can't be looked for"),
        }
    }
}

/// The replica of a list that is at an address.
pub async fn at(address: &str) -> Replica {
    let resolved = lookup_host(address).await.ok().and_then(|mut all| all.next());
    let address = resolved.map_or_else(|| address.to_owned(), |address| address.to_string());
    Replica { id: address.clone(), address }
}

async fn resolve(peers: &mut BTreeMap<String, BTreeSet<String>>, own: &Replica) -> BTreeSet<Replica> {
    for (peer, known) in peers.iter_mut() {
        match lookup_host(peer).await {
            Ok(addresses) => *known = addresses.map(|address| address.to_string()).collect(),
            // It may not have started yet, or the names can't be looked up for a moment.
            Err(error) => tracing::warn!(peer, %error, "the address of a peer can't be looked up"),
        }
    }
    let others = peers.values().flatten().filter(|address| **address != own.address);
    others.map(|address| Replica { id: address.clone(), address: address.clone() }).collect()
}

struct Heartbeats {
    store: Arc<dyn Store>,
    interval: Duration,
    /// Of the own object.
    version: Option<Version>,
    /// The others' that were read. An id is one process, which does not move.
    known: BTreeMap<String, Heartbeat>,
    ids: Ids,
}

impl Heartbeats {
    /// Writes the own object, and finds those of the others: one PUT and one LIST, and a GET for each that is new.
    async fn beat(&mut self, own: &Replica) -> Result<BTreeSet<Replica>, StoreError> {
        self.write(own).await?;
        let listing = self.store.list(key::REPLICAS, None, LIST_PAGE).await?;
        // By address: one that was started again at the same is there only once.
        let mut found = BTreeMap::<String, (StoreTime, Replica)>::new();
        let mut listed = BTreeSet::new();
        for item in listing.value.items {
            let Some(id) = item.key.strip_prefix(key::REPLICAS).filter(|id| *id != own.id) else { continue };
            listed.insert(id.to_owned());
            let Some(Heartbeat { address, interval }) = self.read(id, &item.key).await? else { continue };
            let (age, interval) = (listing.at.since(item.modified), Duration::from_millis(*interval));
            if age > interval * FORGOTTEN_AFTER {
                self.store.delete(&item.key).await?;
            } else if age <= interval * GONE_AFTER + CLOCK_STEP && *address != own.address {
                let replica = Replica { id: id.to_owned(), address: address.clone() };
                let newest = found.entry(address.clone()).or_insert((item.modified, replica.clone()));
                if newest.0 <= item.modified {
                    *newest = (item.modified, replica);
                }
            }
        }
        self.known.retain(|id, _| listed.contains(id));
        Ok(found.into_values().map(|(_, replica)| replica).collect())
    }

    async fn write(&mut self, own: &Replica) -> Result<(), StoreError> {
        let interval = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let body = document::encode(&Heartbeat { address: own.address.clone(), interval }, self.ids.id());
        let condition = self.version.clone().map_or(Condition::Absent, Condition::Unchanged);
        // Refused, it was written unheard, or removed because this replica slept for long: the next one finds out.
        self.version = match self.store.put(&key::replica(&own.id), body, condition).await?.value {
            Put::Written(version) => Some(version),
            Put::Conflict => self.store.get(&key::replica(&own.id)).await?.value.map(|object| object.version),
        };
        Ok(())
    }

    async fn read(&mut self, id: &str, key: &str) -> Result<Option<&Heartbeat>, StoreError> {
        if !self.known.contains_key(id) {
            let Some(object) = self.store.get(key).await?.value else { return Ok(None) };
            match document::decode::<Heartbeat>(&object.body) {
                Ok(heartbeat) => drop(self.known.insert(id.to_owned(), heartbeat)),
                Err(error) => tracing::warn!(key, error = error.0, "the object of a replica is damaged"),
            }
        }
        Ok(self.known.get(id))
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
