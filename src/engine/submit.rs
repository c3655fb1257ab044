//! Handing commands to the shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::admission::Admission;
use super::error::{no_answer, retry_after, stopping};
use super::handle::{Answer, Message, Ticket, Uploaded, Write};
use super::{Engine, EngineError, seal};
use crate::protocol::stream::{Body, Command, Data, Outcome};
use crate::protocol::{Incarnation, StreamName};

/// Why a command was not done.
#[derive(Debug)]
pub(super) enum Refusal {
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

/// Whether nothing came of a command, nor will. An outcome that is open may be committed all the same, and an entry that
/// contradicts a damaged object is at its position, too.
pub(super) fn came_to_nothing(outcome: &Result<Option<Outcome>, Refusal>) -> bool {
    match outcome {
        Ok(outcome) => !outcome.as_ref().is_some_and(|outcome| outcome.fresh),
        Err(Refusal::Error(EngineError::Unconfirmed { .. } | EngineError::Damaged { .. })) => false,
        Err(_) => true,
    }
}

pub(super) fn needs_outcome(outcome: Option<Outcome>) -> Result<Outcome, EngineError> {
    outcome.ok_or(EngineError::Unconfirmed { retry_after: retry_after() })
}

impl Engine {
    /// Hands a command to its shard and waits for what it comes to.
    pub(super) async fn submit(
        &self,
        name: &StreamName,
        command: Command,
        uploaded: Option<Uploaded>,
        admission: Option<Admission>,
    ) -> Result<Option<Outcome>, Refusal> {
        if self.0.is_draining.load(Ordering::Acquire) {
            return Err(stopping().into());
        }
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let write = Write {
            admission,
            reply: Some(reply),
            uploaded,
            ticket: Arc::clone(&ticket),
            ..Write::by_nobody(name.clone(), command)
        };
        let (_, shard) = self.shard(name);
        let wait = async {
            shard.mailbox.send(Message::Write(write)).await.map_err(|_| stopping())?;
            // Dropped unanswered: the shard has ended, and if the write was staged, it may be committed.
            let unanswered = || match ticket.withdraw() {
                true => stopping(),
                false => EngineError::Unconfirmed { retry_after: retry_after() },
            };
            answer.await.map_err(|_| unanswered())
        };
        match timeout(self.patience(), wait).await {
            Ok(Ok(Answer::Done(outcome))) => Ok(outcome),
            Ok(Ok(Answer::No(error)) | Err(error)) => Err(error.into()),
            Ok(Ok(Answer::OtherIncarnation)) => Err(Refusal::OtherIncarnation),
            Err(_) if ticket.withdraw() => Err(no_answer().into()),
            Err(_) => Err(EngineError::Unconfirmed { retry_after: retry_after() }.into()),
        }
    }

    /// For commands whose outcome nobody waits for.
    pub(super) fn submit_quietly(&self, name: &StreamName, command: Command) {
        let (_, shard) = self.shard(name);
        let write = Write::by_nobody(name.clone(), command);
        // A full mailbox means that the shard is behind; the next use will do.
        let _ = shard.mailbox.try_send(Message::Write(write));
    }

    /// Uploads a large body as a chunk of its own, so that its bytes are written once.
    pub(super) async fn upload_if_large(
        &self,
        name: &StreamName,
        incarnation: Incarnation,
        body: &mut Body,
    ) -> Result<Option<Uploaded>, EngineError> {
        let context = &self.0.context;
        let Data::Inline(bytes) = &body.data else { return Ok(None) };
        if bytes.len() as u64 <= context.settings.direct_bytes {
            return Ok(None);
        }
        let len = bytes.len() as u64;
        let upload = seal::upload(context, name, incarnation, std::slice::from_ref(bytes), &body.ends);
        let uploaded = timeout(self.patience(), upload).await.map_err(|_| no_answer())??;
        body.data = Data::Chunk { nonce: uploaded.nonce, len };
        Ok(Some(uploaded))
    }

    /// Removes an uploaded body that no entry names, or will name.
    pub(super) fn discard_if_unused(
        &self,
        name: &StreamName,
        uploaded: Option<Uploaded>,
        outcome: &Result<Option<Outcome>, Refusal>,
    ) {
        let Some(Uploaded { incarnation, nonce, .. }) = uploaded else { return };
        if !came_to_nothing(outcome) {
            return;
        }
        let (context, name) = (Arc::clone(&self.0.context), name.clone());
        tokio::spawn(async move { seal::delete_chunks(&context, &name, &[(incarnation.get(), nonce)]).await });
    }
}
