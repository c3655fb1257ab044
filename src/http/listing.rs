//! `GET /v1/stream/__ds/streams`: which streams there are, a page at a time. An extension of the protocol.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Response, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::error::Problem;
use super::request::{STREAM_ROOT, parameters};
use super::write::put;
use super::{Api, caching};
use crate::engine::{Place, Streams};
use crate::protocol::lifetime::format_moment;
use crate::protocol::{Lifetime, Malformed, Stream, StreamName, plain_number};

pub const METHODS: &str = "GET, OPTIONS";

/// The most streams on a page.
pub const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;

/// What may be in a path as it is, with the slashes of names.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// One stream of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item<'a> {
    name: &'a str,
    path: String,
    content_type: &'a str,
    next_offset: String,
    closed: bool,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forked_from: Option<&'a str>,
    /// Where it branches off.
    #[serde(skip_serializing_if = "Option::is_none")]
    fork_offset: Option<String>,
}

impl<'a> Item<'a> {
    pub fn of(name: &'a StreamName, stream: &'a Stream) -> Item<'a> {
        let (ttl_seconds, expires_at) = match stream.lifetime {
            Lifetime::Forever => (None, None),
            Lifetime::Ttl(seconds) => (Some(seconds), None),
            Lifetime::Until(moment) => (None, Some(format_moment(moment))),
        };
        let origin = stream.origin.as_deref();
        Item {
            name: name.as_str(),
            path: format!("{STREAM_ROOT}{}", utf8_percent_encode(name.as_str(), IN_PATH)),
            content_type: stream.content_type.as_str(),
            next_offset: stream.tail_offset().to_string(),
            closed: stream.closed.is_some(),
            created_at: format_moment(stream.created_at),
            ttl_seconds,
            expires_at,
            forked_from: origin.map(|origin| origin.source.name.as_str()),
            fork_offset: origin.map(|origin| stream.offset_at(origin.position()).to_string()),
        }
    }
}

/// A page of the list.
#[derive(Serialize)]
struct Page<'a> {
    streams: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub async fn get(api: &Api, uri: &Uri) -> Result<Response<Body>, Problem> {
    let [prefix, after, limit] = parameters(uri, ["prefix", "after", "limit"])?;
    let after = after.map(|token| token.parse::<Place>()).transpose()?;
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), |text| parse_limit(&text))?;
    let Streams { found, next } = api.engine.list(&prefix.unwrap_or_default(), after, limit).await?;
    let streams = found.iter().map(|(name, stream)| Item::of(name, stream)).collect();
    let page = Page { streams, next: next.map(|place| place.to_string()) };
    let mut response = Response::new(Body::from(serde_json::to_vec(&page).map_err(|_| Problem::internal())?));
    put(response.headers_mut(), CONTENT_TYPE.as_str(), "application/json");
    put(response.headers_mut(), CACHE_CONTROL.as_str(), caching::NO_STORE);
    Ok(response)
}

fn parse_limit(text: &str) -> Result<usize, Malformed> {
    let number = plain_number(text).and_then(|number| usize::try_from(number).ok());
    let in_range = number.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    in_range.ok_or_else(|| Malformed::new(format!("limit is not a number from 1 to {MAX_LIMIT}")))
}
