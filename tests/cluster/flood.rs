//! Writers who send more than is taken, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use tokio::task::JoinSet;

use crate::support::model::{self, Stop};

/// Producers that repeat their last append until it is acknowledged; the others give it up with the flood.
const STEADFAST: usize = 20;
const BODY: usize = 128 << 10;
/// After an append that was not acknowledged.
const PAUSE: Duration = Duration::from_secs(1);

/// Idempotent producers, each with one large append at a time, spread over streams.
pub struct Flood {
    client: Client,
    urls: Vec<String>,
    producers: JoinSet<(String, u64)>,
    stop: Stop,
    pub counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub struct Counts {
    pub attempts: AtomicU64,
    pub acknowledged: AtomicU64,
    pub refused: AtomicU64,
}

impl Flood {
    /// Creates the streams at `urls` and starts everybody.
    pub async fn start(client: &Client, urls: &[String], producers: usize) -> Flood {
        for url in urls {
            model::create(client, std::slice::from_ref(url)).await;
        }
        let (stop, counts) = (Stop::default(), Arc::<Counts>::default());
        let padding = Arc::<str>::from("x".repeat(BODY));
        let mut running = JoinSet::new();
        for n in 0..producers {
            let (client, url, id) = (client.clone(), urls[n % urls.len()].clone(), n.to_string());
            let producer = Producer { client, url, id, padding: Arc::clone(&padding), counts: Arc::clone(&counts) };
            running.spawn(producer.run(stop.clone(), n < STEADFAST));
        }
        Flood { client: client.clone(), urls: urls.to_vec(), producers: running, stop, counts }
    }

    /// Attempts, and how many of them were acknowledged and refused.
    pub fn counted(&self) -> (u64, u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (count(&self.counts.attempts), count(&self.counts.acknowledged), count(&self.counts.refused))
    }

    /// Ends the producers, and checks that every stream has of each what was acknowledged, once and in order, and at most
    /// one append more that was given up.
    pub async fn finish(self) {
        self.stop.now();
        let ended = self.producers.join_all().await;
        let mut stored = BTreeMap::<String, u64>::new();
        for url in &self.urls {
            for message in model::content(&self.client, url).await {
                let next = stored.entry(message.by).or_default();
                assert_eq!(message.seq, *next, "{url} is out of order");
                *next += 1;
            }
        }
        for (id, acknowledged) in ended {
            let stored = stored.remove(&id).unwrap_or(0);
            let given_up = u64::from(id.parse::<usize>().is_ok_and(|n| n >= STEADFAST));
            let may_be = acknowledged..=acknowledged + given_up;
            assert!(may_be.contains(&stored), "of producer {id} {acknowledged} were acknowledged, {stored} are stored");
        }
        assert!(stored.is_empty(), "nobody has written {stored:?}");
    }
}

/// An idempotent producer that repeats each append until it is acknowledged, without much of a pause.
struct Producer {
    client: Client,
    url: String,
    id: String,
    padding: Arc<str>,
    counts: Arc<Counts>,
}

impl Producer {
    /// How many appends were acknowledged. Of one more it is not known, unless it is steadfast.
    async fn run(self, stop: Stop, is_steadfast: bool) -> (String, u64) {
        let (mut seq, mut ending) = (0, None);
        loop {
            let is_acknowledged = self.attempt(seq).await;
            seq += u64::from(is_acknowledged);
            if stop.is_set() {
                if is_acknowledged || !is_steadfast {
                    return (self.id, seq);
                }
                // As long as the flood lasts, anybody may be unlucky.
                let since = *ending.get_or_insert_with(Instant::now);
                assert!(since.elapsed() < model::PATIENCE, "{}: {seq} is not acknowledged", self.id);
            }
            if !is_acknowledged {
                tokio::time::sleep(PAUSE).await;
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
