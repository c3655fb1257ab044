//! Every object of the bucket is there for a reason, and whatever something names is there.

use std::collections::{BTreeMap, BTreeSet};

use headwater::layout::checkpoint::{Checkpoint, Nonce};
use headwater::layout::manifest::Manifest;
use headwater::layout::{document, entry, key};
use headwater::protocol::stream::{Appended, Body, Data, Effect};
use headwater::protocol::{Incarnation, StreamName};
use headwater::store::Store;

use crate::bucket::Bucket;

/// What the objects of a bucket say of each other.
#[derive(Debug, Default)]
pub struct Account {
    /// Objects that nothing explains.
    pub unaccounted: Vec<(String, Unaccounted)>,
    /// Objects that are named by others and are not there.
    pub missing: Vec<String>,
}

/// What an object is that nothing explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccounted {
    /// A chunk that nothing names: of a client that left, or of a deletion that failed.
    Chunk,
    /// An entry that was to be deleted, or that landed where one had been.
    Entry,
    /// Nothing that headwater writes.
    Unknown,
}

impl Account {
    /// What must not be so. The collector has had its time in [`plan::CALM`], so there is no garbage left either.
    ///
    /// [`plan::CALM`]: crate::plan::CALM
    pub fn complaints(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|key| format!("{key} is named and not there"));
        let unaccounted = self.unaccounted.iter();
        missing.chain(unaccounted.map(|(key, what)| format!("nothing explains {key}: {what:?}"))).collect()
    }
}

/// Keys that are named by something.
#[derive(Debug, Default)]
struct Named(BTreeSet<String>);

impl Named {
    fn chunk(&mut self, name: &str, incarnation: u64, nonce: u128) {
        if let (Ok(name), Some(incarnation)) = (StreamName::new(name), Incarnation::new(incarnation)) {
            self.0.insert(key::chunk(&name, incarnation, nonce));
        }
    }
}

pub async fn account(bucket: &Bucket, shards: u32) -> Account {
    let keys: BTreeSet<String> = bucket.objects().await.into_iter().map(|item| item.key).collect();
    let (mut named, mut garbage) = (Named::default(), Named::default());
    let mut sealed_to = BTreeMap::new();
    for key in keys.iter().filter(|key| key.ends_with("/manifest")) {
        let manifest: Manifest = read(bucket, key).await;
        let incarnation = manifest.stream.as_ref().map_or(0, |facts| facts.incarnation);
        for chunk in manifest.named() {
            let own = (manifest.name.as_str(), incarnation);
            let (name, of) = chunk.foreign.as_ref().map_or(own, |foreign| (&foreign.name, foreign.incarnation));
            named.chunk(name, of, chunk.nonce);
        }
        sealed_to.insert(manifest.name, manifest.log_position);
    }
    let mut truncated = BTreeMap::new();
    for shard in 0..shards {
        let key = key::checkpoint(shard);
        let (mut next, mut last) = (1, 0);
        if keys.contains(&key) {
            let checkpoint: Checkpoint = read(bucket, &key).await;
            truncated.insert(shard, checkpoint.truncated);
            (next, last) = (checkpoint.position + 1, checkpoint.id);
            name_unsealed(shard, &checkpoint, &sealed_to, &mut named, &mut garbage);
        }
        while keys.contains(&key::log(shard, next)) {
            last = name_entry(bucket, (shard, next, last), &sealed_to, &mut named).await;
            next += 1;
        }
    }
    let missing = named.0.iter().filter(|key| !keys.contains(*key)).cloned().collect();
    let what = |key: &String| Some((key.clone(), unaccounted(key, &named, &garbage, &truncated)?));
    Account { unaccounted: keys.iter().filter_map(what).collect(), missing }
}

/// What a checkpoint names of streams that are not sealed as far.
fn name_unsealed(
    shard: u32,
    checkpoint: &Checkpoint,
    sealed_to: &BTreeMap<String, u64>,
    named: &mut Named,
    garbage: &mut Named,
) {
    for unsealed in &checkpoint.unsealed {
        let sealed = sealed_to.get(&unsealed.name).copied().unwrap_or(0);
        let incarnation = unsealed.stream.as_ref().map_or(0, |facts| facts.incarnation);
        for run in unsealed.runs.iter().filter(|run| run.position > sealed) {
            match run.nonce {
                Some(Nonce(nonce)) => {
                    let own = (unsealed.name.as_str(), incarnation);
                    let (name, of) = run.foreign.as_ref().map_or(own, |foreign| (&foreign.name, foreign.incarnation));
                    named.chunk(name, of, nonce);
                }
                None => drop(named.0.insert(key::log(shard, run.position))),
            }
        }
        unsealed.garbage.iter().for_each(|(of, Nonce(nonce))| garbage.chunk(&unsealed.name, *of, *nonce));
    }
}

/// What an entry after the checkpoint names that follows `last`. Returns which one is the last then: a void one says nothing.
async fn name_entry(
    bucket: &Bucket,
    (shard, position, last): (u32, u64, u128),
    sealed_to: &BTreeMap<String, u64>,
    named: &mut Named,
) -> u128 {
    let object = object(bucket, &key::log(shard, position)).await;
    let entry = entry::decode(&object).unwrap_or_else(|e| panic!("log {shard} {position}: {}", e.0));
    if entry.header.prev != last {
        return last;
    }
    let is_unsealed = |name: &StreamName| sealed_to.get(name.as_str()).copied().unwrap_or(0) < position;
    for record in entry.records.iter().map(|placed| &placed.record).filter(|record| is_unsealed(&record.name)) {
        match &record.effect {
            Effect::Appended(Appended { incarnation, body: Body { data: Data::Chunk { nonce, .. }, .. }, .. }) => {
                named.chunk(record.name.as_str(), incarnation.get(), *nonce);
            }
            Effect::Forked(forked) => {
                let inherited = forked.inherited.iter();
                inherited.for_each(|run| named.chunk(run.owner.name.as_str(), run.owner.incarnation.get(), run.nonce));
            }
            _ => {}
        }
    }
    entry.header.id
}

/// What an object is if nothing explains it.
fn unaccounted(key: &str, named: &Named, garbage: &Named, truncated: &BTreeMap<u32, u64>) -> Option<Unaccounted> {
    if named.0.contains(key)
        || garbage.0.contains(key)
        || [key::CLUSTER, key::COLLECTOR].contains(&key)
        || key.ends_with("/manifest")
    {
        return None;
    }
    match key.split('/').collect::<Vec<_>>()[..] {
        ["checkpoint", shard] if shard.parse().is_ok_and(|shard: u32| truncated.contains_key(&shard)) => None,
        ["log", shard, position] => {
            let cut = shard.parse().ok().and_then(|shard: u32| truncated.get(&shard).copied()).unwrap_or(0);
            position.parse().is_ok_and(|position: u64| position < cut).then_some(Unaccounted::Entry)
        }
        ["streams", _, _, _] => Some(Unaccounted::Chunk),
        _ => Some(Unaccounted::Unknown),
    }
}

async fn object(bucket: &Bucket, key: &str) -> bytes::Bytes {
    let found = bucket.get(key).await.unwrap_or_else(|e| panic!("{e}")).value;
    found.unwrap_or_else(|| panic!("{key} was listed")).body
}

async fn read<D: document::Document>(bucket: &Bucket, key: &str) -> D {
    document::decode(&object(bucket, key).await).unwrap_or_else(|e| panic!("{key}: {}", e.0))
}
