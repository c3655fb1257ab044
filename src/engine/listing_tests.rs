//! What a page costs, and what it must not miss.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::*;
use crate::clock::{Clock, Ids};
use crate::engine::testing::{World, name, seconds, settings};
use crate::protocol::{Incarnation, Lifetime};
use crate::store::memory::MemoryStore;
use crate::store::metered::Metered;
use crate::store::{Condition, Listing, Object, Put, Store, StoreResult, StoreTime};

/// An engine that has nothing in memory yet but the shard's log, and a count of its requests.
async fn cold(store: Arc<dyn Store>) -> (Engine, Arc<Metered>) {
    let metered = Arc::new(Metered::new(store));
    let engine = Engine::open(Arc::clone(&metered) as _, settings(), Clock::tokio(0), Ids::seeded(9)).await;
    let engine = engine.unwrap_or_else(|e| panic!("{e}"));
    engine.list("nothing", None, 1).await.unwrap_or_else(|e| panic!("{e}"));
    (engine, metered)
}

/// GETs and LISTs of one page, and the page.
async fn counted(engine: &Engine, metered: &Metered, after: Option<Place>, limit: usize) -> (u64, u64, Streams) {
    let before = metered.snapshot();
    let page = engine.list("", after, limit).await.unwrap_or_else(|e| panic!("{e}"));
    let after = metered.snapshot();
    let of = |operation| after.all(operation) - before.all(operation);
    (of("get"), of("list"), page)
}

#[tokio::test(start_paused = true)]
async fn a_page_costs_one_request_for_each_stream_that_is_not_in_memory() {
    let world = World::new().await;
    for number in 0..30 {
        let stream = name(&format!("s{number:02}"));
        world.create(&stream, Lifetime::Forever).await;
        if number % 3 == 0 {
            world.engine.delete(&stream).await.unwrap_or_else(|e| panic!("{e}"));
        }
    }
    seconds(60).await;
    // A checkpoint, after which the log knows nothing of them.
    for number in 0..4 {
        world.create(&name(&format!("t{number}")), Lifetime::Forever).await;
        seconds(10).await;
    }
    let (engine, metered) = cold(Arc::clone(&world.store) as _).await;
    let (gets, lists, first) = counted(&engine, &metered, None, 10).await;
    assert_eq!((first.found.len(), gets, lists), (10, 15, 1), "ten streams, and five that are deleted");
    let (gets, lists, second) = counted(&engine, &metered, first.next.clone(), 1000).await;
    assert_eq!((second.found.len(), gets, lists, &second.next), (14, 19, 1, &None));
    let (gets, lists, again) = counted(&engine, &metered, None, 10).await;
    assert_eq!((again, gets, lists), (first, 0, 1), "they are in memory now");
}

#[tokio::test(start_paused = true)]
async fn a_page_costs_no_more_than_it_may_whatever_lies_in_the_bucket() {
    let world = World::new().await;
    let plant = async |key: String| {
        world.store.put(&key, Bytes::new(), Condition::Absent).await.unwrap_or_else(|e| panic!("{e}"));
    };
    let incarnation = Incarnation::new(7).unwrap_or(Incarnation::ANY);
    let lasting = [name("a"), name("large"), name(&"x".repeat(300)), name("z")];
    for stream in &lasting {
        world.create(stream, Lifetime::Forever).await;
    }
    for nonce in 0..2_500 {
        plant(key::chunk(&lasting[1], incarnation, nonce)).await;
    }
    for number in 0..12_000 {
        plant(format!("streams/foreign-{number:05}")).await;
    }
    for number in 0..1_500 {
        plant(key::chunk(&name(&format!("lost-{number:04}")), incarnation, 1)).await;
    }
    seconds(60).await;
    let (engine, metered) = cold(Arc::clone(&world.store) as _).await;
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (gets, lists, page) = counted(&engine, &metered, after, 1000).await;
        assert!(gets <= 1001 && lists <= 10, "{gets} GETs, {lists} LISTs");
        pages += 1;
        found.extend(page.found.into_iter().map(|(name, _)| name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), lasting.iter().collect());
    assert_eq!((found.len(), pages), (4, 3));
    let lists = metered.snapshot().all("list");
    assert!(lists < 20, "{lists} LISTs: the chunks of a large stream are passed over");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_manifest_hides_its_stream_and_no_other() {
    let world = World::new().await;
    world.create(&name("a"), Lifetime::Forever).await;
    world.create(&name("b"), Lifetime::Forever).await;
    seconds(60).await;
    let manifest = key::manifest(&name("a"));
    world.store.delete(&manifest).await.unwrap_or_else(|e| panic!("{e}"));
    world.plant(&manifest, Bytes::from_static(b"{}")).await;
    let (engine, _) = cold(Arc::clone(&world.store) as _).await;
    let page = engine.list("", None, 10).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(page.found.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), [name("b")]);
}

#[test]
fn places_survive_as_tokens() {
    for place in [Place::past_folder("a%2Fb"), Place::past_object("streams/readme")] {
        assert_eq!(place.to_string().parse(), Ok(place));
    }
    assert_eq!(Place::past_object("streams/a/0000000000000007/1"), Place::past_folder("a"));
}

/// Tells what lies in it only when much has happened since.
#[derive(Debug)]
struct SlowToList(Arc<dyn Store>);

#[async_trait::async_trait]
impl Store for SlowToList {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        self.0.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        self.0.get_range(key, range).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        self.0.put(key, body, condition).await
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.0.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let listing = self.0.list(prefix, after, limit).await;
        if limit > 1 && prefix.starts_with(key::STREAMS) {
            seconds(60).await;
        }
        listing
    }

    fn last_seen(&self) -> StoreTime {
        self.0.last_seen()
    }

    fn heard(&self, at: StoreTime) {
        self.0.heard(at);
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_moves_from_the_log_to_the_bucket_meanwhile_is_listed() {
    let clock = Clock::tokio(1_800_000_000_000);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let slow = Arc::new(SlowToList(Arc::clone(&store) as _));
    let engine = Engine::open(slow, settings(), clock, Ids::seeded(1)).await.unwrap_or_else(|e| panic!("{e}"));
    let world = World { store, engine };
    world.create(&name("moves"), Lifetime::Forever).await;
    assert!(!world.has("streams/moves/manifest").await);
    let page = world.engine.list("", None, 10).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(world.has("streams/moves/manifest").await);
    assert_eq!(page.found.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), [name("moves")]);
}
