//! Small texts of the protocol: offsets, cursors, names, types, lifetimes, producers, and bodies in JSON.

use std::time::Duration;

use bytes::Bytes;
use headwater::clock::Millis;
use headwater::layout::key;
use headwater::protocol::cursor::hold_boundary;
use headwater::protocol::lifetime::format_moment;
use headwater::protocol::{ContentType, Cursor, Incarnation, Lifetime, Producer, ReadFrom, StreamName, json, offset};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use proptest::prelude::*;
use serde_json::value::RawValue;

use crate::corpus::replay;
use crate::harness::{Target, fuzz};
use crate::mutate::{mutated, noise};

/// Moments at which something may overflow.
const MOMENTS: [Millis; 5] = [0, 1, 1_893_456_000_000, u64::MAX - 1, u64::MAX];

/// Arbitrary bytes and texts, valid ones, and mutations of those.
fn texts(valid: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = Bytes> {
    let valid = valid.prop_map(Bytes::from);
    let text = "\\PC{0,60}".prop_map(Bytes::from);
    prop_oneof![1 => noise(), 1 => text, 2 => valid.clone(), 6 => mutated(valid)]
}

/// Headers come as text; what is not, the HTTP library or the request's parser has refused.
fn text(input: &Bytes) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn holds(what: &str, is_so: bool) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(format!("it does not hold that {what}")) }
}

struct Offsets;

impl Target for Offsets {
    const NAME: &'static str = "offset";
    const FIXED: u64 = 256;
    const EACH: u64 = 0;
    type Value = ReadFrom;

    fn parse(input: &Bytes) -> Option<ReadFrom> {
        text(input)?.parse().ok()
    }

    /// A token has one form, which caches rely on.
    fn check(input: &Bytes, from: &ReadFrom) -> Result<(), String> {
        let again = match from {
            ReadFrom::Start => "-1".to_owned(),
            ReadFrom::Now => "now".to_owned(),
            ReadFrom::At(offset) => {
                holds("positions and incarnations have sixteen digits", offset.position < offset::LIMIT)?;
                offset.to_string()
            }
        };
        holds("it is written as it was read", again.as_bytes() == input)
    }
}

#[test]
fn offsets() {
    assert!(replay::<Offsets>() > 0);
    let token = (0..offset::LIMIT, 0..offset::LIMIT).prop_map(|(a, b)| format!("{a:016}_{b:016}"));
    fuzz::<Offsets>(texts(prop_oneof![4 => token, 1 => Just("-1".to_owned()), 1 => Just("now".to_owned())]));
}

struct Cursors;

impl Target for Cursors {
    const NAME: &'static str = "cursor";
    const FIXED: u64 = 0;
    const EACH: u64 = 0;
    type Value = Cursor;

    fn parse(input: &Bytes) -> Option<Cursor> {
        Cursor::from_client(text(input)?)
    }

    /// Whatever a client sends, the next cursor exceeds it and is still one that a client can send.
    fn check(_: &Bytes, cursor: &Cursor) -> Result<(), String> {
        for moment in MOMENTS {
            let next = Cursor::at(moment, Some(*cursor));
            holds("the next cursor exceeds it", next > *cursor)?;
            holds("it can be written and read", next.to_string().parse::<u64>().is_ok())?;
        }
        Ok(())
    }
}

#[test]
fn cursors() {
    assert!(replay::<Cursors>() > 0);
    fuzz::<Cursors>(texts((0u64..1 << 52).prop_map(|cursor| cursor.to_string())));
    for (hash, hold, now) in [(0, 0, 0), (u64::MAX, u64::MAX, u64::MAX), (u64::MAX, 1, u64::MAX), (7, u64::MAX, 3)] {
        assert!(hold_boundary(hash, Duration::from_millis(hold), now) >= now.saturating_sub(1));
    }
}

struct Names;

impl Target for Names {
    const NAME: &'static str = "name";
    const FIXED: u64 = 1 << 10;
    const EACH: u64 = 4;
    type Value = StreamName;

    fn parse(input: &Bytes) -> Option<StreamName> {
        StreamName::from_url_path(text(input)?).ok()
    }

