//! What one client may take from the others: bytes, connections, time.

use std::time::Duration;

use headwater::settings::{EngineSettings, HttpSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::server::{Server, small_pages, soon};

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
async fn an_answer_before_the_body_was_read_ends_the_connection_and_says_so() {
    let settings = HttpSettings { max_append_bytes: 1000, ..HttpSettings::default() };
    let (server, _stop) = Server::start_with(settings).await;
    server.text("s", "").await;
    let head = |kind: &str, length: usize| {
        format!("POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n")
    };
    for request in [head("text/plain", 1001), head("", 10), head("text/plain", 10).replace("/s ", "/ ")] {
        let mut stream = connect(&server).await;
        say(&mut stream, &request).await;
        let answer = soon(rest(&mut stream)).await;
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // One that has its whole body keeps its connection, however it is answered.
    let mut stream = connect(&server).await;
    let chunked = "POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let whole = head("text/plain", 5) + "hello";
    say(&mut stream, &format!("{whole}{chunked}{}hello{last}", head("image/png", 5))).await;
    let answers = soon(rest(&mut stream)).await;
    let statuses = answers.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)).collect::<Vec<_>>();
    assert_eq!(statuses, ["204", "204", "409", "200"], "{answers}");
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
async fn a_client_that_reads_nothing_is_sent_little() {
    let settings = HttpSettings { write_stall_timeout: Duration::from_millis(500), ..HttpSettings::default() };
    let engine = EngineSettings { page_bytes: 16 << 20, ..EngineSettings::default() };
    let (server, _stop) = Server::start_with_engine(settings, engine).await;
    server.put("s").text("x".repeat(16 << 20)).send().await;
    let socket = TcpSocket::new_v4().unwrap_or_else(|e| panic!("{e}"));
    socket.set_recv_buffer_size(4096).unwrap_or_else(|e| panic!("{e}"));
    let address = server.address().parse().unwrap_or_else(|e| panic!("{e}"));
    let mut stream = socket.connect(address).await.unwrap_or_else(|e| panic!("{e}"));
    say(&mut stream, "GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // Once it is let go, what was in the system's buffers is all there is.
    soon(async {
        while server.call("GET", "/metrics").send().await.text().contains("headwater_live_readers 1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let sent = soon(rest(&mut stream)).await.len();
    let least = if cfg!(target_os = "linux") { 1 << 20 } else { 16 << 20 };
    assert!(sent < least, "{sent} bytes were in buffers of the system");
}

#[tokio::test]
async fn more_live_reads_than_allowed_are_refused_until_others_end() {
    let settings = HttpSettings { max_live_readers: 2, ..HttpSettings::default() };
    let (server, _stop) = Server::start_with(settings).await;
    let tail = server.text("s", "data").await;
    let first = server.get("s?offset=now&live=sse").open().await;
    let poll = tokio::spawn(server.get(&format!("s?offset={tail}&live=long-poll")).send());
    soon(async {
        while !server.call("GET", "/metrics").send().await.text().contains("headwater_live_readers 2") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for live in ["sse", "long-poll"] {
        let refused = server.get(&format!("s?offset=now&live={live}")).send().await;
        assert_eq!((refused.status.as_u16(), refused.code()), (503, "overloaded".to_owned()));
        assert!(refused.has("retry-after"));
    }
    assert_eq!(server.get("s?offset=-1").send().await.text(), "data", "other reads go on");
    server.append("s", " and more").await;
    assert_eq!(soon(poll).await.map(|reply| reply.text()).ok(), Some(" and more".to_owned()));
    drop(first);
    soon(async {
        while server.get("s?offset=now&live=sse").open().await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_promised_and_not_sent_keeps_nobody_out() {
    let engine = EngineSettings { queue_bytes: 1 << 20, ..small_pages() };
    let (server, _stop) = Server::start_with_engine(HttpSettings::default(), engine).await;
    server.text("s", "").await;
    let promise = |length: usize| {
        format!("POST /v1/stream/s HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&server).await;
        say(&mut stream, &promise(900 << 10)).await;
        silent.push(stream);
    }
    // All of them are under way once others that came later were answered.
    for _ in 0..3 {
        assert_eq!(server.post("s").text("x".repeat(200 << 10)).send().await.status, 204);
    }
    let refused = server.post("s").text("x".repeat(1 << 20)).send().await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "overloaded".to_owned()), "more than there is at all");
    // What was begun is taken when it comes.
    let mut last = silent.remove(0);
    drop(silent);
    say(&mut last, &"y".repeat(900 << 10)).await;
    let mut start = [0; 12];
    let _ = soon(last.read_exact(&mut start)).await;
    assert_eq!(&start, b"HTTP/1.1 204");
}

#[tokio::test]
async fn millions_of_tiny_messages_count_for_more_than_their_bytes() {
    let engine = EngineSettings { queue_bytes: 1 << 20, ..small_pages() };
    let (server, _stop) = Server::start_with_engine(HttpSettings::default(), engine).await;
    server.put("s").json("[]").send().await;
    let messages = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    // 100,000 messages in 200 KB: with what is kept of each, more than a mebibyte.
    let refused = server.post("s").json(messages(100_000)).send().await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "overloaded".to_owned()));
    assert!(refused.has("retry-after"));
    assert_eq!(server.post("s").json(messages(10_000)).send().await.status, 204);
    assert_eq!(server.post("s").json(format!("\"{}\"", "x".repeat(200_000))).send().await.status, 204);
}
