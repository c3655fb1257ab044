//! Valid objects of the bucket, as values.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater::layout::checkpoint::{Checkpoint, Nonce, Published, Release, Run, Unsealed};
use headwater::layout::cluster::Cluster;
use headwater::layout::entry::Header;
use headwater::layout::facts::{Facts, OriginFacts};
use headwater::layout::manifest::{ChunkRef, Foreign, Inline, Manifest};
use headwater::protocol::fork::{ForkId, Origin, Requested};
use headwater::protocol::stream::{Appended, Body, Data, Effect, Forked, Inherited};
use headwater::protocol::{ContentType, Incarnation, Lifetime, Offset, Producer, Retention, StreamName, page};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

const PAGE: u64 = 16;
/// Of some stream's bytes.
const POSITIONS: std::ops::Range<u64> = 0..1 << 50;

pub fn name() -> impl Strategy<Value = StreamName> + Clone {
    prop_oneof![3 => "[a-c]{1,3}", 1 => "[a-cé ~%]{1,6}(/[a-c]{1,3}){0,2}"]
        .prop_map(|text| StreamName::new(&text).unwrap_or_else(|e| panic!("{text}: {e}")))
}

fn incarnation() -> impl Strategy<Value = Incarnation> + Clone {
    (1u64..10_000_000_000_000_000).prop_map(|n| Incarnation::new(n).unwrap_or(Incarnation::ANY))
}

fn content_type() -> impl Strategy<Value = ContentType> + Clone {
    proptest::sample::select(&["application/json", "text/plain; charset=utf-8", "image/png", "X/Y"][..])
        .prop_map(|text| ContentType::new(text).unwrap_or_default())
}

fn producer() -> impl Strategy<Value = Producer> + Clone {
    ("[a-zé]{1,5}", 0u64..1 << 53, 0u64..1 << 53).prop_map(|(id, epoch, seq)| Producer { id, epoch, seq })
}

/// Message lengths as where messages end.
fn ends(lengths: &[u32]) -> Vec<u32> {
    lengths
        .iter()
        .scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        })
        .collect()
}

fn body() -> impl Strategy<Value = Body> + Clone {
    let inline = vec(vec(any::<u8>(), 1..9), 0..4).prop_map(|messages| Body {
        ends: ends(&messages.iter().map(|message| message.len() as u32).collect::<Vec<_>>()),
        data: Data::Inline(Bytes::from(messages.concat())),
    });
    let chunk = (any::<u128>(), vec(1u32..1 << 20, 1..4)).prop_map(|(nonce, lengths)| {
        let ends = ends(&lengths);
        let len = u64::from(ends[ends.len() - 1]);
        Body { ends, data: Data::Chunk { nonce, len } }
    });
    prop_oneof![3 => inline, 1 => chunk]
}

fn fork_id() -> impl Strategy<Value = ForkId> + Clone {
    (name(), incarnation()).prop_map(|(name, incarnation)| ForkId { name, incarnation })
}

fn forked() -> impl Strategy<Value = Effect> + Clone {
    let run = (fork_id(), 1u64..200, 0u64..200, 0u64..1 << 45, any::<u128>());
    let offset = of((POSITIONS, incarnation()).prop_map(|(position, incarnation)| Offset { position, incarnation }));
    let origin = (fork_id(), offset, any::<u64>(), vec(incarnation(), 1..4));
    (incarnation(), content_type(), vec(run, 0..4), origin, (0u64..100, 0u64..300, 0u64..300)).prop_map(
        |(incarnation, content_type, runs, (source, offset, sub_offset, owners), (rest, start, before))| {
            let mut at = start;
            let inherited = runs.into_iter().map(|(owner, len, more, written, nonce)| {
                let ends: Vec<u32> = (1..=len as u32).collect();
                let page_ends = page::ends_in(at, &ends, PAGE);
                let run = Inherited { owner, start: at, len, at: written, nonce, whole: len + more, page_ends };
                at += len;
                run
            });
            let inherited: Vec<Inherited> = inherited.collect();
            let first = at + rest;
            let lineage = owners.into_iter().enumerate().map(|(index, owner)| (first + index as u64, owner)).collect();
            let origin = Origin { source, requested: Requested { offset, sub_offset }, lineage };
            Effect::Forked(Forked {
                incarnation,
                content_type,
                lifetime: Lifetime::Forever,
                origin: Arc::new(origin),
                horizon: at.min(start + before),
                inherited: inherited.into(),
            })
        },
    )
}

