//! What caches are told (§10). The whole table is tested beside the code; here, that it reaches the wire.

use crate::server::Server;

const SHARE: &str = "public, max-age=60, stale-while-revalidate=300";
const TAIL: &str = "public, max-age=0, s-maxage=1, must-revalidate, stale-while-revalidate=0, stale-if-error=0";

#[tokio::test]
async fn only_what_cannot_change_is_shared_for_long() {
    let server = Server::start().await;
    let start = server.text("s", "").await;
    let page_end = server.post("s").text("x".repeat(1024)).send().await.header("stream-next-offset").to_owned();
    let control = async |query: String| server.get(&query).send().await.header("cache-control").to_owned();
    server.append("s", "more").await;
    assert_eq!(control(format!("s?offset={start}")).await, SHARE);
    assert_eq!(control(format!("s?offset={page_end}")).await, TAIL);
    assert_eq!(control("s?offset=-1".to_owned()).await, TAIL);
    assert_eq!(control("s".to_owned()).await, "no-store");
    assert_eq!(control("s?offset=now".to_owned()).await, "no-store");
    assert_eq!(control(format!("s?offset={page_end}&live=long-poll")).await, SHARE);
    server.post("s").with("stream-closed", "true").send().await;
    assert_eq!(control(format!("s?offset={page_end}")).await, SHARE);
}

#[tokio::test]
async fn a_known_page_is_not_sent_again() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let first = server.get("s?offset=-1").send().await;
    let tag = first.header("etag").to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let reply = server.get("s?offset=-1").with("if-none-match", &known).send().await;
        assert_eq!((reply.status.as_u16(), reply.text()), (304, String::new()), "{known}");
        assert_eq!((reply.header("etag"), reply.header("cache-control")), (&*tag, TAIL));
        assert_eq!(reply.header("stream-next-offset"), first.header("stream-next-offset"));
    }
    assert_eq!(server.get("s?offset=-1").with("if-none-match", "\"x\"").send().await.text(), "data");
    assert!(!server.get("s?offset=now").send().await.has("etag"));
}

#[tokio::test]
async fn neither_new_data_nor_a_close_hides_behind_a_tag() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let tag = server.get("s?offset=-1").send().await.header("etag").to_owned();
    server.post("s").with("stream-closed", "true").send().await;
    let reply = server.get("s?offset=-1").with("if-none-match", &tag).send().await;
    assert_eq!((reply.status.as_u16(), reply.header("stream-closed")), (200, "true"));
    assert_ne!(reply.header("etag"), tag);
}

#[tokio::test]
async fn the_page_at_the_tail_has_the_cursor_of_the_first_live_read() {
    let server = Server::start().await;
    let tail = server.text("s", "data").await;
    let page = server.get("s?offset=-1").send().await;
    let again = server.get(&format!("s?offset={tail}")).send().await;
    assert!(page.has("stream-cursor"));
    assert_eq!(page.header("stream-cursor"), again.header("stream-cursor"), "the stream's, not the clock's");
}

#[tokio::test]
async fn every_response_may_be_read_by_browsers_of_any_origin_and_is_what_it_says() {
    let server = Server::start().await;
    server.text("s", "data").await;
    for reply in [
        server.get("s").with("origin", "https://example.com").send().await,
        server.head("s").send().await,
        server.get("none").send().await,
        server.call("PATCH", "/v1/stream/s").send().await,
        server.call("GET", "/nothing").send().await,
        server.call("GET", "/healthz").send().await,
        server.call("OPTIONS", "/v1/stream/s").send().await,
    ] {
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        assert!(reply.header("access-control-expose-headers").contains("stream-next-offset"));
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cross-origin-resource-policy"), "cross-origin");
        assert!(reply.has("cache-control") && !reply.has("vary"));
    }
    let preflight = server.call("OPTIONS", "/v1/stream/s").send().await;
    assert_eq!(preflight.status, 204);
    for name in ["if-none-match", "content-type", "stream-closed", "producer-seq", "authorization"] {
        assert!(preflight.header("access-control-allow-headers").contains(name), "{name}");
    }
    assert!(preflight.header("access-control-allow-methods").contains("DELETE"));
}
