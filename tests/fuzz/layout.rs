//! The objects of the bucket. The strongest inputs are those whose checksums are right again after a mutation: a bug
//! could write them, and so could someone who may write to the bucket.

use std::fmt::Debug;
use std::marker::PhantomData;

use bytes::Bytes;
use headwater::layout::checkpoint::Checkpoint;
use headwater::layout::chunk::{self, Chunk};
use headwater::layout::cluster::Cluster;
use headwater::layout::collector::Collector;
use headwater::layout::document::{self, Document};
use headwater::layout::entry::{self, Entry, Header};
use headwater::layout::key::{self, Key};
use headwater::layout::manifest::Manifest;
use headwater::protocol::stream::Effect;
use headwater::protocol::{Incarnation, Stream, StreamName};
use proptest::prelude::*;

use crate::corpus::replay;
use crate::forge;
use crate::harness::{Target, damage, fuzz, run};
use crate::mutate::{apply, damaged, mutated, mutations, noise};
use crate::objects;

/// Arbitrary bytes, valid objects, mutations of them, and mutations with right checksums.
fn inputs(
    valid: impl Strategy<Value = Bytes> + Clone + 'static,
    forged: impl Strategy<Value = Bytes> + 'static,
) -> impl Strategy<Value = Bytes> {
    prop_oneof![1 => noise(), 1 => valid.clone(), 2 => mutated(valid), 5 => forged]
}

fn same<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: {got:?} instead of {expected:?}")) }
}

struct Entries;

impl Target for Entries {
    const NAME: &'static str = "entry";
    const FIXED: u64 = 1 << 10;
    /// The shortest records have four bytes, and each is kept in some 200.
    const EACH: u64 = 64;
    type Value = Entry;

    fn parse(input: &Bytes) -> Option<Entry> {
        entry::decode(input).ok()
    }

    /// Each entry is written in one way only, so that no two objects say the same.
    fn check(input: &Bytes, entry: &Entry) -> Result<(), String> {
        let records: Vec<_> = entry.records.iter().map(|placed| (&placed.record.name, &placed.record.effect)).collect();
        same("written again", &entry::encode(&entry.header, records.into_iter()), input)
    }
}

fn encoded_entry((header, records): &(Header, Vec<(StreamName, Effect)>)) -> Bytes {
    entry::encode(header, records.iter().map(|(name, effect)| (name, effect)))
}

fn valid_entry() -> impl Strategy<Value = Bytes> + Clone {
    let records = prop_oneof![30 => objects::records(), 1 => objects::many_small_records()];
    (objects::header(), records).prop_map(|entry| encoded_entry(&entry))
}

fn forged_entry() -> impl Strategy<Value = Bytes> {
    (valid_entry(), mutations())
        .prop_map(|(object, mutations)| forge::entry(&apply(&object[..object.len() - 4], &mutations)))
}

#[test]
fn log_entries() {
    assert!(replay::<Entries>() > 0);
    fuzz::<Entries>(inputs(valid_entry(), forged_entry()));
    damage::<Entries>(damaged(valid_entry()));
}

struct Chunks;

/// A chunk's name, which its checksums begin with.
const NONCE: u128 = 0xabc;

impl Target for Chunks {
    const NAME: &'static str = "chunk";
    const FIXED: u64 = 1 << 10;
    const EACH: u64 = 8;
    type Value = Chunk;

    fn parse(input: &Bytes) -> Option<Chunk> {
        chunk::decode(NONCE, input).ok()
    }

    fn check(input: &Bytes, chunk: &Chunk) -> Result<(), String> {
        same("written again", &chunk::encode(NONCE, chunk.blocks.iter(), &chunk.ends), input)
    }
}

fn valid_chunk() -> impl Strategy<Value = Bytes> + Clone {
    objects::messages().prop_map(|messages| chunk::encode(NONCE, messages.iter(), &objects::ends_of(&messages)))
}

fn forged_chunk() -> impl Strategy<Value = Bytes> {
    (valid_chunk(), mutations()).prop_map(|(object, mutations)| forge::chunk(NONCE, &apply(&object, &mutations)))
}

#[test]
fn sealed_chunks() {
    assert!(replay::<Chunks>() > 0);
    fuzz::<Chunks>(inputs(valid_chunk(), forged_chunk()));
    damage::<Chunks>(damaged(valid_chunk()));
}

