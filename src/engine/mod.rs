//! The engine: keeps the histories of all streams, in a bucket.
//!
//! | module | what it does |
//! |---|---|
//! | [`submit`], [`access`] | how requests reach the shards, and what is known without asking them |
//! | [`shard`] | one task per shard: takes in messages and events, loads and reloads |
//! | [`handle`] | what passes between that task and those who use it |
//! | [`stage`] | group commit: judges writes, forms entries, answers when they are committed |
//! | [`pace`] | how often an entry may be written: what it costs against how long it takes |
//! | [`log`] | the shard log: put-if-absent, chain rule, ambiguity, freshness |
//! | [`state`] | committed state: one fold for own, foreign and replayed entries |
//! | [`load`] | cold load from the checkpoint and the entries since; manifests |
//! | [`tail`] | recent entries and served pages in memory |
//! | [`shared`] | buffers that many are sent, counted for as long as anybody holds one |
//! | [`single_flight`] | what many want at the same time is fetched once |
//! | [`read`] | manifest and offset to the bytes of a page |
//! | [`follow`] | who waits for a stream to change |
//! | [`upkeep`] | when to seal, when to write a checkpoint |
//! | [`seal`], [`checkpoint`], [`cas`] | how |
//! | [`retention`] | which bytes of a stream are not kept any more |
//! | [`fork`] | a new stream that names the chunks of another one |
//! | [`collect`], [`walk`] | finding and removing garbage |
//! | [`listing`] | which streams there are |
//! | [`check`] | verifying a whole bucket |
//! | [`admission`] | how many bytes of bodies and responses may be in memory |

mod access;
mod admission;
mod cas;
mod check;
mod checkpoint;
mod collect;
mod context;
mod error;
mod follow;
mod fork;
#[cfg(test)]
mod gap_tests;
mod handle;
mod listing;
mod load;
mod log;
mod open;
mod pace;
mod peers;
mod read;
mod retention;
mod seal;
mod shard;
mod shared;
mod single_flight;
mod stage;
mod state;
mod submit;
mod tail;
#[cfg(test)]
mod testing;
mod upkeep;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

pub use self::admission::{Admission, Gate};
pub use self::check::{Checked, Finding, Severity, check};
pub use self::collect::{Collected, Garbage};
use self::context::Context;
pub use self::error::EngineError;
use self::error::{damaged_cluster, no_answer, retry_after, stopping};
pub use self::follow::Changes;
use self::handle::{Handle, Message};
pub use self::listing::{Place, Streams};
pub use self::peers::{LogPart, Peers, ShardState};
use self::read::Owner;
pub use self::shared::Shared;
use self::submit::{Refusal, needs_outcome};
use self::tail::Missing;
use crate::clock::Millis;
use crate::layout::key;
use crate::protocol::offset;
use crate::protocol::stream::{Append, Command, Create, Outcome};
use crate::protocol::{Incarnation, ReadFrom, Rejection, Stream, StreamName};

/// How often a manifest is read again for bytes that are not where it says, before that counts as damage.
const REFRESHES: u32 = 3;

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

/// The shard that a stream belongs to, of so many.
fn shard_of(name: &StreamName, shards: u32) -> u32 {
    (name.stable_hash() % u64::from(shards)) as u32
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
        let outcome = self.submit(name, Command::Create(create), uploaded, Some(admission)).await;
        self.discard_if_unused(name, uploaded, &outcome);
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
            let mut uploaded = None;
            if attempt.body.data.len() > self.0.context.settings.direct_bytes {
                let incarnation = self.stat(name).await?.incarnation;
                uploaded = self.upload_if_large(name, incarnation, &mut attempt.body).await?;
            }
            let outcome = self.submit(name, Command::Append(attempt), uploaded, admission.take()).await;
            self.discard_if_unused(name, uploaded, &outcome);
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
        self.look(name, |committed| self.alive(committed), |_| true).await
    }

    /// Finds the page that starts at `from`. Counts as a use of the stream (it renews a TTL).
    pub async fn locate(&self, name: &StreamName, from: ReadFrom) -> Result<Page, EngineError> {
        let page = self.find_page(name, from, true).await?;
        self.touch(name, &page.stream);
        Ok(page)
    }

    /// Like [`locate`](Engine::locate), with a subscription that was made before the state was looked at, so that no
    /// change is missed between the two. Counts as a use only if `touch`.
    pub async fn follow(&self, name: &StreamName, from: ReadFrom, touch: bool) -> Result<(Page, Changes), EngineError> {
        let changes = self.shard(name).1.view.followers.subscribe(name);
        // Who waited was told of the change when this replica knew of it.
        let page = self.find_page(name, from, touch).await?;
        if touch {
            self.touch(name, &page.stream);
        }
        Ok((page, changes))
    }

    /// The page's bytes as the protocol serves them (JSON mode: an array). Shared by all who ask for the same page.
    pub async fn fetch(&self, name: &StreamName, page: &Page) -> Result<(Bytes, Source), EngineError> {
        let (number, _) = self.shard(name);
        let owner = Owner {
            shard: number,
            name,
            incarnation: page.stream.incarnation,
            is_json: page.stream.content_type.is_json(),
        };
        let range = page.start..page.end;
        let mut cell = self.cell(name, false).await?;
        let mut refreshed = 0;
        loop {
            let parts = {
                let committed = cell.lock();
                let current = committed.stream.as_ref().ok_or(Rejection::NotFound)?;
                if current.incarnation != owner.incarnation {
                    return Err(Rejection::Replaced { current: current.incarnation }.into());
                }
                if page.start < current.horizon {
                    return Err(Rejection::Trimmed { earliest: current.offset_at(current.horizon) }.into());
                }
                read::parts(&committed, &range)
            };
            let missing = match parts {
                Some(parts) => match read::fetch(&self.0.context, owner, range.clone(), parts).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(Missing::Failed(error)) => return Err(error),
                    Err(Missing::Object { key }) => (key, "it is missing".to_owned()),
                },
                None => (key::manifest(name), format!("no chunk has all bytes {}..{}", range.start, range.end)),
            };
            if refreshed == REFRESHES {
                let (key, what) = missing;
                return Err(EngineError::Damaged { key, what });
            }
            // Another replica may have moved the bytes; its manifest says where they are now. Not always the first that
            // is read: that may have been asked for by someone else a moment before.
            refreshed += 1;
            cell = self.refresh(name).await?;
        }
    }

    /// Whether the store answers (readiness).
    pub async fn ready(&self) -> Result<(), EngineError> {
        if self.0.is_draining.load(Ordering::Acquire) {
            return Err(stopping());
        }
        if self.0.shards.iter().any(|shard| shard.mailbox.is_closed()) {
            let why = "a shard has failed; this process must be started anew".to_owned();
            return Err(EngineError::Unavailable { why, retry_after: retry_after() });
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
        let number = shard_of(name, self.0.context.shards);
        (number, &self.0.shards[number as usize])
    }

    fn patience(&self) -> Duration {
        self.0.context.settings.append_timeout
    }

    fn touch(&self, name: &StreamName, stream: &Stream) {
        if stream.lifetime.needs_renewal(stream.touched_at, self.now()) {
            self.submit_quietly(name, Command::Touch);
        }
    }
}
