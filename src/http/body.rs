//! Request bodies: room is asked for before they are read, and they are limited, timed and checked before the engine
//! hears of them.

use axum::body::Body as HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::Api;
use super::error::Problem;
use crate::engine::{Admission, EngineError};
use crate::protocol::stream::{Body, Data};
use crate::protocol::{ContentType, Malformed, json};

/// Room asked for at first; doubled whenever it is used up. A length that is only promised holds no more.
const FIRST_ROOM: u64 = 64 << 10;
/// What a write takes in memory until it is answered, apart from its body.
const REQUEST_COST: u64 = 8 << 10;
/// JSON bodies larger than this are checked on a thread of their own, so that others' requests do not wait.
const LARGE_JSON: usize = 256 << 10;

/// A body in memory, and the permission to hold it there.
pub struct Received {
    pub bytes: Bytes,
    pub admission: Admission,
}

/// Whether the request certainly has no body.
pub fn is_empty(body: &HttpBody) -> bool {
    http_body::Body::size_hint(body).exact() == Some(0)
}

/// Reads the whole body. One of known length is refused at once if there is no room for it, but room is kept only for what
/// has come: else a few clients that promise much and send nothing would keep out all others. It must come within
/// `body_timeout`; of one of unknown length each piece may take that long.
pub async fn receive(api: &Api, body: HttpBody) -> Result<Received, Problem> {
    let limit = api.settings.max_append_bytes;
    let declared = http_body::Body::size_hint(&body).exact();
    if declared.is_some_and(|length| length > limit) {
        return Err(Problem::body_too_large(limit));
    }
    let whole = declared.unwrap_or(limit);
    drop(api.engine.admit(declared.unwrap_or(0) + REQUEST_COST)?);
    let room = FIRST_ROOM.min(whole);
    let admission = api.engine.admit(room + REQUEST_COST)?;
    let capacity = usize::try_from(room).unwrap_or(0);
    let mut reader = Reader { room, whole, admission, bytes: BytesMut::with_capacity(capacity) };
    let deadline = declared.map(|_| Instant::now() + api.settings.body_timeout);
    reader.read(api, body, deadline).await?;
    Ok(Received { bytes: reader.bytes.freeze(), admission: reader.admission })
}

struct Reader {
    room: u64,
    /// The body's length, or the most that it may have.
    whole: u64,
    admission: Admission,
    bytes: BytesMut,
}

impl Reader {
    async fn read(&mut self, api: &Api, mut body: HttpBody, deadline: Option<Instant>) -> Result<(), Problem> {
        loop {
            let until = deadline.unwrap_or_else(|| Instant::now() + api.settings.body_timeout);
            let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| Problem::body_too_slow())?;
            match frame {
                None => return Ok(()),
                Some(Err(error)) => return Err(Malformed::new(format!("request body broke off: {error}")).into()),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        self.make_room(api, piece.len() as u64)?;
                        self.bytes.extend_from_slice(&piece);
                    }
                }
            }
        }
    }

    /// Asks for more before it is taken, so that the bytes held are always covered.
    fn make_room(&mut self, api: &Api, more: u64) -> Result<(), Problem> {
        let needed = self.bytes.len() as u64 + more;
        let limit = api.settings.max_append_bytes;
        if needed > limit {
            return Err(Problem::body_too_large(limit));
        }
        if needed > self.room {
            let room = needed.max(self.room * 2).min(self.whole.max(needed));
            self.admission.merge(api.engine.admit(room - self.room)?);
            self.room = room;
        }
        Ok(())
    }
}

/// What a message costs in memory until it is committed, apart from its bytes: where it ends, several times over.
const MESSAGE_COST: u64 = 16;

impl Received {
    /// The body as the stream stores it, with room asked for its messages: millions of them may be in few bytes.
    pub async fn into_stored(self, api: &Api, content_type: &ContentType) -> Result<(Body, Admission), Problem> {
        let engine = api.engine.clone();
        let admit = move |messages| engine.admit(messages * MESSAGE_COST);
        let (body, room) = to_store(self.bytes, content_type, admit).await?;
        let mut admission = self.admission;
        admission.merge(room);
        Ok((body, admission))
    }
}

/// The bytes as the stream stores them, messages in JSON mode and one run of bytes otherwise, with `admit`'s permission
/// for so many messages.
async fn to_store(
    bytes: Bytes,
    content_type: &ContentType,
    admit: impl FnOnce(u64) -> Result<Admission, EngineError> + Send + 'static,
) -> Result<(Body, Admission), Problem> {
    if bytes.is_empty() {
        return Ok((Body::default(), admit(0)?));
    }
    if !content_type.is_json() {
        let end = u32::try_from(bytes.len()).map_err(|_| Malformed::new("body is larger than 4 GiB"))?;
        return Ok((Body { data: Data::Inline(bytes), ends: vec![end] }, admit(1)?));
    }
    let is_large = bytes.len() > LARGE_JSON;
    let split = move || -> Result<(Body, Admission), Problem> {
        let room = admit(json::count(&bytes))?;
        let messages = json::split(&bytes)?;
        Ok((Body { data: Data::Inline(messages.bytes), ends: messages.ends }, room))
    };
    if is_large {
        return tokio::task::spawn_blocking(split).await.map_err(|_| Problem::internal())?;
    }
    split()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Gate;

    /// With room for `room` messages.
    async fn stored_in(room: u64, bytes: Bytes, content_type: &str) -> Result<Body, Problem> {
        let content_type = ContentType::new(content_type).unwrap_or_default();
        // The unit of account is a KiB.
        let admit = move |messages| Gate::new(room << 10, "full").admit(messages << 10);
        to_store(bytes, &content_type, admit).await.map(|(body, _)| body)
    }

    async fn stored(bytes: &'static [u8], content_type: &str) -> Result<Body, Problem> {
        stored_in(10, Bytes::from_static(bytes), content_type).await
    }

    #[tokio::test]
    async fn bytes_are_one_message_and_json_as_many_as_it_has() {
        assert_eq!(stored(b"abc", "text/plain").await.map(|b| b.ends), Ok(vec![3]));
        assert_eq!(stored(b"[1,22]", "application/json").await.map(|b| b.ends), Ok(vec![2, 5]));
        assert_eq!(
            stored(b"[]", "application/json").await,
            Ok(Body { data: Data::Inline(Bytes::new()), ends: vec![] })
        );
        assert_eq!(stored(b"", "application/json").await, Ok(Body::default()));
        assert!(stored(b"{", "application/json").await.is_err());
    }

    #[tokio::test]
    async fn large_json_is_checked_as_well() {
        let text = Bytes::from(format!("[{}1]", "1,".repeat(LARGE_JSON)));
        let messages = LARGE_JSON as u64 + 1;
        let body = stored_in(messages, text.clone(), "application/json").await;
        assert_eq!(body.map(|b| b.ends.len() as u64), Ok(messages));
        let refused = stored_in(messages - 1, text, "application/json").await;
        assert_eq!(refused.map_err(|problem| problem.code), Err("overloaded"));
    }
}
