//! The only map from a "no" to status, headers and an RFC 9457 body.
//!
//! Codes are stable: clients may switch on them. What went wrong inside (which object, which request to the store)
//! goes to the log and never to the client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{caching, header};
use crate::engine::EngineError;
use crate::protocol::{Malformed, Rejection};

/// A refusal on its way to the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    title: &'static str,
    detail: String,
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, title, detail: detail.into(), headers: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Problem {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Seconds, rounded up. Clients that were refused together are spread over three seconds.
    fn retry_after(self, after: Duration) -> Problem {
        static SPREAD: AtomicU64 = AtomicU64::new(0);
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let spread = SPREAD.fetch_add(1, Ordering::Relaxed) % 3;
        self.with(RETRY_AFTER.as_str(), seconds.max(1) + spread)
    }

    pub fn no_such_route() -> Problem {
        let detail = "streams live at /v1/stream/{name}";
        Problem::new(StatusCode::NOT_FOUND, "no-such-route", "There is nothing at this path", detail)
    }

    pub fn not_a_replica(header: &'static str) -> Problem {
        let detail = format!("{header} is for the replicas of this cluster, which know its secret");
        // By which the replica tells it from what a client is forbidden.
        Problem::new(StatusCode::FORBIDDEN, "not-a-replica", "Only for replicas", detail).with(header, "unknown")
    }

    pub fn method_not_allowed(allow: &'static str) -> Problem {
        let detail = format!("allowed are {allow}");
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
            .with(ALLOW.as_str(), allow)
    }

    pub fn not_implemented(code: &'static str, detail: &'static str) -> Problem {
        Problem::new(StatusCode::NOT_IMPLEMENTED, code, "Not supported by this server", detail)
    }

    pub fn body_too_large(limit: u64) -> Problem {
        let detail = format!("request bodies may have up to {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Request body too large", detail)
    }

    pub fn body_too_slow() -> Problem {
        let detail = "the request body did not arrive in time; nothing was appended";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "Request body too slow", detail)
    }

    pub fn overloaded(detail: &'static str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Server is overloaded", detail)
            .retry_after(Duration::from_secs(1))
    }

    pub fn stopping() -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "Server is stopping", "try another replica")
            .retry_after(Duration::from_secs(1))
    }

    pub fn internal() -> Problem {
        let detail = "the server's log says more";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "malformed-request", "Malformed request", malformed.what)
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Problem {
        let detail = rejection.to_string();
        let problem = |status, code, title| Problem::new(status, code, title, detail);
        let (bad, conflict) = (StatusCode::BAD_REQUEST, StatusCode::CONFLICT);
        match rejection {
            Rejection::NotFound => problem(StatusCode::NOT_FOUND, "stream-not-found", "No such stream"),
            Rejection::Replaced { .. } => {
                problem(StatusCode::GONE, "stream-replaced", "The offset belongs to a deleted stream")
            }
            Rejection::BeyondTail { tail } => {
                problem(bad, "offset-beyond-tail", "Offset past the end of the stream").with(header::NEXT_OFFSET, tail)
            }
            Rejection::Exists { .. } => problem(conflict, "stream-exists", "Stream exists with another configuration"),
            Rejection::Closed { tail } => problem(conflict, "stream-closed", "Stream is closed")
                .with(header::CLOSED, "true")
                .with(header::NEXT_OFFSET, tail),
            Rejection::ContentTypeMismatch { .. } => {
                problem(conflict, "content-type-mismatch", "Content type differs from the stream's")
            }
            Rejection::SeqRegression { .. } => problem(conflict, "seq-regression", "Stream-Seq does not increase"),
            Rejection::StaleEpoch { current } => {
                problem(StatusCode::FORBIDDEN, "producer-epoch-stale", "Producer was superseded")
                    .with(header::PRODUCER_EPOCH, current)
            }
            Rejection::EpochStartsAtZero => {
                problem(bad, "producer-epoch-must-start-at-zero", "New producer epoch does not start at 0")
            }
            Rejection::ProducerGap { expected, received } => problem(conflict, "producer-seq-gap", "Producer-Seq gap")
                .with(header::PRODUCER_EXPECTED_SEQ, expected)
                .with(header::PRODUCER_RECEIVED_SEQ, received),
            Rejection::Trimmed { earliest } => {
                problem(StatusCode::GONE, "offset-trimmed", "The offset is before what is kept of the stream")
                    .with(header::EARLIEST_OFFSET, earliest)
            }
            Rejection::Gone => problem(StatusCode::GONE, "stream-deleted", "Stream was deleted"),
            Rejection::NoSource => problem(StatusCode::NOT_FOUND, "source-not-found", "No such stream to fork"),
            Rejection::SourceGone => problem(conflict, "source-deleted", "The stream to fork was deleted"),
            Rejection::ForkOffset { .. } => problem(bad, "fork-offset", "No place to fork at"),
            Rejection::TooMany { .. } => problem(StatusCode::TOO_MANY_REQUESTS, "limit-reached", "Limit reached")
                .retry_after(Duration::from_secs(60)),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Problem {
        let busy = |code, title, detail: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail);
        match error {
            EngineError::Rejected(rejection) => rejection.into(),
            EngineError::Overloaded { what, retry_after } => {
                busy("overloaded", "Server is overloaded", what.to_owned()).retry_after(retry_after)
            }
            EngineError::Unavailable { why, retry_after } => {
                tracing::warn!(why, "unavailable");
                busy("unavailable", "Server is unavailable", "the store does not answer; nothing was done".to_owned())
                    .retry_after(retry_after)
            }
            EngineError::Unconfirmed { retry_after } => {
                let detail = "the write may still be committed; repeat it with the same Producer-Seq to be sure";
                busy("write-unconfirmed", "Write was not confirmed in time", detail.to_owned()).retry_after(retry_after)
            }
            EngineError::Damaged { key, what } => {
                tracing::error!(key, what, "damaged object");
                Problem::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("urn:headwater:problem:{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching::NO_STORE));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Incarnation, Offset};

    fn tail() -> Offset {
        Offset { position: 7, incarnation: Incarnation::ANY }
    }

    #[test]
    fn every_rejection_has_its_status_code_and_headers() {
        let tail_text = tail().to_string();
        let cases = [
            (Rejection::NotFound, 404, "stream-not-found", vec![]),
            (Rejection::Replaced { current: Incarnation::ANY }, 410, "stream-replaced", vec![]),
            (
                Rejection::BeyondTail { tail: tail() },
                400,
                "offset-beyond-tail",
                vec![("stream-next-offset", tail_text.clone())],
            ),
            (Rejection::Exists { what: "lifetime" }, 409, "stream-exists", vec![]),
            (
                Rejection::Closed { tail: tail() },
                409,
                "stream-closed",
                vec![("stream-closed", "true".to_owned()), ("stream-next-offset", tail_text)],
            ),
            (
                Rejection::ContentTypeMismatch { expected: "a/b".to_owned(), received: "c/d".to_owned() },
                409,
                "content-type-mismatch",
                vec![],
            ),
            (Rejection::SeqRegression { last: "9".to_owned() }, 409, "seq-regression", vec![]),
            (
                Rejection::StaleEpoch { current: 3 },
                403,
                "producer-epoch-stale",
                vec![("producer-epoch", "3".to_owned())],
            ),
            (Rejection::EpochStartsAtZero, 400, "producer-epoch-must-start-at-zero", vec![]),
            (
                Rejection::ProducerGap { expected: 2, received: 5 },
                409,
                "producer-seq-gap",
                vec![("producer-expected-seq", "2".to_owned()), ("producer-received-seq", "5".to_owned())],
            ),
        ];
        for (rejection, status, code, headers) in cases {
            let problem = Problem::from(rejection);
            assert_eq!((problem.status.as_u16(), problem.code), (status, code));
            assert_eq!(problem.headers, headers, "{code}");
        }
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        let retry_after = Duration::from_millis(1500);
        let errors = [
            EngineError::Overloaded { what: "queue", retry_after },
            EngineError::Unavailable { why: "secret".to_owned(), retry_after },
            EngineError::Unconfirmed { retry_after },
        ];
        for error in errors {
            let response = Problem::from(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            let seconds =
                response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|s| s.parse().ok());
            assert!(seconds.is_some_and(|s: u64| (2..=4).contains(&s)));
        }
        let limited = Problem::from(Rejection::TooMany { what: "producers" }).into_response();
        assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(limited.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn what_happened_inside_stays_inside() {
        let unavailable =
            EngineError::Unavailable { why: "GET log/1: secret".to_owned(), retry_after: Duration::from_secs(1) };
        let damaged = EngineError::Damaged { key: "secret/key".to_owned(), what: "secret".to_owned() };
        for error in [unavailable, damaged] {
            let problem = Problem::from(error);
            assert!(!problem.detail.contains("secret"), "{}", problem.detail);
        }
    }

    #[test]
    fn a_refusal_is_never_stored() {
        let response = Problem::no_such_route().into_response();
        assert_eq!(response.headers().get(CACHE_CONTROL).map(HeaderValue::as_bytes), Some(&b"no-store"[..]));
        assert_eq!(
            response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes),
            Some(&b"application/problem+json"[..])
        );
    }
}
