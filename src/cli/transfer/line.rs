//! The lines of an export: JSON, each with a checksum of its own, so that damage is told by the line.
//!
//! ```text
//! {"export":{"version":1},"crc32":"…"}
//! {"stream":{"name":"a","contentType":"text/plain","closed":false,…,"tail":3},"crc32":"…"}
//! {"page":{"start":0,"base64":"YWJj"},"crc32":"…"}
//! {"end":{"bytes":3,"sha256":"…"},"crc32":"…"}
//! {"done":{"streams":1},"crc32":"…"}
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::json::{self, Messages};
use crate::protocol::lifetime::format_moment;
use crate::protocol::{ContentType, Lifetime, Stream, StreamName};

pub const VERSION: u32 = 1;
/// What stands between a line's content and its checksum.
const MARK: &str = ",\"crc32\":\"";
/// Mark, checksum and what closes the line.
const TRAILER: usize = MARK.len() + 8 + 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    Export { version: u32 },
    Stream(Head),
    Page(Page),
    End(End),
    Done { streams: u64 },
}

/// What is known of a stream, apart from its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub name: String,
    pub content_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    pub closed: bool,
    pub created_at: String,
    /// Told for the record: what is imported has another.
    pub incarnation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    pub tail: u64,
}

/// A page's bytes: those of JSON streams as the array's text, others in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub start: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// Of the stream's bytes as they are stored: JSON messages with a comma after each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub bytes: u64,
    pub sha256: String,
}

impl Line {
    /// Without a line feed.
    pub fn encode(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_else(|error| panic!("a line of an export: {error}"));
        text.pop();
        let sum = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("{MARK}{sum:08x}\"}}"));
        text
    }

    pub fn decode(text: &str) -> Result<Line, String> {
        let at = text.len().checked_sub(TRAILER).filter(|at| text.is_char_boundary(*at));
        let (content, trailer) = at.map(|at| text.split_at(at)).ok_or("it is cut, or no line of an export")?;
        let sum = trailer.strip_prefix(MARK).and_then(|rest| rest.strip_suffix("\"}"));
        let sum = sum.ok_or("it is cut, or no line of an export")?;
        if sum != format!("{:08x}", crc32fast::hash(content.as_bytes())) {
            return Err("its checksum does not match: it was changed".to_owned());
        }
        serde_json::from_str(&format!("{content}}}")).map_err(|error| format!("it makes no sense: {error}"))
    }
}

impl Head {
    pub fn of(name: &StreamName, stream: &Stream) -> Head {
        let (ttl_seconds, expires_at) = match stream.lifetime {
            Lifetime::Forever => (None, None),
            Lifetime::Ttl(seconds) => (Some(seconds), None),
            Lifetime::Until(moment) => (None, Some(format_moment(moment))),
        };
        Head {
            name: name.as_str().to_owned(),
            content_type: stream.content_type.as_str().to_owned(),
            ttl_seconds,
            expires_at,
            closed: stream.closed.is_some(),
            created_at: format_moment(stream.created_at),
            incarnation: stream.incarnation.to_string(),
            forked_from: stream.origin.as_deref().map(|origin| origin.source.name.as_str().to_owned()),
            tail: stream.tail,
        }
    }

    pub fn name(&self) -> Result<StreamName, String> {
        StreamName::new(&self.name).map_err(|error| error.what)
    }

    pub fn content_type(&self) -> Result<ContentType, String> {
        ContentType::new(&self.content_type).map_err(|error| error.what)
    }

    pub fn lifetime(&self) -> Result<Lifetime, String> {
        let ttl = self.ttl_seconds.map(|seconds| seconds.to_string());
        Lifetime::from_headers(ttl.as_deref(), self.expires_at.as_deref()).map_err(|error| error.what)
    }
}

impl Page {
    /// From what the engine serves.
    pub fn of(start: u64, served: &Bytes, is_json: bool) -> Result<Page, String> {
        if !is_json {
            return Ok(Page { start, json: None, base64: Some(BASE64.encode(served)) });
        }
        let text = String::from_utf8(served.to_vec()).map_err(|_| "a JSON message is not UTF-8".to_owned())?;
        Ok(Page { start, json: Some(text), base64: None })
    }

    /// The bytes as they are stored, and where messages may end.
    pub fn messages(&self) -> Result<Messages, String> {
        match (&self.json, &self.base64) {
            (Some(text), None) => json::split(text.as_bytes()).map_err(|error| error.what),
            (None, Some(text)) => {
                let bytes = Bytes::from(BASE64.decode(text).map_err(|error| format!("its base64 is wrong: {error}"))?);
                let end = u32::try_from(bytes.len()).map_err(|_| "a page is larger than 4 GiB".to_owned())?;
                Ok(Messages { bytes, ends: vec![end] })
            }
            _ => Err("a page has either json or base64".to_owned()),
        }
    }
}

/// What is stored of a page that the engine served.
pub fn stored(served: &Bytes, is_json: bool) -> Result<Bytes, String> {
    if !is_json {
        return Ok(served.clone());
    }
    let inner = served.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let inner = inner.filter(|inner| !inner.is_empty()).ok_or("a page of a JSON stream is not a full array")?;
    Ok([inner, b","].concat().into())
}
