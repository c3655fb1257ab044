//! PUT, DELETE and HEAD (§5.1, 5.4, 5.5).

use crate::server::Server;

#[tokio::test]
async fn a_new_stream_is_described_and_located() {
    let server = Server::start().await;
    let reply = server.put("a/b").text("hello").send().await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("content-type"), "text/plain");
    assert_eq!(reply.header("location"), format!("http://{}/v1/stream/a/b", server.address()));
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.header("stream-next-offset").starts_with("0000000000000005_"));
    assert_eq!(server.get("a/b").send().await.text(), "hello");
}

#[tokio::test]
async fn the_same_put_again_is_ok_and_another_one_a_conflict() {
    let server = Server::start().await;
    let tail = server.text("s", "x").await;
    let again = server.put("s").with("content-type", "TEXT/plain; charset=utf-8").send().await;
    assert_eq!((again.status.as_u16(), again.header("stream-next-offset")), (200, &*tail));
    assert!(!again.has("location"));
    for (name, value) in [("content-type", "text/html"), ("stream-ttl", "60"), ("stream-closed", "true")] {
        let mut call = server.put("s").with(name, value);
        if name != "content-type" {
            call = call.with("content-type", "text/plain");
        }
        let reply = call.send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (409, "stream-exists".to_owned()), "{name}");
    }
}

#[tokio::test]
async fn a_stream_without_content_type_is_binary() {
    let server = Server::start().await;
    let reply = server.put("s").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (201, "application/octet-stream"));
}

#[tokio::test]
async fn head_tells_everything_and_has_no_body() {
    let server = Server::start().await;
    let tail = server.text("s", "hello").await;
    let reply = server.head("s").send().await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, String::new()));
    assert_eq!(reply.header("content-type"), "text/plain");
    assert_eq!(reply.header("stream-next-offset"), tail);
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(!reply.has("content-length"), "it would be that of a GET");
    assert_eq!(server.head("none").send().await.status, 404);
}

#[tokio::test]
async fn a_deleted_stream_is_gone_and_its_successor_is_another() {
    let server = Server::start().await;
    let old = server.text("s", "old data").await;
    assert_eq!(server.delete("s").send().await.status, 204);
    for reply in [
        server.get("s").send().await,
        server.post("s").text("x").send().await,
        server.delete("s").send().await,
        server.get("s?offset=-1&live=sse").send().await,
    ] {
        assert_eq!((reply.status.as_u16(), reply.code()), (404, "stream-not-found".to_owned()));
    }
    let new = server.text("s", "new data").await;
    assert_ne!(old, new);
    let stale = server.get(&format!("s?offset={old}")).send().await;
    assert_eq!((stale.status.as_u16(), stale.code()), (410, "stream-replaced".to_owned()));
    assert_eq!(stale.header("cache-control"), "no-store");
}
