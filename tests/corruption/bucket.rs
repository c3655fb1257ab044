//! A bucket with objects of every kind, and what its streams hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater::clock::{Clock, Ids};
use headwater::engine::{Engine, EngineError};
use headwater::protocol::stream::{Append, Body, Create, Data};
use headwater::protocol::{ContentType, Lifetime, StreamName, json};
use headwater::settings::EngineSettings;
use headwater::store::Store;
use headwater::store::memory::MemoryStore;

/// 2030-01-01.
const START: u64 = 1_893_456_000_000;
pub const SHARDS: u32 = 2;

/// Small, so that a few streams make objects of all kinds; but a block of a chunk has 1 MiB.
pub fn settings() -> EngineSettings {
    EngineSettings {
        shards: SHARDS,
        page_bytes: 100 << 10,
        inline_bytes: 200,
        seal_bytes: 1 << 20,
        direct_bytes: 600 << 10,
        seal_idle: Duration::from_secs(20),
        seal_age: Duration::from_secs(60),
        checkpoint_entries: 4,
        grace: Duration::from_secs(300),
        append_timeout: Duration::from_secs(5),
        // Every read asks the store.
        page_cache: 1,
        log_cache: 1,
        ..EngineSettings::default()
    }
}

/// A stream as it must be read.
#[derive(Debug, Clone)]
pub struct Stream {
    pub name: StreamName,
    pub content_type: &'static str,
    /// As it is stored: messages of JSON with a comma after each.
    pub content: Vec<u8>,
    pub is_closed: bool,
}

impl Stream {
    pub fn shard(&self) -> u32 {
        (self.name.stable_hash() % u64::from(SHARDS)) as u32
    }

    pub fn is_json(&self) -> bool {
        self.content_type == "application/json"
    }
}

/// The bucket of one run, to be copied and damaged.
pub struct Bucket {
    pub clock: Clock,
    pub store: MemoryStore,
    pub streams: Vec<Stream>,
    /// Every object as it is now.
    pub objects: BTreeMap<String, Bytes>,
    /// What was in the place of objects that are replaced, the oldest first.
    pub earlier: BTreeMap<String, Vec<Bytes>>,
}

pub async fn open(store: Arc<dyn Store>, clock: &Clock, seed: u64) -> Result<Engine, EngineError> {
    Engine::open(store, settings(), clock.clone(), Ids::seeded(seed)).await
}

/// As a server does that is configured for another bucket: what this one was set up with counts.
pub async fn open_as_another(store: Arc<dyn Store>, clock: &Clock, seed: u64) -> Result<Engine, EngineError> {
    let settings = EngineSettings { shards: SHARDS + 3, page_bytes: 7 << 10, ..settings() };
    Engine::open(store, settings, clock.clone(), Ids::seeded(seed)).await
}

pub fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap_or_else(|e| panic!("{e}"))
}

/// Bytes that are nowhere alike.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn text(seed: u64, length: usize) -> Vec<u8> {
    bytes(seed, length).iter().map(|byte| b"abcdefghijklmnopqrstuvwxyz .,\n-!"[usize::from(byte % 32)]).collect()
}

/// An array of numbers of so many bytes, or a few more.
fn numbers(seed: u64, length: usize) -> Vec<u8> {
    let mut out = b"[".to_vec();
    for pair in bytes(seed, length).chunks(3) {
        out.extend(format!("{},", pair.iter().fold(0u32, |sum, byte| sum * 256 + u32::from(*byte))).bytes());
        if out.len() > length {
            break;
        }
    }
    out.pop();
    out.push(b']');
    out
}

pub fn body(bytes: &[u8], is_json: bool) -> Body {
    if is_json {
        let messages = json::split(bytes).unwrap_or_else(|e| panic!("{e}"));
        return Body { data: Data::Inline(messages.bytes), ends: messages.ends };
    }
    let ends = if bytes.is_empty() { vec![] } else { vec![bytes.len() as u32] };
    Body { data: Data::Inline(Bytes::copy_from_slice(bytes)), ends }
}

struct Filling {
    engine: Engine,
    store: Arc<MemoryStore>,
    streams: Vec<Stream>,
    earlier: BTreeMap<String, Vec<Bytes>>,
    seed: u64,
}

impl Filling {
    async fn create(&mut self, name: &StreamName, content_type: &'static str) {
        self.streams.push(create(&self.engine, name, content_type).await);
    }

