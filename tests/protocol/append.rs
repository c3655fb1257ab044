//! POST (§5.2).

use crate::server::Server;

#[tokio::test]
async fn an_append_moves_the_tail() {
    let server = Server::start().await;
    let first = server.text("s", "one").await;
    let reply = server.post("s").text("two").send().await;
    assert_eq!((reply.status.as_u16(), reply.text()), (204, String::new()));
    assert!(reply.header("stream-next-offset") > &*first);
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(server.get("s").send().await.text(), "onetwo");
}

#[tokio::test]
async fn an_append_needs_a_stream_a_body_and_its_content_type() {
    let server = Server::start().await;
    server.text("s", "x").await;
    let cases = [
        (server.post("none").text("x"), 404, "stream-not-found"),
        (server.post("s").text(""), 400, "malformed-request"),
        (server.post("s").body("x"), 400, "malformed-request"),
        (server.post("s").with("content-type", "nonsense").body("x"), 400, "malformed-request"),
        (server.post("s").with("content-type", "text/html").body("x"), 409, "content-type-mismatch"),
        (server.post("s").json("{}"), 409, "content-type-mismatch"),
    ];
    for (call, status, code) in cases {
        let reply = call.send().await;
        assert_eq!((reply.status.as_u16(), &*reply.code()), (status, code));
    }
    assert_eq!(server.get("s").send().await.text(), "x");
}

#[tokio::test]
async fn seqs_increase_as_bytes() {
    let server = Server::start().await;
    server.text("s", "").await;
    for (seq, status) in [("2", 204), ("10", 409), ("2", 409), ("3", 204), ("B", 204), ("a", 204), ("B", 409)] {
        let reply = server.post("s").text("x").with("stream-seq", seq).send().await;
        assert_eq!(reply.status, status, "{seq}");
    }
}

#[tokio::test]
async fn every_byte_survives() {
    let server = Server::start().await;
    let all: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let binary = "application/octet-stream";
    server.put("s").with("content-type", binary).body(all.clone()).send().await;
    server.post("s").with("content-type", binary).body(all.clone()).send().await;
    let mut read = Vec::new();
    let mut offset = "-1".to_owned();
    loop {
        let reply = server.get(&format!("s?offset={offset}")).send().await;
        read.extend_from_slice(&reply.body);
        offset = reply.header("stream-next-offset").to_owned();
        if reply.has("stream-up-to-date") {
            break;
        }
    }
    assert_eq!(read, [all.clone(), all].concat());
}
