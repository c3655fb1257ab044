//! The engine: keeps the histories of all streams, in a bucket.
//!
//! | module | what it does |
//! |---|---|
//! | [`shard`] | one task per shard: takes in messages and events, loads and reloads |
//! | [`stage`] | group commit: judges writes, forms entries, answers when they are committed |
//! | [`log`] | the shard log: put-if-absent, chain rule, ambiguity, freshness |
//! | [`state`] | committed state: one fold for own, foreign and replayed entries |
//! | [`load`] | cold load from the checkpoint and the entries since; manifests |
//! | [`tail`] | recent entries and served pages in memory |
//! | [`read`] | manifest and offset to the bytes of a page |
//! | [`follow`] | who waits for a stream to change |
//! | [`upkeep`] | when to seal, when to write a checkpoint |
//! | [`seal`], [`checkpoint`], [`cas`] | how |
//! | [`admission`] | how many bytes of bodies may be in memory |

mod admission;
mod cas;
mod checkpoint;
mod context;
mod follow;
mod load;
mod log;
mod open;
mod read;
mod seal;
mod shard;
mod stage;
mod state;
mod tail;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use self::admission::Admission;
use self::admission::Gate;
use self::context::Context;
pub use self::follow::Changes;
use self::read::{Located, Owner};
use self::shard::{Answer, Handle, Message, Ticket, Write};
use self::state::Cell;
use self::tail::Missing;
use crate::clock::Millis;
use crate::layout::{chunk, key};
use crate::protocol::offset;
use crate::protocol::stream::{Append, Command, Create, Data, Outcome};
use crate::protocol::{Incarnation, ReadFrom, Rejection, Stream, StreamName};

/// When to come back after an answer that says so without a better reason for another time.
fn retry_after() -> Duration {
    Duration::from_secs(1)
}

/// Why the engine did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The protocol says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A limit of this server is reached. Nothing was done.
    #[error("{what}")]
    Overloaded { what: &'static str, retry_after: Duration },
    /// The store does not answer, or the server is stopping. Nothing was done.
    #[error("{why}")]
    Unavailable { why: String, retry_after: Duration },
    /// The store has not confirmed the write in time. It may still be committed.
    #[error("the store has not confirmed the write in time; it may still be committed")]
    Unconfirmed { retry_after: Duration },
    /// An object of the store is damaged or missing.
    #[error("object {key} is damaged: {what}")]
    Damaged { key: String, what: String },
}

/// Keeps streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Arc<Context>,
    shards: Vec<Handle>,
    gate: Gate,
    is_draining: AtomicBool,
}

/// Where in a stream a response starts and ends, and all that its headers say. Holds no bytes: see [`Engine::fetch`].
#[derive(Debug, Clone)]
pub struct Page {
    /// The stream as it was committed when the page was located.
    pub stream: Arc<Stream>,
    pub start: u64,
    pub end: u64,
    /// When the bytes that end at `end` came, as far as it is known (the same on every replica): the cursor's time.
    pub ends_at: Millis,
}

impl Page {
    /// No more data than this, at the time.
    pub fn reaches_tail(&self) -> bool {
        self.end == self.stream.tail
    }

    /// It reaches the end of a closed stream.
    pub fn is_final(&self) -> bool {
        self.reaches_tail() && self.stream.closed.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Where a response's bytes came from, for the `Server-Timing` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Memory,
    Store,
}

impl Engine {
    /// Asks for room for a body of (up to) `bytes`, before it is read. Past the limit: `Overloaded`.
    pub fn admit(&self, bytes: u64) -> Result<Admission, EngineError> {
        self.0.gate.admit(bytes)
    }

    /// A number for a stream that is about to be created.
    pub fn new_incarnation(&self) -> Incarnation {
        Incarnation::new(self.0.context.ids.between(1, offset::LIMIT)).unwrap_or(Incarnation::ANY)
    }

    /// PUT: makes the stream, or finds that it exists with the same configuration.
    pub async fn create(
        &self,
        name: &StreamName,
        mut create: Create,
        admission: Admission,
    ) -> Result<Outcome, EngineError> {
        let uploaded = self.upload_if_large(name, create.incarnation, &mut create.body).await?;
        let owner = uploaded.map(|_| create.incarnation);
        let outcome = self.submit(name, Command::Create(create), owner, Some(admission)).await;
        let is_used = matches!(&outcome, Ok(Some(outcome)) if outcome.fresh);
        self.discard_if_unused(name, owner.zip(uploaded), is_used, &outcome);
        needs_outcome(outcome?)
    }

    /// POST: appends, or closes, or both.
    pub async fn append(
        &self,
        name: &StreamName,
        append: Append,
        admission: Admission,
    ) -> Result<Outcome, EngineError> {
        let mut admission = Some(admission);
        loop {
            let mut attempt = append.clone();
            let mut owner = None;
            if attempt.body.data.len() > self.0.context.settings.direct_bytes {
                owner = Some(self.stat(name).await?.incarnation);
            }
            let uploaded = match owner {
                Some(incarnation) => self.upload_if_large(name, incarnation, &mut attempt.body).await?,
                None => None,
            };
            let outcome = self.submit(name, Command::Append(attempt), owner, admission.take()).await;
            let is_used = matches!(&outcome, Ok(Some(outcome)) if outcome.fresh);
            self.discard_if_unused(name, owner.zip(uploaded), is_used, &outcome);
            match outcome {
                // The stream was replaced while the body was uploaded.
                Err(Refusal::OtherIncarnation) => {}
                Err(Refusal::Error(error)) => return Err(error),
                Ok(outcome) => return needs_outcome(outcome),
            }
        }
    }

