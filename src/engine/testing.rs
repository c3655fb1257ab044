//! One engine on a bucket in memory, for tests of what looks at whole buckets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Engine, Finding};
use crate::clock::{Clock, Ids};
use crate::layout::{chunk, key};
use crate::protocol::stream::{Append, Body, Create, Data};
use crate::protocol::{ContentType, Incarnation, Lifetime, ReadFrom, StreamName};
use crate::settings::EngineSettings;
use crate::store::memory::MemoryStore;
use crate::store::{Condition, Put, Store};

pub(super) const GRACE: Duration = Duration::from_secs(60);

/// Collects only when told to; nothing is sealed before it is old.
pub(super) fn settings() -> EngineSettings {
    EngineSettings {
        shards: 1,
        grace: GRACE,
        seal_age: Duration::from_secs(20),
        seal_idle: Duration::from_secs(5),
        checkpoint_entries: 3,
        direct_bytes: 40,
        inline_bytes: 16,
        collect_interval: Duration::ZERO,
        ..EngineSettings::default()
    }
}

pub(super) struct World {
    pub store: Arc<MemoryStore>,
    pub engine: Engine,
}

impl World {
    pub async fn new() -> World {
        World::with(settings()).await
    }

    pub async fn with(settings: EngineSettings) -> World {
        let clock = Clock::tokio(1_800_000_000_000);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let engine = Engine::open(Arc::clone(&store) as Arc<dyn Store>, settings, clock, Ids::seeded(1)).await;
        World { store, engine: engine.unwrap_or_else(|e| panic!("{e}")) }
    }

    pub async fn create(&self, name: &StreamName, lifetime: Lifetime) -> Incarnation {
        let incarnation = self.engine.new_incarnation();
        let create = Create {
            incarnation,
            content_type: text(),
            lifetime,
            closed: false,
            body: body(""),
            fork: None,
            retention: None,
        };
        let admission = self.engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
        self.engine.create(name, create, admission).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        incarnation
    }

    pub async fn append(&self, name: &StreamName, text_: &str) {
        let append = Append { content_type: Some(text()), body: body(text_), seq: None, producer: None, close: false };
        let admission = self.engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
        self.engine.append(name, append, admission).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    pub async fn content(&self, name: &StreamName) -> String {
        let page = self.engine.locate(name, ReadFrom::Start).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let (bytes, _) = self.engine.fetch(name, &page).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An object that a replica left behind.
    pub async fn plant(&self, key: &str, object: Bytes) {
        let put = self.store.put(key, object, Condition::Absent).await.map(|reply| reply.value);
        assert!(matches!(put, Ok(Put::Written(_))), "{key}: {put:?}");
    }

    pub async fn orphan(&self, name: &StreamName, incarnation: Incarnation, nonce: u128) -> String {
        let key = key::chunk(name, incarnation, nonce);
        self.plant(&key, chunk::encode(nonce, [Bytes::from_static(b"lost")].iter(), &[4])).await;
        key
    }

    pub async fn keys(&self) -> Vec<String> {
        let listing = self.store.list("", None, 1000).await.unwrap_or_else(|e| panic!("{e}"));
        listing.value.items.into_iter().map(|item| item.key).collect()
    }

    pub async fn has(&self, key: &str) -> bool {
        self.keys().await.iter().any(|found| found == key)
    }

    /// How many chunks are in a stream's folder.
    pub async fn chunks(&self, name: &StreamName) -> usize {
        let folder = format!("streams/{}/", key::folder(name));
        self.keys().await.iter().filter(|key| key.starts_with(&folder) && !key.ends_with("/manifest")).count()
    }

    /// As a replica sees it that knows nothing yet.
    pub async fn cold(&self, settings: EngineSettings) -> World {
        let (store, clock) = (Arc::clone(&self.store), Clock::tokio(1_800_000_500_000));
        let engine = Engine::open(Arc::clone(&store) as Arc<dyn Store>, settings, clock, Ids::seeded(77)).await;
        World { store, engine: engine.unwrap_or_else(|e| panic!("{e}")) }
    }

    /// A whole check has no findings.
    pub async fn is_healthy(&self) {
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let tell = |finding: &Finding| panic!("{finding}");
        let checked = super::check(store, Clock::tokio(1_800_000_900_000), false, &tell).await;
        checked.unwrap_or_else(|e| panic!("{e}"));
    }
}

pub(super) fn text() -> ContentType {
    ContentType::new("text/plain").unwrap_or_else(|e| panic!("{}", e.what))
}

pub(super) fn body(text: &str) -> Body {
    let ends = if text.is_empty() { vec![] } else { vec![text.len() as u32] };
    Body { data: Data::Inline(Bytes::copy_from_slice(text.as_bytes())), ends }
}

pub(super) fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap_or_else(|e| panic!("{e}"))
}

pub(super) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
