//! What readers and writers see of a server that stops.

use std::time::Duration;

use headwater::settings::HttpSettings;

use crate::server::{Server, soon};

#[tokio::test]
async fn live_reads_end_as_if_their_time_were_over() {
    let (server, stop) = Server::start_with(HttpSettings::default()).await;
    let tail = server.text("s", "data").await;
    let mut sse = server.get("s?offset=now&live=sse").open().await;
    assert!(sse.event().await.is_some());
    let poll = tokio::spawn(server.get(&format!("s?offset={tail}&live=long-poll")).send());
    // The request is under way once another one on the same server was answered after it.
    server.head("s").send().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ended = stop.send();
    let reply = soon(poll).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((reply.status.as_u16(), reply.header("stream-next-offset")), (204, &*tail));
    let events = soon(sse.events()).await;
    assert_eq!(events.last().map(|last| last.field("streamNextOffset")), Some(tail.into()));
    soon(ended).await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn a_client_that_does_not_let_go_is_cut_off() {
    let settings = HttpSettings { drain_timeout: Duration::from_millis(200), ..HttpSettings::default() };
    let (server, stop) = Server::start_with(settings).await;
    server.text("s", "").await;
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap_or_else(|e| panic!("{e}"));
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\nhalf";
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap_or_else(|e| panic!("{e}"));
    server.head("s").send().await;
    soon(stop.send()).await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn readiness_is_off_when_the_server_is_told_to_stop() {
    let server = Server::in_process().await;
    assert_eq!(server.call("GET", "/readyz").send().await.status, 200);
    server.stopping.cancel();
    let reply = server.call("GET", "/readyz").send().await;
    assert_eq!((reply.status.as_u16(), reply.code()), (503, "stopping".to_owned()));
    assert!(reply.has("retry-after"));
    assert_eq!(server.call("GET", "/healthz").send().await.status, 200);
}

#[tokio::test]
async fn metrics_hold_the_servers_and_the_stores() {
    let server = Server::in_process().await;
    server.text("s", "data").await;
    let text = server.call("GET", "/metrics").send().await.text();
    assert!(text.contains("headwater_http_requests_total{method=\"PUT\",status=\"2xx\"} 1\n"), "{text}");
    assert!(text.contains("store_requests_total 1\n"), "{text}");
}
