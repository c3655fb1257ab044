//! Group commit: writes are judged against the speculative state, put into entries, and answered when those are
//! committed.
//!
//! Several entries may be in flight, each validated on the one before. An answer leaves only when the state it was
//! judged against is committed: a rejection or a duplicate too. If an entry loses its position to another replica,
//! everything in flight is void, and its writes are judged again on what is there now.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::EngineError;
use super::checkpoint::Held;
use super::context::Context;
use super::error::log_is_short;
use super::handle::{Answer, Witness, Write};
use super::load;
use super::log::{self, Settled};
use super::peers::{LogPart, Peers};
use super::shard::{Event, Shard, Waiting};
use super::state::Base;
use super::tail::EntryData;
use crate::clock::Millis;
use crate::layout::entry::{self, Header};
use crate::layout::key;
use crate::protocol::stream::{self, Append, Body, Command, Create, Data, Effect};
use crate::protocol::{Rejection, Stream, StreamName};
use crate::store::{CLOCK_STEP, StoreError, StoreTime};

/// The part of the grace period after which a replica that was idle asks for the store's time before it writes.
const IDLE_PART: u32 = 8;
/// The part of the grace period after which an uploaded body is not named by an entry any more, nor a fork's reference
/// built on. The collector deletes what nothing names after a whole one, once an entry of its own is placed: whoever writes after that entry has read it,
/// and so knows the time.
const UPLOAD_PART: u32 = 2;
/// How long an append waits for those that its producer has sent before, and for how many.
const GAP_PATIENCE: Duration = Duration::from_millis(200);
const LARGEST_GAP: u64 = 64;
/// How long its home is asked to wait for what comes next. Also how long it takes to notice that it does not answer any more.
const FOLLOW_WAIT: Duration = Duration::from_secs(2);
/// How far this machine's clock may be ahead of the store's, in milliseconds.
const CLOCK_TOLERANCE: Millis = 60_000;
/// Writes in one entry, at most.
const BATCH_WRITES: usize = 16_384;

/// A write and what it came to.
#[derive(Debug)]
pub(super) struct Judged {
    pub write: Write,
    pub answer: Answer,
}

/// An entry that is being written.
#[derive(Debug)]
pub(super) struct Batch {
    header: Header,
    object: Bytes,
    records: Vec<(StreamName, Effect)>,
    pub judged: Vec<Judged>,
    fences: Vec<oneshot::Sender<StoreTime>>,
    /// The store's time was this, or later, when the entry was formed.
    formed_at: StoreTime,
    settled: Option<Settled>,
    sent: Instant,
}

/// A stream as it will be, and how many entries in flight change it.
#[derive(Debug)]
pub(super) struct Speculative {
    stream: Option<Arc<Stream>>,
    entries: usize,
}

/// Bytes that a command adds to an entry, roughly.
pub(super) fn weight(command: &Command) -> u64 {
    let of_body = |body: &Body| match &body.data {
        Data::Inline(bytes) => bytes.len() as u64 + body.ends.len() as u64 * 2,
        Data::Chunk { .. } => body.ends.len() as u64 * 2,
    };
    100 + match command {
        Command::Create(Create { body, .. }) | Command::Append(Append { body, .. }) => of_body(body),
        Command::Delete
        | Command::Touch
        | Command::Expire
        | Command::FindFork(_)
        | Command::AddFork(_)
        | Command::DropFork { .. }
        | Command::Trim(_) => 0,
    }
}

impl Shard {
    /// When the next batch is due, if one waits and may be written.
    pub fn flush_at(&self) -> Option<Instant> {
        let is_empty = self.queue.is_empty() && self.fences.is_empty();
        if is_empty || self.in_flight.len() >= self.context.settings.pipeline as usize || self.probing {
            return None;
        }
        let is_full = self.queued_bytes >= self.context.settings.batch_bytes;
        let paced = self.pace.due(self.in_flight.is_empty(), self.context.settings.commit_interval);
        Some(paced.filter(|_| !is_full).max(self.not_before).unwrap_or_else(Instant::now))
    }

