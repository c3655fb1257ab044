//! What passes between a shard's task and those who use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::EngineError;
use super::admission::Admission;
use super::follow::Followers;
use super::state::{Base, Cell, Cells};
use crate::protocol::stream::{Command, Outcome};
use crate::protocol::{Incarnation, StreamName};
use crate::store::StoreTime;

/// What a write came to.
#[derive(Debug)]
pub(super) enum Answer {
    Done(Option<Outcome>),
    /// The body was uploaded for another incarnation of the stream.
    OtherIncarnation,
    No(EngineError),
}

/// A body that was written to the store ahead of the entry that will name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uploaded {
    /// The stream it was uploaded for.
    pub incarnation: Incarnation,
    pub nonce: u128,
    /// It was not written before this time. An old one may have been collected as garbage.
    pub at: StoreTime,
}

/// A command on its way through the shard.
#[derive(Debug)]
pub(super) struct Write {
    pub name: StreamName,
    pub command: Command,
    pub uploaded: Option<Uploaded>,
    pub ticket: Arc<Ticket>,
    pub reply: Option<oneshot::Sender<Answer>>,
    /// It has left a gap after its producer's last append: until then, what is missing may come.
    pub gap_until: Option<Instant>,
    #[expect(dead_code, reason = "it is held for as long as the body is in memory, and given back on drop")]
    pub admission: Option<Admission>,
}

impl Write {
    /// A command whose outcome nobody waits for.
    pub fn by_nobody(name: StreamName, command: Command) -> Write {
        Write { name, command, uploaded: None, ticket: Arc::default(), reply: None, gap_until: None, admission: None }
    }

    pub fn answer(self, answer: Answer) {
        if let Some(reply) = self.reply {
            // Nobody waits any more: the client is gone, and that changes nothing.
            let _ = reply.send(answer);
        }
    }
}

/// Says whether a write may still be withdrawn.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    const WAITING: u8 = 0;
    const STAGED: u8 = 1;
    const WITHDRAWN: u8 = 2;

    /// From now on the write may become durable. False if it was withdrawn.
    pub fn stage(&self) -> bool {
        self.0.fetch_max(Self::STAGED, Ordering::AcqRel) != Self::WITHDRAWN
    }

    /// True if the write was not staged, and now never will be.
    pub fn withdraw(&self) -> bool {
        let swapped = self.0.compare_exchange(Self::WAITING, Self::WITHDRAWN, Ordering::AcqRel, Ordering::Acquire);
        swapped.is_ok()
    }
}

#[expect(clippy::large_enum_variant, reason = "most messages are writes")]
#[derive(Debug)]
pub(super) enum Message {
    Write(Write),
    /// Find the stream's cell, reading its manifest if need be.
    Find {
        name: StreamName,
        manifest: bool,
        reply: oneshot::Sender<Result<Arc<Cell>, EngineError>>,
    },
    /// Read the stream's manifest again: an object that it named is gone.
    Refresh {
        name: StreamName,
        reply: oneshot::Sender<Result<Arc<Cell>, EngineError>>,
    },
    /// Make sure that the head was known at `since` or later. Dropped unanswered if the store does not answer.
    Confirm {
        since: Instant,
        witness: Witness,
        reply: oneshot::Sender<()>,
    },
    /// Place an entry, an empty one if need be, and answer with a moment before which it was not formed. Dropped unanswered
    /// if the shard is loaded anew meanwhile.
    Fence(oneshot::Sender<StoreTime>),
    /// Write the stream's manifest anew, so that no earlier attempt to replace it can succeed any more. Dropped unanswered
    /// if that can't be done now.
    Reseal {
        name: StreamName,
        reply: oneshot::Sender<Base>,
    },
    /// Answer when nothing is under way any more.
    Drain(oneshot::Sender<()>),
}

impl Message {
    /// Answers that the shard can't be used.
    pub fn refuse(self, error: &EngineError) {
        match self {
            Message::Write(write) => write.answer(Answer::No(error.clone())),
            Message::Find { reply, .. } | Message::Refresh { reply, .. } => {
                let _ = reply.send(Err(error.clone()));
            }
            Message::Confirm { .. } | Message::Fence(_) | Message::Reseal { .. } => {}
            Message::Drain(reply) => {
                let _ = reply.send(());
            }
        }
    }
}

/// Whose word is enough for where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// The home's, if another replica is that: it may not know yet what was written past it. For what is served.
    Home,
    /// The store's: for what is refused, and for what is written.
    Store,
}

/// What the task shares with readers.
#[derive(Debug)]
pub(super) struct View {
    pub cells: Cells,
    pub followers: Arc<Followers>,
    /// When the head was last known. Those who follow the log from elsewhere wait for it to change.
    pub confirmed: watch::Sender<Option<Confirmed>>,
    /// The store did not answer the last time it was asked for the head.
    pub is_cut_off: AtomicBool,
}

/// That the log ended somewhere at a moment, and before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmed {
    /// By this machine's monotonic clock.
    pub at: Instant,
    /// By the store's.
    pub known_at: StoreTime,
    pub head: u64,
}

impl View {
    pub fn new(idle_bytes: u64) -> View {
        View {
            cells: Cells::new(idle_bytes),
            followers: Arc::default(),
            confirmed: watch::Sender::new(None),
            is_cut_off: AtomicBool::new(false),
        }
    }

    /// Whether the head was known at `since` or later, and positions below can't have been deleted meanwhile.
    pub fn is_confirmed(&self, since: Instant, now: StoreTime, grace: Duration) -> bool {
        let confirmed = *self.confirmed.borrow();
        confirmed.is_some_and(|Confirmed { at, known_at, .. }| at >= since && now.since(known_at) <= grace / 2)
    }

    /// Whether what is known here may be served at all.
    pub fn is_trusted(&self, now: StoreTime, grace: Duration) -> bool {
        let confirmed = *self.confirmed.borrow();
        confirmed.is_some_and(|confirmed| now.since(confirmed.known_at) <= grace / 2)
    }

    /// The head, when it was last known.
    pub fn head(&self) -> u64 {
        let confirmed = *self.confirmed.borrow();
        confirmed.map_or(0, |confirmed| confirmed.head)
    }
}

/// How others reach the task.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub mailbox: mpsc::Sender<Message>,
    pub view: Arc<View>,
}
