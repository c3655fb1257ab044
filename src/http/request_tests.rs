use axum::http::HeaderValue;

use super::*;

const TOKEN: &str = "0000000000000007_0000000000000042";
const ANY: &str = "0000000000000007_0000000000000000";

fn uri(text: &str) -> Uri {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_str(value).unwrap_or_else(|e| panic!("{value}: {e}")));
    }
    map
}

fn read(query: &str) -> Result<Read, Malformed> {
    Read::parse(&uri(&format!("/v1/stream/a?{query}")), &HeaderMap::new())
}

#[test]
fn the_path_is_taken_as_it_was_sent() {
    let name = |text| StreamName::new(text).map(Target::Stream);
    assert_eq!(target(&uri("/v1/stream/chat/room%201")), name("chat/room 1"));
    assert_eq!(target(&uri("/v1/stream/__ds/jwks.json")), Ok(Target::Reserved));
    assert_eq!(target(&uri("/v1/stream/%5F_ds")), Ok(Target::Reserved));
    for path in ["/v1/stream/", "/v1/stream/a%2Fb", "/v1/stream/a//b", "/v1/stream/a/", "/v1/stream/../x"] {
        assert!(target(&uri(path)).is_err(), "{path} was accepted");
    }
}

#[test]
fn a_reads_start_says_how_it_may_be_shared() {
    let cases = [
        ("", Anchor::Absent, ReadFrom::Start),
        ("offset=-1", Anchor::AnyIncarnation, ReadFrom::Start),
        ("offset=now", Anchor::Now, ReadFrom::Now),
    ];
    for (query, anchor, from) in cases {
        assert_eq!(read(query).map(|r| (r.anchor, r.from)), Ok((anchor, from)), "{query}");
    }
    assert_eq!(read(&format!("offset={TOKEN}")).map(|r| r.anchor), Ok(Anchor::Token));
    assert_eq!(read(&format!("offset={ANY}")).map(|r| r.anchor), Ok(Anchor::AnyIncarnation));
}

#[test]
fn live_modes_and_cursors_are_understood() {
    let request = read(&format!("cursor=12&live=long-poll&offset={TOKEN}&other=1&other=2"));
    assert_eq!(request.as_ref().map(|r| r.live), Ok(Live::LongPoll));
    assert_eq!(request.map(|r| r.cursor), Ok(Cursor::from_client("12")));
    assert_eq!(read("offset=now&live=sse").map(|r| r.live), Ok(Live::Sse));
    assert_eq!(read("offset=now&live=sse&cursor=garbage").map(|r| r.cursor), Ok(None));
}

#[test]
fn ambiguous_and_unknown_reads_are_refused() {
    for query in [
        "offset=",
        "offset",
        "offset=0,1",
        "offset=0+1",
        "offset=-1&offset=-1",
        "offset=-1&%6Fffset=now",
        "offset=-1&live=sse&live=sse",
        "offset=-1&live=websocket",
        "offset=-1&live=",
        "live=sse",
        "live=long-poll",
        "offset=%ff",
    ] {
        assert!(read(query).is_err(), "{query} was accepted");
    }
}

#[test]
fn only_true_closes() {
    for (value, close) in [("true", true), ("TRUE", true), ("yes", false), ("1", false), ("", false), ("false", false)]
    {
        assert_eq!(AppendHeaders::parse(&headers(&[("stream-closed", value)])).map(|h| h.close), Ok(close), "{value}");
    }
}

#[test]
fn a_header_of_the_protocol_comes_once() {
    let twice = headers(&[("stream-seq", "1"), ("stream-seq", "2")]);
    assert!(AppendHeaders::parse(&twice).is_err());
    assert!(AppendHeaders::parse(&headers(&[("stream-seq", &"x".repeat(257))])).is_err());
    assert!(AppendHeaders::parse(&headers(&[("producer-id", "p")])).is_err());
}

#[test]
fn a_create_without_headers_is_an_open_binary_stream_for_ever() {
    let content_type = ContentType::default();
    let default = CreateHeaders { content_type, lifetime: Lifetime::Forever, closed: false, retention: None };
    assert_eq!(CreateHeaders::parse(&HeaderMap::new()), Ok(default));
    assert!(CreateHeaders::parse(&headers(&[("content-type", "nonsense")])).is_err());
    assert!(CreateHeaders::parse(&headers(&[("stream-ttl", "+1")])).is_err());
}

#[test]
fn if_none_match_may_be_spread_over_lines() {
    let request =
        Read::parse(&uri("/v1/stream/a"), &headers(&[("if-none-match", "\"a\""), ("if-none-match", "\"b\"")]));
    assert_eq!(request.map(|r| r.if_none_match), Ok(Some("\"a\",\"b\"".to_owned())));
}