    fn check(input: &Bytes, name: &StreamName) -> Result<(), String> {
        let text = name.as_str();
        holds("it is what was encoded", percent_decode(input).collect::<Vec<u8>>() == text.as_bytes())?;
        let segments: Vec<&str> = text.split('/').collect();
        holds("no segment leads elsewhere", segments.iter().all(|part| !matches!(*part, "" | "." | "..")))?;
        holds("it holds no control character", !text.chars().any(char::is_control))?;
        let encoded: Vec<String> =
            segments.iter().map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()).collect();
        holds("it is read again", StreamName::from_url_path(&encoded.join("/")).as_ref() == Ok(name))?;
        for key in [key::manifest(name), key::chunk(name, Incarnation::ANY, u128::MAX)] {
            let fits = key.split('/').all(|part| !part.is_empty() && part.len() <= 255 && part != "..");
            holds("its keys fit every store", fits && key.len() <= 512 && key.is_ascii())?;
        }
        Ok(())
    }
}

#[test]
fn stream_names() {
    assert!(replay::<Names>() > 0);
    let part =
        prop_oneof![4 => "[a-z0-9.~_-]{1,8}", 1 => "(%[0-9a-fA-F]{2}){1,4}", 1 => "%C3%A9|%F0%9F%8C%8A|é|[.]{1,2}"];
    let path = proptest::collection::vec(part, 1..40).prop_map(|parts| parts.join("/"));
    fuzz::<Names>(texts(prop_oneof![3 => path, 1 => "[a-z]{505,515}"]));
}

struct ContentTypes;

impl Target for ContentTypes {
    const NAME: &'static str = "content-type";
    const FIXED: u64 = 512;
    const EACH: u64 = 1;
    type Value = ContentType;

    fn parse(input: &Bytes) -> Option<ContentType> {
        ContentType::new(text(input)?).ok()
    }

    fn check(_: &Bytes, found: &ContentType) -> Result<(), String> {
        let text = found.as_str();
        let again = ContentType::new(text).map_err(|e| format!("it is not read again: {e}"))?;
        holds("it is read again as it was", again == *found && again.as_str() == text)?;
        holds("it can be sent as a header", http::HeaderValue::from_str(text).is_ok_and(|v| v.to_str().is_ok()))?;
        holds("JSON is text", found.is_text() || !found.is_json())
    }
}

#[test]
fn content_types() {
    assert!(replay::<ContentTypes>() > 0);
    fuzz::<ContentTypes>(texts("[a-zA-Z0-9+.-]{1,12}/[a-zA-Z0-9+.*-]{1,12}(; ?[a-z]{1,8}=[a-z0-9-]{1,8}){0,2}"));
}

/// Two lines: `Stream-TTL` and `Stream-Expires-At`, each empty if absent.
struct Lifetimes;

impl Target for Lifetimes {
    const NAME: &'static str = "lifetime";
    const FIXED: u64 = 1 << 10;
    const EACH: u64 = 1;
    type Value = Lifetime;

    fn parse(input: &Bytes) -> Option<Lifetime> {
        let mut lines = text(input)?.splitn(2, '\n').map(|line| Some(line).filter(|line| !line.is_empty()));
        let (ttl, expires_at) = (lines.next().flatten(), lines.next().flatten());
        Lifetime::from_headers(ttl, expires_at).ok()
    }

    fn check(_: &Bytes, lifetime: &Lifetime) -> Result<(), String> {
        let again = match lifetime {
            Lifetime::Forever => Lifetime::from_headers(None, None),
            Lifetime::Ttl(seconds) => Lifetime::from_headers(Some(&seconds.to_string()), None),
            Lifetime::Until(moment) => Lifetime::from_headers(None, Some(&format_moment(*moment))),
        };
        holds("it is read again as it is written", again.as_ref() == Ok(lifetime))?;
        for (touched, now) in MOMENTS.iter().flat_map(|a| MOMENTS.map(|b| (*a, b))) {
            let is_renewed = lifetime.needs_renewal(touched, now);
            let never_moves = !matches!(lifetime, Lifetime::Ttl(_)) || touched >= now;
            holds("only a use after the last one renews it", !(is_renewed && never_moves))?;
            let ends_at = lifetime.ends_at(touched);
            holds("a TTL ends after the last use", ends_at.is_none_or(|end| end >= touched) || never_moves)?;
        }
        Ok(())
    }
}

#[test]
fn lifetimes() {
    assert!(replay::<Lifetimes>() > 0);
    let moment = (0u64..9999, 1u64..13, 1u64..32, 0u64..25, 0u64..61, "(\\.[0-9]{1,9})?", "Z|z|[+-][0-9]{2}:[0-9]{2}")
        .prop_map(|(y, mo, d, h, s, fraction, zone)| {
            format!("\n{y:04}-{mo:02}-{d:02}T{h:02}:00:{s:02}{fraction}{zone}")
        });
    let ttl = (0u64..4_000_000_000).prop_map(|ttl| ttl.to_string());
    fuzz::<Lifetimes>(texts(prop_oneof![ttl, moment]));
}

