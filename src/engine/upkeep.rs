//! What a shard does for its bucket in the background: seal streams, write checkpoints, delete old entries.
//!
//! Any replica may; compare-and-swap keeps it right. So that not all do the same work, the one that wrote the last
//! entry does it, and the others only when it has not been done for long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::EngineError;
use super::checkpoint::{self, Held};
use super::handle::Write;
use super::retention;
use super::seal::{self, Plan, Sealed};
use super::shard::{Event, Shard, Waiting};
use super::state::{Base, Committed};
use crate::clock::Millis;
use crate::layout::key;
use crate::protocol::StreamName;
use crate::protocol::stream::Command;

/// Streams that are sealed at a time.
const SEALS: usize = 16;
/// After a seal that failed.
const SEAL_PAUSE: Duration = Duration::from_secs(5);

impl Shard {
    pub fn keep_up(&mut self) {
        self.sealing.retain(|_, retry| retry.is_none_or(|at| at > Instant::now()));
        let now = self.context.clock.now();
        // Whoever writes looks after what is written, and the home after what others have left.
        let is_last = self.log.last_writer == self.context.writer;
        let others_turn = match self.context.peers.get() {
            Some(peers) => peers.has_other_home(self.number) && !is_last,
            None => !is_last,
        };
        let is_neglected = age(now, self.log.last_at) > self.context.settings.seal_age * 2;
        if others_turn && !is_neglected {
            self.to_seal.clear();
            return self.look_for_foreign_seals(now);
        }
        self.find_due_streams(now);
        self.start_seals();
        self.write_checkpoint_if_due(now);
    }

    /// Puts the streams that are due in line, the oldest first.
    fn find_due_streams(&mut self, now: Millis) {
        let mut due = Vec::new();
        for (name, cell) in self.view.cells.unsealed() {
            let committed = cell.lock();
            if self.is_due(&committed, now) && !self.sealing.contains_key(&name) {
                due.push((committed.unsealed_since, name));
            }
        }
        due.sort_unstable();
        self.to_seal = due.into_iter().map(|(_, name)| name).collect();
    }

    /// Seals the next in line, as many at a time as may be.
    pub fn start_seals(&mut self) {
        while self.sealing.len() < SEALS {
            let Some(name) = self.to_seal.pop_front() else { return };
            let Some(cell) = self.view.cells.get(&name) else { continue };
            let committed = cell.lock();
            if !committed.is_unsealed() || self.sealing.contains_key(&name) {
                continue;
            }
            let plan = Plan::new(self.number, &name, self.log.next - 1, &committed);
            drop(committed);
            self.sealing.insert(name.clone(), None);
            match plan {
                Some(plan) => self.seal(plan),
                // It is back in line when its manifest has been read.
                None => self.wait_for_manifest(name, Waiting::Seal),
            }
        }
    }

    fn seal(&mut self, plan: Plan) {
        let (context, generation) = (Arc::clone(&self.context), self.generation);
        self.tasks.spawn(async move {
            let sealed = seal::seal(&context, &plan).await;
            Event::Sealed { name: plan.name, generation, sealed }
        });
    }

    /// Seals a stream although nothing may be new: the manifest has another version then, and whoever still tries to
    /// replace the present one can't any more.
    pub fn reseal(&mut self, name: StreamName, reply: oneshot::Sender<Base>) {
        if self.sealing.contains_key(&name) || !self.is_fresh() {
            return;
        }
        let cell = self.view.cells.get(&name);
        let plan = cell.and_then(|cell| Plan::new(self.number, &name, self.log.next - 1, &cell.lock()));
        if let Some(plan) = plan {
            self.sealing.insert(name.clone(), None);
            self.resealing.insert(name, reply);
            self.seal(plan);
        }
    }

    /// The manifest that a stream needs to be sealed was read, or could not be.
    pub fn manifest_for_seal(&mut self, name: StreamName, was_read: bool) {
        if was_read {
            self.sealing.remove(&name);
            self.to_seal.push_front(name);
        } else {
            self.sealing.insert(name, Some(Instant::now() + SEAL_PAUSE));
        }
        self.start_seals();
    }

    fn is_due(&self, committed: &Committed, now: Millis) -> bool {
        let settings = &self.context.settings;
        let since = committed.unsealed_since.unwrap_or(now);
        let Some(stream) = &committed.stream else {
            // Deleted, or not known before its manifest is read.
            return true;
        };
        stream.closed.is_some()
            || stream.is_gone
            || committed.unsealed_bytes() >= settings.seal_bytes
            || committed.runs.len() >= settings.seal_runs as usize
            || age(now, stream.touched_at.max(since)) >= settings.seal_idle
            || age(now, since) >= settings.seal_age
    }