/// A kind of document, and how it is used.
trait Used: Document + PartialEq + Debug {
    const NAME: &'static str;

    /// Fails if it contradicts itself, or panics.
    fn using(&self) -> Result<(), String>;
}

struct Documents<D>(PhantomData<D>);

impl<D: Used> Target for Documents<D> {
    const NAME: &'static str = D::NAME;
    const FIXED: u64 = 1 << 10;
    const EACH: u64 = 12;
    type Value = D;

    fn parse(input: &Bytes) -> Option<D> {
        document::decode(input).ok()
    }

    fn check(_: &Bytes, document: &D) -> Result<(), String> {
        let again = document::decode::<D>(&document::encode(document, 1)).map_err(|e| format!("written again: {e}"))?;
        same("written again", &again, document)?;
        document.using()
    }
}

fn documents<D: Used>(values: impl Strategy<Value = D> + Clone + 'static) {
    assert!(replay::<Documents<D>>() > 0);
    let valid = values.clone().prop_map(|value| document::encode(&value, 7));
    let forged = (values.clone(), mutations()).prop_map(|(value, mutations)| {
        let body = serde_json::to_vec(&value).unwrap_or_else(|e| panic!("{e}"));
        forge::document(D::FORMAT, D::VERSION, &apply(&body, &mutations))
    });
    fuzz::<Documents<D>>(inputs(valid.clone(), forged));
    damage::<Documents<D>>(damaged(valid));
}

impl Used for Manifest {
    const NAME: &'static str = "manifest";

    fn using(&self) -> Result<(), String> {
        let mut at = 0;
        for part in &self.chunks {
            same("a chunk starts", &part.start, &at)?;
            at = part.end();
            for position in [part.start, at - 1] {
                // What it finds depends on the page size; it must only not fail.
                let _ = [1, 64, 1 << 20].map(|page| part.page_end_after(position, page));
            }
            let blocks = chunk::blocks(&(0..part.len));
            same("its last block", &chunk::place(blocks.end - 1, part.len).is_empty(), &false)?;
        }
        if let Some(inline) = &self.inline {
            same("the inline tail starts", &inline.start, &at)?;
            at = inline.end();
            same("its messages end", &inline.ends.last().map(|end| u64::from(*end)), &Some(inline.data.len() as u64))?;
        }
        same("it ends", &at, &self.stream.as_ref().map_or(0, |facts| facts.tail))?;
        let stream = self.stream.clone().map(Stream::try_from).transpose();
        stream.map(|_| ()).map_err(|e| format!("its stream makes no sense: {e}"))
    }
}

#[test]
fn manifests() {
    documents(objects::manifest());
}

impl Used for Checkpoint {
    const NAME: &'static str = "checkpoint";

    fn using(&self) -> Result<(), String> {
        same("it goes on after it", &(self.position + 1 > self.position), &true)?;
        let floors = self.published.iter().map(|published| published.floor).chain([self.truncated, self.floor]);
        same("only what it covers is deleted", &floors.max().is_some_and(|floor| floor > self.position + 1), &false)?;
        for stream in &self.unsealed {
            StreamName::new(&stream.name).map_err(|e| e.what)?;
            let mut at = stream.runs.first().map(|run| run.start);
            for run in &stream.runs {
                same("a run starts", &Some(run.start), &at)?;
                at = Some(run.start + run.len);
            }
            let tail = stream.stream.as_ref().map(|facts| facts.tail);
            same("its runs end", &at.or(tail), &tail)?;
            let facts = stream.stream.clone().map(Stream::try_from).transpose();
            facts.map_err(|e| format!("its stream makes no sense: {e}"))?;
        }
        Ok(())
    }
}

#[test]
fn checkpoints() {
    documents(objects::checkpoint());
}

impl Used for Cluster {
    const NAME: &'static str = "cluster";

    /// One task is started for each shard.
    fn using(&self) -> Result<(), String> {
        same("shards that can be started", &(1..=4096).contains(&self.shards), &true)?;
        same("pages with bytes", &(self.page_bytes > 0 && self.grace > 0), &true)
    }
}

#[test]
fn cluster_documents() {
    documents(objects::cluster());
}

