//! JSON mode (§9.1): a body is one message, or an array whose elements are the messages.
//!
//! Messages are stored as `m,m,m,`, so that any run of whole messages becomes a response by putting it between
//! brackets: no parsing on the way out.

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Malformed;

/// Messages as they are stored, and where each ends, counted from the start of the run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Messages {
    pub bytes: Bytes,
    pub ends: Vec<u32>,
}

/// How many messages a body has, if it is valid JSON; if not, at least as many as come before what is wrong. Keeps nothing,
/// so that room can be asked for before the body is split.
pub fn count(body: &[u8]) -> u64 {
    if first_byte(body) != Some(b'[') {
        return 1;
    }
    let (mut depth, mut commas, mut in_text, mut escaped) = (0u64, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => commas += 1,
            _ => {}
        }
    }
    commas + 1
}

fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// Splits a request body into messages. An empty array gives none: the caller decides whether that is allowed.
pub fn split(body: &[u8]) -> Result<Messages, Malformed> {
    let malformed = |error: serde_json::Error| Malformed::new(format!("body is not valid JSON: {error}"));
    let mut builder = Builder { bytes: BytesMut::with_capacity(body.len() + 1), ends: Vec::new() };
    if first_byte(body) == Some(b'[') {
        let mut array = serde_json::Deserializer::from_slice(body);
        array.deserialize_seq(&mut builder).and_then(|()| array.end()).map_err(malformed)?;
    } else {
        let message: &RawValue = serde_json::from_slice(body).map_err(malformed)?;
        builder.push(message);
    }
    u32::try_from(builder.bytes.len()).map_err(|_| Malformed::new("body is larger than 4 GiB"))?;
    Ok(Messages { bytes: builder.bytes.freeze(), ends: builder.ends })
}

/// Takes messages one after the other: a list of where they are would take many times the body's bytes.
struct Builder {
    bytes: BytesMut,
    ends: Vec<u32>,
}

impl Builder {
    fn push(&mut self, message: &RawValue) {
        self.bytes.extend_from_slice(message.get().trim().as_bytes());
        self.bytes.extend_from_slice(b",");
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }
}

impl<'de> Visitor<'de> for &mut Builder {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(message) = elements.next_element::<&RawValue>()? {
            self.push(message);
        }
        Ok(())
    }
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

    #[test]
    fn messages_are_counted_before_they_are_split() {
        for body in ["null", " {\"a\":1,\"b\":2}", "[1]", " [1 , 2]", "[[1,2],{\"a\":[3,4]},\"x,\\\"y,\\\\\",5]"] {
            let messages = split(body.as_bytes()).unwrap_or_else(|e| panic!("{body}: {e}"));
            assert_eq!(count(body.as_bytes()), messages.ends.len() as u64, "{body}");
        }
    }

    proptest! {
        #[test]
        fn as_many_messages_are_counted_as_there_are(texts in proptest::collection::vec("[a,\\[\\]{}:\"\\\\ ]{0,6}", 1..9)) {
            let value = |text: &String| serde_json::json!([text, [text, {text.as_str(): [1, text]}], {"k": text, "l": 2}]);
            for body in [serde_json::Value::from(texts.clone()), texts.iter().map(value).collect()] {
                let body = serde_json::to_vec_pretty(&body).unwrap_or_default();
                let messages = split(&body).unwrap_or_default();
                prop_assert_eq!(messages.ends.len(), texts.len());
                prop_assert_eq!(count(&body), texts.len() as u64);
            }
        }

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
