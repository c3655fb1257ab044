//! The live read as server-sent events (§5.8).
//!
//! A response pulls: it asks for the next page when its client has taken the last one, so there is no queue per
//! client. What is encoded is shared by all who are sent the same page.

mod frame;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use bytes::Bytes;
use tokio::time::Instant;

use self::frame::{Control, Encoding};
use super::error::Problem;
use super::live::Place;
use super::read::next_offset;
use super::request::Read;
use super::write::put;
use super::{Api, caching, header};
use crate::engine::{Changes, EngineError, Page, Shared};
use crate::protocol::{Cursor, ReadFrom, StreamName};

/// Encoded data events by what they hold, bounded in bytes. Any number of subscribers cost one encoding.
pub struct Frames(Shared<FrameKey, EngineError>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct FrameKey {
    name: StreamName,
    incarnation: u64,
    start: u64,
    end: u64,
    encoding: Encoding,
}

impl Frames {
    pub fn new(capacity: u64) -> Frames {
        Frames(Shared::new(capacity, |key: &FrameKey| key.name.as_str().len() + 128))
    }

    async fn get(&self, api: &Api, name: &StreamName, page: &Page) -> Result<Bytes, EngineError> {
        let encoding = Encoding::of(&page.stream.content_type);
        let incarnation = page.stream.incarnation.get();
        let key = FrameKey { name: name.clone(), incarnation, start: page.start, end: page.end, encoding };
        let (engine, name, page) = (api.engine.clone(), name.clone(), page.clone());
        let (len, encode) = (page.end - page.start, async move {
            let (bytes, _) = engine.fetch(&name, &page).await?;
            Ok(frame::data(&bytes, encoding))
        });
        self.0.get(key, len, encode).await
    }
}

/// Answers with the stream's events from the offset on. Errors before the first event have a status of their own.
pub async fn respond(api: &Arc<Api>, name: StreamName, read: &Read) -> Result<Response<Body>, Problem> {
    let place = api.live.enter()?;
    let (page, changes) = api.engine.follow(&name, read.from, true).await?;
    let encoding = Encoding::of(&page.stream.content_type);
    // The first event before the head, so that one that cannot be had has a status of its own.
    let first = if page.is_empty() { None } else { Some(api.frames.get(api, &name, &page).await) };
    let first = first.transpose()?;
    let cursor = read.cursor;
    let subscriber = Subscriber { api: Arc::clone(api), name, cursor, page, changes, first, _place: place };
    let mut response = Response::new(Body::from_stream(subscriber.events()));
    let headers = response.headers_mut();
    put(headers, CONTENT_TYPE.as_str(), "text/event-stream");
    put(headers, CACHE_CONTROL.as_str(), caching::EVENT_STREAM);
    put(headers, "x-accel-buffering", "no");
    if encoding == Encoding::Base64 {
        put(headers, header::SSE_ENCODING, "base64");
    }
    Ok(response)
}

struct Subscriber {
    api: Arc<Api>,
    name: StreamName,
    /// The client's, which ours must exceed.
    cursor: Option<Cursor>,
    page: Page,
    changes: Changes,
    /// The page's data event, if it is there already.
    first: Option<Bytes>,
    _place: Place,
}

/// Why a subscriber that has all data goes on.
enum Wake {
    Changed,
    Silent,
    /// The response has lasted long enough, or the server stops.
    End,
}

impl Subscriber {
    /// Each data event is followed by a control event; data comes before the control event that says "closed". If the
    /// stream is deleted, the response ends, and the client learns why when it comes back. If the server fails, the
    /// response is broken off, so that nothing in between takes it for whole.
    fn events(mut self) -> impl futures::Stream<Item = Result<Bytes, EngineError>> {
        let end = Instant::now() + self.life();
        async_stream::try_stream! {
            let mut first = true;
            let mut spoke = Instant::now();
            loop {
                let has_data = !self.page.is_empty();
                if has_data {
                    match self.data().await {
                        Ok(frame) => yield frame,
                        Err(error) => return self.broke(error)?,
                    }
                }
                if has_data || first || self.page.is_final() {
                    yield self.control();
                    spoke = Instant::now();
                }
                first = false;
                if self.page.is_final() {
                    return;
                }
                while self.page.reaches_tail() {
                    match self.wait(end, spoke).await {
                        Wake::Changed => break,
                        Wake::Silent => {
                            yield Bytes::from_static(frame::KEEP_ALIVE);
                            spoke = Instant::now();
                        }
                        Wake::End => {
                            yield self.control();
                            return;
                        }
                    }
                }
                if Instant::now() >= end || self.api.stopping.is_cancelled() {
                    return;
                }
                if let Err(error) = self.advance().await {
                    return self.broke(error)?;
                }
            }
        }
    }

    /// Give or take a tenth, so that subscribers who came together do not come back together.
    fn life(&self) -> Duration {
        let life = u64::try_from(self.api.settings.sse_life.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.api.ids.between(life - life / 10, life.saturating_add(life / 10)))
    }

    async fn data(&mut self) -> Result<Bytes, EngineError> {
        match self.first.take() {
            Some(frame) => Ok(frame),
            None => self.api.frames.get(&self.api, &self.name, &self.page).await,
        }
    }

    fn control(&self) -> Bytes {
        let cursor = (!self.page.is_final()).then(|| Cursor::at(self.page.ends_at, self.cursor));
        let (up_to_date, closed) = (self.page.reaches_tail(), self.page.is_final());
        frame::control(&Control { next: next_offset(&self.page), cursor, up_to_date, closed })
    }

    /// Changes that bring no event (a renewed TTL) do not count as speaking.
    async fn wait(&mut self, end: Instant, spoke: Instant) -> Wake {
        let silence = spoke + self.api.settings.sse_keep_alive;
        tokio::select! {
            biased;
            () = self.api.stopping.cancelled() => Wake::End,
            () = self.changes.next() => Wake::Changed,
            () = tokio::time::sleep_until(end.min(silence)) => if end <= silence { Wake::End } else { Wake::Silent },
        }
    }

    async fn advance(&mut self) -> Result<(), EngineError> {
        let from = ReadFrom::At(next_offset(&self.page));
        (self.page, self.changes) = self.api.engine.follow(&self.name, from, false).await?;
        Ok(())
    }

    /// A stream that is gone ends the response; anything else is the server's failure.
    fn broke(&self, error: EngineError) -> Result<(), EngineError> {
        if let EngineError::Rejected(rejection) = error {
            tracing::debug!(stream = %self.name, %rejection, "subscription ends");
            return Ok(());
        }
        tracing::warn!(stream = %self.name, %error, "subscription broken off");
        Err(error)
    }
}
