//! Requests as protocol values: every header and query parameter is parsed here, once, by its type.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use axum::http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use super::header;
use crate::protocol::fork::{ForkRequest, Requested};
use crate::protocol::name::RESERVED_SEGMENT;
use crate::protocol::{
    ContentType, Cursor, Incarnation, Lifetime, Malformed, Offset, Producer, ReadFrom, Retention, StreamName, offset,
    plain_number,
};

/// Streams live below this path.
pub const STREAM_ROOT: &str = "/v1/stream/";

/// Below the stream root: where streams are listed.
const LIST_PATH: &str = "__ds/streams";

/// The longest `Stream-Seq`, in bytes: each stream remembers one.
const MAX_SEQ_BYTES: usize = 256;

/// What a path below the stream root addresses.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Stream(StreamName),
    /// The list of streams, an extension.
    Streams,
    /// The control APIs of §6.
    Reserved,
}

/// From the request's path, which is still percent-encoded: decoding it earlier would hide an encoded slash.
pub fn target(uri: &Uri) -> Result<Target, Malformed> {
    let path = uri.path().strip_prefix(STREAM_ROOT).unwrap_or_default();
    let first = path.split('/').next().unwrap_or_default();
    if percent_decode_str(first).decode_utf8().is_ok_and(|segment| segment == RESERVED_SEGMENT) {
        let is_list = percent_decode_str(path).decode_utf8().is_ok_and(|path| path == LIST_PATH);
        return Ok(if is_list { Target::Streams } else { Target::Reserved });
    }
    StreamName::from_url_path(path).map(Target::Stream)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    No,
    LongPoll,
    Sse,
}

/// How a read names its start: what a cache may do with the answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// No `offset`: caches may share the key with HEAD.
    Absent,
    /// `now`: the answer depends on the moment.
    Now,
    /// `-1`, or a token of any incarnation: a later stream under the same path would be asked with the same URL.
    AnyIncarnation,
    /// A token that belongs to one incarnation.
    Token,
}

/// A GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub from: ReadFrom,
    pub anchor: Anchor,
    pub live: Live,
    pub cursor: Option<Cursor>,
    pub if_none_match: Option<String>,
}

impl Read {
    pub fn parse(uri: &Uri, headers: &HeaderMap) -> Result<Read, Malformed> {
        let [offset, live, cursor] = parameters(uri, ["offset", "live", "cursor"])?;
        let live = match live.as_deref() {
            None => Live::No,
            Some("long-poll") => Live::LongPoll,
            Some("sse") => Live::Sse,
            Some(_) => return Err(Malformed::new("live is neither long-poll nor sse")),
        };
        if live != Live::No && offset.is_none() {
            return Err(Malformed::new("live reads need an offset: -1, now, or a Stream-Next-Offset"));
        }
        let from = offset.as_deref().map_or(Ok(ReadFrom::Start), str::parse)?;
        let anchor = match from {
            _ if offset.is_none() => Anchor::Absent,
            ReadFrom::Now => Anchor::Now,
            ReadFrom::Start => Anchor::AnyIncarnation,
            ReadFrom::At(offset) if offset.incarnation == Incarnation::ANY => Anchor::AnyIncarnation,
            ReadFrom::At(_) => Anchor::Token,
        };
        let cursor = cursor.as_deref().and_then(Cursor::from_client);
        Ok(Read { from, anchor, live, cursor, if_none_match: list(headers, IF_NONE_MATCH.as_str()) })
    }
}

/// The values of some query parameters. Others are ignored; one that is known must not come twice, because caches and servers
/// would disagree which of them counts.
pub(super) fn parameters<const N: usize>(uri: &Uri, known: [&str; N]) -> Result<[Option<String>; N], Malformed> {
    let mut found = [const { None }; N];
    for pair in uri.query().unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded_key = decoded(key)?;
        let Some(at) = known.iter().position(|known| *known == decoded_key) else { continue };
        if found[at].is_some() {
            return Err(Malformed::new(format!("query parameter {key} is given more than once")));
        }
        found[at] = Some(decoded(value)?.into_owned());
    }
    Ok(found)
}

fn decoded(text: &str) -> Result<Cow<'_, str>, Malformed> {
    let malformed = |_| Malformed::new("query is not UTF-8");
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Ok(Cow::Owned(percent_decode_str(&spaced).decode_utf8().map_err(malformed)?.into_owned()));
    }
    percent_decode_str(text).decode_utf8().map_err(malformed)
}

/// The headers of a PUT.
#[derive(Debug, PartialEq, Eq)]
pub struct CreateHeaders {
    pub content_type: ContentType,
    pub lifetime: Lifetime,
    pub closed: bool,
    pub retention: Option<Retention>,
}

