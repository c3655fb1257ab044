//! Situations of few replicas that random runs seldom meet, each of which was wrong once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater::clock::{Clock, Ids};
use headwater::engine::{Engine, EngineError};
use headwater::layout::entry::{self, Header};
use headwater::layout::key;
use headwater::protocol::stream::{Append, Appended, Create, Effect};
use headwater::protocol::{Lifetime, ReadFrom, Rejection, StreamName};
use headwater::settings::EngineSettings;
use headwater::store::memory::MemoryStore;
use headwater::store::metered::Metered;
use headwater::store::{Condition, Put, Store};

use crate::link::{Link, Weather};
use crate::world::{bytes, name, text};

struct Bucket {
    clock: Clock,
    store: Arc<MemoryStore>,
}

impl Bucket {
    fn new() -> Bucket {
        let clock = Clock::tokio(1_800_000_000_000);
        Bucket { store: Arc::new(MemoryStore::new(clock.clone())), clock }
    }

    /// Opens it as a replica does: with a knowledge of the store's time of its own.
    async fn open(&self, seed: u64, settings: EngineSettings) -> Engine {
        self.open_in(Arc::default(), seed, settings).await
    }

    async fn open_in(&self, weather: Arc<Weather>, seed: u64, settings: EngineSettings) -> Engine {
        let link = Link {
            bucket: Arc::clone(&self.store),
            weather,
            ids: Ids::seeded(seed),
            last_seen: Default::default(),
            latest: 1_000,
        };
        let opened = Engine::open(Arc::new(link), settings, self.clock.clone(), Ids::seeded(seed + 1)).await;
        opened.unwrap_or_else(|e| panic!("{e}"))
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let listing = self.store.list(prefix, None, 1000).await.unwrap_or_else(|e| panic!("{e}"));
        listing.value.items.into_iter().map(|item| item.key).collect()
    }
}

fn settings() -> EngineSettings {
    EngineSettings {
        shards: 1,
        grace: Duration::from_secs(20),
        seal_age: Duration::from_secs(4),
        seal_idle: Duration::from_secs(1),
        checkpoint_entries: 3,
        inline_bytes: 64,
        ..EngineSettings::default()
    }
}

async fn create(engine: &Engine, name: &StreamName) {
    let create = Create {
        incarnation: engine.new_incarnation(),
        content_type: text(),
        lifetime: Lifetime::Forever,
        closed: false,
        body: bytes(""),
    };
    let admission = engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
    engine.create(name, create, admission).await.unwrap_or_else(|e| panic!("{name}: {e}"));
}

async fn append(engine: &Engine, name: &StreamName, body: &str) {
    let append = Append { content_type: Some(text()), body: bytes(body), seq: None, producer: None, close: false };
    let admission = engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
    engine.append(name, append, admission).await.unwrap_or_else(|e| panic!("{name}: {e}"));
}

