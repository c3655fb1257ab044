//! One task per shard: it alone orders the writes of its streams and changes their committed state.
//!
//! The task's loop takes one event after the other: a message, a settled log entry, a manifest that was read, the
//! time to write a batch. Everything that waits for the store runs in a task of its own and comes back as an event,
//! so a client that goes away, or a slow object, holds up nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::EngineError;
use super::checkpoint::Held;
use super::context::Context;
use super::error::no_answer;
use super::handle::{Answer, Confirmed, Handle, Message, View, Witness, Write};
use super::load::{self, Loaded};
use super::log::{Log, Settled};
use super::pace::Pace;
use super::peers::LogPart;
use super::seal::Sealed;
use super::stage::Batch;
use super::state::{Base, Cell};
use crate::layout::key;
use crate::protocol::StreamName;
use crate::store::{StoreError, StoreTime};

/// How often the shard looks for things to seal and checkpoints to write.
const UPKEEP: Duration = Duration::from_secs(1);
/// After a failed load, how long requests are refused before the next try.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);
/// Messages that wait for the task. Their bodies are bounded by the admission gate.
const MAILBOX: usize = 4096;
/// Messages taken in at a time before events are looked at again.
const MESSAGES_AT_A_TIME: usize = 256;

/// Something that the task waited for.
#[derive(Debug)]
pub(super) enum Event {
    Settled { id: u128, settled: Settled },
    ManifestRead { name: StreamName, generation: u64, base: Result<Base, EngineError> },
    Probed { sent: Instant, witness: Witness, ahead: Result<LogPart, StoreError> },
    Followed { sent: Instant, part: Option<LogPart> },
    CheckpointRead(Result<Held, EngineError>),
    Sealed { name: StreamName, generation: u64, sealed: Result<Sealed, EngineError> },
    Checkpointed(Result<Held, EngineError>),
}

/// Who waits for a stream's manifest.
#[expect(clippy::large_enum_variant, reason = "most of those who wait are writes")]
#[derive(Debug)]
pub(super) enum Waiting {
    Write(Write),
    Reader(oneshot::Sender<Result<Arc<Cell>, EngineError>>),
    /// The shard itself, to know more.
    Upkeep,
    /// The shard itself, to seal the stream.
    Seal,
}

/// Why the serving loop ended.
enum Ended {
    /// All handles are gone.
    Stopped,
    /// What is known here can't be trusted any more: read it again from the bucket.
    Reload,
}

pub(super) struct Shard {
    pub context: Arc<Context>,
    pub number: u32,
    pub view: Arc<View>,
    mailbox: mpsc::Receiver<Message>,
    pub tasks: JoinSet<Event>,
    /// Counts loads, so that what was asked before the last one is told apart.
    pub generation: u64,

    pub log: Log,
    /// When `log.next` was last known to be absent, by the monotonic clock.
    pub confirmed_at: Instant,
    /// The same as the store has said it.
    pub confirmed_by_store_at: Instant,
    /// A moment, and the store's time at it or later.
    pub confirmed_with: (Instant, StoreTime),
    /// When the store was last asked for the head.
    pub probed_at: Instant,
    pub probing: bool,
    /// Its home was asked to tell what comes.
    pub following: bool,
    /// It did not answer: do without it until then.
    pub follow_again_at: Option<Instant>,
    pub confirm_waiters: Vec<(Instant, Witness, oneshot::Sender<()>)>,
    pub drain_waiters: Vec<oneshot::Sender<()>>,

    /// Writes whose streams are known, in order of arrival.
    pub queue: VecDeque<Write>,
    pub queued_bytes: u64,
    /// Writes that wait for what their producer has sent before them, which may come another way.
    pub gaps: Vec<Write>,
    pub waiting: BTreeMap<StreamName, Vec<Waiting>>,
    /// Those whose manifest was replaced here after it was asked for.
    pub outdated: BTreeSet<StreamName>,
    deferred: BTreeMap<StreamName, Vec<Waiting>>,
    pub in_flight: VecDeque<Batch>,
    /// Streams as they will be when all that is in flight is committed.
    pub speculative: HashMap<StreamName, super::stage::Speculative>,
    /// Answers that change nothing, waiting for the head to be confirmed.
    pub held_back: Vec<super::stage::Judged>,
    /// Who waits for the next entry to be placed, whatever is in it.
    pub fences: Vec<oneshot::Sender<StoreTime>>,
    pub pace: Pace,
    /// The store did not answer: leave it alone until then.
    pub not_before: Option<Instant>,

