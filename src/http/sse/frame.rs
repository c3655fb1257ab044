//! Events as bytes: nothing that a stream holds can end an event or start another.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::protocol::{ContentType, Cursor, Offset};

/// A comment, which clients skip.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// How bytes become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are. The events of one page are one JSON array, or one run of text.
    Text,
    Base64,
}

impl Encoding {
    pub fn of(content_type: &ContentType) -> Encoding {
        if content_type.is_text() { Encoding::Text } else { Encoding::Base64 }
    }
}

/// A data event.
pub fn data(bytes: &[u8], encoding: Encoding) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() / 3 * 4 + 64);
    out.extend_from_slice(b"event: data\n");
    match encoding {
        Encoding::Text => lines(&mut out, bytes),
        Encoding::Base64 => lines(&mut out, STANDARD.encode(bytes).as_bytes()),
    }
    out.extend_from_slice(b"\n");
    out.freeze()
}

/// One `data` field per line. CR, LF and CRLF all end a line for the client, so each of them ends one here; the client
/// puts LF between. A client removes one space after the colon, so a line that starts with one is given another.
fn lines(out: &mut BytesMut, text: &[u8]) {
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        out.extend_from_slice(if line.first() == Some(&b' ') { b"data: " } else { b"data:" });
        out.extend_from_slice(line);
        out.extend_from_slice(b"\n");
        rest = match after {
            [] => return,
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

/// What a control event says.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    pub next: Offset,
    pub cursor: Option<Cursor>,
    pub up_to_date: bool,
    pub closed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ControlJson {
    stream_next_offset: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_cursor: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    up_to_date: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream_closed: bool,
}

/// A control event.
pub fn control(control: &Control) -> Bytes {
    let json = ControlJson {
        stream_next_offset: control.next.to_string(),
        stream_cursor: control.cursor.map(|cursor| cursor.to_string()),
        up_to_date: control.up_to_date,
        stream_closed: control.closed,
    };
    let json = serde_json::to_string(&json).unwrap_or_default();
    Bytes::from(format!("event: control\ndata:{json}\n\n"))
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
