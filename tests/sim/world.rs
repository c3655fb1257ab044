//! Replicas that crash and are cut off, writers that retry, readers that resume, and what must hold in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater::clock::{Clock, Ids};
use headwater::engine::{Engine, EngineError};
use headwater::protocol::producer::Producer;
use headwater::protocol::stream::{Append, Body, Create, Data};
use headwater::protocol::{ContentType, Lifetime, Offset, ReadFrom, Rejection, StreamName};
use headwater::settings::EngineSettings;
use headwater::store::memory::MemoryStore;

use crate::link::{Link, Weather};

/// Virtual time for which writers write and replicas suffer.
const STORM: Duration = Duration::from_secs(150);
/// Virtual time after it in which everything must have settled.
const CALM: Duration = Duration::from_secs(240);

/// Everything is small, so that sealing, checkpoints and truncation happen all the time.
fn settings() -> EngineSettings {
    EngineSettings {
        shards: 1,
        page_bytes: 64,
        inline_bytes: 48,
        seal_bytes: 600,
        seal_runs: 20,
        direct_bytes: 40,
        seal_idle: Duration::from_secs(4),
        seal_age: Duration::from_secs(12),
        checkpoint_entries: 6,
        grace: Duration::from_secs(60),
        append_timeout: Duration::from_secs(5),
        pipeline: 3,
        sync_interval: Duration::from_millis(500),
        ..EngineSettings::default()
    }
}

struct Replica {
    engine: Mutex<Option<Engine>>,
    weather: Arc<Weather>,
}

pub struct World {
    clock: Clock,
    ids: Ids,
    bucket: Arc<MemoryStore>,
    replicas: Vec<Replica>,
    /// All clients use this replica, in some runs: the others are idle, and fall behind.
    favourite: AtomicUsize,
}

/// What a writer knows of its messages.
#[derive(Debug, Default)]
pub struct Sent {
    pub acked: Vec<String>,
    pub unknown: Vec<String>,
}

impl World {
    pub fn new(seed: u64, replicas: usize, faults: u64) -> Arc<World> {
        let clock = Clock::tokio(1_800_000_000_000);
        let weather = || Arc::new(Weather { faults: faults.into(), ..Weather::default() });
        let replicas = (0..replicas).map(|_| Replica { engine: Mutex::new(None), weather: weather() }).collect();
        let bucket = Arc::new(MemoryStore::new(clock.clone()));
        let favourite = if seed.is_multiple_of(2) { AtomicUsize::new(0) } else { AtomicUsize::new(usize::MAX) };
        Arc::new(World { ids: Ids::seeded(seed), bucket, clock, replicas, favourite })
    }

    fn chance(&self, percent: u64) -> bool {
        self.ids.between(0, 100) < percent
    }

    async fn pause(&self, low: u64, high: u64) {
        tokio::time::sleep(Duration::from_millis(self.ids.between(low, high))).await;
    }

    async fn open(&self, weather: &Arc<Weather>) -> Option<Engine> {
        let link = Link {
            bucket: Arc::clone(&self.bucket),
            weather: Arc::clone(weather),
            ids: Ids::seeded(self.ids.between(0, u64::MAX)),
            last_seen: Default::default(),
            latest: 90_000,
        };
        let ids = Ids::seeded(self.ids.between(0, u64::MAX));
        Engine::open(Arc::new(link), settings(), self.clock.clone(), ids).await.ok()
    }

    /// Some replica that runs.
    fn engine(&self) -> Option<Engine> {
        let any = self.ids.between(0, self.replicas.len() as u64) as usize;
        let chosen =
            Some(self.favourite.load(Ordering::Relaxed)).filter(|one| *one < self.replicas.len()).unwrap_or(any);
        self.replicas[chosen].engine.lock().unwrap_or_else(|e| panic!("{e}")).clone()
    }

