//! HTTP/1.1 requests that are answered before their body has been read.
//!
//! The rest of the body is on its way, so the connection is closed. A client, or a proxy that keeps connections for all of
//! its clients, must be told so, or it sends the next request on it and that one fails.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response, Version};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

/// Whether a request's body was read; `None` over HTTP/2, whose streams do not depend on each other.
pub struct Reading(Option<Arc<AtomicBool>>);

/// Looks on while the request's body is read.
pub fn follow(request: Request) -> (Request, Reading) {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return (request, Reading(None));
    }
    let is_read = Arc::<AtomicBool>::default();
    let reading = Reading(Some(Arc::clone(&is_read)));
    (request.map(|inner| Body::new(Followed { inner, is_read })), reading)
}

impl Reading {
    /// Says that the connection ends with this response, if it does.
    pub fn conclude(self, response: &mut Response<Body>) {
        if self.0.is_some_and(|is_read| !is_read.load(Ordering::Relaxed)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

struct Followed {
    inner: Body,
    is_read: Arc<AtomicBool>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.is_read.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
