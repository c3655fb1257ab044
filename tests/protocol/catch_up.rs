//! Plain reads (§5.6, 8).

use crate::server::Server;

#[tokio::test]
async fn a_read_from_an_offset_gives_what_follows() {
    let server = Server::start().await;
    let middle = server.text("s", "first").await;
    server.append("s", "second").await;
    let reply = server.get(&format!("s?offset={middle}")).send().await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "second".to_owned()));
    assert_eq!(reply.header("content-type"), "text/plain");
    assert_eq!(reply.header("stream-up-to-date"), "true");
    let tail = reply.header("stream-next-offset").to_owned();
    let empty = server.get(&format!("s?offset={tail}")).send().await;
    assert_eq!((empty.status.as_u16(), empty.text()), (200, String::new()));
    assert_eq!((empty.header("stream-next-offset"), empty.header("stream-up-to-date")), (&*tail, "true"));
}

#[tokio::test]
async fn the_start_may_be_left_out_or_named() {
    let server = Server::start().await;
    let tail = server.text("s", "data").await;
    let any = format!("0000000000000002_{:016}", 0);
    assert_eq!(server.get("s").send().await.text(), "data");
    assert_eq!(server.get("s?offset=-1&unknown=1").send().await.text(), "data");
    assert_eq!(server.get(&format!("s?offset={any}")).send().await.text(), "ta");
    let now = server.get("s?offset=now").send().await;
    assert_eq!((now.text(), now.header("stream-next-offset")), (String::new(), &*tail));
    assert_eq!(now.header("stream-up-to-date"), "true");
}

#[tokio::test]
async fn what_is_no_offset_of_the_stream_is_refused() {
    let server = Server::start().await;
    let tail = server.text("s", "data").await;
    let beyond = tail.replacen("0000000000000004", "0000000000000005", 1);
    for query in ["offset=", "offset=0,1", "offset=0%201", "offset=..%2Fx", "offset=-1&offset=-1", "live=sse"] {
        let reply = server.get(&format!("s?{query}")).send().await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "malformed-request".to_owned()), "{query}");
    }
    let reply = server.get(&format!("s?offset={beyond}")).send().await;
    assert_eq!((reply.status.as_u16(), reply.code()), (400, "offset-beyond-tail".to_owned()));
    assert_eq!(reply.header("stream-next-offset"), tail);
}

#[tokio::test]
async fn readers_that_started_anywhere_meet_at_the_same_pages() {
    let server = Server::start().await;
    server.put("s").text("").send().await;
    let mut starts = vec!["-1".to_owned()];
    for _ in 0..5 {
        let reply = server.post("s").text("m".repeat(300)).send().await;
        starts.push(reply.header("stream-next-offset").to_owned());
    }
    let mut ends = Vec::new();
    for start in &starts[..4] {
        ends.push(server.get(&format!("s?offset={start}")).send().await.header("stream-next-offset").to_owned());
    }
    assert!(ends.iter().all(|end| *end == starts[4]), "{ends:?}");
}

#[tokio::test]
async fn a_read_says_where_its_bytes_came_from() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let timing = server.get("s").send().await.header("server-timing").to_owned();
    assert!(["page;desc=memory", "page;desc=store"].contains(&&*timing), "{timing}");
}
