//! Server-sent events (§5.8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::server::Server;

#[tokio::test]
async fn every_data_event_is_followed_by_a_control_event() {
    let server = Server::start().await;
    server.put("s").text("x".repeat(1500)).send().await;
    server.post("s").text("y".repeat(1500)).send().await;
    server.post("s").text("end").with("stream-closed", "true").send().await;
    let open = server.get("s?offset=-1&live=sse").open().await;
    assert_eq!(open.status, 200);
    let events = open.events().await;
    assert!(events.len() >= 4 && events.len().is_multiple_of(2), "{}", events.len());
    let mut data = String::new();
    for pair in events.chunks(2) {
        assert_eq!((&*pair[0].kind, &*pair[1].kind), ("data", "control"));
        data += &pair[0].data;
        let next = pair[1].field("streamNextOffset");
        assert!(next.as_str().is_some_and(|o| o.starts_with(&format!("{:016}_", data.len()))), "{next}");
    }
    assert_eq!(data.len(), 3003);
    let last = &events[events.len() - 1];
    assert_eq!((last.field("streamClosed"), last.field("streamCursor")), (true.into(), serde_json::Value::Null));
    assert_eq!(events[1].field("streamClosed"), serde_json::Value::Null, "not before the data is drained");
}

#[tokio::test]
async fn the_response_is_not_for_buffers_and_caches() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let open = server.get("s?offset=-1&live=sse").open().await;
    let header = |name: &str| open.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(header("content-type"), "text/event-stream");
    assert_eq!(header("cache-control"), "no-cache, no-transform");
    assert_eq!(header("x-accel-buffering"), "no");
    assert_eq!(header("content-length"), "");
    assert_eq!(header("stream-sse-data-encoding"), "");
}

#[tokio::test]
async fn binary_is_base64_and_json_an_array() {
    let server = Server::start().await;
    server.put("b").with("content-type", "image/png").body(vec![0, 10, 13, 255]).send().await;
    let mut open = server.get("b?offset=-1&live=sse").open().await;
    assert_eq!(open.headers.get("stream-sse-data-encoding").map(|v| v.as_bytes()), Some(&b"base64"[..]));
    let data = open.event().await.map(|event| event.data).unwrap_or_default();
    assert_eq!(STANDARD.decode(data).ok(), Some(vec![0, 10, 13, 255]));

    server.put("j").json("[{\"n\":1}]").send().await;
    server.post("j").json("{\"n\":\"a\\nb\"}").send().await;
    let mut open = server.get("j?offset=-1&live=sse").open().await;
    let data = open.event().await.map(|event| event.data).unwrap_or_default();
    let values: serde_json::Value = serde_json::from_str(&data).unwrap_or_default();
    assert_eq!(values, serde_json::json!([{ "n": 1 }, { "n": "a\nb" }]));
}

#[tokio::test]
async fn a_subscriber_at_the_tail_is_told_so_and_gets_what_comes() {
    let server = Server::start().await;
    let tail = server.text("s", "old").await;
    let mut open = server.get("s?offset=now&live=sse").open().await;
    let first = open.event().await.unwrap_or_else(|| panic!("no event"));
    assert_eq!((first.field("upToDate"), first.field("streamNextOffset")), (true.into(), tail.into()));
    let cursor: u64 = first.field("streamCursor").as_str().and_then(|c| c.parse().ok()).unwrap_or(0);
    server.append("s", "new").await;
    assert_eq!(open.event().await.map(|event| event.data), Some("new".to_owned()));
    let second = open.event().await.unwrap_or_else(|| panic!("no event"));
    let next: u64 = second.field("streamCursor").as_str().and_then(|c| c.parse().ok()).unwrap_or(0);
    assert!(next >= cursor);
}

#[tokio::test]
async fn the_cursor_exceeds_the_clients() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let sent = 999_999_999_999_u64;
    let mut open = server.get(&format!("s?offset=now&live=sse&cursor={sent}")).open().await;
    let control = open.event().await.unwrap_or_else(|| panic!("no event"));
    assert!(control.field("streamCursor").as_str().and_then(|c| c.parse().ok()).is_some_and(|c: u64| c > sent));
}

#[tokio::test]
async fn the_last_append_is_delivered_before_the_close() {
    let server = Server::start().await;
    for round in 0..20 {
        let name = format!("s{round}");
        let tail = server.text(&name, "initial").await;
        let open = server.get(&format!("{name}?offset={tail}&live=sse")).open().await;
        server.post(&name).text("last").with("stream-closed", "true").send().await;
        let events = open.events().await;
        let data: String = events.iter().filter(|e| e.kind == "data").map(|e| e.data.as_str()).collect();
        assert_eq!(data, "last");
        assert_eq!(events.last().map(|last| last.field("streamClosed")), Some(true.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_ends_after_its_life_with_a_control_event() {
    let server = Server::in_process().await;
    let tail = server.text("s", "data").await;
    let started = tokio::time::Instant::now();
    let events = server.get("s?offset=-1&live=sse").open().await.events().await;
    assert!((54..=66).contains(&started.elapsed().as_secs()), "on a clock that only waiting moves");
    assert_eq!(events.last().map(|last| last.field("streamNextOffset")), Some(tail.into()));
}

#[tokio::test]
async fn subscribers_of_a_deleted_stream_are_let_go() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let mut open = server.get("s?offset=now&live=sse").open().await;
    assert!(open.event().await.is_some());
    server.delete("s").send().await;
    assert_eq!(open.events().await, []);
}
