//! What HTTP/2 adds: many requests on one connection, each with a window of its own.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use headwater::settings::{EngineSettings, HttpSettings};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::server::{Server, small_pages, soon};

/// A connection whose client gives each response `window` bytes until it takes some, and its end.
async fn connect(server: &Server, window: u32) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let stream = TcpStream::connect(server.address()).await.unwrap_or_else(|e| panic!("{e}"));
    let connected = h2::client::Builder::new().initial_window_size(window).handshake(stream).await;
    let (requests, connection) = connected.unwrap_or_else(|e| panic!("{e}"));
    // It goes on reading and answering pings, whatever becomes of its streams.
    let ended = tokio::spawn(async move {
        let _ = connection.await;
    });
    (requests.ready().await.unwrap_or_else(|e| panic!("{e}")), ended)
}

fn send(
    requests: &mut SendRequest<Bytes>,
    server: &Server,
    method: &str,
    name: &str,
    ends: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let uri = format!("http://{}/v1/stream/{name}", server.address());
    let request = http::Request::builder().method(method).uri(uri).header("content-type", "text/plain");
    let request = request.body(()).unwrap_or_else(|e| panic!("{e}"));
    requests.send_request(request, ends).unwrap_or_else(|e| panic!("{e}"))
}

async fn get(requests: &mut SendRequest<Bytes>, server: &Server, name: &str) -> RecvStream {
    let response = soon(send(requests, server, "GET", name, true).0).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// Receives without giving any window back. How much came, and why the stream was reset, if it was.
async fn receive(body: &mut RecvStream) -> (usize, Option<Reason>) {
    let mut received = 0;
    loop {
        match soon(body.data()).await {
            Some(Ok(data)) => received += data.len(),
            Some(Err(error)) => return (received, error.reason()),
            None => return (received, None),
        }
    }
}

async fn stalling(write_stall_timeout: Duration) -> Server {
    let settings = HttpSettings { write_stall_timeout, ..HttpSettings::default() };
    let engine = EngineSettings { page_bytes: 1 << 20, ..EngineSettings::default() };
    Server::start_with_engine(settings, engine).await.0
}

#[tokio::test]
async fn a_subscriber_that_gives_no_window_is_reset_and_its_siblings_are_not() {
    let server = stalling(Duration::from_millis(200)).await;
    server.put("s").text("x".repeat(100_000)).send().await;
    let (mut requests, ended) = connect(&server, 1000).await;
    let mut stalled = get(&mut requests, &server, "s?offset=-1&live=sse").await;
    let mut sibling = get(&mut requests, &server, "s?offset=now&live=sse").await;
    assert_eq!(receive(&mut stalled).await, (1000, Some(Reason::CANCEL)));

    let control = soon(sibling.data()).await.and_then(Result::ok).unwrap_or_default();
    let _ = sibling.flow_control().release_capacity(control.len());
    assert!(control.starts_with(b"event: control"), "{control:?}");
    server.append("s", "more").await;
    let data = soon(sibling.data()).await.and_then(Result::ok).unwrap_or_default();
    assert!(data.starts_with(b"event: data\ndata:more"), "{data:?}");
    assert!(!ended.is_finished(), "the connection has ended");
}

#[tokio::test]
async fn a_page_that_is_not_taken_is_reset_up_to_its_last_byte() {
    let server = stalling(Duration::from_millis(200)).await;
    server.put("s").text("x".repeat(60_000)).send().await;
    for window in [1, 16 << 10, 59_999] {
        let (mut requests, _ended) = connect(&server, window).await;
        let mut stalled = get(&mut requests, &server, "s?offset=-1").await;
        assert_eq!(receive(&mut stalled).await, (window as usize, Some(Reason::CANCEL)));
    }
    let (mut requests, _ended) = connect(&server, 60_000).await;
    let mut taken = get(&mut requests, &server, "s?offset=-1").await;
    assert_eq!(receive(&mut taken).await, (60_000, None));
}

#[tokio::test]
async fn a_client_that_takes_its_time_gets_everything() {
    let stall = Duration::from_secs(2);
    let server = stalling(stall).await;
    server.put("s").text("x".repeat(1 << 20)).send().await;
    let (mut requests, _ended) = connect(&server, 64 << 10).await;
    let mut body = get(&mut requests, &server, "s?offset=-1").await;
    let (mut received, began) = (0, tokio::time::Instant::now());
    while let Some(data) = soon(body.data()).await {
        let len = data.unwrap_or_else(|e| panic!("after {received} bytes: {e}")).len();
        received += len;
        // All of it takes much longer than a piece may.
        tokio::time::sleep(stall / 50).await;
        let _ = body.flow_control().release_capacity(len);
    }
    assert_eq!(received, 1 << 20);
    assert!(began.elapsed() > stall, "nothing was tested");
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let settings = HttpSettings { idle_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    let (server, _stop) = Server::start_with(settings).await;
    server.text("s", "data").await;
    let (mut requests, ended) = connect(&server, 1000).await;
    let mut live = get(&mut requests, &server, "s?offset=now&live=sse").await;
    let control = soon(live.data()).await.and_then(Result::ok).unwrap_or_default();
    assert!(control.starts_with(b"event: control"));
    // It takes no new requests now, and ends with those that it has.
    soon(async {
        while requests.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    server.post("s").with("stream-closed", "true").send().await;
    let last = soon(live.data()).await.and_then(Result::ok).unwrap_or_default();
    assert!(last.starts_with(b"event: control"), "{last:?}");
    drop((live, requests));
    soon(ended).await.unwrap_or_else(|e| panic!("{e}"));
}

#[tokio::test]
async fn bodies_that_nobody_reads_take_no_room_from_others() {
    let (server, _stop) = Server::start_with_engine(HttpSettings::default(), small_pages()).await;
    let tail = server.text("s", "").await;
    let (mut requests, _ended) = connect(&server, 1000).await;
    let mut polls = Vec::new();
    for _ in 0..16 {
        let (poll, mut body) = send(&mut requests, &server, "GET", &format!("s?offset={tail}&live=long-poll"), false);
        fill(&mut body, 1 << 20).await;
        polls.push((poll, body));
    }
    let (append, mut body) = send(&mut requests, &server, "POST", "s", false);
    fill(&mut body, 100_000).await;
    body.send_data(Bytes::new(), true).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(soon(append).await.map(|response| response.status().as_u16()).ok(), Some(204));
}

/// Sends up to so many bytes, as the server gives room for them.
async fn fill(body: &mut SendStream<Bytes>, mut bytes: usize) {
    while bytes > 0 {
        body.reserve_capacity(bytes);
        let capacity = soon(std::future::poll_fn(|cx| body.poll_capacity(cx))).await;
        let room = capacity.and_then(Result::ok).unwrap_or_else(|| panic!("no room for {bytes} bytes"));
        body.send_data(Bytes::from(vec![b'x'; room]), false).unwrap_or_else(|e| panic!("{e}"));
        bytes -= room;
    }
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