    pub checkpoint: Held,
    pub checkpointing: bool,
    pub entries_since_checkpoint: u64,
    /// When the checkpoint was read or written, by the monotonic clock.
    pub checkpoint_at: Instant,
    /// Streams that are due to be sealed, the next one first.
    pub to_seal: VecDeque<StreamName>,
    /// Streams being sealed, and those that could not be, with when to try again.
    pub sealing: HashMap<StreamName, Option<Instant>>,
    /// Who asked for some of them.
    pub resealing: HashMap<StreamName, oneshot::Sender<Base>>,
    next_upkeep: Instant,
    pub reload: bool,
}

/// Starts the shard's task. The shard is loaded when the first message comes.
pub(super) fn spawn(context: &Arc<Context>, number: u32) -> Handle {
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    let view = Arc::new(View::new(context.settings.manifest_cache / u64::from(context.shards)));
    let shard = Shard {
        context: Arc::clone(context),
        number,
        view: Arc::clone(&view),
        mailbox,
        tasks: JoinSet::new(),
        generation: 0,
        log: Log { next: 1, last_id: 0, last_at: 0, last_writer: 0, fresh_at: StoreTime::default() },
        confirmed_at: Instant::now(),
        confirmed_by_store_at: Instant::now(),
        confirmed_with: (Instant::now(), StoreTime::default()),
        probed_at: Instant::now(),
        probing: false,
        following: false,
        follow_again_at: None,
        confirm_waiters: Vec::new(),
        drain_waiters: Vec::new(),
        queue: VecDeque::new(),
        queued_bytes: 0,
        gaps: Vec::new(),
        waiting: BTreeMap::new(),
        outdated: BTreeSet::new(),
        deferred: BTreeMap::new(),
        in_flight: VecDeque::new(),
        speculative: HashMap::new(),
        held_back: Vec::new(),
        fences: Vec::new(),
        pace: Pace::default(),
        not_before: None,
        checkpoint: Held::default(),
        checkpointing: false,
        entries_since_checkpoint: 0,
        checkpoint_at: Instant::now(),
        to_seal: VecDeque::new(),
        sealing: HashMap::new(),
        resealing: HashMap::new(),
        next_upkeep: Instant::now() + UPKEEP,
        reload: false,
    };
    tokio::spawn(shard.run());
    Handle { mailbox: sender, view }
}

impl Shard {
    async fn run(mut self) {
        let mut first = loop {
            match self.mailbox.recv().await {
                None => return,
                // Not in use yet, so there is nothing to wait for.
                Some(Message::Drain(reply)) => drop(reply),
                message => break message,
            }
        };
        loop {
            match self.load().await {
                Ok(()) => {}
                Err(error) => {
                    if !self.refuse(&error, first.take()).await {
                        return;
                    }
                    continue;
                }
            }
            if let Some(first) = first.take() {
                self.accept(first);
            }
            match self.serve().await {
                Ended::Stopped => return,
                Ended::Reload => self.abandon(),
            }
        }
    }

    async fn load(&mut self) -> Result<(), EngineError> {
        let sent = Instant::now();
        let Loaded { log, held } = load::load(&self.context, self.number, &self.view.cells).await?;
        self.entries_since_checkpoint = log.next - 1 - held.position();
        tracing::debug!(shard = self.number, next = log.next, entries = self.entries_since_checkpoint, "shard loaded");
        self.log = log;
        self.checkpoint = held;
        self.checkpoint_at = Instant::now();
        self.reload = false;
        // What was read came after this moment.
        self.confirm(sent, Witness::Store);
        self.view.followers.notify_all();
        for (name, all) in std::mem::take(&mut self.deferred) {
            all.into_iter().for_each(|who| self.wait_for_manifest(name.clone(), who));
        }
        Ok(())
    }