    pub async fn delete(&self, name: &StreamName) -> Result<(), EngineError> {
        self.submit(name, Command::Delete, None, None).await?;
        Ok(())
    }

    /// The stream's present state (HEAD). Does not count as a use.
    pub async fn stat(&self, name: &StreamName) -> Result<Arc<Stream>, EngineError> {
        let cell = self.cell(name, false).await?;
        let stream = cell.lock().stream.clone();
        self.alive(name, stream)
    }

    /// Finds the page that starts at `from`. Counts as a use of the stream (it renews a TTL).
    pub async fn locate(&self, name: &StreamName, from: ReadFrom) -> Result<Page, EngineError> {
        let page = self.find_page(name, from).await?;
        self.touch(name, &page.stream);
        Ok(page)
    }

    /// Like [`locate`](Engine::locate), with a subscription that was made before the state was looked at, so that no
    /// change is missed between the two. Counts as a use only if `touch`.
    pub async fn follow(&self, name: &StreamName, from: ReadFrom, touch: bool) -> Result<(Page, Changes), EngineError> {
        let changes = self.shard(name).1.view.followers.subscribe(name);
        let page = self.find_page(name, from).await?;
        if touch {
            self.touch(name, &page.stream);
        }
        Ok((page, changes))
    }

    /// The page's bytes as the protocol serves them (JSON mode: an array). Shared by all who ask for the same page.
    pub async fn fetch(&self, name: &StreamName, page: &Page) -> Result<(Bytes, Source), EngineError> {
        let (number, shard) = self.shard(name);
        let owner = Owner {
            shard: number,
            name,
            incarnation: page.stream.incarnation,
            is_json: page.stream.content_type.is_json(),
        };
        let range = page.start..page.end;
        let mut cell = self.cell(name, false).await?;
        let mut may_refresh = true;
        loop {
            let parts = {
                let committed = cell.lock();
                let current = committed.stream.as_ref().map(|stream| stream.incarnation);
                match current {
                    None => return Err(Rejection::NotFound.into()),
                    Some(current) if current != owner.incarnation => return Err(Rejection::Replaced { current }.into()),
                    Some(_) => read::parts(&committed, &range),
                }
            };
            let missing = match parts {
                Some(parts) => match read::fetch(&self.0.context, owner, range.clone(), &parts).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(Missing::Failed(error)) => return Err(error),
                    Err(Missing::Object { key }) => (key, "it is missing".to_owned()),
                },
                None => (key::manifest(name), format!("no chunk has all bytes {}..{}", range.start, range.end)),
            };
            if !may_refresh {
                let (key, what) = missing;
                return Err(EngineError::Damaged { key, what });
            }
            // Another replica may have moved the bytes; its manifest says where they are now.
            may_refresh = false;
            cell = ask(shard, |reply| Message::Refresh { name: name.clone(), reply }, self.patience()).await??;
        }
    }

    /// Whether the store answers (readiness).
    pub async fn ready(&self) -> Result<(), EngineError> {
        if self.0.is_draining.load(Ordering::Acquire) {
            return Err(stopping());
        }
        let found = self.0.context.store.get(key::CLUSTER).await?.value;
        found.map(|_| ()).ok_or_else(|| damaged_cluster("it is missing"))
    }

    /// The wall clock in use.
    pub fn now(&self) -> Millis {
        self.0.context.clock.now()
    }

