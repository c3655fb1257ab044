use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Ids};
use crate::engine::testing::{World, body, name, seconds, settings, text};
use crate::engine::{Engine, EngineError};
use crate::protocol::fork::{ForkRequest, Requested};
use crate::protocol::stream::{Command, Create, Outcome, Trim};
use crate::protocol::{Incarnation, Lifetime, Offset, ReadFrom, Rejection, Retention, StreamName};
use crate::settings::EngineSettings;
use crate::store::Store;

/// Each message is a chunk and a page.
fn small() -> EngineSettings {
    EngineSettings { page_bytes: 30, seal_runs: 1, seal_idle: Duration::from_secs(1), ..settings() }
}

impl World {
    async fn create_with(&self, name: &StreamName, retention: Option<Retention>) {
        let (incarnation, content_type) = (self.engine.new_incarnation(), text());
        let lifetime = Lifetime::Forever;
        let create =
            Create { incarnation, content_type, lifetime, closed: false, body: body(""), fork: None, retention };
        let admission = self.engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
        self.engine.create(name, create, admission).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// Messages of 32 bytes, each in a chunk of its own.
    async fn fill(&self, name: &StreamName, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.append(name, &format!("{number:031};")).await;
            seconds(5).await;
        }
    }

    /// All that there is, from an offset on.
    async fn read(&self, name: &StreamName, mut from: ReadFrom) -> Result<(u64, String), EngineError> {
        let (mut first, mut all) = (None, String::new());
        loop {
            let page = self.engine.locate(name, from).await?;
            let (bytes, _) = self.engine.fetch(name, &page).await?;
            all.push_str(&String::from_utf8_lossy(&bytes));
            first.get_or_insert(page.start);
            if page.reaches_tail() {
                return Ok((first.unwrap_or(0), all));
            }
            from = ReadFrom::At(page.stream.offset_at(page.end));
        }
    }

    async fn fork_off(
        &self,
        source: &StreamName,
        name: &StreamName,
        offset: Option<Offset>,
    ) -> Result<Outcome, EngineError> {
        let (content_type, lifetime, retention) = (None, None, None);
        let (source, requested) = (source.clone(), Requested { offset, sub_offset: 0 });
        let request = ForkRequest { source, requested, content_type, lifetime, closed: false, retention };
        let admission = self.engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
        self.engine.fork(name, request, body(""), admission).await
    }

    async fn horizon(&self, name: &StreamName) -> u64 {
        self.engine.stat(name).await.unwrap_or_else(|e| panic!("{name}: {e}")).horizon
    }
}

fn expected(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("{number:031};")).collect()
}