    /// When the first of those who wait for what is missing has waited long enough.
    pub fn gap_at(&self) -> Option<Instant> {
        self.gaps.iter().filter_map(|write| write.gap_until).min()
    }

    /// Those who have waited for what is missing are judged again, next.
    pub fn release_gaps(&mut self, is_released: impl Fn(&Write) -> bool) {
        let released: Vec<Write> = self.gaps.extract_if(.., |write| is_released(write)).collect();
        for write in released.into_iter().rev() {
            self.queued_bytes += weight(&write.command);
            self.queue.push_front(write);
        }
    }

    /// Writes a batch if one is due.
    pub fn flush(&mut self) {
        let now = Instant::now();
        self.release_gaps(|write| write.gap_until.is_some_and(|until| until <= now));
        while self.flush_at().is_some_and(|due| due <= Instant::now()) && !self.reload {
            // After a long silence the time of the store is not known, nor whether the head is still the head.
            let idle = self.confirmed_at.elapsed() > self.context.settings.grace / IDLE_PART;
            if self.in_flight.is_empty() && (idle || !self.is_fresh()) {
                return self.probe();
            }
            self.stage_batch();
        }
    }

    fn stage_batch(&mut self) {
        let last = self.in_flight.back().map(|batch| batch.header);
        // The log's time never goes back, whatever the replicas' clocks say.
        let at = last.map_or(self.log.last_at, |header| header.at).max(self.plausible_now());
        let mut records = Vec::new();
        let mut judged = Vec::new();
        let mut bytes = 0;
        while let Some(write) = self.queue.front() {
            let weight = weight(&write.command);
            let is_full = bytes + weight > self.context.settings.batch_bytes || judged.len() >= BATCH_WRITES;
            if is_full && !judged.is_empty() {
                break;
            }
            let Some(write) = self.queue.pop_front() else { break };
            self.queued_bytes -= weight;
            let has_left = write.reply.as_ref().is_some_and(oneshot::Sender::is_closed);
            if has_left || !write.ticket.stage() {
                continue;
            }
            if let Some(answered) = self.judge(write, at, &mut records) {
                bytes += weight;
                judged.push(answered);
            }
        }
        if records.is_empty() && self.fences.is_empty() {
            // Answers that change nothing wait until the head is confirmed: another replica may have changed what they
            // were judged on, before they were asked for. The next entry confirms it, if there is one soon, and else a
            // look at the head. An entry already in flight does not: it may have been placed before the request came.
            return self.held_back.extend(judged);
        }
        self.send_entry(at, records, judged);
    }

