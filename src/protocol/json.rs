//! JSON mode (§9.1): a body is one message, or an array whose elements are the messages.
//!
//! Messages are stored as `m,m,m,`, so that any run of whole messages becomes a response by putting it between
//! brackets: no parsing on the way out.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::Malformed;

/// Messages as they are stored, and where each ends, counted from the start of the run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Messages {
    pub bytes: Bytes,
    pub ends: Vec<u32>,
}

/// Splits a request body into messages. An empty array gives none: the caller decides whether that is allowed.
pub fn split(body: &[u8]) -> Result<Messages, Malformed> {
    let malformed = |error: serde_json::Error| Malformed::new(format!("body is not valid JSON: {error}"));
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    if first == Some(&b'[') {
        let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(malformed)?;
        join(elements.iter().map(|element| element.get()))
    } else {
        let message: &RawValue = serde_json::from_slice(body).map_err(malformed)?;
        join([message.get()].into_iter())
    }
}

fn join<'a>(messages: impl Iterator<Item = &'a str> + Clone) -> Result<Messages, Malformed> {
    let total: usize = messages.clone().map(|m| m.trim().len() + 1).sum();
    u32::try_from(total).map_err(|_| Malformed::new("body is larger than 4 GiB"))?;
    let mut bytes = BytesMut::with_capacity(total);
    let mut ends = Vec::new();
    for message in messages {
        bytes.extend_from_slice(message.trim().as_bytes());
        bytes.extend_from_slice(b",");
        ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
    Ok(Messages { bytes: bytes.freeze(), ends })
}

/// Stored runs of whole messages as the JSON array that the protocol serves.
pub fn array<'a>(runs: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let total: usize = runs.clone().map(Bytes::len).sum();
    let mut out = BytesMut::with_capacity(total + 2);
    out.extend_from_slice(b"[");
    for run in runs {
        out.extend_from_slice(run);
    }
    if out.last() == Some(&b',') {
        out.truncate(out.len() - 1);
    }
    out.extend_from_slice(b"]");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(body: &str) -> String {
        let messages = split(body.as_bytes()).unwrap_or_else(|e| panic!("{body}: {e}"));
        String::from_utf8_lossy(&messages.bytes).into_owned()
    }

    #[test]
    fn arrays_are_flattened_one_level() {
        assert_eq!(stored(r#" {"a": 1} "#), r#"{"a": 1},"#);
        assert_eq!(stored(r#"[1, "x,y" ,[2,3], {"b":[4]}]"#), r#"1,"x,y",[2,3],{"b":[4]},"#);
        assert_eq!(stored("[[1,2]]"), "[1,2],");
        assert_eq!(stored(" [ ] "), "");
        assert_eq!(stored("null"), "null,");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for body in ["", " ", "{", "[1,]", "[1 2]", "nul", "\u{feff}1", "{\"a\":1}}", "1 2", "'a'"] {
            assert!(split(body.as_bytes()).is_err(), "{body:?} was accepted");
        }
        assert!(split(b"\"\xff\"").is_err(), "invalid UTF-8 was accepted");
    }

    #[test]
    fn deeply_nested_input_neither_crashes_nor_is_lost() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        if let Ok(messages) = split(deep.as_bytes()) {
            assert_eq!(messages.bytes.len(), deep.len() - 1);
        }
    }

    proptest! {
        #[test]
        fn a_response_holds_exactly_the_messages(values in proptest::collection::vec("[a-z,\\[\\]{}\"\\\\ ]{0,8}", 0..10), cut in 0usize..10) {
            let values: Vec<serde_json::Value> = values.into_iter().map(serde_json::Value::String).collect();
            let messages = split(&serde_json::to_vec(&values).unwrap_or_default()).unwrap_or_default();
            let at = messages.ends.get(cut).map_or(messages.bytes.len(), |end| *end as usize);
            let runs = [messages.bytes.slice(..at), messages.bytes.slice(at..)];
            let back: Vec<serde_json::Value> = serde_json::from_slice(&array(runs.iter())).unwrap_or_default();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn splitting_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = split(&body);
        }
    }
}