#[tokio::test(start_paused = true)]
async fn bytes_beyond_the_limit_are_let_go_at_page_ends() {
    let world = World::with(small()).await;
    let stream = name("s");
    world.create_with(&stream, Some(Retention { bytes: Some(100), age_seconds: None })).await;
    world.fill(&stream, 0..20).await;
    seconds(5).await;
    let horizon = world.horizon(&stream).await;
    // At least a hundred bytes, and less than two chunks more than that.
    assert!((640 - 100 - 64..=640 - 100).contains(&horizon) && horizon.is_multiple_of(32), "{horizon}");
    for world in [&world, &world.cold(small()).await] {
        let read = world.read(&stream, ReadFrom::Start).await;
        assert_eq!(read.ok(), Some((horizon, expected(horizon as u32 / 32..20))));
        let at = |position| ReadFrom::At(Offset { position, incarnation: Incarnation::ANY });
        for position in [0, 32, horizon - 1] {
            let refused = world.read(&stream, at(position)).await;
            let Err(EngineError::Rejected(Rejection::Trimmed { earliest })) = refused else { panic!("{refused:?}") };
            assert_eq!(earliest.position, horizon);
        }
        assert_eq!(world.read(&stream, at(608)).await.ok(), Some((608, expected(19..20))));
    }
    assert!(world.chunks(&stream).await <= 6, "its objects were not deleted");
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_retention_keeps_all_and_may_get_one_later() {
    let world = World::with(small()).await;
    let stream = name("s");
    world.create_with(&stream, None).await;
    world.fill(&stream, 0..10).await;
    assert_eq!(world.horizon(&stream).await, 0);
    let retention = Retention { bytes: Some(64), age_seconds: None };
    world.create_with(&stream, Some(retention)).await;
    assert_eq!(world.engine.stat(&stream).await.map(|stream| stream.retention).ok(), Some(retention));
    // Asked for without one, it stays as it is.
    world.create_with(&stream, None).await;
    world.fill(&stream, 10..12).await;
    seconds(10).await;
    assert!(world.horizon(&stream).await >= 256, "{}", world.horizon(&stream).await);
    let unlimited = Some(Retention::default());
    world.create_with(&stream, unlimited).await;
    let before = world.horizon(&stream).await;
    world.fill(&stream, 12..20).await;
    assert_eq!(world.horizon(&stream).await, before);
}

#[tokio::test(start_paused = true)]
async fn old_bytes_of_an_idle_stream_are_let_go_by_the_collector() {
    let world = World::with(small()).await;
    let stream = name("s");
    world.create_with(&stream, Some(Retention { bytes: None, age_seconds: Some(300) })).await;
    world.fill(&stream, 0..10).await;
    assert_eq!(world.horizon(&stream).await, 0);
    seconds(280).await;
    let collected = world.engine.collect(true, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((collected.trimmed, collected.left), (1, 0));
    seconds(10).await;
    let horizon = world.horizon(&stream).await;
    assert!((64..320).contains(&horizon), "{horizon}");
    let read = world.read(&stream, ReadFrom::Start).await;
    assert_eq!(read.ok(), Some((horizon, expected(horizon as u32 / 32..10))));
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn a_fork_keeps_what_it_needs_of_a_source_that_lets_it_go() {
    let world = World::with(small()).await;
    let (stream, child) = (name("s"), name("child"));
    world.create_with(&stream, Some(Retention { bytes: Some(100), age_seconds: None })).await;
    world.fill(&stream, 0..3).await;
    let forked = world.fork_off(&stream, &child, None).await;
    assert!(forked.is_ok(), "{forked:?}");
    world.fill(&stream, 3..20).await;
    seconds(70).await;
    assert!(world.horizon(&stream).await > 400);
    for _ in 0..2 {
        let collected = world.engine.collect(true, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((collected.chunks, collected.left), (0, 0));
        assert_eq!(world.cold(small()).await.read(&child, ReadFrom::Start).await.ok(), Some((0, expected(0..3))));
        seconds(70).await;
    }
    world.is_healthy().await;
    let before = world.chunks(&stream).await;
    world.engine.delete(&child).await.unwrap_or_else(|e| panic!("{e}"));
    seconds(10).await;
    world.fill(&stream, 20..21).await;
    seconds(10).await;
    assert!(world.chunks(&stream).await < before, "what only the fork needed is still there");
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn a_fork_of_a_stream_whose_first_bytes_are_gone_starts_where_that_one_does() {
    let world = World::with(small()).await;
    let stream = name("s");
    world.create_with(&stream, Some(Retention { bytes: Some(100), age_seconds: None })).await;
    world.fill(&stream, 0..20).await;
    let there = world.engine.stat(&stream).await.unwrap_or_else(|e| panic!("{e}"));
    let horizon = there.horizon;
    assert!(horizon > 0);
    let too_early = world.fork_off(&stream, &name("early"), Some(there.offset_at(horizon - 1))).await;
    assert!(matches!(too_early, Err(EngineError::Rejected(Rejection::ForkOffset { .. }))), "{too_early:?}");
    let ends = [horizon, horizon + 32, there.tail];
    for end in ends {
        let child = name(&format!("child/{end}"));
        let forked = world.fork_off(&stream, &child, Some(there.offset_at(end))).await;
        assert_eq!(forked.map(|outcome| (outcome.tail.position, outcome.horizon)).ok(), Some((end, horizon)));
        let grandchild = name(&format!("grandchild/{end}"));
        assert!(world.fork_off(&child, &grandchild, None).await.is_ok(), "a fork of {end}");
    }
    // The source lets go of all that they have.
    world.fill(&stream, 20..40).await;
    seconds(70).await;
    assert!(world.horizon(&stream).await > there.tail);
    world.engine.collect(true, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    for (end, kind) in ends.iter().flat_map(|end| ["child", "grandchild"].map(|kind| (*end, kind))) {
        let child = name(&format!("{kind}/{end}"));
        world.append(&child, "own;").await;
        let bytes = format!("{}own;", expected(horizon as u32 / 32..end as u32 / 32));
        for engine in [&world, &world.cold(small()).await] {
            assert_eq!(engine.read(&child, ReadFrom::Start).await.ok(), Some((horizon, bytes.clone())), "{child}");
        }
    }
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_limit_lets_go_of_is_kept_if_the_limit_was_changed_meanwhile() {
    let world = World::with(small()).await;
    let stream = name("s");
    world.create_with(&stream, None).await;
    world.fill(&stream, 0..20).await;
    let incarnation = world.engine.stat(&stream).await.map(|stream| stream.incarnation);
    let incarnation = incarnation.unwrap_or_else(|e| panic!("{e}"));
    for (retention, horizon) in [(Some(100), 0), (None, 64)] {
        let retention = Retention { bytes: retention, age_seconds: None };
        let trim = Command::Trim(Trim { incarnation, horizon: 64, retention });
        world.engine.submit(&stream, trim, None, None).await.map(drop).unwrap_or_else(|_| panic!("not trimmed"));
        assert_eq!(world.horizon(&stream).await, horizon);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_chunk_stays_though_all_of_it_is_old_and_only_inline_bytes_follow() {
    let world = World::with(small()).await;
    let stream = name("s");
    world.create_with(&stream, Some(Retention { bytes: None, age_seconds: Some(100) })).await;
    world.fill(&stream, 0..3).await;
    seconds(200).await;
    world.append(&stream, "inline;").await;
    seconds(20).await;
    world.append(&stream, "more;").await;
    seconds(20).await;
    assert!(world.horizon(&stream).await > 0);
    let read = world.cold(small()).await.read(&stream, ReadFrom::Start).await;
    assert!(read.as_ref().is_ok_and(|(_, bytes)| bytes.ends_with("inline;more;")), "{read:?}");
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_clock_is_ahead_lets_nothing_go_early() {
    let world = World::with(small()).await;
    let stream = name("s");
    world.create_with(&stream, Some(Retention { bytes: None, age_seconds: Some(3_600) })).await;
    world.fill(&stream, 0..5).await;
    let (store, clock) = (Arc::clone(&world.store), Clock::tokio(1_800_000_000_000 + 24 * 3_600_000));
    let engine = Engine::open(Arc::clone(&store) as Arc<dyn Store>, small(), clock, Ids::seeded(5)).await;
    let ahead = World { store, engine: engine.unwrap_or_else(|e| panic!("{e}")) };
    ahead.fill(&stream, 5..8).await;
    let collected = ahead.engine.collect(true, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((collected.trimmed, ahead.horizon(&stream).await), (0, 0));
}
