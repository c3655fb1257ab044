//! SIGTERM.

use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode};
use tempfile::TempDir;

use crate::load::{Load, Size, assert_shows};
use crate::support::model::{self, Producer};
use crate::support::{Server, seed};

/// Less than what an open response would last by itself.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

async fn on_directory() -> (TempDir, Server) {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let store = format!("local:{}", directory.path().display());
    let server = Server::start(&["--store".to_owned(), store]).await;
    (directory, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_load_it_ends_at_once() {
    let (_directory, mut server) = on_directory().await;
    server.ask_to_stop();
    assert!(server.ended(Duration::from_secs(5)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn open_live_reads_are_ended_properly() {
    let (_directory, mut server) = on_directory().await;
    let client = model::client();
    let url = server.url("/v1/stream/open");
    model::create(&client, std::slice::from_ref(&url)).await;
    let mut producer = Producer::new(&client, std::slice::from_ref(&url), "writer", 0);
    producer.append().await;
    let tail = client.head(&url).send().await.unwrap_or_else(|error| panic!("{error}"));
    let tail = header(&tail, "stream-next-offset");

    let polls = (0..5).map(|_| tokio::spawn(live(client.clone(), url.clone(), tail.clone(), "long-poll")));
    let polls = polls.collect::<Vec<_>>();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(live(client.clone(), url.clone(), tail.clone(), "sse").await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = Instant::now();
    server.ask_to_stop();

    for poll in polls {
        let answer = poll.await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(header(&answer, "stream-next-offset"), tail);
        assert_eq!(header(&answer, "stream-up-to-date"), "true");
    }
    for stream in streams {
        // A response that is cut off instead of ended is an error here.
        let text = stream.text().await.unwrap_or_else(|error| panic!("an SSE response broke off: {error}"));
        let last = text.trim_end().rsplit("\n\n").find(|event| !event.starts_with(':'));
        let last = last.unwrap_or_else(|| panic!("no event"));
        assert!(last.contains("event: control") && last.contains(&tail), "ends with {last:?}");
    }
    assert!(server.ended(STOPS_WITHIN).await.success());
    assert!(asked.elapsed() < STOPS_WITHIN);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_the_end_is_there_after_it() {
    let (_directory, mut server) = on_directory().await;
    let size = Size { streams: 4, producers: 8, plain: 2, readers: 2, pause: Duration::from_millis(2) };
    let load = Load::start(&[&server], size, seed()).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.ask_to_stop();
        assert!(server.ended(STOPS_WITHIN).await.success());
        server.restart().await;
    }
    let written = load.finish(&server).await;
    server.ask_to_stop();
    assert!(server.ended(STOPS_WITHIN).await.success());
    server.restart().await;
    assert_shows(&server, &written).await;
}

async fn live(client: Client, url: String, offset: String, live: &'static str) -> Response {
    let answer = client.get(&url).query(&[("offset", offset.as_str()), ("live", live)]).send().await;
    answer.unwrap_or_else(|error| panic!("{live}: {error}"))
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
