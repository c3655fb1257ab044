//! The store is gone for a while: nothing listens, it refuses everything, or it takes requests and never answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use tokio::task::JoinHandle;

use crate::flood::Flood;
use crate::limits::budget::{self, Clients};
use crate::load::{Load, Size, assert_shows};
use crate::support::model::{self, Producer};
use crate::support::{Minio, Server, SlowDown, Toxiproxy, on_bucket, seed};

/// Longest time until what was refused is taken again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
/// Producers that have more in flight than the server may queue.
const FLOOD: usize = 400;
/// Appends of theirs, 128 KiB each, before the store goes: to one stream, faster than it is sealed.
const FLOODED: u64 = 2000;
/// Connections of all writers and readers together, and some that broke off.
const CLIENTS: Clients = Clients { connections: 600, http2_requests: 0 };
const SIZE: Size = Size { streams: 4, producers: 4, plain: 1, readers: 2, pause: Duration::from_millis(20) };

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_the_store_is_survived_without_a_restart() {
    let Some(mut minio) = Minio::start() else { return };
    let witness = Witness::start(&minio.endpoint(), &minio).await;
    minio.stop();
    let witness = witness.endures(Duration::from_secs(60)).await;
    minio.restart();
    witness.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_everything_is_survived_without_a_restart() {
    let Some(minio) = Minio::start() else { return };
    let upstream = minio.endpoint().trim_start_matches("http://").to_owned();
    let Some(proxy) = Toxiproxy::start(&upstream).await else { return };
    let witness = Witness::start(&proxy.endpoint(), &minio).await;
    let refuser = SlowDown::start().await;
    proxy.lead_to(&refuser.address()).await;
    let witness = witness.endures(Duration::from_secs(15)).await;
    assert!(refuser.requests() > 0, "nothing was refused by the store");
    proxy.lead_to(&upstream).await;
    witness.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_is_survived_without_a_restart() {
    let Some(minio) = Minio::start() else { return };
    let upstream = minio.endpoint().trim_start_matches("http://").to_owned();
    let Some(proxy) = Toxiproxy::start(&upstream).await else { return };
    let witness = Witness::start(&proxy.endpoint(), &minio).await;
    // Towards the store: it hears of nothing, but connections are taken and stay open.
    proxy.add("timeout", "upstream", 1.0, serde_json::json!({ "timeout": 0 })).await;
    let witness = witness.endures(Duration::from_secs(15)).await;
    proxy.heal().await;
    witness.recovers().await;
}

/// A server under load, and clients that look at it through an outage.
struct Witness {
    server: Server,
    client: Client,
    load: Load,
    flood: Flood,
    cached: String,
    producer: Producer,
    subscription: Subscription,
}

impl Witness {
    /// Starts everybody; the store is well.
    async fn start(endpoint: &str, minio: &Minio) -> Witness {
        let mut flags = on_bucket(endpoint, minio.bucket(), "outage");
        flags.extend(budget::flags());
        let patience = ["--append-timeout", "3s", "--long-poll-hold", "2s", "--sse-life", "10m"];
        flags.extend(patience.map(str::to_owned));
        let server = Server::start(&flags).await;
        let (client, cached) = (model::client(), server.url("/v1/stream/cached"));
        model::create(&client, std::slice::from_ref(&cached)).await;
        let mut producer = Producer::new(&client, std::slice::from_ref(&cached), "witness", 0);
        for _ in 0..10 {
            producer.append().await;
        }
        let subscription = Subscription::start(&cached).await;
        let load = Load::start(&[&server], SIZE, seed()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Read, it is kept as a page: the flood may write more, before the store goes, than the log cache holds.
        model::content(&client, &cached).await;
        let flood = Flood::start(&client, &[server.url("/v1/stream/flood")], FLOOD).await;
        while flood.counted().1 < FLOODED {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Witness { server, client, load, flood, cached, producer, subscription }
    }

    /// Cached reads of every kind go on, writes are refused politely, and the server neither ends nor grows.
    async fn endures(mut self, outage: Duration) -> Witness {
        let (began, mut refused, mut polls) = (Instant::now(), 0, 0);
        while began.elapsed() < outage {
            let content = model::content(&self.client, &self.cached).await;
            model::verify(&content, &[&self.producer], &[]).unwrap_or_else(|why| panic!("during the outage: {why}"));
            let url = self.server.url("/v1/stream/refused");
            let (refusal, ()) = tokio::join!(is_refused_politely(&self.client, &url), poll(&self.client, &self.cached));
            refused += u32::from(refusal);
            polls += 1;
            assert!(self.server.is_running(), "the server has ended");
            self.subscription.assert_open();
        }
        let (attempts, acknowledged, flooded) = self.flood.counted();
        eprintln!(
            "{refused} writes refused, {polls} long-polls answered in {outage:?}; of {attempts} floods {acknowledged} taken, {flooded} not"
        );
        assert!(refused > 0 && flooded > 0, "nothing was refused during the outage");
        budget::assert_kept(&self.server, CLIENTS);
        self
    }

    /// The store is back: everything is taken again, was stored once, and comes to the subscriber who was there before.
    async fn recovers(mut self) {
        let back = Instant::now();
        self.producer.append().await;
        assert!(back.elapsed() < RECOVERS_WITHIN, "the first append was taken after {:?}", back.elapsed());
        self.subscription.sees(&format!("\"seq\":{}", self.producer.acknowledged - 1)).await;
        self.flood.finish().await;
        let written = self.load.finish(&self.server).await;
        assert!(written.repeated > 0, "the outage has hit nothing");
        let content = model::content(&self.client, &self.cached).await;
        model::verify(&content, &[&self.producer], &[]).unwrap_or_else(|why| panic!("after the outage: {why}"));
        // What the flood wrote before the store went, and after, is a long stream by now.
        budget::assert_kept_with_merging(&self.server, CLIENTS);
        // And it is in the bucket, not only in this server's memory.
        self.server.restart().await;
        assert_shows(&self.server, &written).await;
    }
}

/// Whether a write was answered 503 with `Retry-After`. It may also be unheard; anything else is wrong.
async fn is_refused_politely(client: &Client, url: &str) -> bool {
    let answer = client.put(url).header("content-type", "application/json").send().await;
    let Ok(answer) = answer else { return false };
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{:?}", answer.headers());
    assert!(answer.headers().contains_key("retry-after"), "{:?}", answer.headers());
    true
}

/// A long-poll at the end of a stream in memory to which nothing comes.
async fn poll(client: &Client, url: &str) {
    let tail = client.head(url).send().await.unwrap_or_else(|error| panic!("HEAD: {error}"));
    assert_eq!(tail.status(), StatusCode::OK);
    let tail = tail.headers().get("stream-next-offset").and_then(|value| value.to_str().ok());
    let query = [("offset", tail.unwrap_or_default()), ("live", "long-poll")];
    let answer = client.get(url).query(&query).send().await.unwrap_or_else(|error| panic!("long-poll: {error}"));
    assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{:?}", answer.headers());
}

/// One SSE response, read from its start to its end.
struct Subscription {
    text: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
}

impl Subscription {
    async fn start(url: &str) -> Subscription {
        // Without the time-out of other clients: it is to last.
        let query = [("offset", "now"), ("live", "sse")];
        let answer = Client::new().get(url).query(&query).send().await;
        let mut answer = answer.unwrap_or_else(|error| panic!("subscription: {error}"));
        assert_eq!(answer.status(), StatusCode::OK);
        let text = Arc::<Mutex<String>>::default();
        let seen = Arc::clone(&text);
        let reading = tokio::spawn(async move {
            while let Ok(Some(bytes)) = answer.chunk().await {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&bytes));
            }
        });
        Subscription { text, reading }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn assert_open(&self) {
        assert!(!self.reading.is_finished(), "the subscription has ended after {}", self.text());
    }

    async fn sees(&self, what: &str) {
        let deadline = Instant::now() + model::PATIENCE;
        while !self.text().contains(what) {
            self.assert_open();
            assert!(Instant::now() < deadline, "the subscription does not see {what}, only {}", self.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
