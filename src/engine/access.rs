//! Finding what is known of a stream, no older than promised.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::{no_answer, retry_after, stopping};
use super::read::{self, Located};
use super::shard::{Handle, Message};
use super::state::Cell;
use super::{Engine, EngineError, Page};
use crate::protocol::{ReadFrom, Rejection, StreamName};

impl Engine {
    pub(super) async fn find_page(&self, name: &StreamName, from: ReadFrom) -> Result<Page, EngineError> {
        let mut cell = self.cell(name, false).await?;
        let mut may_look_again = true;
        loop {
            let located = {
                let committed = cell.lock();
                let stream = self.alive(name, committed.stream.clone())?;
                read::locate(&committed, &stream, from, self.0.context.page_bytes)?
            };
            match located {
                Located::Page(page) => return Ok(page),
                Located::NeedsManifest => cell = self.cell(name, true).await?,
                Located::Beyond(tail) if !may_look_again => return Err(Rejection::BeyondTail { tail }.into()),
                Located::Beyond(_) => {
                    // Another replica may have handed out that offset.
                    may_look_again = false;
                    let (_, shard) = self.shard(name);
                    ask(shard, Message::Confirm, self.patience()).await?;
                    cell = self.cell(name, false).await?;
                }
            }
        }
    }

    /// What is known of the stream, not older than the bucket by more than the sync interval while that answers.
    pub(super) async fn cell(&self, name: &StreamName, manifest: bool) -> Result<Arc<Cell>, EngineError> {
        let (_, shard) = self.shard(name);
        let (settings, store) = (&self.0.context.settings, &self.0.context.store);
        let view = &shard.view;
        if !view.is_confirmed(settings.sync_interval, store.last_seen(), settings.grace) {
            let is_usable = || view.is_trusted(store.last_seen(), settings.grace);
            let patience = if is_usable() { settings.sync_interval.max(retry_after()) } else { self.patience() };
            if view.is_cut_off.load(Ordering::Relaxed) && is_usable() {
                // What is in memory goes on being served; the shard asks again in its own time.
                let (reply, _) = oneshot::channel();
                let _ = shard.mailbox.try_send(Message::Confirm(reply));
            } else if ask(shard, Message::Confirm, patience).await.is_err() {
                view.is_cut_off.store(true, Ordering::Relaxed);
            }
            if !is_usable() {
                // Also the way to learn why: a shard that can't be loaded says so.
                return ask(shard, |reply| Message::Find { name: name.clone(), manifest, reply }, self.patience())
                    .await?;
            }
        }
        if let Some(cell) = view.cells.get(name).filter(|cell| cell.lock().is_enough(manifest)) {
            return Ok(cell);
        }
        ask(shard, |reply| Message::Find { name: name.clone(), manifest, reply }, self.patience()).await?
    }
}

/// Asks a shard something, for no longer than `patience`.
pub(super) async fn ask<T>(
    shard: &Handle,
    message: impl FnOnce(oneshot::Sender<T>) -> Message,
    patience: Duration,
) -> Result<T, EngineError> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        shard.mailbox.send(message(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    };
    timeout(patience, asked).await.map_err(|_| no_answer())?
}
