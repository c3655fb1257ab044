//! Ten thousand readers who wait, and ten thousand who do not read.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use reqwest::{Client, StatusCode};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::budget::{self, Clients};
use super::{alone, as_many_as_possible, duration, until_live_readers};
use crate::support::{Crowd, Server, model};

const NAME: &str = "/v1/stream/s";
/// What is in the stream before anybody comes, and what is appended at a time.
const HISTORY: usize = 16 << 20;
const PIECE: usize = 64 << 10;

async fn start(more: &[&str]) -> (TempDir, Server, Client) {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let mut flags = budget::flags();
    flags.extend(["--store".to_owned(), format!("local:{}", directory.path().display())]);
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let server = Server::start(&flags).await;
    let client = model::client();
    let created = client.put(server.url(NAME)).header("content-type", "text/plain").send().await;
    assert_eq!(created.map(|answer| answer.status()).ok(), Some(StatusCode::CREATED));
    (directory, server, client)
}

async fn append(client: &Client, server: &Server, text: String) {
    let sent = client.post(server.url(NAME)).header("content-type", "text/plain").body(text).send().await;
    let answer = sent.unwrap_or_else(|error| panic!("append: {error}"));
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
}

/// Appends for a while, so that every reader falls behind.
async fn grow(client: &Client, server: &Server) {
    let began = Instant::now();
    while began.elapsed() < duration() {
        append(client, server, "x".repeat(PIECE)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// That a live reader who reads gets what is appended.
async fn assert_live_reads_work(client: &Client, server: &Server) {
    let query = [("offset", "now"), ("live", "sse")];
    let answer = client.get(server.url(NAME)).query(&query).send().await;
    let mut answer = answer.unwrap_or_else(|error| panic!("live read: {error}"));
    assert_eq!(answer.status(), StatusCode::OK);
    append(client, server, "after all that".to_owned()).await;
    let mut text = String::new();
    while !text.contains("after all that") {
        let chunk = answer.chunk().await.unwrap_or_else(|error| panic!("live read: {error}"));
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap_or_else(|| panic!("it has ended after {text}"))));
    }
}

fn is_polite_refusal(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 503") && answer.contains("\r\nretry-after: ")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_long_polls_are_held_and_all_are_answered() {
    let (_turn, many) = (alone().await, as_many_as_possible());
    let flags = ["--max-live-readers", &many.to_string(), "--long-poll-hold", "10m"];
    let (_directory, server, client) = start(&flags).await;
    hold_and_answer(&server, &client, many).await;
    let first = server.memory();
    if duration() > Duration::from_secs(30) {
        // What a crowd has left behind is used by the next one. Some is lost between the pieces, not as much every time.
        for _ in 0..3 {
            hold_and_answer(&server, &client, many).await;
        }
        assert!(server.memory().peak <= first.peak * 2, "{first}, and after three more {}", server.memory());
    }
    assert_live_reads_work(&client, &server).await;
    budget::assert_kept(&server, Clients { connections: many as u64, ..Clients::default() });
}

async fn hold_and_answer(server: &Server, client: &Client, many: usize) {
    let poll = |_| format!("GET {NAME}?offset=now&live=long-poll");
    let crowd = Crowd::gather(server.address(), Ipv4Addr::new(127, 0, 0, 2), many, poll).await;
    until_live_readers(server, |count| count == many as u64).await;
    for live in ["long-poll", "sse"] {
        let refused = client.get(server.url(NAME)).query(&[("offset", "now"), ("live", live)]).send().await;
        let refused = refused.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"), "{:?}", refused.headers());
    }
    append(client, server, "what all wait for".to_owned()).await;
    let answers = crowd.answers().await;
    let told = answers.iter().filter(|answer| answer.ends_with("what all wait for")).count();
    assert_eq!(told, many, "not all were told, but for example {:?}", answers.first());
    until_live_readers(server, |count| count == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscribers_that_never_read_are_let_go() {
    let (_turn, many) = (alone().await, as_many_as_possible());
    let (_directory, server, client) = start(&["--write-stall-timeout", "15s", "--sse-life", "10m"]).await;
    for _ in 0..HISTORY / PIECE {
        append(&client, &server, "x".repeat(PIECE)).await;
    }
    // Each of the first half is sent a page of its own, and the others what comes.
    let step = HISTORY / many;
    let subscribe = |n: usize| match n % 2 {
        0 => format!("GET {NAME}?offset={:016}_{:016}&live=sse", n * step, 0),
        _ => format!("GET {NAME}?offset=now&live=sse"),
    };
    let crowd = Crowd::gather(server.address(), Ipv4Addr::new(127, 0, 0, 3), many, subscribe).await;
    grow(&client, &server).await;
    let stalled = server.metric("headwater_live_readers").await;
    budget::assert_kept(&server, Clients { connections: many as u64, ..Clients::default() });

    until_live_readers(&server, |count| count == 0).await;
    let answers = crowd.answers().await;
    let refused = answers.iter().filter(|answer| is_polite_refusal(answer)).count();
    let taken = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    // A connection that is reset takes with it what the client had not read.
    let reset = answers.iter().filter(|answer| answer.is_empty()).count();
    eprintln!("{taken} were taken, {stalled} of them still at the end of the load, {refused} refused, {reset} reset");
    assert_eq!(taken + refused + reset, many, "others were neither taken nor refused politely");
    assert!(taken >= many / 2, "only {taken} were taken");
    assert!(refused > 0, "all pages at a time were taken to be in memory");
    assert_live_reads_work(&client, &server).await;
    budget::assert_kept(&server, Clients { connections: many as u64, ..Clients::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_http2_responses_that_nobody_takes_are_reset() {
    let _turn = alone().await;
    let (connections, each) = (10, 1000);
    let (_directory, server, client) = start(&["--write-stall-timeout", "5s", "--sse-life", "10m"]).await;
    let mut stalled = Vec::new();
    for _ in 0..connections {
        let requests = connect(&server).await;
        for _ in 0..each {
            stalled.push(subscribe(&requests, &server).await);
        }
    }
    let many = connections * each;
    until_live_readers(&server, |count| count == many).await;
    grow(&client, &server).await;
    budget::assert_kept(&server, Clients { connections, http2_requests: many });
    until_live_readers(&server, |count| count == 0).await;
    assert_live_reads_work(&client, &server).await;
    let reset = futures::future::join_all(stalled.iter_mut().map(|body| async move {
        while let Some(data) = body.data().await {
            if data.is_err() {
                return true;
            }
        }
        false
    }));
    assert!(reset.await.into_iter().all(|reset| reset), "a response has ended as if it were whole");
}

async fn connect(server: &Server) -> SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(server.address()).await.unwrap_or_else(|error| panic!("{error}"));
    let mut builder = h2::client::Builder::new();
    // Little room for each response, and more than enough for all together; no care of its own memory.
    builder.initial_window_size(1000).initial_connection_window_size(16 << 20).data_frame_budget(1 << 30);
    let connected = builder.handshake(stream).await;
    let (requests, connection) = connected.unwrap_or_else(|error| panic!("{error}"));
    // It goes on reading, and answers pings.
    tokio::spawn(connection);
    requests
}

async fn subscribe(requests: &SendRequest<bytes::Bytes>, server: &Server) -> h2::RecvStream {
    let request = http::Request::get(server.url(&format!("{NAME}?offset=now&live=sse"))).body(());
    let request = request.unwrap_or_else(|error| panic!("{error}"));
    let mut requests = requests.clone().ready().await.unwrap_or_else(|error| panic!("{error}"));
    let (response, _) = requests.send_request(request, true).unwrap_or_else(|error| panic!("{error}"));
    let response = response.await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}
