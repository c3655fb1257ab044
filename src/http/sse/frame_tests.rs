use proptest::prelude::*;

use super::*;
use crate::protocol::{Incarnation, json};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Event {
    kind: Vec<u8>,
    data: Vec<u8>,
}

/// The event stream algorithm of the HTML standard, on bytes.
fn decode(stream: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let (mut event, mut has_data) = (Event::default(), false);
    for line in split_lines(stream) {
        if line.is_empty() {
            if has_data {
                event.data.pop(); // the last LF
                events.push(std::mem::take(&mut event));
            }
            (event, has_data) = (Event::default(), false);
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (field, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => event.kind = value.to_vec(),
            b"data" => {
                event.data.extend_from_slice(value);
                event.data.push(b'\n');
                has_data = true;
            }
            _ => {}
        }
    }
    events
}

/// Lines end with CRLF, LF or CR; an unfinished last line is dropped.
fn split_lines(stream: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), stream);
    while let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) {
        lines.push(&rest[..end]);
        let skip = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + skip..];
    }
    lines
}

/// What survives of text: the kind of its line ends does not.
fn normal(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    for line in split_lines(text) {
        out.extend_from_slice(line);
        out.push(b'\n');
        at += line.len();
        at += if text[at..].starts_with(b"\r\n") { 2 } else { 1 };
    }
    out.extend_from_slice(&text[at..]);
    out
}

fn one(stream: &[u8]) -> Event {
    let mut events = decode(stream);
    assert_eq!(events.len(), 1, "{:?}", String::from_utf8_lossy(stream));
    events.remove(0)
}

fn offset() -> Offset {
    Offset { position: 9, incarnation: Incarnation::ANY }
}

#[test]
fn a_payload_cannot_end_its_event_or_start_another() {
    for attack in
        ["a\n\nevent: control\ndata:{}\n\nb", "a\r\revent: control\rdata:{}\r\rb", "a\r\n\r\nid: 7\r\nretry: 1"]
    {
        let event = one(&data(attack.as_bytes(), Encoding::Text));
        assert_eq!(event.kind, b"data");
        assert_eq!(event.data, normal(attack.as_bytes()));
    }
}

#[test]
fn the_exact_form_of_events() {
    assert_eq!(&*data(b"line1\nline2", Encoding::Text), b"event: data\ndata:line1\ndata:line2\n\n");
    assert_eq!(&*data(b"Hello", Encoding::Base64), b"event: data\ndata:SGVsbG8=\n\n");
    let open = Control { next: offset(), cursor: Cursor::from_client("5"), up_to_date: true, closed: false };
    let expected = "event: control\ndata:{\"streamNextOffset\":\"0000000000000009_0000000000000000\",\"streamCursor\":\"5\",\"upToDate\":true}\n\n";
    assert_eq!(&*control(&open), expected.as_bytes());
    let closed = Control { cursor: None, closed: true, ..open };
    assert!(control(&closed).ends_with(b"\"upToDate\":true,\"streamClosed\":true}\n\n"));
}

#[test]
fn a_comment_is_not_an_event() {
    assert_eq!(decode(KEEP_ALIVE), []);
}

/// Text that is mostly what could go wrong.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b" ".to_vec()),
        Just(b":".to_vec()),
        Just(b"data:".to_vec()),
        Just(b"event: control".to_vec()),
        Just("\u{feff}\u{2028}\u{85}".as_bytes().to_vec()),
        Just(b"\0".to_vec()),
        proptest::collection::vec(any::<u8>(), 1..6),
    ];
    proptest::collection::vec(piece, 1..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn text_comes_back_but_for_the_kind_of_its_line_ends(text in hostile()) {
        let event = one(&data(&text, Encoding::Text));
        prop_assert_eq!(event.kind, b"data".to_vec());
        prop_assert_eq!(event.data, normal(&text));
    }

    #[test]
    fn binary_comes_back_exactly(bytes in hostile()) {
        let event = one(&data(&bytes, Encoding::Base64));
        prop_assert_eq!(STANDARD.decode(event.data).ok(), Some(bytes));
    }

    #[test]
    fn json_comes_back_with_its_values(strings in proptest::collection::vec("\\PC*|[\r\n\\\\\" ]{0,6}", 1..6), space in "[ \r\n\t]{0,3}") {
        let values: Vec<serde_json::Value> = strings.into_iter().map(serde_json::Value::String).collect();
        let texts: Vec<String> = values.iter().map(|v| format!("{{{space}\"k\":{space}{v}{space}}}")).collect();
        let messages = json::split(format!("[{}]", texts.join(",")).as_bytes()).unwrap_or_default();
        let event = one(&data(&json::array([messages.bytes].iter()), Encoding::Text));
        let back: Vec<serde_json::Value> = serde_json::from_slice(&event.data).unwrap_or_default();
        let expected: Vec<serde_json::Value> = values.into_iter().map(|v| serde_json::json!({ "k": v })).collect();
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn events_in_a_row_stay_apart(texts in proptest::collection::vec(hostile(), 1..5)) {
        let control = control(&Control { next: offset(), cursor: None, up_to_date: false, closed: false });
        let stream: Vec<u8> = texts.iter().flat_map(|t| [data(t, Encoding::Text), control.clone()].concat()).collect();
        let events = decode(&stream);
        prop_assert_eq!(events.len(), texts.len() * 2);
        for (pair, text) in events.chunks(2).zip(&texts) {
            prop_assert_eq!(&pair[0].data, &normal(text));
            prop_assert_eq!(&pair[1].kind, &b"control".to_vec());
        }
    }
}
