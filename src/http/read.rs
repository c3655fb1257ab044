//! HEAD and GET: a stream's state, a page of it, or its next bytes when they come.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;

use super::caching::{self, Answer};
use super::error::Problem;
use super::request::{Live, Read};
use super::write::{describe, put};
use super::{Api, header, sse};
use crate::clock::Millis;
use crate::engine::{Changes, Page, Source};
use crate::protocol::cursor::hold_boundary;
use crate::protocol::{Cursor, Offset, ReadFrom, Stream, StreamName};

/// HEAD: the stream's present state. Does not count as a use.
pub async fn head(api: &Api, name: &StreamName) -> Result<Response<Body>, Problem> {
    let stream = api.engine.stat(name).await?;
    // A body of unknown length: a Content-Length would be taken for that of a GET.
    let mut response = Response::new(Body::from_stream(futures::stream::empty::<Result<Bytes, std::io::Error>>()));
    let headers = response.headers_mut();
    describe(headers, &stream.content_type, stream.lifetime);
    put(headers, header::NEXT_OFFSET, &stream.tail_offset().to_string());
    describe_retention(headers, &stream);
    put(headers, CACHE_CONTROL.as_str(), caching::NO_STORE);
    if stream.closed.is_some() {
        put(headers, header::CLOSED, "true");
    }
    Ok(response)
}

/// What is kept of a stream, if not all.
fn describe_retention(headers: &mut HeaderMap, stream: &Stream) {
    if let Some(bytes) = stream.retention.bytes {
        put(headers, header::RETENTION_BYTES, &bytes.to_string());
    }
    if let Some(seconds) = stream.retention.age_seconds {
        put(headers, header::RETENTION_AGE, &seconds.to_string());
    }
    if stream.horizon > 0 {
        put(headers, header::EARLIEST_OFFSET, &stream.offset_at(stream.horizon).to_string());
    }
}

/// GET, in its three modes.
pub async fn get(api: &Arc<Api>, name: StreamName, read: Read) -> Result<Response<Body>, Problem> {
    match read.live {
        Live::No => catch_up(api, &name, &read).await,
        Live::LongPoll => long_poll(api, &name, &read).await,
        Live::Sse => sse::respond(api, name, &read).await,
    }
}

async fn catch_up(api: &Api, name: &StreamName, read: &Read) -> Result<Response<Body>, Problem> {
    let page = api.engine.locate(name, read.from).await?;
    respond(api, name, read, &page, Answer::CatchUp).await
}

/// Waits until there are bytes after the offset. The subscription is older than the look at the stream, so nothing
/// falls between the two.
async fn long_poll(api: &Api, name: &StreamName, read: &Read) -> Result<Response<Body>, Problem> {
    let _place = api.live.enter()?;
    let (mut page, mut changes) = api.engine.follow(name, read.from, true).await?;
    let boundary = hold_boundary(name.stable_hash(), api.settings.long_poll_hold, api.engine.now());
    let end = tokio::time::Instant::now() + Duration::from_millis(boundary.saturating_sub(api.engine.now()));
    loop {
        if !page.is_empty() {
            return respond(api, name, read, &page, Answer::LivePage).await;
        }
        if page.is_final() {
            return Ok(no_content(api, read, &page, Answer::LiveEnd, None));
        }
        if !changed(api, &mut changes, end).await {
            // The offset is that of the page that was looked at, never a newer tail: its bytes were not delivered.
            return Ok(no_content(api, read, &page, Answer::LiveTimeout, Some(boundary)));
        }
        (page, changes) = api.engine.follow(name, ReadFrom::At(next_offset(&page)), false).await?;
    }
}

/// Whether something changed before the hold ended and before the server was told to stop.
async fn changed(api: &Api, changes: &mut Changes, end: tokio::time::Instant) -> bool {
    tokio::select! {
        biased;
        () = api.stopping.cancelled() => false,
        () = changes.next() => true,
        () = tokio::time::sleep_until(end) => false,
    }
}

/// A page with all that is said of it; 304 if the client has it.
async fn respond(
    api: &Api,
    name: &StreamName,
    read: &Read,
    page: &Page,
    answer: Answer,
) -> Result<Response<Body>, Problem> {
    let etag = caching::etag(read.anchor, page);
    let known = etag.as_deref().is_some_and(|etag| caching::matches(read.if_none_match.as_deref(), etag));
    let mut response = if known {
        status(StatusCode::NOT_MODIFIED)
    } else {
        let (bytes, source) = bytes_of(api, name, page).await?;
        let mut response = Response::new(Body::from(bytes));
        put(response.headers_mut(), "server-timing", timing(source));
        response
    };
    put(response.headers_mut(), CONTENT_TYPE.as_str(), page.stream.content_type.as_str());
    if let Some(etag) = etag {
        put(response.headers_mut(), ETAG.as_str(), &etag);
    }
    let cursor = page.reaches_tail() || answer == Answer::LivePage;
    put_page(&mut response, api, read, page, answer, cursor.then_some(page.ends_at));
    Ok(response)
}

fn no_content(api: &Api, read: &Read, page: &Page, answer: Answer, reached: Option<Millis>) -> Response<Body> {
    let mut response = status(StatusCode::NO_CONTENT);
    put_page(&mut response, api, read, page, answer, reached);
    response
}

/// The headers that every answer to a read has. `reached` is the moment that the cursor stands for.
fn put_page(
    response: &mut Response<Body>,
    api: &Api,
    read: &Read,
    page: &Page,
    answer: Answer,
    reached: Option<Millis>,
) {
    let headers = response.headers_mut();
    let control = caching::cache_control(&api.settings, read.anchor, answer, page, api.engine.now());
    put(headers, CACHE_CONTROL.as_str(), &control);
    put(headers, header::NEXT_OFFSET, &next_offset(page).to_string());
    if page.reaches_tail() {
        put(headers, header::UP_TO_DATE, "true");
    }
    if page.is_final() {
        put(headers, header::CLOSED, "true");
    } else if let Some(reached) = reached {
        put(headers, header::CURSOR, &Cursor::at(reached, read.cursor).to_string());
    }
}

/// Where the reader goes on after the page.
pub fn next_offset(page: &Page) -> Offset {
    page.stream.offset_at(page.end)
}

/// The page's bytes; an empty page needs no look at the store.
async fn bytes_of(api: &Api, name: &StreamName, page: &Page) -> Result<(Bytes, Source), Problem> {
    if page.is_empty() {
        let nothing: &[u8] = if page.stream.content_type.is_json() { b"[]" } else { b"" };
        return Ok((Bytes::from_static(nothing), Source::Memory));
    }
    Ok(api.engine.fetch(name, page).await?)
}

fn timing(source: Source) -> &'static str {
    match source {
        Source::Memory => "page;desc=memory",
        Source::Store => "page;desc=store",
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