    /// Crashes, restarts and cuts off a replica again and again.
    async fn torment(self: Arc<World>, index: usize) {
        let replica = &self.replicas[index];
        let end = tokio::time::Instant::now() + STORM;
        while tokio::time::Instant::now() < end {
            let opened = self.open(&replica.weather).await;
            *replica.engine.lock().unwrap_or_else(|e| panic!("{e}")) = opened;
            for _ in 0..self.ids.between(1, 5) {
                self.pause(500, 8_000).await;
                if self.chance(40) {
                    replica.weather.cut.store(true, Ordering::Relaxed);
                    // Sometimes for longer than the grace period.
                    let longest = if self.chance(10) { 70_000 } else { 9_000 };
                    self.pause(100, longest).await;
                    replica.weather.cut.store(false, Ordering::Relaxed);
                }
            }
            if self.chance(70) {
                // A crash: nothing is finished.
                drop(replica.engine.lock().unwrap_or_else(|e| panic!("{e}")).take());
                self.pause(10, 4_000).await;
            }
        }
        replica.weather.faults.store(0, Ordering::Relaxed);
        let opened = self.open(&replica.weather).await;
        *replica.engine.lock().unwrap_or_else(|e| panic!("{e}")) = opened;
    }

    /// Lets another replica be the one that all use, from time to time, and asks all of them whether they are ready, as
    /// a balancer does: so an idle one hears of the store's time.
    async fn balance(self: Arc<World>) {
        let end = tokio::time::Instant::now() + STORM;
        while tokio::time::Instant::now() < end {
            for _ in 0..self.ids.between(5, 100) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                for replica in &self.replicas {
                    let engine = replica.engine.lock().unwrap_or_else(|e| panic!("{e}")).clone();
                    if let Some(engine) = engine {
                        tokio::spawn(async move { engine.ready().await });
                    }
                }
            }
            if self.favourite.load(Ordering::Relaxed) != usize::MAX {
                let next = self.ids.between(0, self.replicas.len() as u64) as usize;
                self.favourite.store(next, Ordering::Relaxed);
            }
        }
        self.favourite.store(usize::MAX, Ordering::Relaxed);
    }

    async fn create(&self, name: &StreamName, body: &str) -> Result<Offset, EngineError> {
        let Some(engine) = self.engine() else { return Err(unavailable()) };
        let create = Create {
            incarnation: engine.new_incarnation(),
            content_type: text(),
            lifetime: Lifetime::Forever,
            closed: false,
            body: bytes(body),
            fork: None,
            retention: None,
        };
        let admission = engine.admit(body.len() as u64)?;
        engine.create(name, create, admission).await.map(|outcome| outcome.tail)
    }

    async fn append(
        &self,
        name: &StreamName,
        body: &str,
        producer: Option<Producer>,
        close: bool,
    ) -> Result<(), EngineError> {
        let Some(engine) = self.engine() else { return Err(unavailable()) };
        let append = Append { content_type: Some(text()), body: bytes(body), seq: None, producer, close };
        let admission = engine.admit(body.len() as u64)?;
        engine.append(name, append, admission).await.map(|_| ())
    }

    /// A client that leaves before it has its answer (U37).
    async fn append_and_leave(&self, name: &StreamName, body: &str) {
        let limit = Duration::from_millis(self.ids.between(0, 60));
        let _ = tokio::time::timeout(limit, self.append(name, body, None, false)).await;
    }

    /// Writes numbered messages exactly once: each is sent again until it is acknowledged.
    async fn produce(self: Arc<World>, name: StreamName, id: String) -> Sent {
        let mut sent = Sent::default();
        let end = tokio::time::Instant::now() + STORM;
        let mut seq = 0;
        while tokio::time::Instant::now() < end {
            let message = self.message(&id, seq);
            let producer = Some(Producer { id: id.clone(), epoch: 0, seq });
            match self.append(&name, &message, producer, false).await {
                Ok(()) => {
                    sent.acked.push(message);
                    seq += 1;
                    self.pause(1, 900).await;
                }
                Err(EngineError::Rejected(rejection)) => panic!("{id} {seq} was rejected: {rejection}"),
                Err(EngineError::Damaged { key, what }) => panic!("object {key} is damaged: {what}"),
                Err(_) => self.pause(10, 500).await,
            }
        }
        // What was sent last may be there or not.
        sent.unknown.push(self.message(&id, seq));
        sent
    }

    /// Some messages are long enough to be uploaded as chunks of their own.
    fn message(&self, id: &str, number: u64) -> String {
        let padding = if number % 7 == 3 { "x".repeat(50) } else { String::new() };
        format!("{id}.{number}.{padding};")
    }

    /// Writes messages once each, whatever comes of it.
    async fn shout(self: Arc<World>, name: StreamName, id: String) -> Sent {
        let mut sent = Sent::default();
        let end = tokio::time::Instant::now() + STORM;
        let mut number = 0;
        while tokio::time::Instant::now() < end {
            let message = self.message(&id, number);
            number += 1;
            if self.chance(15) {
                self.append_and_leave(&name, &message).await;
                sent.unknown.push(message);
                continue;
            }
            match self.append(&name, &message, None, false).await {
                Ok(()) => sent.acked.push(message),
                Err(EngineError::Rejected(rejection)) => panic!("{id} {number} was rejected: {rejection}"),
                Err(EngineError::Unconfirmed { .. }) => sent.unknown.push(message),
                // Said to have done nothing: it must not turn up.
                Err(_) => {}
            }
            self.pause(1, 900).await;
        }
        sent
    }

    /// Follows a stream from its start and returns what it read.
    async fn read(self: Arc<World>, name: StreamName, until: Duration) -> String {
        let mut offset = ReadFrom::Start;
        let mut seen = String::new();
        let end = tokio::time::Instant::now() + until;
        while tokio::time::Instant::now() < end {
            self.pause(1, 300).await;
            let Some(engine) = self.engine() else { continue };
            let page = match engine.locate(&name, offset).await {
                Ok(page) => page,
                Err(EngineError::Rejected(rejection)) => panic!("reading on at {offset:?} was rejected: {rejection}"),
                Err(EngineError::Damaged { key, what }) => panic!("object {key} is damaged: {what}"),
                Err(_) => continue,
            };
            match engine.fetch(&name, &page).await {
                Ok((bytes, _)) => {
                    assert_eq!(bytes.len() as u64, page.end - page.start);
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                    let incarnation = page.stream.incarnation;
                    offset = ReadFrom::At(Offset { position: page.end, incarnation });
                }
                Err(EngineError::Damaged { key, what }) => panic!("object {key} is damaged: {what}"),
                Err(_) => {}
            }
        }
        seen
    }

    /// Deletes a stream and makes it anew, again and again. Each life's messages are marked with its number.
    async fn reincarnate(self: Arc<World>, name: StreamName) {
        let end = tokio::time::Instant::now() + STORM;
        let mut life = 0;
        while tokio::time::Instant::now() < end {
            life += 1;
            let start = format!("life{life};");
            while self.create(&name, &start).await.is_err() && tokio::time::Instant::now() < end {
                self.pause(10, 300).await;
            }
            for _ in 0..self.ids.between(0, 12) {
                let _ = self.append(&name, &start, None, false).await;
                self.pause(1, 500).await;
            }
            while tokio::time::Instant::now() < end {
                let Some(engine) = self.engine() else {
                    self.pause(10, 300).await;
                    continue;
                };
                match engine.delete(&name).await {
                    Ok(()) | Err(EngineError::Rejected(Rejection::NotFound)) => break,
                    Err(_) => self.pause(10, 300).await,
                }
            }
        }
    }

    /// Reads whole lives of a stream: none may be mixed with another.
    async fn watch_lives(self: Arc<World>, name: StreamName) {
        let end = tokio::time::Instant::now() + STORM;
        let mut offset = ReadFrom::Start;
        let mut of_life = String::new();
        while tokio::time::Instant::now() < end {
            self.pause(1, 400).await;
            let Some(engine) = self.engine() else { continue };
            let page = match engine.locate(&name, offset).await {
                Ok(page) => page,
                Err(EngineError::Rejected(_)) => {
                    (offset, of_life) = (ReadFrom::Start, String::new());
                    continue;
                }
                Err(_) => continue,
            };
            let Ok((bytes, _)) = engine.fetch(&name, &page).await else { continue };
            of_life.push_str(&String::from_utf8_lossy(&bytes));
            let lives: std::collections::BTreeSet<&str> = of_life.split_terminator(';').collect();
            assert!(lives.len() <= 1, "bytes of several lives under one incarnation: {of_life}");
            offset = ReadFrom::At(Offset { position: page.end, incarnation: page.stream.incarnation });
        }
    }

    /// Writes until the stream is closed, by this writer's last message or by another's. Says what was acknowledged,
    /// and whether the close was its own.
    async fn write_and_close(self: Arc<World>, name: StreamName, id: String) -> (Sent, bool) {
        let mut sent = Sent::default();
        let last = self.ids.between(3, 12);
        for seq in 0..=last {
            let message = self.message(&id, seq);
            loop {
                let producer = Some(Producer { id: id.clone(), epoch: 0, seq });
                match self.append(&name, &message, producer, seq == last).await {
                    Ok(()) => break sent.acked.push(message),
                    Err(EngineError::Rejected(Rejection::Closed { .. })) => {
                        // An earlier attempt may have been stored before another writer closed.
                        sent.unknown.push(message);
                        return (sent, false);
                    }
                    Err(EngineError::Rejected(rejection)) => panic!("{id} {seq} was rejected: {rejection}"),
                    Err(_) => self.pause(10, 500).await,
                }
            }
            self.pause(1, 600).await;
        }
        (sent, true)
    }

    /// Several writers race to close a stream: exactly one does, and its message is the last.
    async fn close_by_turns(self: Arc<World>, index: usize) {
        let end = tokio::time::Instant::now() + STORM;
        let mut round = 0;
        while tokio::time::Instant::now() < end {
            round += 1;
            let stream = name(&format!("closing/{index}/{round}"));
            while self.create(&stream, "").await.is_err() {
                self.pause(10, 300).await;
            }
            let writers: Vec<_> = (0..3)
                .map(|writer| tokio::spawn(Arc::clone(&self).write_and_close(stream.clone(), format!("c{writer}"))))
                .collect();
            let mut written = Vec::new();
            for writer in writers {
                written.push(writer.await.unwrap_or_else(|e| panic!("a closer failed: {e}")));
            }
            let closers: Vec<_> = written.iter().filter(|(_, closed)| *closed).collect();
            assert_eq!(closers.len(), 1, "{stream} was closed by {} writers", closers.len());
            let content = self.closed_content(&stream).await;
            let last = closers[0].0.acked.last().map_or("?", String::as_str);
            assert!(content.ends_with(last), "after the close with {last}: {content}");
            let sent: Vec<Sent> = written.into_iter().map(|(sent, _)| sent).collect();
            check(&content, &sent);
        }
    }

    /// A replica that is cut off may not have heard of the close yet.
    async fn closed_content(&self, name: &StreamName) -> String {
        loop {
            if let Some(engine) = self.engine()
                && engine.stat(name).await.is_ok_and(|stream| stream.closed.is_some())
            {
                return self.content(&engine, name).await;
            }
            self.pause(10, 300).await;
        }
    }

    async fn content(&self, engine: &Engine, name: &StreamName) -> String {
        let mut seen = String::new();
        let mut offset = ReadFrom::Start;
        loop {
            let page = match engine.locate(name, offset).await {
                Ok(page) => page,
                // The bucket is slow even when it is calm.
                Err(EngineError::Unavailable { .. }) => {
                    self.pause(10, 100).await;
                    continue;
                }
                Err(error) => panic!("{name}: {error}"),
            };
            let bytes = match engine.fetch(name, &page).await {
                Ok((bytes, _)) => bytes,
                Err(EngineError::Unavailable { .. }) => continue,
                Err(error) => panic!("{name}: {error}"),
            };
            seen.push_str(&String::from_utf8_lossy(&bytes));
            if page.reaches_tail() {
                return seen;
            }
            offset = ReadFrom::At(Offset { position: page.end, incarnation: page.stream.incarnation });
        }
    }
}