    /// Answers requests with why the shard can't be loaded, for a while. False if nobody can ask any more.
    async fn refuse(&mut self, error: &EngineError, first: Option<Message>) -> bool {
        tracing::error!(shard = self.number, %error, "shard not loaded");
        let until = Instant::now() + RELOAD_PAUSE;
        let mut next = first;
        loop {
            if let Some(message) = next.take() {
                message.refuse(error);
            }
            tokio::select! {
                biased;
                () = sleep_until(until) => return true,
                message = self.mailbox.recv() => match message {
                    Some(message) => next = Some(message),
                    None => return false,
                },
            }
        }
    }

    async fn serve(&mut self) -> Ended {
        loop {
            self.flush();
            self.confirm_if_asked();
            self.follow_home();
            self.follow_head();
            self.finish_draining();
            if self.next_upkeep <= Instant::now() {
                self.keep_up();
                self.next_upkeep = Instant::now() + UPKEEP;
            }
            if self.reload {
                return Ended::Reload;
            }
            let due = [self.flush_at(), self.follow_at(), self.gap_at(), Some(self.next_upkeep)];
            let wake_at = due.into_iter().flatten().min().unwrap_or(self.next_upkeep);
            tokio::select! {
                biased;
                Some(event) = self.tasks.join_next(), if !self.tasks.is_empty() => match event {
                    Ok(event) => self.handle(event).await,
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => {
                        // A bug. What the task was to settle is open, so nothing known here can be trusted.
                        tracing::error!(shard = self.number, %error, "a task of the shard failed");
                        self.reload = true;
                    }
                },
                message = self.mailbox.recv() => {
                    let Some(message) = message else { return Ended::Stopped };
                    self.accept(message);
                    self.accept_more();
                }
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn accept_more(&mut self) {
        for _ in 0..MESSAGES_AT_A_TIME {
            let Ok(message) = self.mailbox.try_recv() else { return };
            self.accept(message);
        }
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Write(write) => self.enqueue(write),
            Message::Find { reply, .. } if !self.is_fresh() => {
                let _ = reply.send(Err(no_answer()));
            }
            Message::Find { name, manifest, reply } => match self.view.cells.get(&name) {
                Some(cell) if cell.lock().is_enough(manifest) => {
                    let _ = reply.send(Ok(cell));
                }
                _ => self.wait_for_manifest(name, Waiting::Reader(reply)),
            },
            Message::Refresh { name, reply } => self.wait_for_manifest(name, Waiting::Reader(reply)),
            Message::Confirm { since, witness, reply } => {
                self.confirm_waiters.push((since, witness, reply));
                self.release_waiters();
            }
            Message::Fence(reply) => self.fences.push(reply),
            Message::Reseal { name, reply } => self.reseal(name, reply),
            Message::Drain(reply) => self.drain_waiters.push(reply),
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Settled { id, settled } => self.settled(id, settled).await,
            Event::ManifestRead { name, generation, base } if generation == self.generation => {
                self.manifest_read(&name, base);
            }
            Event::Sealed { name, generation, sealed } if generation == self.generation => self.sealed(name, sealed),
            Event::ManifestRead { .. } | Event::Sealed { .. } => {}
            Event::Probed { sent, witness, ahead } => self.probed(sent, witness, ahead).await,
            Event::Followed { sent, part } => self.followed(sent, part).await,
            Event::CheckpointRead(held) => self.checkpoint_read(held),
            Event::Checkpointed(held) => self.checkpointed(held),
        }
    }

    /// Puts a write where it waits: for its stream's manifest, or to be staged.
    pub fn enqueue(&mut self, write: Write) {
        let is_known = self.view.cells.get(&write.name).is_some_and(|cell| cell.lock().is_known());
        if is_known && !self.waiting.contains_key(&write.name) {
            self.queued_bytes += super::stage::weight(&write.command);
            self.queue.push_back(write);
        } else {
            self.wait_for_manifest(write.name.clone(), Waiting::Write(write));
        }
    }

    pub fn wait_for_manifest(&mut self, name: StreamName, who: Waiting) {
        if let Some(waiting) = self.waiting.get_mut(&name) {
            return waiting.push(who);
        }
        self.waiting.insert(name.clone(), vec![who]);
        let (context, generation) = (Arc::clone(&self.context), self.generation);
        self.tasks.spawn(async move {
            let base = load::read_manifest(&context, &name).await;
            Event::ManifestRead { name, generation, base }
        });
    }

    fn manifest_read(&mut self, name: &StreamName, base: Result<Base, EngineError>) {
        let waiting = self.waiting.remove(name).unwrap_or_default();
        if self.outdated.remove(name) {
            // What it says may be older than what was sealed here, and forgotten, since it was asked for.
            return waiting.into_iter().for_each(|who| self.wait_for_manifest(name.clone(), who));
        }
        let damaged = |error: crate::layout::Damaged| EngineError::Damaged { key: key::manifest(name), what: error.0 };
        let cell = base.and_then(|base| self.view.cells.rebase(name, base, self.context.page_bytes).map_err(damaged));
        for who in waiting {
            match (who, &cell) {
                (Waiting::Reader(reply), cell) => {
                    let _ = reply.send(cell.clone());
                }
                (Waiting::Write(write), Ok(_)) => {
                    self.queued_bytes += super::stage::weight(&write.command);
                    self.queue.push_back(write);
                }
                (Waiting::Write(write), Err(error)) => write.answer(Answer::No(error.clone())),
                (Waiting::Upkeep, _) => {}
                (Waiting::Seal, cell) => self.manifest_for_seal(name.clone(), cell.is_ok()),
            }
        }
        self.view.followers.notify(name);
    }

    /// The head was known at `sent`, and that is now folded.
    pub fn confirm(&mut self, sent: Instant, witness: Witness) {
        self.confirmed_at = self.confirmed_at.max(sent);
        if witness == Witness::Store {
            self.confirmed_by_store_at = self.confirmed_by_store_at.max(sent);
        }
        self.confirmed_with = (Instant::now(), self.context.store.last_seen());
        let confirmed = Confirmed { at: self.confirmed_at, known_at: self.log.fresh_at, head: self.log.next };
        self.view.confirmed.send_replace(Some(confirmed));
        self.view.is_cut_off.store(false, Ordering::Relaxed);
        self.release_waiters();
    }

    /// Whether what is known of the log may be believed, and built on.
    pub fn is_fresh(&self) -> bool {
        self.log.is_fresh(self.context.store.last_seen(), self.context.settings.grace)
    }

    fn release_waiters(&mut self) {
        let (by_any, by_store) = (self.confirmed_at, self.confirmed_by_store_at);
        let is_told = |(since, witness, _): &mut (Instant, Witness, _)| match witness {
            Witness::Home => *since <= by_any,
            Witness::Store => *since <= by_store,
        };
        for (.., reply) in self.confirm_waiters.extract_if(.., is_told) {
            let _ = reply.send(());
        }
    }

    /// Forgets all that was known, to load it again. What is in flight may or may not be committed.
    fn abandon(&mut self) {
        tracing::warn!(shard = self.number, "reading the shard again from the bucket");
        self.view.confirmed.send_replace(None);
        self.generation += 1;
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        (self.probing, self.following, self.checkpointing) = (false, false, false);
        self.sealing.clear();
        self.resealing.clear();
        self.outdated.clear();
        self.fences.clear();
        self.to_seal.clear();
        self.speculative.clear();
        let open = EngineError::Unconfirmed { retry_after: super::error::retry_after() };
        for batch in std::mem::take(&mut self.in_flight) {
            for judged in batch.judged {
                judged.write.answer(Answer::No(open.clone()));
            }
        }
        let held_back = std::mem::take(&mut self.held_back);
        self.judge_again(held_back);
        self.release_gaps(|_| true);
        // To be asked again after the load: a manifest read before it may be older than what the load relies on.
        self.deferred.extend(std::mem::take(&mut self.waiting));
    }

    fn finish_draining(&mut self) {
        let is_idle = self.queue.is_empty()
            && self.gaps.is_empty()
            && self.in_flight.is_empty()
            && self.held_back.is_empty()
            && !self.waiting.values().flatten().any(|who| matches!(who, Waiting::Write(_)));
        if is_idle {
            for reply in self.drain_waiters.drain(..) {
                let _ = reply.send(());
            }
        }
    }
}