async fn content(engine: &Engine, name: &StreamName) -> String {
    let page = engine.locate(name, ReadFrom::Start).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    let (bytes, _) = engine.fetch(name, &page).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// What a balancer does to all replicas, used or not: each hears of the store's time.
async fn ask_whether_ready(engine: &Engine, times: u64) {
    for _ in 0..times {
        assert!(engine.ready().await.is_ok());
        seconds(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_does_not_take_the_checkpoint_back() {
    let bucket = Bucket::new();
    let (idle, busy) = (bucket.open(10, settings()).await, bucket.open(20, settings()).await);
    let stream = name("s");
    create(&idle, &stream).await;
    append(&idle, &stream, "first;").await;
    ask_whether_ready(&idle, 5).await;
    let mut all = "first;".to_owned();
    for number in 0..60 {
        let message = format!("{number};");
        append(&busy, &stream, &message).await;
        all.push_str(&message);
        ask_whether_ready(&idle, 1).await;
    }
    // The one that wrote is gone; the one that slept is still asked whether it is ready, and cleans up after a while.
    drop(busy);
    ask_whether_ready(&idle, 100).await;
    let cold = bucket.open(30, settings()).await;
    assert_eq!(content(&cold, &stream).await, all);
    append(&idle, &stream, "last;").await;
    all.push_str("last;");
    assert_eq!(content(&idle, &stream).await, all);
    assert_eq!(content(&bucket.open(40, settings()).await, &stream).await, all);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_is_the_buckets_and_not_each_replicas() {
    let bucket = Bucket::new();
    let patient = EngineSettings { grace: Duration::from_secs(3600), ..settings() };
    let first = bucket.open(10, patient).await;
    create(&first, &name("s")).await;
    let hasty = bucket.open(20, settings()).await;
    for number in 0..30 {
        create(&hasty, &name(&format!("other/{number}"))).await;
        seconds(1).await;
    }
    ask_whether_ready(&hasty, 200).await;
    let oldest = bucket.keys("log/0/").await.into_iter().next();
    assert_eq!(oldest.as_deref(), Some("log/0/00000000000000000001"), "an entry that the first replica trusts is gone");
    append(&first, &name("s"), "x").await;
    assert_eq!(content(&bucket.open(30, settings()).await, &name("s")).await, "x");
}

#[tokio::test(start_paused = true)]
async fn nobody_who_asks_while_the_head_is_looked_at_is_forgotten() {
    let bucket = Bucket::new();
    let engine = bucket.open(10, settings()).await;
    for round in 0..50 {
        let mut asked = Vec::new();
        for number in 0..3 {
            let (engine, stream) = (engine.clone(), name(&format!("absent/{round}/{number}")));
            asked.push(tokio::spawn(async move { engine.locate(&stream, ReadFrom::Start).await }));
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        for asked in asked {
            let found = asked.await.unwrap_or_else(|e| panic!("{e}"));
            assert!(matches!(found, Err(EngineError::Rejected(Rejection::NotFound))), "{found:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_streams_is_sealed_without_a_pause_for_every_few() {
    let bucket = Bucket::new();
    let engine = bucket.open(10, settings()).await;
    let creates = (0..400).map(|number| {
        let engine = engine.clone();
        tokio::spawn(async move { create(&engine, &name(&format!("burst/{number}"))).await })
    });
    for created in creates.collect::<Vec<_>>() {
        created.await.unwrap_or_else(|e| panic!("{e}"));
    }
    seconds(10).await;
    let sealed = bucket.keys("streams/").await.len();
    assert_eq!(sealed, 400, "after ten seconds of virtual time");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_lands_late_where_another_was_deleted_is_not_believed() {
    let (bucket, weather) = (Bucket::new(), Arc::<Weather>::default());
    let sleeper = bucket.open_in(Arc::clone(&weather), 10, settings()).await;
    let stream = name("s");
    create(&sleeper, &stream).await;
    append(&sleeper, &stream, "first;").await;
    let incarnation = sleeper.stat(&stream).await.unwrap_or_else(|e| panic!("{e}")).incarnation;
    let last = bucket.keys("log/0/").await.pop().unwrap_or_default();
    let object = bucket.store.get(&last).await.unwrap_or_else(|e| panic!("{e}")).value;
    let object = object.unwrap_or_else(|| panic!("the last entry is there"));
    let seen = entry::decode(&object.body).unwrap_or_else(|e| panic!("{e}")).header;

    weather.cut.store(true, Ordering::Relaxed);
    // Another goes one entry further, seals it and deletes it, in its time.
    let busy = bucket.open(20, settings()).await;
    append(&busy, &stream, "second;").await;
    let mut all = "first;second;".to_owned();
    ask_whether_ready(&busy, 150).await;

    // A rival's PUT, given up long ago, lands at the sleeper's head and fits its chain.
    let late = Header { position: seen.position + 1, id: 99, prev: seen.id, ..seen };
    let body = bytes("ghost;");
    let ghost = Appended { incarnation, start: 6, body, seq: None, producer: None, close: false };
    let effect = Effect::Appended(ghost);
    let object = entry::encode(&late, std::iter::once((&stream, &effect)));
    let put = bucket.store.put(&key::log(0, late.position), object, Condition::Absent).await;
    assert!(put.is_ok_and(|reply| matches!(reply.value, Put::Written(_))), "the position was to be deleted by now");

    weather.cut.store(false, Ordering::Relaxed);
    assert_eq!(content(&sleeper, &stream).await, all);
    append(&sleeper, &stream, "last;").await;
    all.push_str("last;");
    assert_eq!(content(&bucket.open(30, settings()).await, &stream).await, all);
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_is_deleted_after_the_grace_period_and_then_nothing_is_asked_any_more() {
    let bucket = Bucket::new();
    let metered = Arc::new(Metered::new(Arc::clone(&bucket.store) as Arc<dyn Store>));
    let settings = EngineSettings { collect_interval: Duration::ZERO, ..settings() };
    let engine = Engine::open(metered.clone(), settings, bucket.clock.clone(), Ids::seeded(1)).await;
    let engine = engine.unwrap_or_else(|e| panic!("{e}"));
    create(&engine, &name("a")).await;
    append(&engine, &name("a"), "data").await;
    // The grace period is 20 s, and begins when all is sealed.
    seconds(30).await;
    assert_eq!(bucket.keys("log/").await, Vec::<String>::new());
    let requests = || ["get", "put", "list"].map(|operation| metered.snapshot().all(operation));
    let before = requests();
    seconds(1000).await;
    assert_eq!(requests(), before);
}
