//! Finding what is known of a stream, no older than promised.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::error::{no_answer, retry_after, stopping};
use super::handle::{Handle, Message};
use super::read;
use super::state::{Base, Cell, Committed};
use super::{Engine, EngineError, Page};
use crate::layout::key;
use crate::protocol::stream::Command;
use crate::protocol::{ReadFrom, Rejection, Stream, StreamName};

impl Engine {
    /// Looks at what is known of a stream. What leads to a refusal is looked at again with the head confirmed, because
    /// another replica may have created the stream, or handed out the offset, a moment ago.
    pub(super) async fn look<T>(
        &self,
        name: &StreamName,
        look: impl Fn(&Committed) -> Result<T, Rejection>,
    ) -> Result<T, EngineError> {
        let cell = self.cell(name, false).await?;
        self.check_head(name, &cell).await?;
        if let Ok(found) = look(&cell.lock()) {
            return Ok(found);
        }
        let (_, shard) = self.shard(name);
        confirm(shard, Instant::now(), self.patience()).await?;
        let cell = self.cell(name, false).await?;
        self.check_head(name, &cell).await?;
        let looked = look(&cell.lock());
        Ok(looked?)
    }

    /// A manifest may have records of the log that this replica has not read yet, because another one has written and sealed
    /// them. But if the log ends before them when it is looked at now, its end is lost, and with it, perhaps, bytes of the
    /// stream that no manifest has.
    async fn check_head(&self, name: &StreamName, cell: &Cell) -> Result<(), EngineError> {
        let (number, shard) = self.shard(name);
        let sealed_to = cell.lock().base.as_ref().map_or(0, Base::log_position);
        let head = || shard.view.head.load(Ordering::Acquire);
        if sealed_to < head() || confirm(shard, Instant::now(), self.patience()).await.is_err() || sealed_to < head() {
            return Ok(());
        }
        let what = format!("the log ends before position {}, but {name} has records up to {sealed_to}", head());
        Err(EngineError::Damaged { key: key::checkpoint(number), what })
    }

    /// The stream, if there is one and its time is not over.
    pub(super) fn alive(&self, committed: &Committed) -> Result<Arc<Stream>, Rejection> {
        committed.stream.clone().filter(|stream| stream.is_alive(self.now())).ok_or(Rejection::NotFound)
    }

    pub(super) async fn find_page(&self, name: &StreamName, from: ReadFrom) -> Result<Page, EngineError> {
        let locate =
            |committed: &Committed| read::locate(committed, &self.alive(committed)?, from, self.0.context.page_bytes);
        loop {
            match self.look(name, locate).await {
                Ok(Some(page)) => return Ok(page),
                // Where the page ends is in the manifest.
                Ok(None) => drop(self.cell(name, true).await?),
                Err(error) => {
                    self.remove_if_expired(name).await;
                    return Err(error);
                }
            }
        }
    }

    /// Nobody else notices that a stream's time is over.
    async fn remove_if_expired(&self, name: &StreamName) {
        let Ok(cell) = self.cell(name, false).await else { return };
        let is_over = cell.lock().stream.as_ref().is_some_and(|stream| !stream.is_alive(self.now()));
        if is_over {
            self.submit_quietly(name, Command::Expire);
        }
    }

    /// What is known of the stream, not older than the bucket by more than the sync interval while that answers.
    pub(super) async fn cell(&self, name: &StreamName, manifest: bool) -> Result<Arc<Cell>, EngineError> {
        let (_, shard) = self.shard(name);
        let (settings, store) = (&self.0.context.settings, &self.0.context.store);
        let view = &shard.view;
        if !view.is_confirmed(settings.sync_interval, store.last_seen(), settings.grace) {
            let now = Instant::now();
            let since = now.checked_sub(settings.sync_interval).unwrap_or(now);
            let is_usable = || view.is_trusted(store.last_seen(), settings.grace);
            let patience = if is_usable() { settings.sync_interval.max(retry_after()) } else { self.patience() };
            if view.is_cut_off.load(Ordering::Relaxed) && is_usable() {
                // What is in memory goes on being served; the shard asks again in its own time.
                let (reply, _) = oneshot::channel();
                let _ = shard.mailbox.try_send(Message::Confirm { since, reply });
            } else if confirm(shard, since, patience).await.is_err() {
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

/// Waits until the head is known to have been looked at, at `since` or later.
async fn confirm(shard: &Handle, since: Instant, patience: Duration) -> Result<(), EngineError> {
    ask(shard, |reply| Message::Confirm { since, reply }, patience).await.map_err(|_| no_answer())
}