    pub fn sealed(&mut self, name: StreamName, sealed: Result<Sealed, EngineError>) {
        self.sealing.remove(&name);
        let asked = self.resealing.remove(&name);
        match sealed {
            Ok(Sealed::Written { base, garbage, releases }) => {
                if self.waiting.contains_key(&name) {
                    // Who asked for the manifest before may get the one that this has replaced.
                    self.outdated.insert(name.clone());
                }
                if let Some(reply) = asked {
                    let _ = reply.send(base.clone());
                }
                if let Some(trim) = base.manifest.as_ref().and_then(|manifest| retention::trim(&self.context, manifest))
                {
                    self.enqueue(Write::by_nobody(name.clone(), Command::Trim(trim)));
                }
                match self.view.cells.rebase(&name, base, self.context.page_bytes) {
                    Ok(cell) => {
                        let mut committed = cell.lock();
                        committed.garbage.retain(|chunk| !garbage.contains(chunk));
                        committed.releases.retain(|release| !releases.contains(release));
                    }
                    Err(error) => tracing::error!(key = key::manifest(&name), %error, "own manifest not understood"),
                }
            }
            Ok(Sealed::Outdated) => self.wait_for_manifest(name, Waiting::Upkeep),
            Err(error) => {
                tracing::warn!(stream = %name, %error, "stream not sealed");
                self.sealing.insert(name.clone(), Some(Instant::now() + SEAL_PAUSE));
                // It may have been written all the same.
                self.wait_for_manifest(name, Waiting::Upkeep);
            }
        }
        self.start_seals();
    }

    /// Another replica seals: read the manifests of streams that it must have sealed by now.
    fn look_for_foreign_seals(&mut self, now: Millis) {
        let patience = self.context.settings.seal_age + self.context.settings.seal_age / 2;
        let old = |committed: &Committed| committed.unsealed_since.is_some_and(|since| age(now, since) > patience);
        let unsealed = self.view.cells.unsealed();
        let names = unsealed.into_iter().filter(|(_, cell)| old(&cell.lock())).map(|(name, _)| name);
        for name in names.take(SEALS) {
            self.wait_for_manifest(name, Waiting::Upkeep);
        }
    }

    fn write_checkpoint_if_due(&mut self, now: Millis) {
        if self.checkpointing || !self.is_checkpoint_due(now) {
            return;
        }
        let cells = self.view.cells.unsealed();
        let mut unsealed = Vec::with_capacity(cells.len());
        let mut is_complete = true;
        for (name, cell) in cells {
            let kept = cell.lock().to_unsealed(&name);
            is_complete &= kept.is_some();
            match kept {
                Some(kept) => unsealed.push(kept),
                // Known only by later records: the next time, its manifest will have been read.
                None => self.wait_for_manifest(name, Waiting::Upkeep),
            }
        }
        if !is_complete {
            return;
        }
        let held = self.checkpoint.clone();
        let store_now = self.context.store.last_seen();
        let next = held.next(self.number, &self.log, unsealed, store_now, self.context.settings.grace);
        let Some(next) = next else {
            // Another replica has gone further: catch up first.
            return self.probe();
        };
        self.checkpointing = true;
        let (context, shard) = (Arc::clone(&self.context), self.number);
        self.tasks.spawn(async move { Event::Checkpointed(checkpoint::publish(&context, shard, held, next).await) });
    }

    fn is_checkpoint_due(&mut self, now: Millis) -> bool {
        let settings = &self.context.settings;
        if self.entries_since_checkpoint >= settings.checkpoint_entries {
            return true;
        }
        let is_idle = age(now, self.log.last_at) > settings.seal_idle && self.view.cells.unsealed().is_empty();
        if self.entries_since_checkpoint > 0 {
            return is_idle;
        }
        // Nothing new, but entries whose grace period is over.
        let is_over = self.checkpoint.has_leftovers() && self.checkpoint_at.elapsed() > settings.grace;
        let is_known = self.context.store.last_seen().since(self.checkpoint.known_at) >= settings.grace;
        if is_idle && is_over && !is_known {
            // Ask for the store's time.
            self.probe();
        }
        is_idle && is_over && is_known
    }

    pub fn checkpointed(&mut self, held: Result<Held, EngineError>) {
        self.checkpointing = false;
        self.checkpoint_at = Instant::now();
        match held {
            Ok(held) => {
                self.entries_since_checkpoint = (self.log.next - 1).saturating_sub(held.position());
                self.checkpoint = held;
            }
            Err(error) => tracing::warn!(shard = self.number, %error, "checkpoint not written"),
        }
    }
}

fn age(now: Millis, then: Millis) -> Duration {
    Duration::from_millis(now.saturating_sub(then))
}
