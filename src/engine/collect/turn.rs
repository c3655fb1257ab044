//! Who looks for garbage, and when: one of all replicas, once per interval.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::cas::{self, Replaced};
use crate::engine::context::Context;
use crate::engine::{Engine, EngineError, Inner};
use crate::layout::collector::Collector;
use crate::layout::{document, key};
use crate::store::{Condition, StoreTime};

/// How often in an interval each replica asks whether it is its turn.
const ASKED_PER_INTERVAL: u32 = 8;

/// Collects in the background for as long as the engine is in use.
async fn take_turns(inner: Weak<Inner>, interval: Duration) {
    loop {
        let Some(pause) = inner.upgrade().map(|inner| pause(&inner.context, interval)) else { return };
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = take_turn(&Engine(inner), interval).await {
            tracing::warn!(%error, "garbage not collected this time");
        }
    }
}

/// Not in step with other replicas.
fn pause(context: &Context, interval: Duration) -> Duration {
    let millis = u64::try_from((interval / ASKED_PER_INTERVAL).as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(context.ids.between(millis / 2, millis.saturating_mul(3) / 2))
}

async fn take_turn(engine: &Engine, interval: Duration) -> Result<(), EngineError> {
    if !claim(&engine.0.context, interval).await? {
        return Ok(());
    }
    let tell = |garbage: &super::Garbage| tracing::debug!(key = garbage.key, why = garbage.why, "garbage");
    let collected = engine.collect(true, &tell).await?;
    tracing::info!(?collected, "garbage collected");
    Ok(())
}

/// Whether a round is due and this replica is the first to say that it begins one.
async fn claim(context: &Context, interval: Duration) -> Result<bool, EngineError> {
    let found = context.store.get(key::COLLECTOR).await?;
    let (began, condition) = match found.value {
        None => (StoreTime::default(), Condition::Absent),
        Some(object) => {
            // A damaged one only says when; it is replaced.
            let began = document::decode(&object.body).map_or(0, |collector: Collector| collector.began);
            (StoreTime(began), Condition::Unchanged(object.version))
        }
    };
    if found.at.since(began) < interval {
        return Ok(false);
    }
    let write_id = context.ids.id();
    let body = document::encode(&Collector { began: found.at.0 }, write_id);
    let replaced = cas::replace(context, key::COLLECTOR, &body, write_id, condition).await?;
    Ok(matches!(replaced, Replaced::Written(_)))
}

/// Starts the background task, unless the settings say never.
pub(in crate::engine) fn start(inner: &Arc<Inner>) {
    let interval = inner.context.settings.collect_interval;
    if !interval.is_zero() {
        tokio::spawn(take_turns(Arc::downgrade(inner), interval));
    }
}