    /// Stops taking work, and returns when all commits under way are settled.
    pub async fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Release);
        let drained = self.0.shards.iter().map(|shard| async {
            let (reply, answer) = oneshot::channel();
            if shard.mailbox.send(Message::Drain(reply)).await.is_ok() {
                let _ = answer.await;
            }
        });
        futures::future::join_all(drained).await;
    }

    fn shard(&self, name: &StreamName) -> (u32, &Handle) {
        let number = name.stable_hash() % u64::from(self.0.context.shards);
        (number as u32, &self.0.shards[number as usize])
    }

    fn patience(&self) -> Duration {
        self.0.context.settings.append_timeout
    }

    /// Hands a command to its shard and waits for what it comes to.
    async fn submit(
        &self,
        name: &StreamName,
        command: Command,
        uploaded_for: Option<Incarnation>,
        admission: Option<Admission>,
    ) -> Result<Option<Outcome>, Refusal> {
        if self.0.is_draining.load(Ordering::Acquire) {
            return Err(stopping().into());
        }
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let write = Write {
            name: name.clone(),
            command,
            uploaded_for,
            ticket: Arc::clone(&ticket),
            reply: Some(reply),
            admission,
        };
        let (_, shard) = self.shard(name);
        let wait = async {
            shard.mailbox.send(Message::Write(write)).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())
        };
        match timeout(self.patience(), wait).await {
            Ok(Ok(Answer::Done(outcome))) => Ok(outcome),
            Ok(Ok(Answer::No(error)) | Err(error)) => Err(error.into()),
            Ok(Ok(Answer::OtherIncarnation)) => Err(Refusal::OtherIncarnation),
            Err(_) if ticket.withdraw() => {
                let why = "the store does not answer; nothing was done".to_owned();
                Err(EngineError::Unavailable { why, retry_after: retry_after() }.into())
            }
            Err(_) => Err(EngineError::Unconfirmed { retry_after: retry_after() }.into()),
        }
    }

    /// For commands whose outcome nobody waits for.
    fn submit_quietly(&self, name: &StreamName, command: Command) {
        let (_, shard) = self.shard(name);
        let (name, ticket) = (name.clone(), Arc::new(Ticket::default()));
        let write = Write { name, command, uploaded_for: None, ticket, reply: None, admission: None };
        // A full mailbox means that the shard is behind; the next use will do.
        let _ = shard.mailbox.try_send(Message::Write(write));
    }

    fn touch(&self, name: &StreamName, stream: &Stream) {
        if stream.lifetime.needs_renewal(stream.touched_at, self.now()) {
            self.submit_quietly(name, Command::Touch);
        }
    }

    /// The stream, if its time is not over; else it is removed, now that someone noticed.
    fn alive(&self, name: &StreamName, stream: Option<Arc<Stream>>) -> Result<Arc<Stream>, EngineError> {
        let stream = stream.ok_or(Rejection::NotFound)?;
        if !stream.is_alive(self.now()) {
            self.submit_quietly(name, Command::Expire);
            return Err(Rejection::NotFound.into());
        }
        Ok(stream)
    }

    async fn find_page(&self, name: &StreamName, from: ReadFrom) -> Result<Page, EngineError> {
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
    async fn cell(&self, name: &StreamName, manifest: bool) -> Result<Arc<Cell>, EngineError> {
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

    /// Uploads a large body as a chunk of its own, so that its bytes are written once.
    async fn upload_if_large(
        &self,
        name: &StreamName,
        incarnation: Incarnation,
        body: &mut crate::protocol::stream::Body,
    ) -> Result<Option<u128>, EngineError> {
        let context = &self.0.context;
        let Data::Inline(bytes) = &body.data else { return Ok(None) };
        if bytes.len() as u64 <= context.settings.direct_bytes {
            return Ok(None);
        }
        let object = chunk::encode(std::iter::once(bytes), &body.ends);
        let len = bytes.len() as u64;
        let upload = seal::upload(context, name, incarnation, object);
        let nonce = timeout(self.patience(), upload).await.map_err(|_| EngineError::Unavailable {
            why: "the store does not answer; nothing was done".to_owned(),
            retry_after: retry_after(),
        })??;
        body.data = Data::Chunk { nonce, len };
        Ok(Some(nonce))
    }

    /// Removes an uploaded body that no entry names, or will name.
    fn discard_if_unused(
        &self,
        name: &StreamName,
        uploaded: Option<(Incarnation, u128)>,
        is_used: bool,
        outcome: &Result<Option<Outcome>, Refusal>,
    ) {
        let Some((incarnation, nonce)) = uploaded else { return };
        let is_open = matches!(outcome, Err(Refusal::Error(EngineError::Unconfirmed { .. })));
        if is_used || is_open {
            return;
        }
        let (context, name) = (Arc::clone(&self.0.context), name.clone());
        tokio::spawn(async move { seal::delete_chunks(&context, &name, &[(incarnation.get(), nonce)]).await });
    }
}

/// Why a command was not done.
#[derive(Debug)]
enum Refusal {
    OtherIncarnation,
    Error(EngineError),
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Refusal {
        Refusal::Error(error)
    }
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> EngineError {
        match refusal {
            Refusal::Error(error) => error,
            Refusal::OtherIncarnation => {
                let why = "the stream was replaced meanwhile; nothing was done".to_owned();
                EngineError::Unavailable { why, retry_after: retry_after() }
            }
        }
    }
}

fn needs_outcome(outcome: Option<Outcome>) -> Result<Outcome, EngineError> {
    outcome.ok_or(EngineError::Unconfirmed { retry_after: retry_after() })
}

fn stopping() -> EngineError {
    EngineError::Unavailable { why: "the server is stopping".to_owned(), retry_after: retry_after() }
}

fn damaged_cluster(what: &str) -> EngineError {
    EngineError::Damaged { key: key::CLUSTER.to_owned(), what: what.to_owned() }
}

/// Asks a shard something, for no longer than `patience`.
async fn ask<T>(
    shard: &Handle,
    message: impl FnOnce(oneshot::Sender<T>) -> Message,
    patience: Duration,
) -> Result<T, EngineError> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        shard.mailbox.send(message(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    };
    timeout(patience, asked).await.map_err(|_| EngineError::Unavailable {
        why: "the store does not answer".to_owned(),
        retry_after: retry_after(),
    })?
}
