//! Content types: how a stream's type is compared, and what it means for reads (§9).

use std::fmt;
use std::sync::Arc;

use super::Malformed;

const MAX_BYTES: usize = 256;
const DEFAULT: &str = "application/octet-stream";

/// A stream's content type, kept as it was given. Two are equal when their `type/subtype` are, in any case;
/// parameters such as `charset` do not count.
#[derive(Clone)]
pub struct ContentType(Arc<str>);

impl ContentType {
    pub fn new(text: &str) -> Result<ContentType, Malformed> {
        let text = text.trim();
        let essence = text.split(';').next().unwrap_or_default().trim();
        let token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
        let valid = essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype));
        if !valid || text.len() > MAX_BYTES || text.bytes().any(|b| !(b' '..=b'~').contains(&b)) {
            return Err(Malformed::new("Content-Type is not a media type such as text/plain"));
        }
        Ok(ContentType(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `type/subtype` without parameters, as it was given.
    fn essence(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim()
    }

    /// Whether the stream is in JSON mode (§9.1).
    pub fn is_json(&self) -> bool {
        self.essence().eq_ignore_ascii_case("application/json")
    }

    /// Whether SSE carries the data as text; all else is sent as base64 (§5.8).
    pub fn is_text(&self) -> bool {
        self.is_json() || self.essence().get(..5).is_some_and(|kind| kind.eq_ignore_ascii_case("text/"))
    }
}

impl Default for ContentType {
    fn default() -> ContentType {
        ContentType(DEFAULT.into())
    }
}

impl PartialEq for ContentType {
    fn eq(&self, other: &ContentType) -> bool {
        self.essence().eq_ignore_ascii_case(other.essence())
    }
}

impl Eq for ContentType {}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// RFC 9110 `tchar`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> ContentType {
        ContentType::new(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn case_and_parameters_do_not_count() {
        assert_eq!(of("Text/Plain"), of("text/plain; charset=utf-8"));
        assert_ne!(of("text/plain"), of("text/html"));
    }

    #[test]
    fn json_and_text_are_told_from_binary() {
        assert!(of("application/JSON; charset=utf-8").is_json());
        assert!(!of("application/jsonl").is_json());
        assert!(of("TEXT/event").is_text() && of("application/json").is_text());
        assert!(!of("application/octet-stream").is_text() && !of("image/png").is_text());
    }

    #[test]
    fn what_is_not_a_media_type_is_refused() {
        for text in [
            "",
            "text",
            "text/",
            "/plain",
            "te xt/plain",
            "text/plain\u{e9}",
            "text/pl\nain",
            &format!("a/{}", "b".repeat(300)),
        ] {
            assert!(ContentType::new(text).is_err(), "{text:?} was accepted");
        }
    }
}
