//! The Durable Streams protocol as synchronous code: no I/O, no clock, no async, no HTTP types.
//!
//! | module | what it decides |
//! |---|---|
//! | [`name`] | which paths name a stream (§12.2) |
//! | [`offset`] | offset tokens and incarnations (§8) |
//! | [`content_type`] | equality of content types, JSON mode, SSE encoding (§9) |
//! | [`lifetime`] | `Stream-TTL` and `Stream-Expires-At` (§5.1) |
//! | [`producer`] | idempotent producers (§5.2.1) |
//! | [`json`] | JSON mode: split, validate, join (§9.1) |
//! | [`cursor`] | deterministic cursors and aligned holds (§10.1) |
//! | [`page`] | where catch-up responses end (§5.6) |
//! | [`stream`] | what a command does to a stream |
//! | [`fork`] | what a fork inherits, and when its source is really gone (§4.2) |
//! | [`retention`] | how much of a stream is kept (an extension) |
//! | [`rejection`] | every "no", with the facts that its headers need |

pub mod content_type;
pub mod cursor;
pub mod fork;
pub mod json;
pub mod lifetime;
pub mod name;
pub mod offset;
pub mod page;
pub mod producer;
pub mod rejection;
pub mod retention;
pub mod stream;

pub use content_type::ContentType;
pub use cursor::Cursor;
pub use lifetime::Lifetime;
pub use name::StreamName;
pub use offset::{Incarnation, Offset, ReadFrom};
pub use producer::Producer;
pub use rejection::Rejection;
pub use retention::Retention;
pub use stream::Stream;

/// A number in plain decimal notation: digits and nothing else.
pub fn plain_number(text: &str) -> Option<u64> {
    // Rust's own parser takes a sign as well.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A value from outside that is not of the form the protocol asks for: `what` was wrong with it, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Malformed {
    pub what: String,
}

impl Malformed {
    pub fn new(what: impl Into<String>) -> Malformed {
        Malformed { what: what.into() }
    }
}