/// Three lines: the three headers, each absent if its line is.
struct Producers;

impl Target for Producers {
    const NAME: &'static str = "producer";
    const FIXED: u64 = 512;
    const EACH: u64 = 1;
    type Value = Option<Producer>;

    fn parse(input: &Bytes) -> Option<Option<Producer>> {
        let mut lines = text(input)?.splitn(3, '\n');
        Producer::from_headers(lines.next(), lines.next(), lines.next()).ok()
    }

    fn check(_: &Bytes, producer: &Option<Producer>) -> Result<(), String> {
        let Some(Producer { id, epoch, seq }) = producer else { return Ok(()) };
        let again = Producer::from_headers(Some(id), Some(&epoch.to_string()), Some(&seq.to_string()));
        holds("it is read again as it is written", again.as_ref() == Ok(producer))?;
        holds("its numbers are JavaScript's", *epoch < 1 << 53 && *seq < 1 << 53)
    }
}

#[test]
fn producers() {
    assert!(replay::<Producers>() > 0);
    let valid =
        ("[ -~é]{1,20}", 0u64..1 << 54, 0u64..1 << 54).prop_map(|(id, epoch, seq)| format!("{id}\n{epoch}\n{seq}"));
    fuzz::<Producers>(texts(valid));
}

struct Json;

impl Target for Json {
    const NAME: &'static str = "json";
    const FIXED: u64 = 1 << 10;
    /// The bytes again, and where each message ends, in 4 bytes: the shortest have two, and a vector that grows is there
    /// twice, the second time twice as long.
    const EACH: u64 = 8;
    type Value = json::Messages;

    fn parse(input: &Bytes) -> Option<json::Messages> {
        json::split(input).ok()
    }

    /// The response is an array of the same values: those of the body, if that is an array, or else the body itself.
    fn check(input: &Bytes, messages: &json::Messages) -> Result<(), String> {
        let read = |bytes: &[u8]| -> Result<Vec<String>, String> {
            let values: Vec<Box<RawValue>> = serde_json::from_slice(bytes).map_err(|e| format!("{e}"))?;
            Ok(values.iter().map(|value| value.get().to_owned()).collect())
        };
        let is_array = input.iter().find(|byte| !b" \t\r\n".contains(byte)) == Some(&b'[');
        let whole = if is_array { input.to_vec() } else { [b"[", &input[..], b"]"].concat() };
        let is_room_asked_for = json::count(input) >= messages.ends.len() as u64;
        holds("room is asked for all messages before they are split", is_room_asked_for)?;
        let served = json::array([messages.bytes.clone()].iter());
        holds("the same values are served", read(&served)? == read(&whole)?)?;
        let mut start = 0;
        for end in messages.ends.iter().map(|end| *end as usize) {
            let one = read(&json::array([messages.bytes.slice(start..end)].iter()))?;
            holds("each message is one value", one.len() == 1)?;
            start = end;
        }
        holds("the messages are all there is", start == messages.bytes.len())
    }
}

fn json_text() -> impl Strategy<Value = String> + Clone {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,4})?",
        "[a-zé ,\\]\\[{}:]{0,8}".prop_map(|text| format!("\"{text}\"")),
        Just("\"\\u00e9\\ud83c\\udf0a\\\\\\\"\"".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let space = prop_oneof![3 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t")];
        let list = (proptest::collection::vec(inner.clone(), 0..5), space.clone())
            .prop_map(|(items, space)| format!("{space}[{space}{}{space}]", items.join(&format!("{space},"))));
        let object = (proptest::collection::vec(inner, 0..3), space).prop_map(|(items, space)| {
            let fields: Vec<String> = items.iter().map(|item| format!("\"k\"{space}:{item}")).collect();
            format!("{{{}}}", fields.join(","))
        });
        prop_oneof![3 => list, 1 => object]
    })
}

#[test]
fn json_bodies() {
    assert!(replay::<Json>() > 0);
    let many = (1u32..15).prop_map(|k| format!("[{}1]", "1,".repeat(1 << k)));
    let deep = (1usize..300).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    fuzz::<Json>(texts(prop_oneof![6 => json_text(), 1 => many, 1 => deep]));
}
