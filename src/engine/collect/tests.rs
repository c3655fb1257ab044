use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::{Clock, Ids};
use crate::engine::testing::{GRACE, World, name, seconds, settings, text};
use crate::layout::document;
use crate::layout::entry::{self, Header};
use crate::protocol::stream::{Append, Appended, Body, Data, Effect};
use crate::protocol::{Incarnation, Lifetime};
use crate::settings::EngineSettings;
use crate::store::{Condition, Put, Store};

impl World {
    /// What a round tells of, and sums up.
    async fn collect(&self, remove: bool) -> (Vec<String>, Collected) {
        let told = Mutex::new(Vec::new());
        let tell = |garbage: &Garbage| {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(garbage.key.clone());
        };
        let collected = self.engine.collect(remove, &tell).await.unwrap_or_else(|e| panic!("{e}"));
        (told.into_inner().unwrap_or_else(PoisonError::into_inner), collected)
    }
}

#[tokio::test(start_paused = true)]
async fn what_nothing_names_is_removed_once_it_is_old_and_what_is_named_stays() {
    let world = World::new().await;
    let stream = name("s");
    let incarnation = world.create(&stream, Lifetime::Forever).await;
    let large = "x".repeat(50);
    world.append(&stream, &large).await;
    world.append(&stream, "a message that gets into a chunk;").await;
    seconds(30).await;
    let named: Vec<String> = world.keys().await.into_iter().filter(|key| key.starts_with("streams/")).collect();
    assert_eq!(named.len(), 3, "two chunks and the manifest: {named:?}");
    let orphan = world.orphan(&stream, incarnation, 1).await;
    let of_another_life = world.orphan(&stream, Incarnation::new(9).unwrap_or(Incarnation::ANY), 2).await;
    assert_eq!(world.collect(true).await.0, Vec::<String>::new(), "it is young: it may be named yet");
    seconds(61).await;
    // Named by the log alone, and young.
    world.append(&stream, &large).await;
    let (told, collected) = world.collect(true).await;
    assert_eq!((told.len(), collected.chunks, collected.left), (2, 2, 0), "{told:?}");
    assert!(told.contains(&orphan) && told.contains(&of_another_life));
    assert!(!world.has(&orphan).await && !world.has(&of_another_life).await);
    assert_eq!(world.content(&stream).await, format!("{large}a message that gets into a chunk;{large}"));
    assert_eq!(world.collect(true).await.1, Collected::default(), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn an_old_chunk_that_only_the_log_names_stays() {
    let world = World::with(EngineSettings { seal_age: GRACE, seal_idle: GRACE, ..settings() }).await;
    let stream = name("s");
    world.create(&stream, Lifetime::Forever).await;
    let large = "x".repeat(50);
    world.append(&stream, &large).await;
    // Never idle, so not sealed for that.
    for _ in 0..9 {
        seconds(6).await;
        world.append(&stream, ".").await;
    }
    let manifests: Vec<String> = world.keys().await.into_iter().filter(|key| key.ends_with("/manifest")).collect();
    assert_eq!(manifests, Vec::<String>::new(), "it was sealed before it was looked for");
    // Sealing waits for the round, in which the chunk gets old.
    seconds(7).await;
    world.collect(true).await;
    assert_eq!(world.content(&stream).await, format!("{large}........."));
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_left_in_the_log_is_sealed_although_nobody_asks_for_it() {
    let world = World::new().await;
    let stream = name("s");
    world.create(&stream, Lifetime::Forever).await;
    world.append(&stream, "only in the log").await;
    let restarted = world.cold(settings()).await;
    // Ended at once: it does not seal any more.
    drop(world);
    let sealed = key::manifest(&stream);
    seconds(100).await;
    assert!(!restarted.has(&sealed).await, "it was sealed before it was looked for");
    restarted.collect(true).await;
    seconds(30).await;
    assert!(restarted.has(&sealed).await, "{:?}", restarted.keys().await);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_arrives_after_its_chunk_was_collected_is_refused() {
    let world = World::new().await;
    let stream = name("s");
    let incarnation = world.create(&stream, Lifetime::Forever).await;
    world.append(&stream, "sealed").await;
    seconds(30).await;
    let key = key::manifest(&stream);
    let read = world.store.get(&key).await.unwrap_or_else(|e| panic!("{e}")).value;
    let read = read.unwrap_or_else(|| panic!("there is no manifest"));
    world.orphan(&stream, incarnation, 1).await;
    seconds(61).await;
    assert_eq!(world.collect(true).await.1.chunks, 1);
    let late = world.store.put(&key, Bytes::from_static(b"late"), Condition::Unchanged(read.version)).await;
    assert!(late.is_ok_and(|reply| reply.value == Put::Conflict), "it names a chunk that is gone");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_arrives_after_its_chunk_was_collected_counts_for_nothing() {
    let world = World::new().await;
    let stream = name("s");
    let incarnation = world.create(&stream, Lifetime::Forever).await;
    world.append(&stream, "first;").await;
    let last = world.store.get(&key::log(0, 2)).await.unwrap_or_else(|e| panic!("{e}")).value;
    let last = last.unwrap_or_else(|| panic!("there is no second entry"));
    let last = entry::decode(&last.body).unwrap_or_else(|e| panic!("{e}")).header;
    world.orphan(&stream, incarnation, 1).await;
    seconds(61).await;
    assert_eq!(world.collect(true).await.1.chunks, 1);
    // As it would have been formed before: right after the last entry there was.
    let header = Header { position: last.position + 1, id: 77, prev: last.id, ..last };
    let body = Body { data: Data::Chunk { nonce: 1, len: 4 }, ends: vec![4] };
    let appended = Appended { incarnation, start: 6, body, seq: None, producer: None, close: false };
    let object = entry::encode(&header, std::iter::once((&stream, &Effect::Appended(appended))));
    let late = world.store.put(&key::log(0, header.position), object, Condition::Absent).await;
    assert!(late.is_ok_and(|reply| reply.value == Put::Conflict), "it names a chunk that is gone");
    assert_eq!(world.content(&stream).await, "first;");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_uploaded_long_ago_is_not_named_any_more() {
    let world = World::new().await;
    let stream = name("s");
    let incarnation = world.create(&stream, Lifetime::Forever).await;
    let uploaded_at = world.store.last_seen();
    seconds(31).await;
    drop(world.store.get("cluster").await);
    for (at, is_taken) in [(uploaded_at, false), (world.store.last_seen(), true)] {
        let body = Body { data: Data::Chunk { nonce: 1, len: 4 }, ends: vec![4] };
        let append = Append { content_type: Some(text()), body, seq: None, producer: None, close: false };
        let uploaded = crate::engine::handle::Uploaded { incarnation, nonce: 1, at };
        let outcome = world.engine.submit(&stream, Command::Append(append), Some(uploaded), None).await;
        assert_eq!(outcome.is_ok(), is_taken, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_of_streams_that_never_were_are_removed() {
    let world = World::new().await;
    let incarnation = world.engine.new_incarnation();
    let (short, long) = (name("never/created"), name(&"é".repeat(255)));
    let orphans = [world.orphan(&short, incarnation, 1).await, world.orphan(&long, incarnation, 2).await];
    seconds(61).await;
    // The same long name's stream, not sealed yet, without a manifest that would tell its name.
    let created = name(&"ü".repeat(255));
    world.create(&created, Lifetime::Forever).await;
    let (told, collected) = world.collect(true).await;
    assert_eq!((collected.chunks, collected.left), (2, 0));
    assert!(orphans.iter().all(|orphan| told.contains(orphan)), "{told:?}");
    assert_eq!(world.content(&created).await, "");
}

#[tokio::test(start_paused = true)]
async fn chunks_of_a_stream_that_there_was_are_kept_although_its_manifest_is_gone() {
    let world = World::new().await;
    let incarnation = world.engine.new_incarnation();
    for stream in [name("lost"), name(&"é".repeat(255))] {
        world.orphan(&stream, incarnation, 1).await;
        world.orphan(&stream, incarnation, 2).await;
    }
    seconds(61).await;
    let (told, collected) = world.collect(true).await;
    assert_eq!((told, collected.left), (Vec::new(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_time_is_over_goes_with_its_chunks_also_if_nobody_asks_for_it() {
    let world = World::with(EngineSettings { seal_idle: Duration::from_secs(15), ..settings() }).await;
    let (over, renewed) = (name("over"), name("renewed"));
    for stream in [&over, &renewed] {
        world.create(stream, Lifetime::Ttl(40)).await;
        world.append(stream, "long enough to be in a chunk").await;
    }
    seconds(38).await;
    // So lately that only the log knows.
    assert_eq!(world.content(&renewed).await, "long enough to be in a chunk");
    seconds(7).await;
    let (told, collected) = world.collect(true).await;
    assert_eq!((collected.expired, told), (1, vec![key::manifest(&over)]));
    let chunks = |stream: &StreamName| format!("streams/{}/0", key::folder(stream));
    let keys = world.keys().await;
    assert!(!keys.iter().any(|key| key.starts_with(&chunks(&over))), "{keys:?}");
    assert_eq!(world.content(&renewed).await, "long enough to be in a chunk");
}

#[tokio::test(start_paused = true)]
async fn log_objects_that_were_to_be_deleted_are() {
    let world = World::new().await;
    let stream = name("s");
    world.create(&stream, Lifetime::Forever).await;
    for number in 0..20 {
        world.append(&stream, &format!("{number};")).await;
        seconds(6).await;
    }
    seconds(100).await;
    let first = key::log(0, 1);
    assert!(!world.has(&first).await, "the log was not truncated");
    world.plant(&first, Bytes::from_static(b"landed late")).await;
    world.plant("probe/0123/left", Bytes::from_static(b"x")).await;
    let content = world.content(&stream).await;
    seconds(61).await;
    let (told, collected) = world.collect(true).await;
    assert_eq!((collected.entries, collected.probes), (1, 1), "{told:?}");
    assert!(!world.has(&first).await && !world.has("probe/0123/left").await);
    assert_eq!(world.content(&stream).await, content);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_the_same_and_removes_nothing() {
    let world = World::new().await;
    let (stream, over) = (name("s"), name("over"));
    let incarnation = world.create(&stream, Lifetime::Forever).await;
    world.create(&over, Lifetime::Ttl(20)).await;
    world.orphan(&stream, incarnation, 1).await;
    seconds(70).await;
    let before = world.keys().await;
    let (mut would, mut sum) = world.collect(false).await;
    assert_eq!(world.keys().await, before);
    let (mut did, mut removed) = world.collect(true).await;
    would.sort();
    did.sort();
    assert_eq!(would, did);
    (sum.left, removed.left) = (0, 0);
    assert_eq!((sum, would.len()), (removed, 2));
}

#[tokio::test(start_paused = true)]
async fn one_replica_of_several_collects_once_per_interval() {
    let interval = Duration::from_secs(80);
    let world = World::with(EngineSettings { collect_interval: interval, ..settings() }).await;
    let second = Engine::open(
        Arc::clone(&world.store) as Arc<dyn Store>,
        EngineSettings { collect_interval: interval, ..settings() },
        Clock::tokio(1_800_000_000_000),
        Ids::seeded(2),
    );
    let second = second.await.unwrap_or_else(|e| panic!("{e}"));
    let stream = name("s");
    let incarnation = world.create(&stream, Lifetime::Forever).await;
    let mut rounds = std::collections::BTreeSet::new();
    let mut orphan = String::new();
    for second in 0..400u64 {
        if second == 5 || second == 105 {
            orphan = world.orphan(&stream, incarnation, u128::from(second)).await;
        }
        seconds(1).await;
        if let Some(object) = world.store.get(key::COLLECTOR).await.unwrap_or_else(|e| panic!("{e}")).value {
            let collector: crate::layout::collector::Collector =
                document::decode(&object.body).unwrap_or_else(|e| panic!("{e}"));
            rounds.insert(collector.began);
        }
    }
    assert!(!world.has(&orphan).await, "it was not collected in the background");
    let gaps: Vec<u64> = rounds.iter().zip(rounds.iter().skip(1)).map(|(a, b)| b - a).collect();
    assert!(gaps.len() >= 2 && gaps.iter().all(|gap| *gap >= 80_000), "{gaps:?}");
    drop(second);
}
