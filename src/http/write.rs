//! PUT, POST and DELETE: parse, one call of the engine, render.

use axum::body::Body as HttpBody;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};

use super::error::Problem;
use super::request::{self, AppendHeaders, CreateHeaders};
use super::{Api, body, caching, header};
use crate::protocol::fork::ForkRequest;
use crate::protocol::lifetime::format_moment;
use crate::protocol::stream::{Append, Body, Create, Outcome};
use crate::protocol::{ContentType, Lifetime, Malformed, StreamName};

/// PUT: creates a stream, or finds it there as it was asked for.
pub async fn create(api: &Api, name: &StreamName, request: Request<HttpBody>) -> Result<Response<HttpBody>, Problem> {
    let (parts, body) = request.into_parts();
    let outcome = match ForkRequest::parse(&parts.headers)? {
        Some(request) => fork(api, name, request, body).await?,
        None => {
            let CreateHeaders { content_type, lifetime, closed, retention } = CreateHeaders::parse(&parts.headers)?;
            let received = body::receive(api, body).await?;
            let (body, admission) = received.into_stored(api, &content_type).await?;
            let incarnation = api.engine.new_incarnation();
            let create = Create { incarnation, content_type, lifetime, closed, body, fork: None, retention };
            api.engine.create(name, create, admission).await?
        }
    };
    let mut response = empty(if outcome.fresh { StatusCode::CREATED } else { StatusCode::OK });
    let headers = response.headers_mut();
    describe(headers, &outcome.content_type, outcome.lifetime);
    put_outcome(headers, &outcome);
    if outcome.fresh {
        put(headers, LOCATION.as_str(), &location(&parts.uri, &parts.headers));
    }
    Ok(response)
}

async fn fork(api: &Api, name: &StreamName, request: ForkRequest, body: HttpBody) -> Result<Outcome, Problem> {
    let received = body::receive(api, body).await?;
    // A body is of the fork's type, which is the source's.
    let content_type = match &request.content_type {
        Some(content_type) => content_type.clone(),
        None if received.bytes.is_empty() => ContentType::default(),
        None => api.engine.source(&request.source).await?.content_type.clone(),
    };
    let (body, admission) = received.into_stored(api, &content_type).await?;
    Ok(api.engine.fork(name, request, body, admission).await?)
}

/// POST: appends, closes, or both at once.
pub async fn append(api: &Api, name: &StreamName, request: Request<HttpBody>) -> Result<Response<HttpBody>, Problem> {
    let (parts, body) = request.into_parts();
    let AppendHeaders { seq, producer, close } = AppendHeaders::parse(&parts.headers)?;
    let content_type = request::content_type(&parts.headers);
    if !body::is_empty(&body) && http_body::Body::size_hint(&body).exact().is_some() {
        // The body is known to have bytes: what is wrong with its type need not wait for them.
        required(content_type.clone())?;
    }
    let received = body::receive(api, body).await?;
    let (content_type, body, admission) = match received.bytes.is_empty() {
        true if close => (None, Body::default(), received.admission),
        true => return Err(Malformed::new("an append needs a body, unless it closes the stream").into()),
        false => {
            let content_type = required(content_type)?;
            let (body, admission) = received.into_stored(api, &content_type).await?;
            if body.ends.is_empty() {
                return Err(Malformed::new("an empty JSON array appends nothing").into());
            }
            (Some(content_type), body, admission)
        }
    };
    let appends = !body.ends.is_empty();
    let append = Append { content_type, body, seq, producer, close };
    let outcome = api.engine.append(name, append, admission).await?;
    let is_new_data = appends && outcome.fresh && outcome.producer.is_some();
    let mut response = empty(if is_new_data { StatusCode::OK } else { StatusCode::NO_CONTENT });
    put_outcome(response.headers_mut(), &outcome);
    Ok(response)
}

/// DELETE.
pub async fn delete(api: &Api, name: &StreamName) -> Result<Response<HttpBody>, Problem> {
    api.engine.delete(name).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn required(content_type: Result<Option<ContentType>, Malformed>) -> Result<ContentType, Malformed> {
    content_type?.ok_or_else(|| Malformed::new("an append needs the stream's Content-Type"))
}

fn empty(status: StatusCode) -> Response<HttpBody> {
    let mut response = Response::new(HttpBody::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(caching::NO_STORE));
    response
}

fn put_outcome(headers: &mut HeaderMap, outcome: &Outcome) {
    put(headers, header::NEXT_OFFSET, &outcome.tail.to_string());
    if outcome.closed {
        put(headers, header::CLOSED, "true");
    }
    if let Some(accepted) = outcome.producer {
        put(headers, header::PRODUCER_EPOCH, &accepted.epoch.to_string());
        put(headers, header::PRODUCER_SEQ, &accepted.seq.to_string());
    }
}

/// The headers of a stream's configuration.
pub fn describe(headers: &mut HeaderMap, content_type: &ContentType, lifetime: Lifetime) {
    put(headers, CONTENT_TYPE.as_str(), content_type.as_str());
    match lifetime {
        Lifetime::Forever => {}
        Lifetime::Ttl(seconds) => put(headers, header::TTL, &seconds.to_string()),
        Lifetime::Until(moment) => put(headers, header::EXPIRES_AT, &format_moment(moment)),
    }
}

/// Sets a header whose value is known to be printable ASCII; anything else would be left out.
pub fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The stream's URL as the client knows it: absolute if the request says for which host it was.
fn location(uri: &Uri, headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(HOST.as_str()));
    let scheme = text("x-forwarded-proto").filter(|scheme| matches!(*scheme, "http" | "https")).unwrap_or("http");
    match host.filter(|host| host.parse::<axum::http::uri::Authority>().is_ok()) {
        Some(host) => format!("{scheme}://{host}{}", uri.path()),
        None => uri.path().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_is_the_url_that_the_client_used() {
        let mut headers = HeaderMap::new();
        let at = |uri: &'static str, headers: &HeaderMap| location(&Uri::from_static(uri), headers);
        assert_eq!(at("/v1/stream/a%20b", &headers), "/v1/stream/a%20b");
        put(&mut headers, "host", "example.com:4437");
        assert_eq!(at("/v1/stream/a?x=1", &headers), "http://example.com:4437/v1/stream/a");
        assert_eq!(at("http://other/v1/stream/a", &headers), "http://other/v1/stream/a");
        put(&mut headers, "x-forwarded-proto", "https");
        assert_eq!(at("/v1/stream/a", &headers), "https://example.com:4437/v1/stream/a");
        put(&mut headers, "host", "a b/<script>");
        assert_eq!(at("/v1/stream/a", &headers), "/v1/stream/a");
    }
}