fn effect() -> impl Strategy<Value = Effect> + Clone {
    let lifetime = prop_oneof![
        Just(Lifetime::Forever),
        (0u64..1 << 40).prop_map(Lifetime::Ttl),
        any::<u64>().prop_map(Lifetime::Until)
    ];
    let created = (incarnation(), content_type(), lifetime)
        .prop_map(|(incarnation, content_type, lifetime)| Effect::Created { incarnation, content_type, lifetime });
    let appended = (incarnation(), POSITIONS, body(), of("[a-z]{0,5}"), of(producer()), any::<bool>()).prop_map(
        |(incarnation, start, body, seq, producer, close)| {
            Effect::Appended(Appended { incarnation, start, body, seq: seq.map(Into::into), producer, close })
        },
    );
    prop_oneof![
        1 => created,
        3 => appended,
        1 => incarnation().prop_map(|incarnation| Effect::Deleted { incarnation }),
        1 => incarnation().prop_map(|incarnation| Effect::Touched { incarnation }),
        1 => forked(),
        1 => (incarnation(), of(1u64..1 << 50), of(1u64..1 << 50)).prop_map(|(incarnation, bytes, age_seconds)| {
            Effect::RetentionSet { incarnation, retention: Retention { bytes, age_seconds } }
        }),
        1 => (incarnation(), POSITIONS).prop_map(|(incarnation, horizon)| Effect::Trimmed { incarnation, horizon }),
        1 => (incarnation(), fork_id(), POSITIONS, 0u64..1 << 45).prop_map(|(incarnation, fork, position, since)| {
            Effect::ForkAdded { incarnation, fork, position, since }
        }),
        1 => (incarnation(), fork_id()).prop_map(|(incarnation, fork)| Effect::ForkDropped { incarnation, fork }),
    ]
}

pub fn header() -> impl Strategy<Value = Header> + Clone {
    (0u32..4096, 1u64..1 << 60, any::<u128>(), any::<u128>(), any::<u128>(), 0u64..1 << 45)
        .prop_map(|(shard, position, id, prev, writer, at)| Header { shard, position, id, prev, writer, at })
}

pub fn records() -> impl Strategy<Value = Vec<(StreamName, Effect)>> + Clone {
    vec((name(), effect()), 0..8)
}

/// What takes the most memory for its length.
pub fn many_small_records() -> impl Strategy<Value = Vec<(StreamName, Effect)>> + Clone {
    let deleted = Effect::Deleted { incarnation: Incarnation::new(1).unwrap_or(Incarnation::ANY) };
    let name = StreamName::new("a").unwrap_or_else(|e| panic!("{e}"));
    let counts = proptest::sample::select(&[513usize, 1025, 4097][..]);
    counts.prop_map(move |count| vec![(name.clone(), deleted.clone()); count])
}

/// A chunk's messages.
pub fn messages() -> impl Strategy<Value = Vec<Bytes>> + Clone {
    vec(vec(any::<u8>(), 1..40).prop_map(Bytes::from), 0..8)
}

pub fn ends_of(messages: &[Bytes]) -> Vec<u32> {
    ends(&messages.iter().map(|message| message.len() as u32).collect::<Vec<_>>())
}

