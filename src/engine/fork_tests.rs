use std::time::Duration;

use super::*;
use crate::engine::testing::{World, body, name, seconds, settings};
use crate::protocol::fork::Requested;
use crate::protocol::{Lifetime, Offset, ReadFrom, Retention};
use crate::settings::EngineSettings;
use crate::store::Store;

fn at_tail(source: &StreamName) -> ForkRequest {
    let requested = Requested::default();
    ForkRequest {
        source: source.clone(),
        requested,
        content_type: None,
        lifetime: None,
        closed: false,
        retention: None,
    }
}

fn at(source: &StreamName, offset: Offset, sub_offset: u64) -> ForkRequest {
    ForkRequest { requested: Requested { offset: Some(offset), sub_offset }, ..at_tail(source) }
}

impl World {
    async fn fork(&self, name: &StreamName, request: ForkRequest) -> Result<Outcome, EngineError> {
        let admission = self.engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
        self.engine.fork(name, request, body(""), admission).await
    }

    async fn forked(&self, name: &StreamName, request: ForkRequest) -> Outcome {
        self.fork(name, request).await.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    async fn delete(&self, name: &StreamName) {
        self.engine.delete(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    async fn offset_after(&self, name: &StreamName) -> Offset {
        self.engine.stat(name).await.unwrap_or_else(|e| panic!("{name}: {e}")).tail_offset()
    }
}

/// A stream with chunks, bytes in its manifest and bytes in the log.
async fn source(world: &World, name: &StreamName) -> String {
    world.create(name, Lifetime::Forever).await;
    let mut all = String::new();
    for (message, pause) in
        [("x".repeat(50), 0), ("enough for a chunk;".repeat(2), 30), ("inline;".into(), 30), ("log;".into(), 0)]
    {
        world.append(name, &message).await;
        all.push_str(&message);
        seconds(pause).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_fork_has_all_of_its_source_and_no_chunk_of_its_own() {
    let world = World::new().await;
    let (parent, child) = (name("parent"), name("child"));
    let all = source(&world, &parent).await;
    let before = world.chunks(&parent).await;
    let outcome = world.forked(&child, at_tail(&parent)).await;
    assert_eq!((outcome.fresh, outcome.tail), (true, world.offset_after(&parent).await));
    assert_eq!(world.content(&child).await, all);
    world.append(&child, "own;").await;
    world.append(&parent, "later;").await;
    seconds(30).await;
    assert_eq!(world.content(&child).await, format!("{all}own;"));
    assert_eq!(world.content(&parent).await, format!("{all}later;"));
    assert_eq!(world.chunks(&child).await, 0, "what is inherited was copied");
    assert!(world.chunks(&parent).await >= before);
    assert_eq!(world.cold(settings()).await.content(&child).await, format!("{all}own;"));
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn a_fork_branches_off_anywhere() {
    let world = World::new().await;
    let (parent, mut offsets, mut all) = (name("parent"), Vec::new(), String::new());
    world.create(&parent, Lifetime::Forever).await;
    for number in 0..12 {
        offsets.push((world.offset_after(&parent).await, all.clone()));
        let message = format!("{number}:{};", "m".repeat(number * 7));
        world.append(&parent, &message).await;
        all.push_str(&message);
        seconds(if number % 4 == 3 { 30 } else { 0 }).await;
    }
    for (index, (offset, before)) in offsets.into_iter().enumerate() {
        let child = name(&format!("child{index}"));
        let outcome = world.forked(&child, at(&parent, offset, 0)).await;
        assert_eq!(outcome.tail, offset);
        assert_eq!(world.content(&child).await, before);
        let part = name(&format!("part{index}"));
        world.forked(&part, at(&parent, offset, 2)).await;
        assert_eq!(world.content(&part).await, all[..before.len() + 2]);
        world.append(&part, "own;").await;
        assert_eq!(world.cold(settings()).await.content(&part).await, format!("{}own;", &all[..before.len() + 2]));
        let message = index * 7 + index.to_string().len() + 2;
        let too_far = world.fork(&name("none"), at(&parent, offset, message as u64 + 1)).await;
        assert!(matches!(too_far, Err(EngineError::Rejected(_))), "{too_far:?}");
    }
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn inherited_pages_and_offsets_are_those_of_the_source() {
    let world = World::with(EngineSettings { page_bytes: 64, ..settings() }).await;
    let (parent, child) = (name("parent"), name("child"));
    source(&world, &parent).await;
    let middle = world.offset_after(&parent).await;
    world.forked(&child, at(&parent, middle, 0)).await;
    for _ in 0..40 {
        world.append(&child, "own bytes;").await;
    }
    seconds(30).await;
    let mut from = ReadFrom::Start;
    loop {
        let [of_parent, of_child] =
            futures::future::join_all([&parent, &child].map(|name| world.engine.locate(name, from)))
                .await
                .try_into()
                .unwrap_or_else(|_| panic!("two were asked"));
        let (of_parent, of_child) =
            (of_parent.unwrap_or_else(|e| panic!("{e}")), of_child.unwrap_or_else(|e| panic!("{e}")));
        if of_parent.reaches_tail() {
            break;
        }
        assert_eq!((of_parent.start, of_parent.end), (of_child.start, of_child.end));
        let [parents, childs] = [&of_parent, &of_child].map(|page| page.stream.offset_at(page.end));
        assert_eq!(parents, childs);
        from = ReadFrom::At(parents);
    }
    assert_ne!(world.offset_after(&child).await.incarnation, middle.incarnation, "own bytes have own offsets");
}

#[tokio::test(start_paused = true)]
async fn what_a_fork_names_is_not_merged_away_by_its_source() {
    let world = World::with(EngineSettings { seal_runs: 1, ..settings() }).await;
    let (parent, child) = (name("parent"), name("child"));
    world.create(&parent, Lifetime::Forever).await;
    let large = "l".repeat(300_000);
    for _ in 0..3 {
        world.append(&parent, &large).await;
        seconds(10).await;
    }
    world.forked(&child, at_tail(&parent)).await;
    // Together more than a mebibyte: without the fork all of them would become one chunk.
    for _ in 0..8 {
        world.append(&parent, &large).await;
        seconds(10).await;
    }
    assert!(world.chunks(&parent).await < 11, "nothing was merged at all");
    assert_eq!(world.cold(settings()).await.content(&child).await.len(), 900_000);
    world.delete(&child).await;
    seconds(10).await;
    world.append(&parent, &large).await;
    seconds(10).await;
    assert_eq!(world.engine.stat(&parent).await.map(|stream| stream.forks.len()).ok(), Some(0));
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_source_is_kept_until_its_last_fork_is_gone_and_so_on_up_the_chain() {
    let world = World::new().await;
    let streams = ["zero", "one", "two"].map(name);
    let mut all = source(&world, &streams[0]).await;
    for pair in streams.windows(2) {
        world.forked(&pair[1], at_tail(&pair[0])).await;
        world.append(&pair[1], "own and long enough;").await;
        all.push_str("own and long enough;");
        seconds(30).await;
    }
    for stream in &streams[..2] {
        world.delete(stream).await;
        let gone = world.engine.stat(stream).await;
        assert!(matches!(gone, Err(EngineError::Rejected(Rejection::Gone))), "{gone:?}");
        assert!(matches!(
            world.fork(&name("x"), at_tail(stream)).await,
            Err(EngineError::Rejected(Rejection::SourceGone))
        ));
    }
    seconds(200).await;
    assert_eq!(world.cold(settings()).await.content(&streams[2]).await, all);
    world.is_healthy().await;
    world.delete(&streams[2]).await;
    seconds(60).await;
    for stream in &streams {
        let gone = world.engine.stat(stream).await;
        assert!(matches!(gone, Err(EngineError::Rejected(Rejection::NotFound))), "{gone:?}");
        assert_eq!(world.chunks(stream).await, 0, "{stream}");
    }
    // The path may be used again.
    world.create(&streams[0], Lifetime::Forever).await;
    world.is_healthy().await;
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_nothing_came_of_is_dropped_by_the_collector() {
    let world = World::new().await;
    let (parent, child) = (name("parent"), name("child"));
    source(&world, &parent).await;
    // As a replica leaves it that is killed between the two logs.
    let id = ForkId { name: child.clone(), incarnation: world.engine.new_incarnation() };
    let reserved = world.engine.reserve(&id, &at_tail(&parent), world.store.last_seen()).await;
    assert!(reserved.is_ok(), "{reserved:?}");
    world.delete(&parent).await;
    seconds(100).await;
    let collected = world.engine.collect(true, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((collected.references, world.chunks(&parent).await > 0), (0, true), "it may be about to come to be");
    seconds(30).await;
    let collected = world.engine.collect(true, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((collected.references, collected.left), (1, 0));
    seconds(30).await;
    assert_eq!(world.chunks(&parent).await, 0);
    let gone = world.engine.stat(&parent).await;
    assert!(matches!(gone, Err(EngineError::Rejected(Rejection::NotFound))), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn the_reference_of_a_fork_that_lives_is_kept() {
    let world = World::new().await;
    let (parent, child) = (name("parent"), name("child"));
    let all = source(&world, &parent).await;
    world.forked(&child, at_tail(&parent)).await;
    world.delete(&parent).await;
    seconds(300).await;
    let collected = world.cold(settings()).await.engine.collect(true, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((collected.references, collected.chunks, collected.left), (0, 0, 0));
    assert_eq!(world.cold(settings()).await.content(&child).await, all);
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_was_prepared_long_ago_does_not_come_to_be() {
    let world = World::new().await;
    let (parent, child) = (name("parent"), name("child"));
    source(&world, &parent).await;
    let id = ForkId { name: child.clone(), incarnation: world.engine.new_incarnation() };
    let prepared_at = world.store.last_seen();
    let reserved =
        world.engine.reserve(&id, &at_tail(&parent), world.store.last_seen()).await.unwrap_or_else(|e| panic!("{e}"));
    for (pause, is_taken) in [(31, false), (0, true)] {
        seconds(pause).await;
        let base = world.engine.reseal(&parent).await.unwrap_or_else(|e| panic!("{e}"));
        let prepared_at = if is_taken { world.store.last_seen() } else { prepared_at };
        let (stream, branch) =
            world.engine.branch(&at_tail(&parent), &base, &reserved, prepared_at).unwrap_or_else(|e| panic!("{e}"));
        let create = Create {
            incarnation: id.incarnation,
            content_type: stream.content_type,
            lifetime: Lifetime::Forever,
            closed: false,
            body: body(""),
            fork: Some(Box::new(branch)),
            retention: None,
        };
        let made = world.engine.submit(&child, Command::Create(create), None, None).await;
        assert_eq!(made.is_ok(), is_taken, "{made:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn asked_again_it_is_the_same_fork_though_its_source_went_on() {
    let world = World::new().await;
    let (parent, child) = (name("parent"), name("child"));
    let all = source(&world, &parent).await;
    assert!(world.forked(&child, at_tail(&parent)).await.fresh);
    world.append(&parent, "later;").await;
    assert!(!world.forked(&child, at_tail(&parent)).await.fresh);
    assert_eq!(world.content(&child).await, all);
    let offset = world.offset_after(&parent).await;
    let other = world.fork(&child, at(&parent, offset, 0)).await;
    assert!(matches!(other, Err(EngineError::Rejected(Rejection::Exists { what: "fork offset" }))), "{other:?}");
    let refused = world.fork(&name("plain"), ForkRequest { closed: true, ..at_tail(&name("none")) }).await;
    assert!(matches!(refused, Err(EngineError::Rejected(Rejection::NoSource))), "{refused:?}");
    assert_eq!(world.engine.stat(&parent).await.map(|stream| stream.forks.len()).ok(), Some(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_judges_a_fork_by_what_there_is_now() {
    let world = World::new().await;
    let (parent, child) = (name("parent"), name("child"));
    source(&world, &parent).await;
    world.create(&child, Lifetime::Forever).await;
    let other = world.cold(settings()).await;
    let before = other.offset_after(&parent).await;
    assert!(other.engine.stat(&child).await.is_ok());
    world.delete(&child).await;
    world.append(&parent, "later;").await;
    let after = world.offset_after(&parent).await;
    assert!(other.forked(&child, at(&parent, after, 0)).await.fresh, "it was deleted");
    world.append(&parent, "latest;").await;
    let within = other.forked(&name("within"), at(&parent, after, 3)).await;
    assert_eq!(within.tail.position, before.position + "later;lat".len() as u64);
}

#[tokio::test(start_paused = true)]
async fn asked_again_with_another_retention_a_fork_has_that() {
    let world = World::new().await;
    let (parent, child) = (name("parent"), name("child"));
    source(&world, &parent).await;
    let with = |bytes| {
        let retention = Retention { bytes: Some(bytes), age_seconds: None };
        ForkRequest { retention: Some(retention), ..at_tail(&parent) }
    };
    for bytes in [10, 20] {
        assert_eq!(world.forked(&child, with(bytes)).await.fresh, bytes == 10);
        assert_eq!(world.engine.stat(&child).await.map(|stream| stream.retention.bytes).ok(), Some(Some(bytes)));
    }
}

#[test]
fn a_place_within_a_message_is_none_of_a_stream_that_came_after() {
    let stream = |number| {
        let incarnation = Incarnation::new(number).unwrap_or(Incarnation::ANY);
        let stream = Stream::new(incarnation, crate::engine::testing::text(), Lifetime::Forever, 0);
        Stream { tail: 100, ..stream }
    };
    let add = |of: &Stream| {
        Command::AddFork(AddFork {
            fork: ForkId { name: name("child"), incarnation: stream(9).incarnation },
            offset: Some(Offset { position: 10, incarnation: Incarnation::ANY }),
            beyond: Some((5, of.incarnation)),
            content_type: None,
            since: 0,
        })
    };
    let decide = |of| crate::protocol::stream::decide(Some(&stream(1)), &add(&of), 0);
    let position = |decision: crate::protocol::stream::Decision| decision.outcome.map(|outcome| outcome.tail.position);
    assert_eq!(decide(stream(1)).map(position), Ok(Some(15)));
    assert!(matches!(decide(stream(2)), Err(Rejection::Replaced { .. })));
}
