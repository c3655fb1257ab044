//! What may happen to an object.

use bytes::Bytes;
use headwater::clock::Ids;

use crate::bucket::Bucket;

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Cluster,
    Collector,
    Log,
    Checkpoint,
    Manifest,
    Chunk,
}

impl Kind {
    pub fn of(key: &str) -> Kind {
        match key.split('/').next() {
            Some("cluster") => Kind::Cluster,
            Some("collector") => Kind::Collector,
            Some("log") => Kind::Log,
            Some("checkpoint") => Kind::Checkpoint,
            _ if key.ends_with("/manifest") => Kind::Manifest,
            _ => Kind::Chunk,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    Flipped,
    Cut,
    Emptied,
    /// Bytes were added at its end.
    Grown,
    /// Another object of its kind is in its place.
    Swapped,
    /// What was in its place before.
    Older,
    Deleted,
}

/// One thing that happens to one object.
#[derive(Debug, Clone)]
pub struct Case {
    pub key: String,
    pub damage: Damage,
    pub body: Option<Bytes>,
    /// What exactly, for people.
    pub note: String,
}

impl Case {
    pub fn kind(&self) -> Kind {
        Kind::of(&self.key)
    }
}

/// All that happens, in turn, to every object.
pub fn cases(bucket: &Bucket, ids: &Ids) -> Vec<Case> {
    let mut cases = Vec::new();
    for (key, body) in &bucket.objects {
        let mut add = |damage, body: Option<Bytes>, note: String| {
            cases.push(Case { key: key.clone(), damage, body, note });
        };
        let length = body.len() as u64;
        let mut bytes = body.to_vec();
        let at = ids.between(0, length);
        bytes[at as usize] ^= 1 << ids.between(0, 8);
        add(Damage::Flipped, Some(bytes.into()), format!("at {at} of {length}"));
        let to = length - 1 - ids.between(0, length - 1) * ids.between(0, 2);
        add(Damage::Cut, Some(body.slice(..to as usize)), format!("to {to} of {length}"));
        add(Damage::Emptied, Some(Bytes::new()), String::new());
        add(Damage::Grown, Some([&body[..], b"}"].concat().into()), String::new());
        if let Some((other, body)) = other(bucket, key, ids) {
            add(Damage::Swapped, Some(body), format!("for {other}"));
        }
        let older = bucket.earlier.get(key).map(Vec::as_slice).unwrap_or_default();
        let age = ids.between(0, older.len().max(1) as u64) as usize;
        if let Some(body) = older.iter().rev().nth(age) {
            add(Damage::Older, Some(body.clone()), format!("by {} versions", age + 1));
        }
        add(Damage::Deleted, None, String::new());
    }
    cases
}

/// An object to put in its place: of its stream or shard, of the same length, or with a whole block of its own, if there
/// is such a one.
fn other(bucket: &Bucket, key: &str, ids: &Ids) -> Option<(String, Bytes)> {
    let (parent, length) = (key.rsplit_once('/').map_or("", |(parent, _)| parent), bucket.objects[key].len());
    let same_kind = |other: &&String| *other != key && Kind::of(other) == Kind::of(key);
    let all: Vec<&String> = bucket.objects.keys().filter(same_kind).collect();
    let is_large = |key: &str| bucket.objects[key].len() > 1 << 20;
    let likely = |other: &&String| match ids.between(0, 3) {
        0 => other.starts_with(parent),
        1 => bucket.objects[*other].len() == length,
        _ => is_large(other) == is_large(key),
    };
    let mut some: Vec<&String> = all.iter().copied().filter(likely).collect();
    if some.is_empty() {
        some = all;
    }
    let index = ids.between(0, some.len().max(1) as u64) as usize;
    some.get(index).map(|other| ((*other).clone(), bucket.objects[*other].clone()))
}