fn facts(tail: u64) -> BoxedStrategy<Facts> {
    let lifetime = prop_oneof![
        Just((None, None)),
        (0u64..1 << 40).prop_map(|ttl| (Some(ttl), None)),
        any::<u64>().prop_map(|moment| (None, Some(moment)))
    ];
    let times = (0u64..1 << 45, 0u64..1 << 45, 0u64..1 << 45);
    let closed = prop_oneof![3 => Just(None), 1 => of(producer()).prop_map(Some)];
    let producers = proptest::collection::btree_map("[a-z]{1,3}", (0u64..1 << 53, 0u64..1 << 53), 0..4);
    let forks =
        proptest::collection::btree_map((name(), incarnation()), (0..=tail, 0u64..1 << 45), 0..3).prop_map(|forks| {
            let listed =
                forks.into_iter().map(|((name, of), (at, since))| (name.as_str().to_owned(), of.get(), at, since));
            listed.collect::<Vec<_>>()
        });
    // Boxed, or the strategies take more stack than a test's thread has.
    let retention = (of(1u64..1 << 50), of(1u64..1 << 50));
    let other = (of(origin(tail)), forks, any::<bool>(), retention).boxed();
    (incarnation(), content_type(), lifetime, times, closed, of("[a-z]{1,4}"), producers, other)
        .prop_map(move |(incarnation, content_type, lifetime, times, closed, last_seq, producers, other)| {
            let (origin, forks, gone, retention) = other;
            Facts {
                incarnation: incarnation.get(),
                content_type: content_type.as_str().to_owned(),
                ttl_seconds: lifetime.0,
                expires_at: lifetime.1,
                created_at: times.0,
                touched_at: times.1,
                tail,
                tail_at: times.2,
                closed: closed.is_some(),
                closed_by: closed.flatten().map(|by| (by.id, by.epoch, by.seq)),
                last_seq,
                producers: BTreeMap::from_iter(producers),
                origin,
                forks,
                gone,
                retention_bytes: retention.0,
                retention_age: retention.1,
                horizon: 0,
            }
        })
        .boxed()
}

/// Of a stream with `tail` bytes.
fn origin(tail: u64) -> impl Strategy<Value = OriginFacts> + Clone {
    let lineage = proptest::collection::btree_map(0..=tail, 1u64..1 << 50, 1..4);
    let offset = of((0u64..1 << 50, 0u64..1 << 50).prop_map(|(position, of)| format!("{position:016}_{of:016}")));
    (name(), incarnation(), offset, any::<u64>(), lineage).prop_map(
        |(source, incarnation, offset, sub_offset, lineage)| OriginFacts {
            source: source.as_str().to_owned(),
            incarnation: incarnation.get(),
            offset,
            sub_offset,
            lineage: lineage.into_iter().collect(),
        },
    )
}

fn foreign(len: u64) -> impl Strategy<Value = Foreign> + Clone {
    (name(), incarnation(), len..1 << 50).prop_map(|(name, incarnation, whole)| Foreign {
        name: name.as_str().to_owned(),
        incarnation: incarnation.get(),
        whole,
    })
}

/// Messages of a run, by their lengths.
fn run_lengths() -> impl Strategy<Value = Vec<u32>> + Clone {
    vec(1u32..60, 1..6)
}

pub fn manifest() -> impl Strategy<Value = Manifest> + Clone {
    let chunks = vec((run_lengths(), any::<u128>(), 0u64..1 << 45, of(foreign(1 << 20))), 0..4);
    let runs = (chunks, of((run_lengths(), 0u64..1 << 45)));
    let exists = runs.prop_flat_map(|(chunks, inline)| {
        let mut tail = 0;
        let mut refs = Vec::new();
        for (lengths, nonce, at, foreign) in chunks {
            let ends = ends(&lengths);
            let overshoots = ChunkRef::overshoots(tail, &page::ends_in(tail, &ends, PAGE), PAGE);
            let len = u64::from(ends[ends.len() - 1]);
            refs.push(ChunkRef { start: tail, len, nonce, at, overshoots, foreign });
            tail += len;
        }
        let inline = inline.map(|(lengths, at)| {
            let ends = ends(&lengths);
            let data = Bytes::from(vec![b'x'; ends[ends.len() - 1] as usize]);
            Inline { start: tail, data, ends, at }
        });
        let tail = inline.as_ref().map_or(tail, Inline::end);
        (facts(tail).prop_map(Some), Just(refs), Just(inline))
    });
    let content = prop_oneof![5 => exists, 1 => Just((None, Vec::new(), None))];
    (name(), 0u64..1 << 60, content).prop_map(|(name, log_position, (stream, chunks, inline))| Manifest {
        name: name.as_str().to_owned(),
        log_position,
        stream,
        chunks,
        kept: Vec::new(),
        inline,
    })
}