    /// The wall clock, unless it is ahead of the store's: the log's time would run ahead for everyone, and streams with
    /// a lifetime would end.
    fn plausible_now(&self) -> Millis {
        let now = self.context.clock.now();
        let (confirmed_at, store_time) = self.confirmed_with;
        let since = u64::try_from(confirmed_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let latest = store_time.0.saturating_add(since).saturating_add(CLOCK_TOLERANCE);
        if now > latest {
            tracing::warn!(now, latest, "this machine's clock is ahead of the store's, which is used instead");
        }
        // Nor far behind it: what is let go by its age would be let go too early.
        now.min(latest).max(store_time.0.saturating_sub(CLOCK_TOLERANCE))
    }

    /// Judges a write on the speculative state, which takes in its effects. `None` if its stream is not known.
    fn judge(&mut self, mut write: Write, at: u64, records: &mut Vec<(StreamName, Effect)>) -> Option<Judged> {
        let current = match self.speculative.get(&write.name) {
            Some(speculative) => speculative.stream.clone(),
            None => {
                // Writes that wait for a manifest came later, so this one need not wait for them.
                let known = self.view.cells.get(&write.name).and_then(|cell| {
                    let committed = cell.lock();
                    let sealed_to = committed.base.as_ref().map_or(0, Base::log_position);
                    committed.is_known().then(|| (committed.stream.clone(), sealed_to))
                });
                let Some((stream, sealed_to)) = known else {
                    self.wait_for_manifest(write.name.clone(), Waiting::Write(write));
                    return None;
                };
                if sealed_to >= self.log.next {
                    // Another replica has sealed what this one has not read yet, and this is judged again when it is read.
                    // Unless the head is here after all: then nobody would see what is written now.
                    let error = log_is_short(self.number, self.log.next, &write.name, sealed_to);
                    return Some(Judged { write, answer: Answer::No(error) });
                }
                stream
            }
        };
        if let Some(uploaded) = write.uploaded {
            let is_other = current.as_ref().is_some_and(|stream| stream.incarnation != uploaded.incarnation);
            if matches!(write.command, Command::Append(_)) && is_other {
                return Some(Judged { write, answer: Answer::OtherIncarnation });
            }
        }
        if self.may_be_collected(&write) {
            return Some(Judged { write, answer: Answer::No(super::error::no_answer()) });
        }
        let answer = match stream::decide(current.as_deref(), &write.command, at) {
            Ok(decision) => {
                if !decision.effects.is_empty() {
                    self.speculate(&write.name, current, &decision.effects, at);
                    records.extend(decision.effects.into_iter().map(|effect| (write.name.clone(), effect)));
                    self.release_gaps(|waiting| waiting.name == write.name);
                }
                Answer::Done(decision.outcome)
            }
            Err(Rejection::ProducerGap { expected, received }) if may_be_filled(&write, received - expected) => {
                write.gap_until.get_or_insert(Instant::now() + GAP_PATIENCE);
                self.gaps.push(write);
                return None;
            }
            Err(rejection) => Answer::No(EngineError::Rejected(rejection)),
        };
        Some(Judged { write, answer })
    }

    /// Whether what was prepared for a write, an uploaded body or a reference at a fork's source, is so old that the
    /// collector may take it for garbage.
    fn may_be_collected(&self, write: &Write) -> bool {
        let reference = match &write.command {
            Command::Create(Create { fork: Some(branch), .. }) => Some(StoreTime(branch.prepared_at)),
            _ => None,
        };
        let mut prepared = write.uploaded.map(|uploaded| uploaded.at).into_iter().chain(reference);
        let oldest = self.context.settings.grace / UPLOAD_PART;
        prepared.any(|at| self.context.store.last_seen().since(at) > oldest)
    }

    fn speculate(&mut self, name: &StreamName, current: Option<Arc<Stream>>, effects: &[Effect], at: u64) {
        let entries = self.speculative.remove(name).map_or(0, |speculative| speculative.entries);
        let stream = effects
            .iter()
            .fold(current.map(Arc::unwrap_or_clone), |stream, effect| stream::fold(stream, effect, at))
            .map(Arc::new);
        self.speculative.insert(name.clone(), Speculative { stream, entries });
    }

    /// Looks at the head if someone waits for that and no entry in flight will tell. Asked in every round of the loop,
    /// so that nobody is forgotten who came while the last look was under way.
    pub fn confirm_if_asked(&mut self) {
        if !self.held_back.is_empty() || !self.confirm_waiters.is_empty() {
            self.probe();
        }
    }

    fn send_entry(&mut self, at: u64, records: Vec<(StreamName, Effect)>, mut judged: Vec<Judged>) {
        let last = self.in_flight.back().map(|batch| batch.header);
        let position = last.map_or(self.log.next, |header| header.position + 1);
        let prev = last.map_or(self.log.last_id, |header| header.id);
        let id = self.context.ids.id();
        let header = Header { shard: self.number, position, id, prev, writer: self.context.writer, at };
        let object = entry::encode(&header, records.iter().map(|(name, effect)| (name, effect)));
        for name in distinct(&records) {
            if let Some(speculative) = self.speculative.get_mut(name) {
                speculative.entries += 1;
            }
        }
        judged.splice(..0, std::mem::take(&mut self.held_back));
        let sent = Instant::now();
        self.pace.spend(sent, self.context.settings.commit_interval);
        let (context, key, body) = (Arc::clone(&self.context), key::log(self.number, position), object.clone());
        self.tasks.spawn(async move {
            let settled = log::propose(&context, &key, id, &body).await;
            Event::Settled { id, settled }
        });
        let (fences, formed_at) = (std::mem::take(&mut self.fences), self.context.store.last_seen());
        self.in_flight.push_back(Batch { header, object, records, judged, fences, formed_at, settled: None, sent });
    }

    /// An entry in flight is settled. Entries are committed in order, so its turn may come later.
    pub async fn settled(&mut self, id: u128, settled: Settled) {
        let Some(batch) = self.in_flight.iter_mut().find(|batch| batch.header.id == id) else { return };
        batch.settled = Some(settled);
        while self.in_flight.front().is_some_and(|batch| batch.settled.is_some()) && !self.reload {
            let Some(mut batch) = self.in_flight.pop_front() else { return };
            match batch.settled.take() {
                Some(Settled::Placed { sent_at }) if self.log.is_fresh(sent_at, self.context.settings.grace) => {
                    self.log.renew(sent_at);
                    self.commit(batch).await;
                }
                Some(Settled::Lost { object }) if self.is_fresh() => {
                    self.in_flight.push_front(batch);
                    self.start_over(object).await;
                    return;
                }
                Some(Settled::Placed { .. } | Settled::Lost { .. } | Settled::TooLate) | None => {
                    self.in_flight.push_front(batch);
                    self.reload = true;
                }
            }
        }
    }

    async fn commit(&mut self, batch: Batch) {
        let key = key::log(self.number, batch.header.position);
        let entry = match log::decode(&key, self.number, batch.header.position, &batch.object) {
            Ok(entry) => entry,
            Err(error) => panic!("an own entry can't be read: {error}"),
        };
        assert!(self.log.advance(&entry.header), "an own entry at the head must be valid");
        for name in distinct(&batch.records) {
            if let Some(speculative) = self.speculative.get_mut(name) {
                speculative.entries -= 1;
                if speculative.entries == 0 {
                    self.speculative.remove(name);
                }
            }
        }
        let data = Arc::new(EntryData::new(&entry, &batch.object));
        self.context.tails.remember(self.number, batch.header.position, data);
        let changed = match self.view.cells.fold(&entry, self.context.page_bytes) {
            Ok(changed) => changed,
            Err(error) => return self.contradicted(batch, EngineError::Damaged { key, what: error.0 }),
        };
        tracing::trace!(shard = self.number, position = entry.header.position, records = ?batch.records, "committed");
        self.confirm(batch.sent, Witness::Store);
        self.entries_since_checkpoint += 1;
        for judged in batch.judged {
            judged.write.answer(judged.answer);
        }
        for fence in batch.fences {
            // The collector gave up waiting.
            let _ = fence.send(batch.formed_at);
        }
        changed.iter().for_each(|name| self.view.followers.notify(name));
    }

    /// An own entry does not follow from what is in the bucket, although it was judged on that: the log's end or a manifest
    /// was lost meanwhile. What was written may not be there for readers, so it is not acknowledged.
    fn contradicted(&mut self, batch: Batch, error: EngineError) {
        tracing::error!(shard = self.number, %error, "an own entry does not follow from what is in the bucket");
        for judged in batch.judged {
            judged.write.answer(Answer::No(error.clone()));
        }
        self.reload = true;
    }

    /// The first entry in flight lost its position to `object`: what is in flight is void, wherever it lands.
    async fn start_over(&mut self, object: Bytes) {
        let batches = std::mem::take(&mut self.in_flight);
        tracing::debug!(shard = self.number, entries = batches.len(), "lost a log position, proposing again");
        self.speculative.clear();
        let mut judged = Vec::new();
        for batch in batches {
            judged.extend(batch.judged);
            self.fences.extend(batch.fences);
        }
        judged.append(&mut self.held_back);
        self.judge_again(judged);
        self.absorb(object).await;
        // There may be more after it: read up to the head before proposing again.
        self.probe();
    }

    /// Puts writes back in front of the queue, in their order.
    pub fn judge_again(&mut self, judged: Vec<Judged>) {
        for Judged { write, .. } in judged.into_iter().rev() {
            self.queued_bytes += weight(&write.command);
            self.queue.push_front(write);
        }
    }

    async fn absorb(&mut self, object: Bytes) {
        match load::absorb(&self.context, self.number, &mut self.log, &self.view.cells, object).await {
            Ok(changed) => {
                self.entries_since_checkpoint += 1;
                changed.iter().for_each(|name| self.view.followers.notify(name));
                self.release_gaps(|write| changed.contains(&write.name));
            }
            Err(error) => {
                tracing::error!(shard = self.number, %error, "log entry not read");
                self.reload = true;
            }
        }
    }

    /// Asks what is at the head, if nobody is asking: its home if there is another one, or the store. For what is written
    /// here always the store, of which alone it depends what may be written.
    pub fn probe(&mut self) {
        // While entries are in flight, what is at the head is known to be decided by them.
        if self.probing || !self.in_flight.is_empty() {
            return;
        }
        self.probing = true;
        let (context, shard, next) = (Arc::clone(&self.context), self.number, self.log.next);
        let asks_home = |(_, witness, _): &_| matches!(witness, Witness::Home);
        let is_for_home =
            self.held_back.is_empty() && self.queue.is_empty() && self.confirm_waiters.iter().all(asks_home);
        let sent = Instant::now();
        self.probed_at = sent;
        self.tasks.spawn(async move {
            if is_for_home
                && let Some(peers) = context.home_elsewhere(shard)
                && let Some(part) = ask_home(&context, &**peers, shard, next, Duration::ZERO).await
            {
                return Event::Probed { sent, witness: Witness::Home, ahead: Ok(part) };
            }
            let ahead = log::read_ahead(&context, shard, next).await;
            Event::Probed { sent, witness: Witness::Store, ahead }
        });
    }

    pub async fn probed(&mut self, sent: Instant, witness: Witness, ahead: Result<LogPart, StoreError>) {
        let ahead = match ahead {
            Ok(ahead) => ahead,
            Err(error) => return self.probe_failed(error.into()),
        };
        self.probing = false;
        // Before anything that was read is believed: what is at a deleted position may have landed there late, and what
        // is absent may have been deleted.
        if !self.is_fresh() {
            return self.read_checkpoint();
        }
        let Some(absent_at) = self.absorb_all(ahead).await else {
            // There may be more, unless what was read makes no sense.
            if !self.reload {
                self.probe();
            }
            return;
        };
        self.log.renew(absent_at);
        self.confirm(sent, witness);
        if witness == Witness::Home {
            // What came meanwhile may need the store's word.
            return;
        }
        for judged in std::mem::take(&mut self.held_back) {
            judged.write.answer(judged.answer);
        }
    }

    /// Takes in what of it is new. Tells when the head, which is now known, was absent.
    async fn absorb_all(&mut self, part: LogPart) -> Option<StoreTime> {
        // What has come meanwhile in another way.
        let known = usize::try_from(self.log.next.checked_sub(part.from)?).unwrap_or(usize::MAX);
        let count = part.objects.len();
        for object in part.objects.into_iter().skip(known) {
            self.absorb(object).await;
            if self.reload {
                return None;
            }
        }
        if count > known {
            // Judged on what is old news now.
            let judged = std::mem::take(&mut self.held_back);
            self.judge_again(judged);
        }
        part.absent_at.filter(|_| count >= known)
    }

    /// Has the shard's home tell what comes next, if there is another one and somebody follows streams here.
    pub fn follow_home(&mut self) {
        let is_due = self.follow_again_at.is_none_or(|at| at <= Instant::now());
        if self.following || !is_due || self.view.followers.is_empty() || !self.in_flight.is_empty() {
            return;
        }
        let Some(peers) = self.context.home_elsewhere(self.number).cloned() else { return };
        self.following = true;
        let (context, shard, next, sent) = (Arc::clone(&self.context), self.number, self.log.next, Instant::now());
        self.tasks.spawn(async move {
            Event::Followed { sent, part: ask_home(&context, &*peers, shard, next, FOLLOW_WAIT).await }
        });
    }

    pub async fn followed(&mut self, sent: Instant, part: Option<LogPart>) {
        self.following = false;
        let Some(part) = part else {
            self.follow_again_at = Some(Instant::now() + self.context.settings.sync_interval);
            return;
        };
        if !self.is_fresh() {
            // A replica that slept must look before it believes.
            self.follow_again_at = Some(Instant::now() + self.context.settings.sync_interval);
            return self.probe();
        }
        // With entries in flight, the next position is decided by them.
        if !self.in_flight.is_empty() {
            return;
        }
        if let Some(absent_at) = self.absorb_all(part).await {
            self.log.renew(absent_at);
            self.confirm(sent, Witness::Home);
        }
    }

    fn probe_failed(&mut self, error: EngineError) {
        tracing::warn!(shard = self.number, %error, "the head of the log is not known");
        self.probing = false;
        self.view.is_cut_off.store(true, Ordering::Relaxed);
        // They go on with what is known.
        self.confirm_waiters.clear();
        for judged in std::mem::take(&mut self.held_back) {
            judged.write.answer(Answer::No(error.clone()));
        }
        // Writes that wait are tried again when the store had time to recover.
        self.not_before = Some(Instant::now() + super::error::retry_after());
    }

    /// It was long ago that this replica knew its head to be absent: entries may have been written and deleted since. The
    /// checkpoint tells: if it has not passed this replica's head, nothing after that was deleted.
    fn read_checkpoint(&mut self) {
        self.probing = true;
        let (context, shard) = (Arc::clone(&self.context), self.number);
        self.tasks.spawn(async move { Event::CheckpointRead(load::read_checkpoint(&context, shard).await) });
    }

    pub fn checkpoint_read(&mut self, held: Result<Held, EngineError>) {
        self.probing = false;
        match held {
            // Not even the floor of what may be deleted has come near: positions from `next` on are all there.
            Ok(held) if held.position() < self.log.next => {
                self.log.renew(held.asked_at);
                self.checkpoint = held.known_since(&self.checkpoint);
                self.probe();
            }
            Ok(_) => self.reload = true,
            Err(error) => self.probe_failed(error),
        }
    }

    /// When the head is to be looked at for the sake of those who follow streams, if somebody does; and of those who will
    /// read when the store answers again, because until that is noticed they are served what is in memory, however old.
    pub fn follow_at(&self) -> Option<Instant> {
        let is_followed = !self.view.followers.is_empty() || self.view.confirmed.receiver_count() > 0;
        let is_wanted = is_followed || self.view.is_cut_off.load(Ordering::Relaxed);
        let is_due = is_wanted && !self.probing && !self.following && self.in_flight.is_empty();
        is_due.then(|| self.confirmed_at.max(self.probed_at) + self.context.settings.sync_interval)
    }

    pub fn follow_head(&mut self) {
        if self.follow_at().is_some_and(|due| due <= Instant::now()) {
            self.probe();
        }
    }
}

/// Whether what a producer has sent before this may still come: it was sent through another replica, or on another connection.
fn may_be_filled(write: &Write, missing: u64) -> bool {
    missing <= LARGEST_GAP && write.gap_until.is_none_or(|until| until > Instant::now())
}

async fn ask_home(context: &Context, peers: &dyn Peers, shard: u32, next: u64, wait: Duration) -> Option<LogPart> {
    let part = peers.log_after(shard, next, wait).await?;
    if let Some(at) = part.absent_at {
        // A home that was suspended may not know yet for how long.
        if context.store.last_seen().since(at) > context.settings.sync_interval * 2 + CLOCK_STEP {
            return None;
        }
        // Else this replica, which need not ask the store for anything, would not notice how old what it knows has become.
        context.store.heard(at);
    }
    Some(part)
}

fn distinct(records: &[(StreamName, Effect)]) -> impl Iterator<Item = &StreamName> {
    let names: BTreeSet<&StreamName> = records.iter().map(|(name, _)| name).collect();
    names.into_iter()
}
