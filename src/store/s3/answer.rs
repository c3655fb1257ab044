//! What one request's fate was: seen on the wire, told apart, and put into words.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::http::Headers;

use crate::store::{Failure, FailureKind, StoreError, StoreTime};

/// Watches one request. The SDK's errors do not say whether a request was sent, nor its results what the `Date` was.
#[derive(Debug, Clone, Default)]
pub(super) struct Witness(Arc<Mutex<Seen>>);

#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// It was handed to the HTTP client; before, it cannot have had an effect.
    pub sent: bool,
    pub status: Option<u16>,
    pub date: Option<StoreTime>,
    pub retry_after: Option<Duration>,
    pub content_length: Option<u64>,
    /// Its end was announced, by a length or by pieces; else what was cut off looks whole.
    pub is_delimited: bool,
}

impl Witness {
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[dyn_dispatch_hint]
impl Intercept for Witness {
    fn name(&self) -> &'static str {
        "Witness"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.lock().sent = true;
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let headers = response.headers();
        let date = headers.get("date").and_then(http_date);
        let mut seen = self.lock();
        seen.status = Some(response.status().as_u16());
        seen.date = date;
        seen.retry_after = retry_after(headers, date);
        seen.content_length = headers.get("content-length").and_then(|value| value.parse().ok());
        seen.is_delimited = seen.content_length.is_some() || headers.contains_key("transfer-encoding");
        Ok(())
    }
}

fn http_date(text: &str) -> Option<StoreTime> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(StoreTime(since.as_secs() * 1000))
}

/// Seconds, or a date.
fn retry_after(headers: &Headers, now: Option<StoreTime>) -> Option<Duration> {
    let value = headers.get("retry-after")?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(http_date(value)?.since(now?))
}

/// Why a request brought no result.
#[derive(Debug)]
pub(super) struct Trouble {
    /// S3's word for it, as `NoSuchKey`.
    pub code: Option<String>,
    message: String,
    /// No connection came about, so nothing was sent.
    never_connected: bool,
}

impl Trouble {
    pub fn new(message: impl Into<String>) -> Trouble {
        Trouble { code: None, message: message.into(), never_connected: false }
    }

    pub fn of<E: ProvideErrorMetadata + Error + 'static, R: std::fmt::Debug + 'static>(
        error: &SdkError<E, R>,
    ) -> Trouble {
        let service = error.as_service_error();
        let code = service.and_then(|error| error.code()).map(str::to_owned);
        let message = match service.and_then(|error| error.message()) {
            Some(message) => message.to_owned(),
            None => chain(error),
        };
        Trouble { code, message, never_connected: never_connected(error) }
    }
}

fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let client_error = sources(error).find_map(|error| error.downcast_ref::<hyper_util::client::legacy::Error>());
    client_error.is_some_and(|error| error.is_connect())
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = sources(error).map(ToString::to_string).collect();
    parts.dedup();
    parts.join(": ")
}

/// The error for a request of which `seen` was seen.
pub(super) fn judge(operation: &'static str, key: &str, seen: &Seen, trouble: Trouble) -> StoreError {
    let code = trouble.code.as_deref().unwrap_or("");
    let (applied, kind) = match seen.status {
        None if !seen.sent || trouble.never_connected => (Applied::No, FailureKind::Unavailable),
        None => (Applied::Perhaps, FailureKind::Unavailable),
        Some(status) => of_status(status, code),
    };
    let message = match seen.status {
        None => trouble.message,
        Some(status) => format!("{status} {code}: {}{}", trouble.message, advice(status, code)),
    };
    let failure = Failure { operation, key: key.to_owned(), kind, message, retry_after: seen.retry_after };
    match applied {
        // A read has no effect, whatever happened to it.
        _ if operation == "GET" || operation == "LIST" => StoreError::NotApplied(failure),
        Applied::No => StoreError::NotApplied(failure),
        Applied::Perhaps => StoreError::Unknown(failure),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applied {
    No,
    Perhaps,
}

/// What a status says that is neither the wished result nor a decided condition.
fn of_status(status: u16, code: &str) -> (Applied, FailureKind) {
    match (status, code) {
        (429, _) | (503, "SlowDown") => (Applied::No, FailureKind::Throttled),
        // Any other 503 may come from a proxy that had passed the request on, or from a quorum that was missed late.
        (503, _) => (Applied::Perhaps, FailureKind::Throttled),
        // ConditionalRequestConflict, OperationAborted: another write is under way. Not lost: it must be tried again.
        (409, _) => (Applied::Perhaps, FailureKind::Unavailable),
        (408, _) | (400, "RequestTimeout") => (Applied::Perhaps, FailureKind::Unavailable),
        // Not every vendor and operation can do everything.
        (501, _) => (Applied::No, FailureKind::Broken),
        (500.., _) => (Applied::Perhaps, FailureKind::Unavailable),
        (401 | 403 | 300..=399, _) | (404, "NoSuchBucket") => (Applied::No, FailureKind::Denied),
        (400, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => (Applied::No, FailureKind::Denied),
        (400, "AuthorizationHeaderMalformed" | "InvalidBucketName") => (Applied::No, FailureKind::Denied),
        (400..=499, _) => (Applied::No, FailureKind::Broken),
        // A success that was cut off or makes no sense.
        _ => (Applied::Perhaps, FailureKind::Unavailable),
    }
}

fn advice(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (300..=399, _) | (400, "AuthorizationHeaderMalformed") => " (is the region right?)",
        (403, "RequestTimeTooSkewed") => " (is this machine's clock right?)",
        (404, "NoSuchBucket") => " (create the bucket first)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let headers = |value: &'static str| {
            let mut headers = Headers::new();
            headers.insert("retry-after", value);
            headers
        };
        let now = http_date("Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(now, Some(StoreTime(784_111_770_000)));
        assert_eq!(retry_after(&headers("7"), now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT"), now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT"), None), None);
        assert_eq!(retry_after(&headers("soon"), now), None);
    }
}