/// A stream with records up to position `last` that are in no manifest.
fn unsealed(last: u64) -> impl Strategy<Value = Unsealed> + Clone {
    let runs = (0u64..1 << 40, vec((run_lengths(), of(any::<u128>()), 0u64..1 << 45), 0..4));
    let exists = runs.prop_flat_map(move |(start, runs)| {
        let (mut tail, mut found, mut page_ends) = (start, Vec::new(), Vec::new());
        let first = last.saturating_sub(runs.len() as u64) + 1;
        for (index, (lengths, nonce, at)) in runs.into_iter().enumerate() {
            let ends = ends(&lengths);
            page_ends.extend(page::ends_in(tail, &ends, PAGE));
            let len = u64::from(ends[ends.len() - 1]);
            let (position, nonce) = (first + index as u64, nonce.map(Nonce));
            found.push(Run { start: tail, len, at, position, nonce, foreign: None });
            tail += len;
        }
        (facts(tail).prop_map(Some), Just(found), Just(page_ends))
    });
    let garbage = vec((1u64..1 << 50, any::<u128>().prop_map(Nonce)), 0..2);
    let content = prop_oneof![5 => exists, 1 => Just((None, Vec::new(), Vec::new()))];
    let release = (name(), incarnation(), incarnation()).prop_map(|(source, of, incarnation)| Release {
        source: source.as_str().to_owned(),
        source_incarnation: of.get(),
        incarnation: incarnation.get(),
    });
    let content = (content, vec(release, 0..2));
    (name(), content, garbage).prop_map(move |(name, ((stream, runs, page_ends), releases), garbage)| Unsealed {
        name: name.as_str().to_owned(),
        last,
        stream,
        runs,
        page_ends,
        garbage,
        releases,
    })
}

pub fn checkpoint() -> impl Strategy<Value = Checkpoint> + Clone {
    let whole = (0u32..4096, 10u64..1 << 50, any::<u128>(), 0u64..1 << 45);
    whole.prop_flat_map(|(shard, position, id, at)| {
        let unsealed = vec(unsealed(position), 0..3).prop_map(|mut list| {
            list.sort_by(|a, b| a.name.cmp(&b.name));
            list.dedup_by(|a, b| a.name == b.name);
            list
        });
        let published = vec(0u64..1 << 45, 0..3);
        (unsealed, published).prop_map(move |(unsealed, times)| {
            let in_log = unsealed.iter().flat_map(|stream| &stream.runs).filter(|run| run.nonce.is_none());
            let floor = in_log.map(|run| run.position).min().unwrap_or(position + 1);
            let before = |(back, at): (usize, u64)| Published { floor: floor - back as u64, at };
            let mut published: Vec<Published> = times.into_iter().enumerate().map(before).collect();
            published.reverse();
            let truncated = floor.saturating_sub(5);
            Checkpoint { shard, position, id, at, floor, truncated, published, unsealed }
        })
    })
}

pub fn cluster() -> impl Strategy<Value = Cluster> + Clone {
    ("[0-9a-f]{32}", 1u32..=4096, 1u64..1 << 30, 1u64..1 << 32, 0u64..1 << 45)
        .prop_map(|(id, shards, page_bytes, grace, created_at)| Cluster { id, shards, page_bytes, grace, created_at })
}