impl CreateHeaders {
    pub fn parse(headers: &HeaderMap) -> Result<CreateHeaders, Malformed> {
        Ok(CreateHeaders {
            content_type: content_type(headers)?.unwrap_or_default(),
            lifetime: lifetime(headers)?,
            closed: closed(headers),
            retention: retention(headers)?,
        })
    }
}

fn lifetime(headers: &HeaderMap) -> Result<Lifetime, Malformed> {
    Lifetime::from_headers(single(headers, header::TTL)?, single(headers, header::EXPIRES_AT)?)
}

fn retention(headers: &HeaderMap) -> Result<Option<Retention>, Malformed> {
    Retention::from_headers(single(headers, header::RETENTION_BYTES)?, single(headers, header::RETENTION_AGE)?)
}

impl ForkRequest {
    /// From the headers of a PUT; `None` if it does not ask for a fork (§4.2).
    pub fn parse(headers: &HeaderMap) -> Result<Option<ForkRequest>, Malformed> {
        let source = single(headers, header::FORKED_FROM)?;
        let offset = single(headers, header::FORK_OFFSET)?;
        let sub_offset = single(headers, header::FORK_SUB_OFFSET)?;
        let Some(source) = source else {
            if offset.or(sub_offset).is_some() {
                return Err(Malformed::new("Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From"));
            }
            return Ok(None);
        };
        let requested = Requested {
            offset: offset.map(fork_offset).transpose()?,
            sub_offset: sub_offset.map_or(Ok(0), parse_sub_offset)?,
        };
        if requested.sub_offset > 0 && requested.offset.is_none() {
            return Err(Malformed::new("Stream-Fork-Sub-Offset needs a Stream-Fork-Offset to count from"));
        }
        Ok(Some(ForkRequest {
            source: source_name(source)?,
            requested,
            content_type: content_type(headers)?,
            lifetime: Some(lifetime(headers)?).filter(|lifetime| *lifetime != Lifetime::Forever),
            closed: closed(headers),
            retention: retention(headers)?,
        }))
    }
}

fn source_name(path: &str) -> Result<StreamName, Malformed> {
    let below = path.strip_prefix(STREAM_ROOT);
    let below = below.ok_or_else(|| Malformed::new(format!("Stream-Forked-From is not a path below {STREAM_ROOT}")))?;
    StreamName::from_url_path(below).map_err(|error| Malformed::new(format!("Stream-Forked-From: {}", error.what)))
}

/// `-1` is the start here as well.
fn fork_offset(text: &str) -> Result<Offset, Malformed> {
    match text.parse() {
        Ok(ReadFrom::At(offset)) => Ok(offset),
        Ok(ReadFrom::Start) => Ok(Offset { position: 0, incarnation: Incarnation::ANY }),
        _ => Err(Malformed::new("Stream-Fork-Offset is not an offset of this server")),
    }
}

fn parse_sub_offset(text: &str) -> Result<u64, Malformed> {
    let number = plain_number(text).filter(|number| *number < offset::LIMIT);
    number.ok_or_else(|| Malformed::new("Stream-Fork-Sub-Offset is not a whole number"))
}

/// The headers of a POST, without its content type, which is judged only if there is a body.
#[derive(Debug, PartialEq, Eq)]
pub struct AppendHeaders {
    pub seq: Option<Arc<str>>,
    pub producer: Option<Producer>,
    pub close: bool,
}

impl AppendHeaders {
    pub fn parse(headers: &HeaderMap) -> Result<AppendHeaders, Malformed> {
        let seq = single(headers, header::SEQ)?;
        if seq.is_some_and(|seq| seq.is_empty() || seq.len() > MAX_SEQ_BYTES) {
            return Err(Malformed::new(format!("Stream-Seq is empty or longer than {MAX_SEQ_BYTES} bytes")));
        }
        let producer = Producer::from_headers(
            single(headers, header::PRODUCER_ID)?,
            single(headers, header::PRODUCER_EPOCH)?,
            single(headers, header::PRODUCER_SEQ)?,
        )?;
        Ok(AppendHeaders { seq: seq.map(Arc::from), producer, close: closed(headers) })
    }
}

/// `None` if there is no content type, or an empty one.
pub fn content_type(headers: &HeaderMap) -> Result<Option<ContentType>, Malformed> {
    let text = single(headers, CONTENT_TYPE.as_str())?.filter(|text| !text.trim().is_empty());
    text.map(ContentType::new).transpose()
}

/// Only `true` counts, in any case; everything else is as if the header were absent (§4.1).
fn closed(headers: &HeaderMap) -> bool {
    headers.get(header::CLOSED).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// A header that must not come twice.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Malformed> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed::new(format!("header {name} is given more than once")));
    }
    value.to_str().map(Some).map_err(|_| Malformed::new(format!("header {name} is not plain ASCII")))
}

/// A header that is a list and may be spread over several lines.
fn list(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
