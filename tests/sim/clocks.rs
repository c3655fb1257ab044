//! A replica whose clock is wrong harms no stream of others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater::clock::{Clock, Ids};
use headwater::engine::Engine;
use headwater::protocol::stream::{Append, Body, Create, Data, Outcome};
use headwater::protocol::{ContentType, Lifetime, ReadFrom, StreamName};
use headwater::settings::EngineSettings;
use headwater::store::memory::MemoryStore;

const START: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 3600 * 1000;

fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap_or_else(|e| panic!("{e}"))
}

fn body(text: &str) -> Body {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Body { ends: vec![u32::try_from(bytes.len()).unwrap_or(0)], data: Data::Inline(bytes) }
}

async fn open(store: &Arc<MemoryStore>, clock: Clock, seed: u64) -> Engine {
    let settings = EngineSettings { shards: 1, ..EngineSettings::default() };
    let store = Arc::<MemoryStore>::clone(store);
    Engine::open(store, settings, clock, Ids::seeded(seed)).await.unwrap_or_else(|e| panic!("{e}"))
}

async fn create(engine: &Engine, stream: &str, lifetime: Lifetime, content: &str) -> Outcome {
    let (incarnation, content_type) = (engine.new_incarnation(), ContentType::default());
    let create =
        Create { incarnation, content_type, lifetime, closed: false, body: body(content), fork: None, retention: None };
    let admission = engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
    engine.create(&name(stream), create, admission).await.unwrap_or_else(|e| panic!("{stream}: {e}"))
}

async fn append(engine: &Engine, stream: &str, content: &str) {
    let content_type = Some(ContentType::default());
    let append = Append { content_type, body: body(content), seq: None, producer: None, close: false };
    let admission = engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
    engine.append(&name(stream), append, admission).await.unwrap_or_else(|e| panic!("{stream}: {e}"));
}

async fn content(engine: &Engine, stream: &str) -> String {
    let page = engine.locate(&name(stream), ReadFrom::Start).await.unwrap_or_else(|e| panic!("{stream}: {e}"));
    let fetched = engine.fetch(&name(stream), &page).await;
    String::from_utf8_lossy(&fetched.unwrap_or_else(|e| panic!("{stream}: {e}")).0).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_clock_is_a_day_ahead_ends_no_streams_of_others() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(START)));
    let right = open(&store, Clock::tokio(START), 1).await;
    let ahead = open(&store, Clock::tokio(START + DAY), 2).await;
    let hour = Lifetime::Ttl(3600);
    assert!(create(&right, "mortal", hour, "kept;").await.fresh);
    // Its entry comes into the log that all judge by: time there never goes back.
    create(&ahead, "other", Lifetime::Forever, "written with a wrong clock").await;
    tokio::time::sleep(Duration::from_secs(10)).await;

    append(&right, "mortal", "more;").await;
    assert!(!create(&right, "mortal", hour, "kept;").await.fresh, "the stream was taken for one that has ended");
    assert!(!create(&ahead, "mortal", hour, "kept;").await.fresh, "the stream was taken for one that has ended");
    assert_eq!(content(&right, "mortal").await, "kept;more;");

    // And a stream ends when it should, not a day later.
    let stat = right.stat(&name("mortal")).await.unwrap_or_else(|e| panic!("{e}"));
    let tolerated = START + 120_000;
    assert!(stat.touched_at <= tolerated, "touched {} s later", (stat.touched_at - START) / 1000);
    tokio::time::sleep(Duration::from_secs(3600 + 120)).await;
    assert!(right.stat(&name("mortal")).await.is_err(), "it outlives its time");
}
