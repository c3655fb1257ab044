//! Writers and readers on several streams, and the check of all of them at the end.

use std::mem::take;
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::task::JoinHandle;

use crate::support::Server;
use crate::support::model::{self, Live, Message, Plain, Producer, Reader, Stop};

/// How long another server's writes may stay unseen: much longer than the default `--sync-interval`.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub streams: usize,
    /// Idempotent producers of each stream.
    pub producers: usize,
    /// Plain writers of each stream.
    pub plain: usize,
    /// Readers of each stream, by long-poll and by SSE in turn.
    pub readers: usize,
    pub pause: Duration,
}

/// Running writers and readers.
pub struct Load {
    client: Client,
    servers: usize,
    streams: Vec<String>,
    stop_writers: Stop,
    stop_readers: Stop,
    producers: Vec<(usize, JoinHandle<Producer>)>,
    plain: Vec<(usize, JoinHandle<Plain>)>,
    readers: Vec<(usize, JoinHandle<Reader>)>,
}

/// What was written, by stream, after the check.
pub struct Written {
    pub repeated: u64,
    /// The longest time until a producer's append was acknowledged.
    pub longest_pause: Duration,
    pub content: Vec<Vec<Message>>,
}

impl Load {
    /// Creates the streams and starts everybody. With several servers, each writer uses all of them in turn.
    pub async fn start(servers: &[&Server], size: Size, seed: u64) -> Load {
        let client = model::client();
        let streams = (0..size.streams).map(|n| format!("/v1/stream/load/{n}")).collect::<Vec<_>>();
        let (stop_writers, stop_readers) = (Stop::default(), Stop::default());
        let (mut producers, mut plain, mut readers) = (Vec::new(), Vec::new(), Vec::new());
        let mut seeds = seed..;
        let mut seed = || seeds.next().unwrap_or_default();
        for (stream, path) in streams.iter().enumerate() {
            let urls = servers.iter().map(|server| server.url(path)).collect::<Vec<_>>();
            model::create(&client, &urls).await;
            for n in 0..size.producers {
                let producer = Producer::new(&client, &urls, format!("producer-{stream}-{n}"), seed());
                producers.push((stream, tokio::spawn(producer.run(stop_writers.clone(), size.pause))));
            }
            for n in 0..size.plain {
                let url = &urls[n % urls.len()];
                let writer = Plain::new(&client, url, format!("plain-{stream}-{n}"), seed());
                plain.push((stream, tokio::spawn(writer.run(stop_writers.clone(), size.pause))));
            }
            for n in 0..size.readers {
                let live = if n % 2 == 0 { Live::LongPoll } else { Live::Sse };
                let mut urls = urls.clone();
                urls.rotate_left(n % servers.len());
                let reader = Reader::new(&client, &urls, live);
                readers.push((stream, tokio::spawn(reader.run(stop_readers.clone()))));
            }
        }
        Load { client, servers: servers.len(), streams, stop_writers, stop_readers, producers, plain, readers }
    }

    /// Ends the writers, each with its last append acknowledged; checks every stream as `server` shows it, and that
    /// readers saw nothing else.
    pub async fn finish(mut self, server: &Server) -> Written {
        self.stop_writers.now();
        let (producers, plain) = (join(take(&mut self.producers)).await, join(take(&mut self.plain)).await);
        self.check(server, &producers, &plain).await;
        self.stop_readers.now();
        // A long-poll or an SSE response that waits ends with one more message.
        for path in &self.streams {
            Plain::new(&self.client, &server.url(path), "end", 0).append().await;
        }
        let after = all_content(&self.client, server, &self.streams).await;
        for (stream, reader) in join(self.readers).await {
            if let Err(why) = model::verify_prefix(&reader.seen, &after[stream]) {
                panic!("{:?} reader of {}: {why}", reader.live, self.streams[stream]);
            }
            assert!(!reader.seen.is_empty(), "{:?} reader of {} has seen nothing", reader.live, self.streams[stream]);
        }
        let sum = |of: fn(&Producer) -> u64| producers.iter().map(|(_, producer)| of(producer)).sum::<u64>();
        let (acknowledged, repeated) = (sum(|producer| producer.acknowledged), sum(|producer| producer.repeated));
        let false_gaps = sum(|producer| producer.false_gaps);
        eprintln!("{acknowledged} appends acknowledged, {repeated} attempts repeated, {false_gaps} false gaps");
        assert!(acknowledged > 0, "nothing was written");
        let longest_pause = producers.iter().map(|(_, producer)| producer.longest).max().unwrap_or_default();
        Written { repeated, content: after, longest_pause }
    }

    /// Checks every stream. What was acknowledged by another server may be missing for a moment, nothing else.
    async fn check(&self, server: &Server, producers: &[(usize, Producer)], plain: &[(usize, Plain)]) {
        let deadline = Instant::now() + SEEN_WITHIN;
        for (stream, path) in self.streams.iter().enumerate() {
            loop {
                let content = model::content(&self.client, &server.url(path)).await;
                let verdict = model::verify(&content, &of(producers, stream), &of(plain, stream));
                let Err(why) = verdict else { break };
                let may_come = self.servers > 1 && Instant::now() < deadline;
                assert!(may_come, "{path}: {why}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// The content of each stream as the server shows it.
pub async fn all_content(client: &Client, server: &Server, streams: &[String]) -> Vec<Vec<Message>> {
    let mut all = Vec::new();
    for path in streams {
        all.push(model::content(client, &server.url(path)).await);
    }
    all
}

/// That the server shows the same, which another has shown.
pub async fn assert_shows(server: &Server, written: &Written) {
    let client = model::client();
    for (n, content) in written.content.iter().enumerate() {
        let url = server.url(&format!("/v1/stream/load/{n}"));
        let deadline = Instant::now() + model::PATIENCE;
        let mut shown = model::content(&client, &url).await;
        // Another server's writes are seen a little later.
        while shown.len() < content.len() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
            shown = model::content(&client, &url).await;
        }
        assert!(shown == *content, "{url} shows {} messages, {} were written", shown.len(), content.len());
    }
}

async fn join<T>(tasks: Vec<(usize, JoinHandle<T>)>) -> Vec<(usize, T)> {
    let mut done = Vec::new();
    for (stream, task) in tasks {
        done.push((stream, task.await.unwrap_or_else(|error| panic!("{error}"))));
    }
    done
}

fn of<T>(all: &[(usize, T)], stream: usize) -> Vec<&T> {
    all.iter().filter(|(of, _)| *of == stream).map(|(_, one)| one).collect()
}
