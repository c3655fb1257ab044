//! Appends at many times what the store takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::budget::{self, Clients};
use super::{PATIENCE, alone, duration};
use crate::support::model::{self, Stop};
use crate::support::{Minio, Server, Toxiproxy, on_bucket};

const STREAMS: usize = 4;
/// Together their appends are several times what the server may queue.
const PRODUCERS: usize = 1000;
/// Those that repeat their last append until it is acknowledged; the others give it up with the load.
const STEADFAST: usize = 20;
const BODY: usize = 128 << 10;
/// After an append that was not acknowledged.
const PAUSE: Duration = Duration::from_millis(500);
/// KB a second that each connection to the store takes.
const RATE: u32 = 128;

#[derive(Debug, Default)]
struct Counts {
    attempts: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

/// An idempotent producer that repeats each append until it is acknowledged, without much of a pause.
struct Flood {
    client: Client,
    url: String,
    id: String,
    padding: Arc<str>,
    counts: Arc<Counts>,
}

impl Flood {
    /// How many appends were acknowledged. Of one more it is not known, unless it is steadfast.
    async fn run(self, stop: Stop, is_steadfast: bool) -> (String, u64) {
        let mut seq = 0;
        loop {
            let deadline = Instant::now() + PATIENCE + duration();
            while !self.attempt(seq).await {
                if stop.is_set() && !is_steadfast {
                    return (self.id, seq);
                }
                assert!(Instant::now() < deadline, "{}: {seq} is not acknowledged", self.id);
                tokio::time::sleep(PAUSE).await;
            }
            seq += 1;
            if stop.is_set() {
                return (self.id, seq);
            }
        }
    }

    async fn attempt(&self, seq: u64) -> bool {
        self.counts.attempts.fetch_add(1, Ordering::Relaxed);
        let (id, padding) = (&self.id, &self.padding);
        let message = format!("{{\"by\":\"{id}\",\"seq\":{seq},\"part\":0,\"padding\":\"{padding}\"}}");
        let request = self.client.post(&self.url).header("content-type", "application/json").body(message);
        let request = request.header("producer-id", &self.id).header("producer-epoch", "0");
        // A connection that is closed on a refused body is an append that was not heard.
        let Ok(answer) = request.header("producer-seq", seq.to_string()).send().await else { return false };
        match answer.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => {
                self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                true
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                assert!(answer.headers().contains_key("retry-after"), "{:?}", answer.headers());
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
            other => panic!("{}: {other}", self.id),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_at_ten_times_what_the_store_takes_are_refused_and_none_is_lost() {
    let _turn = alone().await;
    let Some(minio) = Minio::start() else { return };
    let upstream = minio.endpoint().trim_start_matches("http://").to_owned();
    let Some(proxy) = Toxiproxy::start(&upstream).await else { return };
    let mut flags = on_bucket(&proxy.endpoint(), minio.bucket(), "limits");
    flags.extend(budget::flags());
    // Small log objects: one that takes longer than an attempt may would never be written.
    flags.extend(["--batch-bytes", "256KiB", "--direct-bytes", "192KiB"].map(str::to_owned));
    flags.extend(["--append-timeout", "5s"].map(str::to_owned));
    let server = Server::start(&flags).await;
    let client = model::client();
    let urls = (0..STREAMS).map(|n| server.url(&format!("/v1/stream/flood/{n}"))).collect::<Vec<_>>();
    for url in &urls {
        model::create(&client, std::slice::from_ref(url)).await;
    }

    proxy.add("bandwidth", "upstream", 1.0, json!({ "rate": RATE })).await;
    let (stop, counts) = (Stop::default(), Arc::<Counts>::default());
    let padding = Arc::<str>::from("x".repeat(BODY));
    let mut producers = JoinSet::new();
    for n in 0..PRODUCERS {
        let (client, url, id) = (client.clone(), urls[n % STREAMS].clone(), n.to_string());
        let flood = Flood { client, url, id, padding: Arc::clone(&padding), counts: Arc::clone(&counts) };
        producers.spawn(flood.run(stop.clone(), n < STEADFAST));
    }
    assert_refused_before_the_body(&server).await;
    tokio::time::sleep(duration()).await;
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (attempts, acknowledged, refused) =
        (count(&counts.attempts), count(&counts.acknowledged), count(&counts.refused));
    eprintln!("{attempts} attempts, {acknowledged} acknowledged, {refused} refused while the store was slow");
    let clients = Clients { connections: PRODUCERS as u64, ..Clients::default() };
    // Without readers: what their responses may take is not used.
    budget::assert_kept_by_writers(&server, clients);
    assert!(attempts >= 10 * acknowledged, "the store was too fast for this test");
    assert!(refused > 0);

    proxy.heal().await;
    stop.now();
    let ended = producers.join_all().await.into_iter().collect::<BTreeMap<_, _>>();
    assert_each_once(&client, &urls, &ended).await;
    budget::assert_kept(&server, clients);
}

/// Until the queue is full, and then a request whose body never comes is answered all the same.
async fn assert_refused_before_the_body(server: &Server) {
    let head = "POST /v1/stream/flood/0 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 8388608\r\n\r\n";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(server.address()).await.unwrap_or_else(|error| panic!("{error}"));
        stream.write_all(head.as_bytes()).await.unwrap_or_else(|error| panic!("{error}"));
        let mut answer = [0; 2048];
        // If there is room, the server waits for the body, and the next one is tried.
        let read = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut answer)).await;
        if let Ok(Ok(length)) = read {
            let answer = String::from_utf8_lossy(&answer[..length]);
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\r\nretry-after: "), "{answer}");
            return;
        }
        assert!(Instant::now() < deadline, "nothing was refused after {PATIENCE:?}");
    }
}

/// That every stream has of each producer what was acknowledged, once and in order, and at most one append more that was
/// given up.
async fn assert_each_once(client: &Client, urls: &[String], ended: &BTreeMap<String, u64>) {
    assert_eq!(ended.len(), PRODUCERS);
    let mut stored = BTreeMap::<String, u64>::new();
    for url in urls {
        for message in model::content(client, url).await {
            let next = stored.entry(message.by).or_default();
            assert_eq!(message.seq, *next, "{url} is out of order");
            *next += 1;
        }
    }
    for (id, acknowledged) in ended {
        let stored = stored.get(id).copied().unwrap_or(0);
        let given_up = u64::from(id.parse::<usize>().is_ok_and(|n| n >= STEADFAST));
        let may_be = *acknowledged..=acknowledged + given_up;
        assert!(may_be.contains(&stored), "of producer {id} {acknowledged} were acknowledged, {stored} are stored");
    }
}
