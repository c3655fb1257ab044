//! Closed streams (§4.1, 5.3).

use crate::server::Server;

#[tokio::test]
async fn a_close_without_a_body_may_be_repeated() {
    let server = Server::start().await;
    let tail = server.text("s", "data").await;
    for content_type in [None, Some("nonsense"), Some("application/json")] {
        let mut call = server.post("s").with("stream-closed", "TRUE");
        if let Some(content_type) = content_type {
            call = call.with("content-type", content_type);
        }
        let reply = call.send().await;
        assert_eq!((reply.status.as_u16(), reply.header("stream-closed")), (204, "true"));
        assert_eq!(reply.header("stream-next-offset"), tail);
    }
    assert_eq!(server.head("s").send().await.header("stream-closed"), "true");
}

#[tokio::test]
async fn a_closed_stream_takes_nothing_more_and_says_where_it_ends() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let closed = server.post("s").text("!").with("stream-closed", "true").send().await;
    assert_eq!(closed.status, 204);
    for call in [
        server.post("s").text("x"),
        server.post("s").text("x").with("stream-closed", "true"),
        // Closed counts more than the wrong content type.
        server.post("s").with("content-type", "text/html").body("x"),
    ] {
        let reply = call.send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (409, "stream-closed".to_owned()));
        assert_eq!(reply.header("stream-closed"), "true");
        assert_eq!(reply.header("stream-next-offset"), closed.header("stream-next-offset"));
    }
    assert_eq!(server.get("s").send().await.text(), "data!");
}

#[tokio::test]
async fn a_stream_can_be_created_closed() {
    let server = Server::start().await;
    let create = || server.put("s").text("all").with("stream-closed", "true");
    let reply = create().send().await;
    assert_eq!((reply.status.as_u16(), reply.header("stream-closed")), (201, "true"));
    assert_eq!(create().send().await.status, 200);
    assert_eq!(server.put("s").text("").send().await.status, 409);
}

#[tokio::test]
async fn other_values_than_true_do_not_close() {
    let server = Server::start().await;
    server.text("s", "").await;
    for value in ["false", "yes", "1", ""] {
        assert_eq!(server.post("s").text("x").with("stream-closed", value).send().await.status, 204, "{value}");
        assert_eq!(server.post("s").with("stream-closed", value).send().await.status, 400, "{value}");
    }
    assert!(!server.head("s").send().await.has("stream-closed"));
}

#[tokio::test]
async fn the_end_is_told_only_to_who_reached_it() {
    let server = Server::start().await;
    let page = "x".repeat(1024);
    server.put("s").text(page.clone()).send().await;
    server.post("s").text(page).with("stream-closed", "true").send().await;
    let first = server.get("s?offset=-1").send().await;
    assert!(!first.has("stream-closed") && !first.has("stream-up-to-date"));
    let last = server.get(&format!("s?offset={}", first.header("stream-next-offset"))).send().await;
    assert_eq!((last.header("stream-closed"), last.header("stream-up-to-date")), ("true", "true"));
    let end = server.get(&format!("s?offset={}", last.header("stream-next-offset"))).send().await;
    assert_eq!((end.status.as_u16(), end.text(), end.header("stream-closed")), (200, String::new(), "true"));
    assert!(!end.has("stream-cursor"));
}

#[tokio::test]
async fn now_on_a_closed_stream_returns_at_once_in_every_mode() {
    let server = Server::start().await;
    server.put("s").text("all").with("stream-closed", "true").send().await;
    for (mode, status) in [("", 200), ("&live=long-poll", 204)] {
        let reply = server.get(&format!("s?offset=now{mode}")).send().await;
        assert_eq!((reply.status.as_u16(), reply.text()), (status, String::new()), "{mode}");
        assert_eq!((reply.header("stream-closed"), reply.header("stream-up-to-date")), ("true", "true"), "{mode}");
    }
    let events = server.get("s?offset=now&live=sse").open().await.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].field("streamClosed"), events[0].field("upToDate")), (true.into(), true.into()));
}
