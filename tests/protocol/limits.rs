//! What one client may take from the others: bytes, connections, time.

use std::time::Duration;

use headwater::settings::HttpSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Server, soon};

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap_or_else(|e| panic!("{e}"))
}

/// What the server says until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let settings = HttpSettings { max_append_bytes: 1000, ..HttpSettings::default() };
    let (server, _stop) = Server::start_with(settings).await;
    server.text("s", "").await;
    let mut stream = connect(&server).await;
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 1001\r\n\r\n";
    say(&mut stream, head).await;
    let mut start = [0; 12];
    let _ = stream.read_exact(&mut start).await;
    assert_eq!(&start, b"HTTP/1.1 413");

    let mut stream = connect(&server).await;
    let head =
        "POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    say(&mut stream, &format!("{head}3e9\r\n{}", "x".repeat(1001))).await;
    let _ = stream.read_exact(&mut start).await;
    assert_eq!(&start, b"HTTP/1.1 413");
    assert_eq!(server.get("s").send().await.text(), "");
}

#[tokio::test]
async fn a_body_of_unknown_length_is_appended_whole() {
    let server = Server::start().await;
    server.text("s", "").await;
    let mut stream = connect(&server).await;
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let piece = format!("400\r\n{}\r\n", "x".repeat(1024));
    say(&mut stream, &format!("{head}{}0\r\n\r\n", piece.repeat(100))).await;
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 204"));
    assert!(server.head("s").send().await.header("stream-next-offset").starts_with("0000000000102400_"));
}

#[tokio::test]
async fn a_body_that_breaks_off_appends_nothing() {
    let server = Server::start().await;
    server.text("s", "").await;
    let mut stream = connect(&server).await;
    let head = "POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n";
    say(&mut stream, &format!("{head}half")).await;
    drop(stream);
    assert_eq!(server.get("s").send().await.text(), "");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let settings = HttpSettings { body_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    let (server, _stop) = Server::start_with(settings).await;
    server.text("s", "").await;
    for length in ["content-length: 10", "transfer-encoding: chunked"] {
        let mut stream = connect(&server).await;
        say(
            &mut stream,
            &format!("POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n{length}\r\n\r\n"),
        )
        .await;
        let mut start = [0; 12];
        let _ = soon(stream.read_exact(&mut start)).await;
        assert_eq!(&start, b"HTTP/1.1 408");
    }
}

#[tokio::test]
async fn a_connection_that_never_asks_is_closed() {
    let settings = HttpSettings { header_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    let (server, _stop) = Server::start_with(settings).await;
    for beginning in ["", "P", "GET / HTTP/1.1\r\nhost: x\r\n", "PRI * HTTP/2.0\r\n\r\n"] {
        let mut stream = connect(&server).await;
        say(&mut stream, beginning).await;
        // It ends at all; how soon is not measured.
        soon(rest(&mut stream)).await;
    }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_let_go() {
    let settings =
        HttpSettings { write_stall_timeout: Duration::from_millis(200), max_connections: 2, ..HttpSettings::default() };
    let (server, _stop) = Server::start_with(settings).await;
    server.put("s").text("").send().await;
    let mut stream = connect(&server).await;
    say(&mut stream, "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: x\r\n\r\n").await;
    for _ in 0..40 {
        assert_eq!(server.post("s").text("x".repeat(1 << 20)).send().await.status, 204);
    }
    // One of two places is taken by the client above; the other's connection is kept. A third gets in once the
    // stalled one is gone.
    let mut third = connect(&server).await;
    say(&mut third, "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(soon(rest(&mut third)).await.starts_with("HTTP/1.1 200"));
    drop(stream);
}

#[tokio::test]
async fn http2_is_spoken_without_an_upgrade() {
    let server = Server::start().await;
    server.text("s", "data").await;
    let client =
        reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap_or_else(|e| panic!("{e}"));
    let url = format!("http://{}/v1/stream/s?offset=-1", server.address());
    let response = client.get(url).send().await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.text().await.ok(), Some("data".to_owned()));
}
