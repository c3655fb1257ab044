//! Opening a bucket: what all its replicas must agree on is read, or written if the bucket is new.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::admission::Gate;
use super::cas::{self, Replaced};
use super::context::Context;
use super::error::damaged_cluster;
use super::tail::Tails;
use super::{Engine, EngineError, Inner, collect, shard};
use crate::clock::{Clock, Ids};
use crate::layout::cluster::Cluster;
use crate::layout::{document, key};
use crate::settings::EngineSettings;
use crate::store::{Condition, Store};

impl Engine {
    /// Opens the bucket, which is set up if it is new. Reads what all replicas must agree on; shards are loaded when
    /// they are first used.
    pub async fn open(
        store: Arc<dyn Store>,
        settings: EngineSettings,
        clock: Clock,
        ids: Ids,
    ) -> Result<Engine, EngineError> {
        let mut context = as_configured(store, settings, clock, ids);
        let cluster = read_or_write(&context).await?;
        if (cluster.shards, cluster.page_bytes, cluster.grace) != configured(&context.settings) {
            let Cluster { shards, page_bytes, grace, .. } = cluster;
            tracing::info!(
                shards,
                page_bytes,
                grace_ms = grace,
                "the bucket was set up with other values than configured; its own are used"
            );
        }
        context.agree(&cluster);
        Ok(Engine::start(context))
    }

    /// Opens a bucket that is in use already; an error if it is not.
    pub async fn open_existing(
        store: Arc<dyn Store>,
        settings: EngineSettings,
        clock: Clock,
        ids: Ids,
    ) -> Result<Engine, EngineError> {
        Ok(Engine::start(existing(store, settings, clock, ids).await?))
    }

    fn start(context: Context) -> Engine {
        let context = Arc::new(context);
        let shards = (0..context.shards).map(|number| shard::spawn(&context, number)).collect();
        let gate = Gate::new(context.settings.queue_bytes, "too many request bodies are waiting for the store");
        let inner = Arc::new(Inner { context, shards, gate, is_draining: AtomicBool::new(false) });
        // It was empty.
        let _ = inner.context.engine.set(Arc::downgrade(&inner));
        collect::start(&inner);
        Engine(inner)
    }
}

/// What an engine on a bucket that is in use already has; an error if it is not in use.
pub(super) async fn existing(
    store: Arc<dyn Store>,
    settings: EngineSettings,
    clock: Clock,
    ids: Ids,
) -> Result<Context, EngineError> {
    let mut context = as_configured(store, settings, clock, ids);
    let cluster = read(&context).await?.ok_or_else(|| damaged_cluster("it is missing: is this where the data is?"))?;
    context.agree(&cluster);
    Ok(context)
}

fn as_configured(store: Arc<dyn Store>, settings: EngineSettings, clock: Clock, ids: Ids) -> Context {
    Context {
        merging: Semaphore::new(1),
        cluster_id: String::new(),
        peers: OnceLock::new(),
        engine: OnceLock::new(),
        tails: Tails::new(settings.log_cache, settings.page_cache),
        writer: ids.id(),
        shards: settings.shards,
        page_bytes: settings.page_bytes,
        store,
        settings,
        clock,
        ids,
    }
}

fn configured(settings: &EngineSettings) -> (u32, u64, u64) {
    (settings.shards, settings.page_bytes, millis(settings.grace))
}

impl Context {
    fn agree(&mut self, cluster: &Cluster) {
        (self.shards, self.page_bytes) = (cluster.shards, cluster.page_bytes);
        self.cluster_id.clone_from(&cluster.id);
        self.settings.grace = Duration::from_millis(cluster.grace);
    }
}

async fn read_or_write(context: &Context) -> Result<Cluster, EngineError> {
    if let Some(found) = read(context).await? {
        return Ok(found);
    }
    if is_in_use(context).await? {
        // Not because it has just been set up by another replica: with another number of shards, nothing would be found.
        return read(context).await?.ok_or_else(|| damaged_cluster("it is missing from a bucket that is in use"));
    }
    let cluster = Cluster {
        id: format!("{:032x}", context.ids.id()),
        shards: context.shards,
        page_bytes: context.page_bytes,
        grace: millis(context.settings.grace),
        created_at: context.clock.now(),
    };
    let write_id = context.ids.id();
    let body = document::encode(&cluster, write_id);
    match cas::replace(context, key::CLUSTER, &body, write_id, Condition::Absent).await? {
        Replaced::Written(_) => Ok(cluster),
        Replaced::Lost => read(context).await?.ok_or_else(|| damaged_cluster("it was removed")),
    }
}

/// Whether there is anything in the bucket that is only there once the cluster's document is.
async fn is_in_use(context: &Context) -> Result<bool, EngineError> {
    for prefix in [key::LOGS, key::CHECKPOINTS, key::STREAMS] {
        if !context.store.list(prefix, None, 1).await?.value.items.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn read(context: &Context) -> Result<Option<Cluster>, EngineError> {
    let Some(object) = context.store.get(key::CLUSTER).await?.value else { return Ok(None) };
    let cluster: Cluster = document::decode(&object.body).map_err(|error| damaged_cluster(&error.0))?;
    Ok(Some(cluster))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
