//! Writers that know what was acknowledged, readers that know what they saw, and the check of both against what is
//! stored.

mod reader;
mod verify;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

pub use reader::{Live, Reader};
pub use verify::{verify, verify_prefix};
pub use writer::{Plain, Producer};

/// Longest time without success, after which a test fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// One JSON message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub by: String,
    /// The producer's sequence number, or the number of the plain writer's attempt.
    pub seq: u64,
    /// Its place in the append.
    pub part: u64,
}

/// How many messages the append with this number has.
pub fn parts(seq: u64) -> u64 {
    1 + seq % 3
}

/// Tells tasks to finish.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A client that gives up on what hangs, later than the server would.
pub fn client() -> Client {
    let client = Client::builder().connect_timeout(Duration::from_secs(2)).timeout(Duration::from_secs(45)).build();
    client.unwrap_or_else(|error| panic!("client: {error}"))
}

/// Creates a JSON stream, and returns once all servers that hold `urls` (the same stream at each) show it.
pub async fn create(client: &Client, urls: &[String]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let put = client.put(&urls[0]).header("content-type", "application/json").send().await;
        if put.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        assert!(Instant::now() < deadline, "{} cannot be created", urls[0]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for url in urls {
        while !client.head(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(Instant::now() < deadline, "{url} does not appear");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// All messages that the stream has now, from its start, page by page.
pub async fn content(client: &Client, url: &str) -> Vec<Message> {
    let deadline = Instant::now() + PATIENCE;
    let (mut messages, mut offset) = (Vec::new(), "-1".to_owned());
    loop {
        match page(client, url, &offset).await {
            Ok(page) => {
                messages.extend(page.messages);
                offset = page.next;
                if page.up_to_date {
                    return messages;
                }
            }
            Err(why) => {
                assert!(Instant::now() < deadline, "{url} cannot be read at {offset}: {why}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

struct Page {
    messages: Vec<Message>,
    next: String,
    up_to_date: bool,
}

async fn page(client: &Client, url: &str, offset: &str) -> Result<Page, String> {
    let answer = client.get(url).query(&[("offset", offset)]).send().await.map_err(|error| error.to_string())?;
    read_page(answer).await
}

/// A response of a catch-up or long-poll read. Fails on what may be tried again; panics on what must not be.
async fn read_page(answer: reqwest::Response) -> Result<Page, String> {
    let (status, url) = (answer.status(), answer.url().clone());
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (next, up_to_date) = (header("stream-next-offset"), header("stream-up-to-date").is_some());
    let retry_after = header("retry-after").is_some();
    let body = answer.bytes().await.map_err(|error| error.to_string())?;
    if status == StatusCode::SERVICE_UNAVAILABLE && retry_after {
        return Err(String::from_utf8_lossy(&body).into_owned());
    }
    assert!(status.is_success(), "{url}: {status} {}", String::from_utf8_lossy(&body));
    let next = next.unwrap_or_else(|| panic!("{url}: no Stream-Next-Offset"));
    let messages = if status == StatusCode::NO_CONTENT { Vec::new() } else { parse(&body) };
    Ok(Page { messages, next, up_to_date })
}

fn parse(body: &[u8]) -> Vec<Message> {
    let parsed = serde_json::from_slice(body);
    parsed.unwrap_or_else(|error| panic!("not the messages of a test: {error}: {}", String::from_utf8_lossy(body)))
}
