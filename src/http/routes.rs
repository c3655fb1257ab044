//! Which request goes where, and what every response carries.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{any, get};

use super::error::Problem;
use super::replicas::Passed;
use super::request::{Read, Target, target};
use super::write::put;
use super::{Api, caching, listing, metrics as counts, read, replicas, unread, write};
use crate::cluster::{LOG_PATH, STATUS_PATH};

/// Longest wait for the store when readiness is asked for.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

const METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
const REQUEST_HEADERS: &str = "authorization, content-type, if-none-match, cache-control, last-event-id, stream-seq, \
    stream-ttl, stream-expires-at, stream-closed, stream-forked-from, stream-fork-offset, stream-fork-sub-offset, \
    stream-retention-bytes, stream-retention-age, producer-id, producer-epoch, producer-seq";
const RESPONSE_HEADERS: &str = "etag, location, retry-after, server-timing, stream-next-offset, stream-up-to-date, \
    stream-closed, stream-cursor, stream-ttl, stream-expires-at, stream-sse-data-encoding, stream-earliest-offset, \
    stream-retention-bytes, stream-retention-age, producer-epoch, producer-seq, producer-expected-seq, producer-received-seq";
/// Browsers ask again for a preflight after a day at most.
const PREFLIGHT_MAX_AGE: &str = "86400";

/// The whole server as a service, to be run by [`serve`](super::serve) or to be embedded.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/stream/{*name}", any(stream))
        .route("/v1/stream/", any(stream))
        .route("/healthz", get(|| async { plain(StatusCode::OK, "ok\n") }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(STATUS_PATH, get(replicas::status))
        .route(&format!("{LOG_PATH}{{shard}}/{{from}}/{{wait}}"), get(replicas::log))
        .fallback(|| async { Problem::no_such_route() })
        .layer(middleware::from_fn_with_state(Arc::clone(&api), finish))
        .with_state(api)
}

async fn stream(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    answer(&api, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(api: &Arc<Api>, request: Request) -> Result<Response<Body>, Problem> {
    if request.method() == Method::OPTIONS {
        return Ok(preflight());
    }
    let name = match target(request.uri())? {
        Target::Stream(name) => name,
        Target::Streams if request.method() == Method::GET => return listing::get(api, request.uri()).await,
        Target::Streams => return Err(Problem::method_not_allowed(listing::METHODS)),
        Target::Reserved => {
            let detail = "this server does not have the subscription APIs of protocol section 6 yet";
            return Err(Problem::not_implemented("subscriptions-not-supported", detail));
        }
    };
    let request = match replicas::pass_on(api, &name, request).await? {
        Passed::Answered(response) => return Ok(response),
        Passed::Back(request) => request,
    };
    let method = request.method().clone();
    match method.as_str() {
        "GET" => {
            let read = Read::parse(request.uri(), request.headers())?;
            // Else its body, which nobody reads, would be kept for as long as a live read lasts.
            drop(request);
            read::get(api, name, read).await
        }
        "HEAD" => read::head(api, &name).await,
        "PUT" => write::create(api, &name, request).await,
        "POST" => write::append(api, &name, request).await,
        "DELETE" => write::delete(api, &name).await,
        _ => Err(Problem::method_not_allowed(METHODS)),
    }
}

fn preflight() -> Response<Body> {
    let mut response = plain(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    put(headers, "allow", METHODS);
    put(headers, "access-control-allow-methods", METHODS);
    put(headers, "access-control-allow-headers", REQUEST_HEADERS);
    put(headers, "access-control-max-age", PREFLIGHT_MAX_AGE);
    response
}

/// Whether this replica should be sent requests: it is not stopping, and the store answers.
async fn ready(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response<Body> {
    // Replicas ask each other, and whether they would be known, too.
    if let Some(Err(problem)) = api.cluster.as_ref().map(|cluster| replicas::is_from_a_replica(cluster, &headers)) {
        return problem.into_response();
    }
    if api.stopping.is_cancelled() {
        return Problem::stopping().into_response();
    }
    match tokio::time::timeout(READY_TIMEOUT, api.engine.ready()).await {
        Ok(Ok(())) => plain(StatusCode::OK, "ready\n"),
        Ok(Err(error)) => Problem::from(error).into_response(),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer in time\n"),
    }
}

async fn metrics(State(api): State<Arc<Api>>) -> Response<Body> {
    let text = api.counters.render() + &counts::gauges(api.live.count()) + &(api.metrics)();
    let mut response = Response::new(Body::from(text));
    put(response.headers_mut(), CONTENT_TYPE.as_str(), "text/plain; version=0.0.4");
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    put(response.headers_mut(), CONTENT_TYPE.as_str(), "text/plain");
    response
}

/// Every response says who may read it and that it is not to be taken for anything else; what says nothing to caches
/// is not for them.
async fn finish(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response<Body> {
    let method = request.method().clone();
    let (request, reading) = unread::follow(request);
    let mut response = next.run(request).await;
    reading.conclude(&mut response);
    api.counters.answered(&method, response.status());
    secure(response.headers_mut());
    response
}

fn secure(headers: &mut HeaderMap) {
    const ALWAYS: [(&str, &str); 5] = [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "cross-origin"),
        // A stream of HTML that is opened in a browser must not act in the name of the server's origin.
        ("content-security-policy", "default-src 'none'; sandbox"),
        // The same for every origin, so that caches need no copy per origin (no Vary).
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", RESPONSE_HEADERS),
    ];
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static(caching::NO_STORE));
}
