//! A bucket of S3 or of a compatible store. The only place that knows the vendor's SDK.
//!
//! The SDK's retries are off. What certainly was not applied, and what can be repeated without harm (GET, LIST,
//! DELETE), is tried a few times here; a PUT whose outcome is unknown is handed up as [`StoreError::Unknown`], because
//! only the log's rules can tell what became of it.

mod answer;
mod connect;
#[cfg(test)]
mod wire_tests;

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::Bytes;
use tokio::time::{Instant, timeout};

use self::answer::{Seen, Trouble, Witness, judge};
pub use self::connect::{AccessKeys, Checksums, S3Options};
use super::{Condition, LIST_PAGE, LastSeen, Listed, Listing, Object, Put, Reply, Store, StoreError};
use super::{StoreResult, StoreTime, Version, clip};
use crate::clock::Ids;

/// The first pause between two attempts is up to this, each later one up to twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// An attempt may take a second more for each so many bytes of body.
const BYTES_PER_SECOND: u64 = 1 << 20;

#[derive(Debug)]
pub struct S3Store {
    client: Client,
    options: S3Options,
    /// Empty, or ends in a slash.
    prefix: String,
    ids: Ids,
    last_seen: LastSeen,
}

impl S3Store {
    /// Loads credentials, and sends nothing to the bucket yet. The error says what to set.
    pub async fn open(options: S3Options, ids: Ids) -> Result<S3Store, String> {
        let prefix = match options.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let store_name = describe(&options, &prefix);
        let client = connect::connect(&options).await.map_err(|error| format!("{store_name}: {error}"))?;
        Ok(S3Store { client, options, prefix, ids, last_seen: LastSeen::default() })
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn reply<T>(&self, seen: &Seen, value: T) -> StoreResult<T> {
        // Without a Date: the latest time known, which is never later than the truth.
        let at = seen.date.map_or_else(|| self.last_seen.get(), |date| self.last_seen.saw(date));
        Ok(Reply { value, at })
    }

    fn failed<T>(&self, operation: &'static str, key: &str, seen: &Seen, trouble: Trouble) -> StoreResult<T> {
        if let Some(date) = seen.date {
            self.last_seen.saw(date);
        }
        Err(judge(operation, key, seen, trouble))
    }

    fn allowance(&self, bytes: u64) -> Duration {
        self.options.attempt_timeout + Duration::from_secs(bytes / BYTES_PER_SECOND)
    }

    /// Tries again, after growing random pauses, as long as it can do no harm and may help.
    async fn repeatedly<T, F>(&self, mut attempt: impl FnMut() -> F) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>>,
    {
        let deadline = Instant::now() + self.options.operation_timeout;
        let mut longest_pause = FIRST_PAUSE;
        let mut attempts = 1;
        loop {
            let error = match attempt().await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let jittered = Duration::from_millis(self.ids.between(1, longest_pause.as_millis() as u64));
            let pause = error.failure().retry_after.unwrap_or_default().max(jittered);
            let too_late = Instant::now() + pause >= deadline;
            if attempts >= self.options.attempts || too_late || !may_repeat(&error) {
                return Err(error);
            }
            tracing::debug!(%error, attempts, ?pause, "trying again");
            tokio::time::sleep(pause).await;
            attempts += 1;
            longest_pause = (longest_pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn get_once(&self, key: &str, range: Option<Range<u64>>) -> StoreResult<Option<Object>> {
        let witness = Witness::default();
        let header =
            range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end.max(range.start + 1) - 1));
        let request = self.client.get_object().bucket(&self.options.bucket).key(self.full(key)).set_range(header);
        let request = request.customize().interceptor(witness.clone());
        let sent = timeout(self.options.attempt_timeout, request.send()).await;
        let (seen, result) = (witness.seen(), heard(sent));
        match result {
            Ok(output) => match self.read_body(output, &seen, range).await {
                Ok(object) => self.reply(&seen, Some(object)),
                Err(trouble) => self.failed("GET", key, &seen, trouble),
            },
            // Not just any 404: a missing bucket, or a proxy that knows nothing, must not look like an empty log.
            Err(trouble) if seen.status == Some(404) && trouble.code.as_deref() == Some("NoSuchKey") => {
                self.reply(&seen, None)
            }
            Err(_) if seen.status == Some(416) && range.is_some() => self.reply(&seen, Some(nothing())),
            Err(trouble) => self.failed("GET", key, &seen, trouble),
        }
    }

    async fn read_body(
        &self,
        output: GetObjectOutput,
        seen: &Seen,
        range: Option<Range<u64>>,
    ) -> Result<Object, Trouble> {
        // Without a length, a body that was cut off could look whole.
        let length = seen.content_length.ok_or_else(|| Trouble::new("the answer has no Content-Length"))?;
        let body = match timeout(self.allowance(length), output.body.collect()).await {
            Ok(Ok(body)) => body.into_bytes(),
            Ok(Err(error)) => return Err(Trouble::new(format!("the body was cut off: {}", answer::chain(&error)))),
            Err(_) => return Err(Trouble::new("the body took too long")),
        };
        if body.len() as u64 != length {
            return Err(Trouble::new(format!("{} of {length} bytes came", body.len())));
        }
        let version = output.e_tag.ok_or_else(|| Trouble::new("the answer has no ETag"))?;
        let modified = output.last_modified.map_or(StoreTime::default(), |time| store_time(&time));
        let body = match range {
            None => body,
            // An empty range cannot be asked for.
            Some(range) if range.is_empty() => Bytes::new(),
            Some(range) if seen.status == Some(206) => {
                let start = format!("bytes {}-", range.start);
                if !output.content_range.is_some_and(|given| given.starts_with(&start))
                    || length > range.end - range.start
                {
                    return Err(Trouble::new("the answer is not the range that was asked for"));
                }
                body
            }
            // A server may ignore Range, and some do for empty objects.
            Some(range) => {
                let range = clip(&range, length);
                body.slice(range.start as usize..range.end as usize)
            }
        };
        Ok(Object { body, version: Version(version), modified })
    }

    async fn put_once(&self, key: &str, body: Bytes, condition: &Condition) -> StoreResult<Put> {
        let witness = Witness::default();
        let length = body.len() as u64;
        let request = self.client.put_object().bucket(&self.options.bucket).key(self.full(key));
        let request = match condition {
            Condition::Absent => request.if_none_match("*"),
            Condition::Unchanged(Version(version)) => request.if_match(version),
        };
        let request = request.body(ByteStream::from(body)).customize().interceptor(witness.clone());
        let sent = timeout(self.allowance(length), request.send()).await;
        let (seen, result) = (witness.seen(), heard(sent));
        let trouble = match result.map(|output| output.e_tag) {
            Ok(Some(version)) => return self.reply(&seen, Put::Written(Version(version))),
            Ok(None) => Trouble::new("the answer has no ETag"),
            Err(trouble) => trouble,
        };
        match (seen.status, condition) {
            (Some(412), _) => self.reply(&seen, Put::Conflict),
            (Some(404), Condition::Unchanged(_)) if trouble.code.as_deref() == Some("NoSuchKey") => {
                self.reply(&seen, Put::Conflict)
            }
            _ => self.failed("PUT", key, &seen, trouble),
        }
    }

    async fn delete_once(&self, key: &str) -> StoreResult<()> {
        let witness = Witness::default();
        let request = self.client.delete_object().bucket(&self.options.bucket).key(self.full(key));
        let request = request.customize().interceptor(witness.clone());
        let sent = timeout(self.options.attempt_timeout, request.send()).await;
        let (seen, result) = (witness.seen(), heard(sent));
        match result {
            Ok(_) => self.reply(&seen, ()),
            Err(trouble) if seen.status == Some(404) && trouble.code.as_deref() == Some("NoSuchKey") => {
                self.reply(&seen, ())
            }
            Err(trouble) => self.failed("DELETE", key, &seen, trouble),
        }
    }

    async fn list_once(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let witness = Witness::default();
        let request = self.client.list_objects_v2().bucket(&self.options.bucket).prefix(self.full(prefix));
        let request = request.set_start_after(after.map(|after| self.full(after)));
        let limit = i32::try_from(limit.clamp(1, LIST_PAGE)).unwrap_or(i32::MAX);
        let request = request.max_keys(limit).customize().interceptor(witness.clone());
        let sent = timeout(self.options.attempt_timeout, request.send()).await;
        let (seen, result) = (witness.seen(), heard(sent));
        let output = match result {
            Ok(output) => output,
            Err(trouble) => return self.failed("LIST", prefix, &seen, trouble),
        };
        let counted = output.key_count.and_then(|count| usize::try_from(count).ok());
        let is_whole = output.is_truncated.is_some() && counted == Some(output.contents().len());
        if !seen.is_delimited && !is_whole {
            return self.failed("LIST", prefix, &seen, Trouble::new("the answer may have been cut off"));
        }
        let more = output.is_truncated.unwrap_or(false);
        let items = output.contents.unwrap_or_default().into_iter().map(|object| {
            Some(Listed {
                key: object.key?.strip_prefix(&self.prefix)?.to_owned(),
                size: u64::try_from(object.size?).ok()?,
                modified: store_time(&object.last_modified?),
            })
        });
        match items.collect::<Option<Vec<_>>>() {
            Some(items) => self.reply(&seen, Listing { items, more }),
            None => self.failed("LIST", prefix, &seen, Trouble::new("an item lacks its key, size or time")),
        }
    }
}

/// A PUT that may have been applied is never sent again from here.
fn may_repeat(error: &StoreError) -> bool {
    let decided = matches!(error, StoreError::NotApplied(_)) || error.failure().operation == "DELETE";
    decided && error.failure().kind.is_transient()
}

fn heard<T, E, R>(sent: Result<Result<T, SdkError<E, R>>, tokio::time::error::Elapsed>) -> Result<T, Trouble>
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match sent {
        Ok(result) => result.map_err(|error| Trouble::of(&error)),
        Err(_) => Err(Trouble::new("no answer in time")),
    }
}

/// In whole seconds, as the `Date` that it is compared with.
fn store_time(time: &DateTime) -> StoreTime {
    StoreTime(u64::try_from(time.secs()).unwrap_or(0) * 1000)
}

fn nothing() -> Object {
    Object { body: Bytes::new(), version: Version(String::new()), modified: StoreTime::default() }
}

fn describe(options: &S3Options, prefix: &str) -> String {
    let at = options.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
    format!("s3://{}/{prefix}{at}", options.bucket)
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        self.repeatedly(|| self.get_once(key, None)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        let Reply { value, at } = self.repeatedly(|| self.get_once(key, Some(range.clone()))).await?;
        Ok(Reply { value: value.map(|object| object.body), at })
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        self.repeatedly(|| self.put_once(key, body.clone(), &condition)).await
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        self.repeatedly(|| self.delete_once(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        self.repeatedly(|| self.list_once(prefix, after, limit)).await
    }

    fn last_seen(&self) -> StoreTime {
        self.last_seen.get()
    }

    fn heard(&self, at: StoreTime) {
        self.last_seen.saw(at);
    }

    fn describe(&self) -> String {
        describe(&self.options, &self.prefix)
    }
}
