//! Finding what is known of a stream, no older than promised.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::error::{behind, log_is_short, no_answer, retry_after, stopping};
use super::handle::{Handle, Message, Witness};
use super::read;
use super::state::{Base, Cell, Committed};
use super::{Engine, EngineError, Page};
use crate::protocol::stream::{Command, answering};
use crate::protocol::{ReadFrom, Rejection, Stream, StreamName};

impl Engine {
    /// Looks at what is known of a stream. What leads to a refusal is looked at again with the head confirmed, because
    /// another replica may have created the stream, or handed out the offset, a moment ago. So is, if another replica is
    /// the shard's home, what may change: writes go there, and whoever has written may read what was written.
    pub(super) async fn look<T>(
        &self,
        name: &StreamName,
        look: impl Fn(&Committed) -> Result<T, Rejection>,
        may_change: impl Fn(&T) -> bool,
    ) -> Result<T, EngineError> {
        let arrived = Instant::now();
        let (number, shard) = self.shard(name);
        let cell = self.cell(name, false).await?;
        self.check_head(name, &cell).await?;
        let looked = look(&cell.lock());
        match looked {
            Ok(found) if self.0.context.home_elsewhere(number).is_none() || !may_change(&found) => return Ok(found),
            // Cut off from all of them, what is in memory goes on being served.
            Ok(_) => drop(self.freshen(shard, arrived).await?),
            Err(_) => confirm(shard, Instant::now(), Witness::Store, self.patience()).await?,
        }
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
        let head = || shard.view.head();
        if sealed_to < head() {
            return Ok(());
        }
        let confirmed = confirm(shard, Instant::now(), Witness::Store, self.patience()).await;
        if confirmed.is_err() || sealed_to < head() {
            return Ok(());
        }
        Err(log_is_short(number, head(), name, sealed_to))
    }

    /// The stream, if there is one and its time is not over.
    pub(super) fn alive(&self, committed: &Committed) -> Result<Arc<Stream>, Rejection> {
        answering(committed.stream.as_deref(), self.now())?;
        committed.stream.clone().ok_or(Rejection::NotFound)
    }

    /// The page that starts at `from`, and, if `latest`, ends where the stream does at this moment.
    pub(super) async fn find_page(&self, name: &StreamName, from: ReadFrom, latest: bool) -> Result<Page, EngineError> {
        let locate =
            |committed: &Committed| read::locate(committed, &self.alive(committed)?, from, self.0.context.page_bytes);
        let may_change = |page: &Option<Page>| latest && page.as_ref().is_some_and(Page::reaches_tail);
        loop {
            match self.look(name, locate, may_change).await {
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
        let is_over = cell.lock().stream.as_ref().is_some_and(|stream| !stream.is_alive(self.now()) && !stream.is_gone);
        if is_over {
            self.submit_quietly(name, Command::Expire);
        }
    }

    /// What is known of the stream, not older than the bucket by more than the sync interval while that answers.
    pub(super) async fn cell(&self, name: &StreamName, manifest: bool) -> Result<Arc<Cell>, EngineError> {
        let (_, shard) = self.shard(name);
        if self.freshen(shard, self.reads_since(Instant::now())).await?
            && let Some(cell) = shard.view.cells.get(name).filter(|cell| cell.lock().is_enough(manifest))
        {
            return Ok(cell);
        }
        // Also the way to learn why nothing may be served: a shard that can't be loaded says so.
        ask(shard, |reply| Message::Find { name: name.clone(), manifest, reply }, self.patience()).await?
    }

    /// What is known of the stream after its manifest has been read again.
    pub(super) async fn refresh(&self, name: &StreamName) -> Result<Arc<Cell>, EngineError> {
        let (_, shard) = self.shard(name);
        ask(shard, |reply| Message::Refresh { name: name.clone(), reply }, self.patience()).await?
    }

    /// How old what a read shows may be that comes now.
    pub(super) fn reads_since(&self, now: Instant) -> Instant {
        let settings = &self.0.context.settings;
        if settings.strict_reads { now } else { now.checked_sub(settings.sync_interval).unwrap_or(now) }
    }

    /// Makes what is known of a shard no older than `since`, if the store answers. False if it may not be served at all.
    pub(super) async fn freshen(&self, shard: &Handle, since: Instant) -> Result<bool, EngineError> {
        let (settings, store, view) = (&self.0.context.settings, &self.0.context.store, &shard.view);
        if view.is_confirmed(since, store.last_seen(), settings.grace) {
            return Ok(true);
        }
        if view.is_cut_off.load(Ordering::Relaxed) && self.is_usable(shard) {
            // What is in memory goes on being served; the shard asks again in its own time.
            let (reply, _) = oneshot::channel();
            let _ = shard.mailbox.try_send(Message::Confirm { since, witness: Witness::Home, reply });
        } else if self.is_usable(shard) {
            let is_confirmed = self.confirm_while_it_answers(shard, since).await?;
            view.is_cut_off.fetch_or(!is_confirmed, Ordering::Relaxed);
        } else {
            // What comes of it is looked at below.
            let _ = confirm(shard, since, Witness::Home, self.patience()).await;
        }
        Ok(self.is_usable(shard))
    }

    /// Has a shard loaded, if it can be, so that it keeps up with what it has to do.
    pub(super) async fn wake(&self, shard: u32) {
        if let Err(error) =
            confirm(&self.0.shards[shard as usize], Instant::now(), Witness::Home, self.patience()).await
        {
            tracing::warn!(shard, %error, "shard not loaded");
        }
    }

    /// Whether what is known of a shard may be served.
    pub(super) fn is_usable(&self, shard: &Handle) -> bool {
        let context = &self.0.context;
        shard.view.is_trusted(context.store.last_seen(), context.settings.grace)
    }

    /// Waits for the head to be confirmed as long as the store answers at all: what a replica knows that was idle may be
    /// old, and there may be much to read until it is not. False: it is cut off.
    async fn confirm_while_it_answers(&self, shard: &Handle, since: Instant) -> Result<bool, EngineError> {
        let context = &self.0.context;
        let (slice, end) = (context.settings.sync_interval.max(retry_after()), Instant::now() + self.patience());
        let (mut seen, mut silent) = (context.store.last_seen(), 0);
        // The store's clock shows whole seconds: that it stood still once may be chance.
        while silent < 2 {
            if confirm(shard, since, Witness::Home, slice).await.is_ok() {
                return Ok(true);
            }
            if shard.view.is_cut_off.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if Instant::now() >= end {
                return Err(behind());
            }
            silent = if context.store.last_seen() > seen { 0 } else { silent + 1 };
            seen = context.store.last_seen();
        }
        Ok(false)
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
pub(super) async fn confirm(
    shard: &Handle,
    since: Instant,
    witness: Witness,
    patience: Duration,
) -> Result<(), EngineError> {
    ask(shard, |reply| Message::Confirm { since, witness, reply }, patience).await.map_err(|_| no_answer())
}
