//! Objects that are gone from a log that goes on far beyond them.

use std::sync::Arc;
use std::time::Duration;

use headwater::clock::{Clock, Ids};
use headwater::engine::{Engine, EngineError};
use headwater::layout::document;
use headwater::layout::manifest::Manifest;
use headwater::protocol::ReadFrom;
use headwater::settings::EngineSettings;
use headwater::store::memory::MemoryStore;

use crate::bucket::{self, Stream, content, in_shard};
use crate::damage::Kind;
use crate::panics::panics;

const NOW: u64 = 1_893_456_000_000;

async fn open(store: &Arc<MemoryStore>, settings: EngineSettings) -> Result<Engine, EngineError> {
    Engine::open(store.clone(), settings, Clock::tokio(NOW), Ids::seeded(5)).await
}

async fn write(engine: &Engine, stream: &mut Stream, times: u64) {
    for seed in 0..times {
        let bytes = content(seed, 20, stream.content_type);
        bucket::append(engine, stream, &bytes, false).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// What a server that knows nothing says of the stream, and of an append to it.
async fn ask(store: &Arc<MemoryStore>, settings: EngineSettings, stream: &mut Stream) -> [String; 2] {
    let engine = open(store, settings).await.unwrap_or_else(|e| panic!("{e}"));
    let damaged = |error: Option<EngineError>| match error {
        Some(EngineError::Damaged { key, .. }) => key,
        other => format!("{other:?}"),
    };
    let located = engine.locate(&stream.name, ReadFrom::Start).await;
    let appended = bucket::append(&engine, stream, b"more", false).await;
    [damaged(located.err()), damaged(appended.err())]
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_gone_from_the_middle_of_a_long_log_is_not_taken_for_its_end() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(NOW)));
    let settings = EngineSettings { shards: 1, ..EngineSettings::default() };
    let engine = open(&store, settings.clone()).await.unwrap_or_else(|e| panic!("{e}"));
    let mut stream = bucket::create(&engine, &in_shard("s", 0), "text/plain").await;
    write(&engine, &mut stream, 69).await;
    drop(engine);
    let key = |position: u64| format!("log/0/{position:020}");
    for position in [1, 3, 6] {
        let damaged = Arc::new(store.copy());
        damaged.tamper(&key(position), None);
        assert_eq!(ask(&damaged, settings.clone(), &mut stream).await, [key(position), key(position)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_gone_or_old_is_not_taken_for_a_new_log() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(NOW)));
    let settings = EngineSettings { shards: 1, ..bucket::settings() };
    let engine = open(&store, settings.clone()).await.unwrap_or_else(|e| panic!("{e}"));
    let mut stream = bucket::create(&engine, &in_shard("s", 0), "text/plain").await;
    write(&engine, &mut stream, 30).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let old = bucket::objects(&store).await.get("checkpoint/0").cloned();
    assert!(old.is_some(), "there is no checkpoint yet");
    write(&engine, &mut stream, 65).await;
    // It is sealed, and the log so far deleted.
    tokio::time::sleep(Duration::from_secs(700)).await;
    let mut fresh = bucket::create(&engine, &in_shard("fresh", 0), "text/plain").await;
    write(&engine, &mut fresh, 1).await;
    let keys: Vec<String> = bucket::objects(&store).await.into_keys().filter(|key| key.starts_with("log/")).collect();
    assert!(keys[0].as_str() > "log/0/00000000000000000090", "{keys:?}");
    drop(engine);
    for body in [None, old] {
        let damaged = Arc::new(store.copy());
        damaged.tamper("checkpoint/0", body);
        for stream in [&mut stream, &mut fresh] {
            let keys = ask(&damaged, settings.clone(), stream).await;
            assert!(keys[0].starts_with("log/0/") && keys[0] == keys[1], "{keys:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_ahead_of_the_log_is_an_error_for_reads_and_writes() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(NOW)));
    let settings = EngineSettings { shards: 1, ..bucket::settings() };
    let engine = open(&store, settings.clone()).await.unwrap_or_else(|e| panic!("{e}"));
    let mut stream = bucket::create(&engine, &in_shard("s", 0), "text/plain").await;
    write(&engine, &mut stream, 10).await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    drop(engine);
    assert!(!bucket::objects(&store).await.into_keys().any(|key| key.starts_with("log/")));
    store.tamper("checkpoint/0", None);
    // What is written to a log that has begun anew would be taken for what the manifest has already.
    let before = panics();
    let keys = ask(&store, settings.clone(), &mut stream).await;
    assert_eq!(keys, ["checkpoint/0", "checkpoint/0"]);
    assert_eq!(ask(&store, settings, &mut stream).await, keys);
    assert!(!bucket::objects(&store).await.into_keys().any(|key| key.starts_with("log/")), "it was written");
    assert_eq!(panics(), before);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_is_lost_does_not_hold_up_what_comes_after_it() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(NOW)));
    let settings = EngineSettings { shards: 1, ..bucket::settings() };
    let engine = open(&store, settings).await.unwrap_or_else(|e| panic!("{e}"));
    let mut stream = bucket::create(&engine, &in_shard("s", 0), "text/plain").await;
    let append = async |stream: &mut Stream| {
        let bytes = content(1, 360_000, "text/plain");
        bucket::append(&engine, stream, &bytes, false).await.unwrap_or_else(|e| panic!("{e}"));
        tokio::time::sleep(Duration::from_secs(30)).await;
    };
    append(&mut stream).await;
    append(&mut stream).await;
    let chunks: Vec<String> =
        bucket::objects(&store).await.into_keys().filter(|key| Kind::of(key) == Kind::Chunk).collect();
    assert_eq!(chunks.len(), 2, "{chunks:?}");
    store.tamper(&chunks[0], None);
    // With these bytes, the three are to become one chunk.
    append(&mut stream).await;
    let manifest = bucket::objects(&store).await.remove(&headwater::layout::key::manifest(&stream.name));
    let manifest = manifest.and_then(|object| document::decode::<Manifest>(&object).ok());
    assert_eq!(manifest.map(|manifest| (manifest.end(), manifest.chunks.len())), Some((stream.tail(), 3)));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_comes_to_be_ahead_of_the_log_is_not_written_on() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(NOW)));
    let settings = EngineSettings { shards: 1, ..bucket::settings() };
    let engine = open(&store, settings.clone()).await.unwrap_or_else(|e| panic!("{e}"));
    let mut stream = bucket::create(&engine, &in_shard("s", 0), "text/plain").await;
    let mut other = bucket::create(&engine, &in_shard("other", 0), "text/plain").await;
    write(&engine, &mut stream, 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let key = headwater::layout::key::manifest(&stream.name);
    let object = bucket::objects(&store).await.remove(&key).unwrap_or_else(|| panic!("it is not sealed"));
    let mut manifest = document::decode::<Manifest>(&object).unwrap_or_else(|e| panic!("{e}"));
    manifest.log_position = 1_000_000;
    store.tamper(&key, Some(document::encode(&manifest, 77)));
    // It is read when this is to be sealed.
    write(&engine, &mut stream, 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let refused = bucket::append(&engine, &mut stream, b"more", false).await;
    assert!(matches!(&refused, Err(EngineError::Damaged { key, .. }) if key == "checkpoint/0"), "{refused:?}");
    write(&engine, &mut other, 1).await;
    drop(engine);
    let cold = open(&store, settings).await.unwrap_or_else(|e| panic!("{e}"));
    write(&cold, &mut other, 1).await;
}
