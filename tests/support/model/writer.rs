//! Writers: idempotent ones, which repeat an append until it is acknowledged, and plain ones, which never repeat.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::{Client, Response, StatusCode};

use super::{Message, PATIENCE, Stop, parts};

/// What became of one request.
enum Answer {
    Acknowledged,
    /// 409 with the number that the server expects.
    Gap(u64),
    /// Not heard, or refused for now. It may have been stored.
    Unknown,
}

/// An idempotent producer with one append at a time. Sends each attempt to any of its servers.
#[derive(Debug)]
pub struct Producer {
    pub id: String,
    /// The same stream at each server.
    urls: Vec<String>,
    client: Client,
    rng: StdRng,
    /// Appends that were acknowledged: the sequence numbers below this.
    pub acknowledged: u64,
    /// Attempts that had to be repeated.
    pub repeated: u64,
    /// Gaps that a server saw only because it had not heard of the other's writes yet.
    pub false_gaps: u64,
    /// The longest time that an append took, with all its attempts.
    pub longest: Duration,
}

impl Producer {
    pub fn new(client: &Client, urls: &[String], id: impl Into<String>, seed: u64) -> Producer {
        let (id, urls, client, rng) = (id.into(), urls.to_vec(), client.clone(), StdRng::seed_from_u64(seed));
        Producer { id, urls, client, rng, acknowledged: 0, repeated: 0, false_gaps: 0, longest: Duration::ZERO }
    }

    /// Appends until told to stop. The last append is acknowledged, too.
    pub async fn run(mut self, stop: Stop, pause: Duration) -> Producer {
        while !stop.is_set() {
            self.append().await;
            let pause = pause.mul_f64(self.rng.random_range(0.0..2.0));
            tokio::time::sleep(pause).await;
        }
        self
    }

    /// Appends once, until acknowledged.
    pub async fn append(&mut self) {
        let seq = self.acknowledged;
        let began = Instant::now();
        let deadline = began + PATIENCE;
        loop {
            match self.attempt(seq).await {
                Answer::Acknowledged => break,
                Answer::Gap(expected) => {
                    let explained = expected < seq && self.urls.len() > 1;
                    assert!(explained, "{}: {seq} is a gap, {expected} is expected", self.id);
                    self.false_gaps += 1;
                }
                Answer::Unknown => self.repeated += 1,
            }
            assert!(Instant::now() < deadline, "{}: {seq} is not acknowledged after {PATIENCE:?}", self.id);
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(10..80))).await;
        }
        self.acknowledged += 1;
        self.longest = self.longest.max(began.elapsed());
    }

    async fn attempt(&mut self, seq: u64) -> Answer {
        let url = &self.urls[self.rng.random_range(0..self.urls.len())];
        let request = self.client.post(url).json(&messages(&self.id, seq));
        let request = request.header("producer-id", &self.id).header("producer-epoch", "0");
        let answer = request.header("producer-seq", seq.to_string()).send().await;
        judge(&self.id, answer).await
    }
}

/// A writer without producer headers. Every attempt has another number and is made once.
#[derive(Debug)]
pub struct Plain {
    pub id: String,
    url: String,
    client: Client,
    rng: StdRng,
    pub attempts: u64,
    pub acknowledged: BTreeSet<u64>,
}

impl Plain {
    pub fn new(client: &Client, url: &str, id: impl Into<String>, seed: u64) -> Plain {
        let (id, url, client, rng) = (id.into(), url.to_owned(), client.clone(), StdRng::seed_from_u64(seed));
        Plain { id, url, client, rng, attempts: 0, acknowledged: BTreeSet::new() }
    }

    pub async fn run(mut self, stop: Stop, pause: Duration) -> Plain {
        while !stop.is_set() {
            self.append().await;
            let pause = pause.mul_f64(self.rng.random_range(0.0..2.0));
            tokio::time::sleep(pause).await;
        }
        self
    }

    pub async fn append(&mut self) {
        let seq = self.attempts;
        self.attempts += 1;
        let answer = self.client.post(&self.url).json(&messages(&self.id, seq)).send().await;
        match judge(&self.id, answer).await {
            Answer::Acknowledged => drop(self.acknowledged.insert(seq)),
            Answer::Unknown => {}
            Answer::Gap(_) => panic!("{}: a plain append cannot leave a gap", self.id),
        }
    }
}

fn messages(id: &str, seq: u64) -> Vec<Message> {
    (0..parts(seq)).map(|part| Message { by: id.to_owned(), seq, part }).collect()
}

/// An append may be acknowledged or unheard; all that is refused for good, or with a 5xx other than 503, is a bug.
async fn judge(id: &str, answer: reqwest::Result<Response>) -> Answer {
    let Ok(answer) = answer else { return Answer::Unknown };
    let status = answer.status();
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let expected = header("producer-expected-seq").and_then(|seq| seq.parse().ok());
    let may_retry = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS;
    match (status, expected) {
        (StatusCode::OK | StatusCode::NO_CONTENT, _) => Answer::Acknowledged,
        (StatusCode::CONFLICT, Some(expected)) => Answer::Gap(expected),
        _ if may_retry && header("retry-after").is_some() => Answer::Unknown,
        _ => panic!("{id}: {status} {:?}: {}", answer.headers().clone(), answer.text().await.unwrap_or_default()),
    }
}