impl Used for Collector {
    const NAME: &'static str = "collector";

    fn using(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn collector_documents() {
    documents(any::<u64>().prop_map(|began| Collector { began }));
}

/// What a LIST gives: whoever may write to the bucket may have put anything there.
struct Keys;

impl Target for Keys {
    const NAME: &'static str = "key";
    const FIXED: u64 = 2 << 10;
    const EACH: u64 = 48;
    type Value = Key;

    fn parse(input: &Bytes) -> Option<Key> {
        Key::parse(std::str::from_utf8(input).ok()?)
    }

    /// Each object has one key.
    fn check(input: &Bytes, found: &Key) -> Result<(), String> {
        let again = match found {
            Key::Log { shard, position } => key::log(*shard, *position),
            Key::Checkpoint { shard } => key::checkpoint(*shard),
            Key::Manifest { folder } => key::manifest_in(folder),
            Key::Chunk { folder, incarnation, nonce } => {
                let incarnation = Incarnation::new(*incarnation).ok_or("an incarnation is out of range")?;
                format!("{}{folder}/{incarnation}/{nonce:032x}", key::STREAMS)
            }
            Key::Cluster | Key::Collector | Key::Probe | Key::Replica { .. } => return Ok(()),
        };
        let folder = match found {
            Key::Manifest { folder } | Key::Chunk { folder, .. } => key::name_of(folder).map(|name| (folder, name)),
            _ => None,
        };
        if let Some((folder, name)) = folder {
            same("the folder of its name", &key::folder(&name), folder)?;
        }
        same("its key", &again.as_bytes(), &&input[..])
    }
}

#[test]
fn keys_of_objects() {
    assert!(replay::<Keys>() > 0);
    let chunk = (objects::name(), 1u64..1 << 50, any::<u128>()).prop_map(|(name, incarnation, nonce)| {
        key::chunk(&name, Incarnation::new(incarnation).unwrap_or(Incarnation::ANY), nonce)
    });
    let valid = prop_oneof![
        3 => chunk,
        2 => objects::name().prop_map(|name| key::manifest(&name)),
        2 => (0u32..4096, any::<u64>()).prop_map(|(shard, position)| key::log(shard, position)),
        1 => (0u32..4096).prop_map(key::checkpoint),
        1 => Just("cluster".to_owned()),
        1 => Just("probe/0123/list/a".to_owned()),
    ];
    let valid = valid.prop_map(Bytes::from);
    fuzz::<Keys>(prop_oneof![1 => noise(), 2 => valid.clone(), 6 => mutated(valid)]);
}

/// Two kinds of values that were written and read again.
#[test]
fn what_is_written_is_read_as_it_was() {
    run(
        "entry-round-trip",
        1000,
        (objects::header(), objects::records()).prop_map(Written),
        |Written((header, records))| {
            let entry = entry::decode(&encoded_entry(&(*header, records.clone()))).map_err(|e| e.to_string())?;
            same("header", &entry.header, header)?;
            let back = entry.records.into_iter().map(|placed| (placed.record.name, placed.record.effect));
            same("records", &back.collect(), records)
        },
    );
    run("chunk-round-trip", 1000, objects::messages().prop_map(Written), |Written(messages)| {
        let ends = objects::ends_of(messages);
        let chunk = chunk::decode(NONCE, &chunk::encode(NONCE, messages.iter(), &ends)).map_err(|e| e.to_string())?;
        same("data", &chunk.blocks.concat(), &messages.concat())?;
        same("ends", &chunk.ends, &ends)
    });
    round_trip(objects::manifest());
    round_trip(objects::checkpoint());
    round_trip(objects::cluster());
}

fn round_trip<D: Used + Clone>(values: impl Strategy<Value = D>) {
    run(&format!("{}-round-trip", D::NAME), 1000, values.prop_map(Written), |Written(value)| {
        let object = document::encode(value, 7);
        same("its write id is known", &document::was_written_as(&object, 7), &true)?;
        same("document", &document::decode::<D>(&object).map_err(|e| e.to_string())?, value)?;
        value.using()
    });
}

/// A value, before it is written.
#[derive(Debug, Clone)]
struct Written<V>(V);

impl<V: Debug + Clone> crate::harness::Input for Written<V> {}