fn unavailable() -> EngineError {
    EngineError::Unavailable { why: "no replica".to_owned(), retry_after: Duration::from_millis(1) }
}

pub fn text() -> ContentType {
    ContentType::new("text/plain").unwrap_or_default()
}

pub fn bytes(text: &str) -> Body {
    let ends = if text.is_empty() { vec![] } else { vec![text.len() as u32] };
    Body { data: Data::Inline(Bytes::from(text.to_owned())), ends }
}

pub fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap_or_else(|e| panic!("{e}"))
}

/// One run. Returns a fingerprint of all that happened.
pub async fn run(seed: u64, replicas: usize, faults: u64) -> String {
    let world = World::new(seed, replicas, faults);
    let streams = [name("a"), name("b/c"), name("d")];
    let torments: Vec<_> = (0..replicas).map(|index| tokio::spawn(Arc::clone(&world).torment(index))).collect();
    for stream in &streams {
        while world.create(stream, "").await.is_err() {
            world.pause(10, 100).await;
        }
    }
    let mut writers = BTreeMap::new();
    for (index, stream) in streams.iter().enumerate() {
        for writer in 0..2 {
            let producer = tokio::spawn(Arc::clone(&world).produce(stream.clone(), format!("p{index}{writer}")));
            let shouter = tokio::spawn(Arc::clone(&world).shout(stream.clone(), format!("u{index}{writer}")));
            writers.insert((index, writer), [producer, shouter]);
        }
    }
    let mut readers = Vec::new();
    for (index, stream) in streams.iter().enumerate() {
        let reader = tokio::spawn(Arc::clone(&world).read(stream.clone(), STORM + CALM / 2));
        readers.push((index, reader));
    }
    let reborn = name("reborn");
    let lives = [
        tokio::spawn(Arc::clone(&world).balance()),
        tokio::spawn(Arc::clone(&world).close_by_turns(0)),
        tokio::spawn(Arc::clone(&world).reincarnate(reborn.clone())),
        tokio::spawn(Arc::clone(&world).watch_lives(reborn.clone())),
        tokio::spawn(Arc::clone(&world).watch_lives(reborn)),
    ];
    let mut sent: BTreeMap<usize, Vec<Sent>> = BTreeMap::new();
    for ((stream, _), tasks) in writers {
        for task in tasks {
            sent.entry(stream).or_default().push(task.await.unwrap_or_else(|e| panic!("a writer failed: {e}")));
        }
    }
    for task in lives {
        task.await.unwrap_or_else(|e| panic!("a watcher failed: {e}"));
    }
    for task in torments {
        task.await.unwrap_or_else(|e| panic!("a replica failed: {e}"));
    }
    tokio::time::sleep(CALM).await;
    let fresh = world.open(&Arc::default()).await.unwrap_or_else(|| panic!("a calm bucket can be opened"));
    let mut contents = Vec::new();
    for stream in &streams {
        contents.push(world.content(&fresh, stream).await);
    }
    for (index, reader) in readers {
        let seen = reader.await.unwrap_or_else(|e| panic!("a reader failed: {e}"));
        assert!(contents[index].starts_with(&seen), "a reader saw what is not there:\n{seen}\n{}", contents[index]);
    }
    for (index, all) in &sent {
        check(&contents[*index], all);
    }
    format!("{:?} {}", tokio::time::Instant::now().elapsed(), contents.join("\n"))
}

/// Every acknowledged message is there exactly once and in order, every other at most once, and nothing else.
fn check(content: &str, all: &[Sent]) {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, message) in content.split_inclusive(';').enumerate() {
        assert!(places.insert(message, place).is_none(), "{message} is there twice");
    }
    let mut expected = 0;
    for sent in all {
        let found = |message: &String| {
            *places.get(message.as_str()).unwrap_or_else(|| panic!("acknowledged and lost: {message}"))
        };
        let order: Vec<usize> = sent.acked.iter().map(found).collect();
        assert!(order.is_sorted(), "messages of one writer out of order: {:?}", sent.acked);
        expected += order.len() + sent.unknown.iter().filter(|m| places.contains_key(m.as_str())).count();
    }
    assert_eq!(places.len(), expected, "messages that nobody admits to have sent");
}
