//! Cold load: a shard's state from its checkpoint and the entries since.

use bytes::Bytes;

use super::EngineError;
use super::checkpoint::Held;
use super::context::Context;
use super::log::{self, Log};
use super::state::{Base, Cells, Committed};
use super::tail::EntryData;
use crate::layout::checkpoint::Checkpoint;
use crate::layout::key::Key;
use crate::layout::manifest::Manifest;
use crate::layout::{Damaged, document, key};
use crate::protocol::StreamName;
use crate::settings::LONGEST_PIPELINE;
use crate::store::{Listed, StoreTime, Version};
use std::sync::Arc;

/// Objects that are looked at beyond that: somebody may have put others than entries there.
const LOOK_AHEAD: usize = 16;

/// A shard as it was read from the bucket.
#[derive(Debug)]
pub(super) struct Loaded {
    pub log: Log,
    pub held: Held,
}

/// Fills `cells`. A load that takes longer than half of the grace period starts over, because what the checkpoint
/// names may have been deleted meanwhile.
pub(super) async fn load(context: &Context, shard: u32, cells: &Cells) -> Result<Loaded, EngineError> {
    loop {
        cells.clear();
        let held = read_checkpoint(context, shard).await?;
        let started = held.asked_at;
        let mut log = restore(context, shard, &held, cells)?;
        loop {
            let ahead = log::read_ahead(context, shard, log.next).await?;
            for object in ahead.objects {
                absorb(context, shard, &mut log, cells, object).await?;
            }
            if let Some(sent_at) = ahead.absent_at {
                log.renew(sent_at);
                break;
            }
        }
        let is_head = is_head(context, shard, log.next).await;
        if context.store.last_seen().since(started) <= context.settings.grace / 2 {
            match is_head? {
                true => return Ok(Loaded { log, held }),
                // The log has grown much meanwhile.
                false => continue,
            }
        }
        tracing::warn!(shard, "loading the shard took longer than half of the grace period, starting over");
    }
}

/// Whether the log ends at `next`, which was absent. Nobody writes further ahead of an absent position than a pipeline is
/// long, so an entry beyond that tells that this one is lost.
async fn is_head(context: &Context, shard: u32, next: u64) -> Result<bool, EngineError> {
    let key = key::log(shard, next);
    let furthest = key::log(shard, next + u64::from(LONGEST_PIPELINE) - 1);
    let later = context.store.list(&key::logs(shard), Some(&furthest), LOOK_AHEAD).await?.value.items;
    let is_entry = |item: &&Listed| matches!(Key::parse(&item.key), Some(Key::Log { .. }));
    let Some(later) = later.iter().find(is_entry) else { return Ok(true) };
    if context.store.get(&key).await?.value.is_some() {
        return Ok(false);
    }
    Err(EngineError::Damaged { key, what: format!("it is missing, although {} is there", later.key) })
}

pub(super) async fn read_checkpoint(context: &Context, shard: u32) -> Result<Held, EngineError> {
    let key = key::checkpoint(shard);
    let asked_at = context.store.last_seen();
    let object = context.store.get(&key).await?.value;
    let known_at = context.store.last_seen();
    let Some(object) = object else { return Ok(Held { asked_at, known_at, ..Held::default() }) };
    let checkpoint: Checkpoint =
        document::decode(&object.body).map_err(|error| EngineError::Damaged { key: key.clone(), what: error.0 })?;
    if checkpoint.shard != shard {
        return Err(EngineError::Damaged { key, what: format!("it is the checkpoint of shard {}", checkpoint.shard) });
    }
    Ok(Held { checkpoint: Some(checkpoint), version: Some(object.version), asked_at, known_at })
}

fn restore(context: &Context, shard: u32, held: &Held, cells: &Cells) -> Result<Log, EngineError> {
    let mut log = Log { next: 1, last_id: 0, last_at: 0, last_writer: context.writer, fresh_at: StoreTime::default() };
    let Some(checkpoint) = &held.checkpoint else { return Ok(log) };
    log = Log { next: checkpoint.position + 1, last_id: checkpoint.id, last_at: checkpoint.at, ..log };
    let damaged = |what: String| EngineError::Damaged { key: key::checkpoint(shard), what };
    for unsealed in checkpoint.unsealed.iter().cloned() {
        let name = StreamName::new(&unsealed.name).map_err(|error| damaged(error.what))?;
        let committed = Committed::from_unsealed(unsealed, checkpoint.at).map_err(|error| damaged(error.0))?;
        cells.restore(name, committed);
    }
    Ok(log)
}

/// Takes in the object at the log's next position. Returns the streams that look different to readers now.
pub(super) async fn absorb(
    context: &Context,
    shard: u32,
    log: &mut Log,
    cells: &Cells,
    object: Bytes,
) -> Result<Vec<StreamName>, EngineError> {
    let position = log.next;
    let entry = log::decode(&key::log(shard, position), shard, position, &object)?;
    if !log.advance(&entry.header) {
        // Those who follow this replica skip it, too.
        context.tails.remember(shard, position, Arc::new(EntryData::void(&object)));
        tracing::debug!(shard, position, "void entry skipped");
        return Ok(Vec::new());
    }
    let data = Arc::new(EntryData::new(&entry, &object));
    context.tails.remember(shard, position, data);
    let folded = cells.fold(&entry, context.page_bytes);
    folded.map_err(|error| EngineError::Damaged { key: key::log(shard, position), what: error.0 })
}

/// The stream's manifest as it is now.
pub(super) async fn read_manifest(context: &Context, name: &StreamName) -> Result<Base, EngineError> {
    let key = key::manifest(name);
    let Some((manifest, version)) = manifest_at(context, &key).await? else {
        return Ok(Base { manifest: None, version: None });
    };
    if manifest.name != name.as_str() {
        return Err(EngineError::Damaged { key, what: format!("it is the manifest of stream {}", manifest.name) });
    }
    Ok(Base { manifest: Some(Arc::new(manifest)), version: Some(version) })
}

/// The stream that a folder's manifest is of, whose name the folder's may not tell, and the manifest.
pub(super) async fn manifest_in(context: &Context, folder: &str) -> Result<Option<(StreamName, Base)>, EngineError> {
    let key = key::manifest_in(folder);
    let Some((manifest, version)) = manifest_at(context, &key).await? else { return Ok(None) };
    let name = StreamName::new(&manifest.name).ok().filter(|name| key::folder(name) == folder);
    let other = || EngineError::Damaged { key, what: format!("it is the manifest of stream {}", manifest.name) };
    let name = name.ok_or_else(other)?;
    Ok(Some((name, Base { manifest: Some(Arc::new(manifest)), version: Some(version) })))
}

async fn manifest_at(context: &Context, key: &str) -> Result<Option<(Manifest, Version)>, EngineError> {
    let Some(object) = context.store.get(key).await?.value else { return Ok(None) };
    let damaged = |error: Damaged| EngineError::Damaged { key: key.to_owned(), what: error.0 };
    let manifest: Manifest = document::decode(&object.body).map_err(damaged)?;
    Ok(Some((manifest, object.version)))
}
