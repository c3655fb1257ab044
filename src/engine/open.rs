//! Opening a bucket: what all its replicas must agree on is read, or written if the bucket is new.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::admission::Gate;
use super::cas::{self, Replaced};
use super::context::Context;
use super::error::damaged_cluster;
use super::tail::Tails;
use super::{Engine, EngineError, Inner, shard};
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
        let mut context = Context {
            merging: Semaphore::new(1),
            tails: Tails::new(settings.log_cache, settings.page_cache),
            writer: ids.id(),
            shards: settings.shards,
            page_bytes: settings.page_bytes,
            store,
            settings,
            clock,
            ids,
        };
        let cluster = read_or_write(&context).await?;
        (context.shards, context.page_bytes) = (cluster.shards, cluster.page_bytes);
        context.settings.grace = Duration::from_millis(cluster.grace);
        let context = Arc::new(context);
        let shards = (0..context.shards).map(|number| shard::spawn(&context, number)).collect();
        let gate = Gate::new(context.settings.queue_bytes, "too many request bodies are waiting for the store");
        Ok(Engine(Arc::new(Inner { context, shards, gate, is_draining: AtomicBool::new(false) })))
    }
}

async fn read_or_write(context: &Context) -> Result<Cluster, EngineError> {
    if let Some(found) = read(context).await? {
        return Ok(found);
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

async fn read(context: &Context) -> Result<Option<Cluster>, EngineError> {
    let Some(object) = context.store.get(key::CLUSTER).await?.value else { return Ok(None) };
    let cluster: Cluster = document::decode(&object.body).map_err(|error| damaged_cluster(&error.0))?;
    if cluster.shards == 0 || cluster.page_bytes == 0 || cluster.grace == 0 {
        return Err(damaged_cluster("it has no shards, pages without bytes, or no grace period"));
    }
    let settings = &context.settings;
    let configured = (settings.shards, settings.page_bytes, millis(settings.grace));
    if (cluster.shards, cluster.page_bytes, cluster.grace) != configured {
        let Cluster { shards, page_bytes, grace, .. } = cluster;
        tracing::info!(
            shards,
            page_bytes,
            grace_ms = grace,
            "the bucket was set up with other values than configured; its own are used"
        );
    }
    Ok(Some(cluster))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
