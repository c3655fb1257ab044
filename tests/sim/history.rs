//! What clients asked and heard, and when.

use std::sync::Arc;

use headwater::engine::{EngineError, Page};
use headwater::protocol::fork::ForkRequest;
use headwater::protocol::producer::Producer;
use headwater::protocol::stream::Outcome;
use headwater::protocol::{Incarnation, Lifetime, Offset, ReadFrom, Rejection, Retention, StreamName};

use crate::machine::Life;
use crate::timeline::Moment;

/// One request to one replica. Messages name their sender and number, so each names one intention: a producer's request
/// that is repeated has the same message again, and no other has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub client: Arc<str>,
    pub stream: StreamName,
    pub life: Life,
    pub invoked: Moment,
    /// Later than everything if the client heard nothing.
    pub replied: Moment,
    pub request: Request,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Create { incarnation: Incarnation, lifetime: Lifetime, closed: bool, message: String, retention: Option<Retention> },
    Fork { request: ForkRequest, message: String },
    Append { message: String, producer: Option<Producer>, seq: Option<Arc<str>>, close: bool },
    Delete,
    Stat,
    Read { from: ReadFrom },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Done(Outcome),
    Deleted,
    Stat(View),
    /// The bytes of `start..end`.
    Page {
        view: View,
        start: u64,
        end: u64,
        /// Where to read on.
        next: Offset,
        bytes: String,
    },
    Rejected(Rejection),
    /// Nothing was done, and never will be.
    NotDone,
    /// It may have been done, or may still be.
    Open,
    Damaged(String),
}

/// A stream as a reader is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub incarnation: u64,
    pub tail: u64,
    pub closed: bool,
    /// Where it starts.
    pub horizon: u64,
}

impl From<&headwater::protocol::Stream> for View {
    fn from(stream: &headwater::protocol::Stream) -> View {
        let (tail, closed, horizon) = (stream.tail, stream.closed.is_some(), stream.horizon);
        View { incarnation: stream.incarnation.get(), tail, closed, horizon }
    }
}

impl Answer {
    pub fn page(page: &Page, bytes: &[u8]) -> Answer {
        let bytes = String::from_utf8_lossy(bytes).into_owned();
        let next = page.stream.offset_at(page.end);
        Answer::Page { view: View::from(&*page.stream), start: page.start, end: page.end, next, bytes }
    }
}

impl From<EngineError> for Answer {
    fn from(error: EngineError) -> Answer {
        match error {
            EngineError::Rejected(rejection) => Answer::Rejected(rejection),
            EngineError::Overloaded { .. } | EngineError::Unavailable { .. } => Answer::NotDone,
            EngineError::Unconfirmed { .. } => Answer::Open,
            EngineError::Damaged { key, what } => Answer::Damaged(format!("{key}: {what}")),
        }
    }
}
