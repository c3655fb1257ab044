//! What replicas ask of each other: requests passed on to a shard's home, and the home's log.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, HOST, HeaderName};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use axum::response::IntoResponse;
use http_body_util::BodyExt;

use super::Api;
use super::error::Problem;
use super::write::put;
use crate::cluster::{Cluster, TOKEN_HEADER, Unsent, encode_log};
use crate::engine::{EngineError, Peers};
use crate::protocol::StreamName;

/// Beside those of the protocol.
const NEEDED: [&str; 4] = ["content-length", "content-type", "host", "x-forwarded-proto"];
/// The most that the headers passed on may take, as HTTP/2 counts them; half of what a server takes.
const LARGEST_HEAD: usize = 16 << 10;
const HEADER_OVERHEAD: usize = 32;
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest that a replica is let wait for what comes next.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What came of passing a request on.
pub enum Passed {
    Answered(Response<Body>),
    /// It is for this replica to answer.
    Back(Request<Body>),
}

/// Passes a write on to the home of the stream's shard, if that is another replica and can be reached.
pub async fn pass_on(api: &Api, name: &StreamName, request: Request<Body>) -> Result<Passed, Problem> {
    let Some(cluster) = &api.cluster else { return Ok(Passed::Back(request)) };
    if is_from_a_replica(cluster, request.headers())? || !is_write(request.method()) {
        return Ok(Passed::Back(request));
    }
    let Some(home) = cluster.other_home(api.engine.shard_of(name)) else { return Ok(Passed::Back(request)) };
    let Some(headers) = to_pass_on(request.headers(), request.uri()) else { return Ok(Passed::Back(request)) };
    let (mut parts, body) = request.into_parts();
    let own_headers = std::mem::replace(&mut parts.headers, headers);
    let (own_uri, own_version) = (parts.uri.clone(), std::mem::replace(&mut parts.version, Version::HTTP_11));
    // For whom it is, is in the Host header.
    parts.uri = parts.uri.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
    let request = Request::from_parts(parts, body.map_err(Into::into).boxed_unsync());
    match cluster.forward(&home, request).await {
        Ok(response) => Ok(Passed::Answered(response.map(Body::new))),
        Err(Unsent::Unreachable(request) | Unsent::Lost(request) | Unsent::Busy(request)) => {
            let (mut parts, body) = request.into_parts();
            (parts.headers, parts.uri, parts.version) = (own_headers, own_uri, own_version);
            Ok(Passed::Back(Request::from_parts(parts, Body::new(body))))
        }
        Err(Unsent::Refused) => {
            let why = "the shard's home does not know this replica; nothing was done".to_owned();
            Err(EngineError::Unavailable { why, retry_after: RETRY_AFTER }.into())
        }
        Err(Unsent::Open) => Err(EngineError::Unconfirmed { retry_after: RETRY_AFTER }.into()),
    }
}

/// What of the headers a home needs. `None` if that is more than it would take.
fn to_pass_on(headers: &HeaderMap, uri: &Uri) -> Option<HeaderMap> {
    let is_needed = |name: &HeaderName| {
        let (name, families) = (name.as_str(), ["stream-", "producer-"]);
        NEEDED.contains(&name) || families.iter().any(|family| name.starts_with(family))
    };
    let mut passed = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_needed(name)) {
        passed.append(name, value.clone());
    }
    if let Some(authority) = uri.authority() {
        passed.insert(HOST, authority.as_str().parse().ok()?);
    }
    let size: usize = passed.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD).sum();
    (size <= LARGEST_HEAD).then_some(passed)
}

fn is_write(method: &Method) -> bool {
    [Method::PUT, Method::POST, Method::DELETE].contains(method)
}

/// Whether the request was passed on by another replica. Who only says so is refused.
pub fn is_from_a_replica(cluster: &Cluster, headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(TOKEN_HEADER) {
        None => Ok(false),
        Some(token) if cluster.knows(token.as_bytes()) => Ok(true),
        Some(_) => Err(Problem::not_a_replica(TOKEN_HEADER)),
    }
}

/// The log of a shard whose home this is from a position on, for a replica that follows it and waits so many milliseconds for
/// more. 404: read it from the bucket.
pub async fn log(
    State(api): State<Arc<Api>>,
    Path((shard, from, wait)): Path<(u32, u64, u64)>,
    headers: HeaderMap,
) -> Response<Body> {
    let Some(cluster) = &api.cluster else { return Problem::no_such_route().into_response() };
    match is_from_a_replica(cluster, &headers) {
        Ok(true) => {}
        Ok(false) => return Problem::not_a_replica(TOKEN_HEADER).into_response(),
        Err(problem) => return problem.into_response(),
    }
    // Asked for by mistake, it would have to ask another one, which might ask this one.
    let is_home = !cluster.has_other_home(shard);
    let wait = Duration::from_millis(wait).min(LONGEST_WAIT);
    let part = match is_home {
        true => tokio::select! {
            () = api.stopping.cancelled() => Ok(None),
            part = api.engine.log_after(shard, from, wait) => part,
        },
        false => Ok(None),
    };
    match part {
        Ok(Some(part)) => Response::new(Body::from(encode_log(&part))),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Who is there, and who is home of what, as this replica sees it.
pub async fn status(State(api): State<Arc<Api>>) -> Response<Body> {
    let Some(cluster) = &api.cluster else { return Problem::no_such_route().into_response() };
    let status = cluster.status(|shard| api.engine.shard_state(shard));
    let text = serde_json::to_string_pretty(&status).unwrap_or_default() + "\n";
    let mut response = Response::new(Body::from(text));
    put(response.headers_mut(), CONTENT_TYPE.as_str(), "application/json");
    response
}