    /// Appends about so many bytes.
    async fn append(&mut self, name: &StreamName, length: usize, close: bool) {
        self.seed += 1;
        let stream = self.streams.iter_mut().find(|stream| stream.name == *name);
        let stream = stream.unwrap_or_else(|| panic!("there is no {name}"));
        let bytes = content(self.seed, length, stream.content_type);
        append(&self.engine, stream, &bytes, close).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    async fn delete(&mut self, name: &StreamName) {
        self.engine.delete(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        self.streams.retain(|stream| stream.name != *name);
    }

    /// Lets seconds pass, and takes note of what is in the bucket then.
    async fn wait(&mut self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        for (key, body) in objects(&self.store).await {
            if key.starts_with("checkpoint/") || key.ends_with("/manifest") {
                let versions = self.earlier.entry(key).or_default();
                if versions.last() != Some(&body) {
                    versions.push(body);
                }
            }
        }
    }

    /// Streams in all states, in each shard: sealed, half sealed, only in the log; below, at and above checkpoints.
    async fn run(&mut self) {
        let names = |what: &str| [in_shard(what, 0), in_shard(what, 1)];
        let (text, binary, json) = ("text/plain", "application/octet-stream", "application/json");
        for shard in 0..2 {
            for (what, content_type, length) in [
                ("inline", text, 100),
                ("chunks", binary, 2500),
                ("half", json, 2000),
                ("late", text, 400),
                ("closed", text, 500),
            ] {
                self.create(&names(what)[shard], content_type).await;
                self.append(&names(what)[shard], length, what == "closed").await;
            }
            for what in ["deleted", "reborn"] {
                self.create(&names(what)[shard], text).await;
                self.append(&names(what)[shard], 300, false).await;
            }
        }
        let (merged, direct) = (&names("merged")[0], &names("direct")[0]);
        self.create(merged, text).await;
        self.create(direct, json).await;
        self.append(direct, 2_200_000, false).await;
        self.append(merged, 360_000, false).await;
        self.wait(30).await;
        for round in 0..2 {
            for shard in 0..2 {
                self.append(&names("chunks")[shard], 2500, false).await;
                self.append(&names("half")[shard], 1500, false).await;
                self.append(&names("late")[shard], 300, false).await;
                if round == 0 {
                    self.delete(&names("deleted")[shard]).await;
                    self.delete(&names("reborn")[shard]).await;
                    self.create(&names("reborn")[shard], binary).await;
                    self.append(&names("reborn")[shard], 700, false).await;
                }
            }
            self.append(merged, 360_000, false).await;
            self.wait(30).await;
        }
        // Longer than the grace period: the log so far is deleted.
        self.wait(700).await;
        self.leave_in_the_log(&names).await;
    }

    async fn leave_in_the_log(&mut self, names: &impl Fn(&str) -> [StreamName; 2]) {
        let uploaded = &names("uploaded")[1];
        self.create(uploaded, "application/json").await;
        self.append(uploaded, 700_000, false).await;
        for shard in 0..2 {
            self.create(&names("log")[shard], "application/octet-stream").await;
            for _ in 0..3 {
                self.append(&names("log")[shard], 700, false).await;
                self.append(&names("half")[shard], 900, false).await;
            }
        }
        // A checkpoint is written that names what is in the log; too soon to seal it.
        self.wait(3).await;
        for shard in 0..2 {
            self.append(&names("half")[shard], 900, false).await;
            self.append(&names("log")[shard], 700, false).await;
            self.append(&names("late")[shard], 500, false).await;
            self.create(&names("last")[shard], "text/plain").await;
        }
        self.wait(0).await;
    }
}

/// A name that belongs to a shard.
pub fn in_shard(what: &str, shard: u64) -> StreamName {
    let numbered = (0..).map(|number| name(&format!("{what}{number}")));
    numbered.into_iter().find(|name| name.stable_hash() % u64::from(SHARDS) == shard).unwrap_or_else(|| name(what))
}

pub fn content(seed: u64, length: usize, content_type: &str) -> Vec<u8> {
    match content_type {
        "application/json" => numbers(seed, length),
        "text/plain" => text(seed, length),
        _ => bytes(seed, length),
    }
}

pub async fn create(engine: &Engine, name: &StreamName, content_type: &'static str) -> Stream {
    let create = Create {
        incarnation: engine.new_incarnation(),
        content_type: ContentType::new(content_type).unwrap_or_default(),
        lifetime: Lifetime::Forever,
        closed: false,
        body: Body::default(),
    };
    let admission = engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
    let created = engine.create(name, create, admission).await;
    created.unwrap_or_else(|e| panic!("{name}: {e}"));
    Stream { name: name.clone(), content_type, content: vec![], is_closed: false }
}

/// Appends to a stream, and to what it is to hold if that succeeds.
pub async fn append(engine: &Engine, stream: &mut Stream, bytes: &[u8], close: bool) -> Result<(), EngineError> {
    let body = body(bytes, stream.is_json());
    let Data::Inline(stored) = body.data.clone() else { return Ok(()) };
    let content_type = Some(ContentType::new(stream.content_type).unwrap_or_default());
    let append = Append { content_type, body, seq: None, producer: None, close };
    let admission = engine.admit(bytes.len() as u64)?;
    engine.append(&stream.name, append, admission).await?;
    stream.content.extend_from_slice(&stored);
    stream.is_closed |= close;
    Ok(())
}

pub async fn objects(store: &MemoryStore) -> BTreeMap<String, Bytes> {
    let mut found = BTreeMap::new();
    let listing = store.list("", None, 1000).await.unwrap_or_else(|e| panic!("{e}")).value;
    assert!(!listing.more, "too many objects for one listing");
    for item in listing.items {
        let object = store.get(&item.key).await.unwrap_or_else(|e| panic!("{e}")).value;
        found.extend(object.map(|object| (item.key, object.body)));
    }
    found
}

impl Bucket {
    pub async fn fill(seed: u64) -> Bucket {
        let clock = Clock::tokio(START);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let engine = open(store.clone(), &clock, seed).await.unwrap_or_else(|e| panic!("{e}"));
        let mut filling =
            Filling { engine, store: Arc::clone(&store), streams: vec![], earlier: BTreeMap::new(), seed: seed << 20 };
        filling.run().await;
        let Filling { engine, streams, earlier, .. } = filling;
        engine.drain().await;
        let objects = objects(&store).await;
        let older = |(key, versions): (String, Vec<Bytes>)| {
            let now = objects.get(&key).cloned();
            let earlier: Vec<Bytes> = versions.into_iter().filter(|body| Some(body) != now.as_ref()).collect();
            (!earlier.is_empty()).then_some((key, earlier))
        };
        let earlier = earlier.into_iter().filter_map(older).collect();
        Bucket { clock, store: store.copy(), streams, objects, earlier }
    }
}
