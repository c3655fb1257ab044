//! Three replicas of one bucket, of which any may die.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Load, Size, assert_shows};
use crate::support::{Minio, Server, Toxiproxy, model, on_bucket, seed};

/// Replicas find each other, and miss each other, soon.
const SETTINGS: [&str; 14] = [
    "--heartbeat-interval",
    "1s",
    "--long-poll-hold",
    "2s",
    "--sse-life",
    "5s",
    "--append-timeout",
    "3s",
    "--store-attempt-timeout",
    "1s",
    "--store-operation-timeout",
    "3s",
    // So many that each has some.
    "--shards",
    "32",
];

/// A replica with a network of its own: to the store, and to where the others reach it.
struct Replica {
    server: Server,
    store: Toxiproxy,
    door: Toxiproxy,
}

impl Replica {
    async fn start(minio: &Minio, prefix: &str) -> Option<Replica> {
        let store = Toxiproxy::start(minio.endpoint().trim_start_matches("http://")).await?;
        let door = Toxiproxy::start("127.0.0.1:9").await?;
        let mut flags = on_bucket(&store.endpoint(), minio.bucket(), prefix);
        flags.extend(SETTINGS.map(str::to_owned));
        flags.extend(["--advertise", door.address()].map(str::to_owned));
        let server = Server::start(&flags).await;
        door.lead_to(&server.address().to_string()).await;
        Some(Replica { server, store, door })
    }
}

async fn status(server: &Server) -> Value {
    let answer = reqwest::get(server.url("/__headwater/cluster")).await;
    let answer = answer.unwrap_or_else(|error| panic!("status: {error}"));
    answer.json().await.unwrap_or_else(|error| panic!("status: {error}"))
}

async fn three(minio: &Minio, prefix: &str) -> Option<Vec<Replica>> {
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(minio, prefix).await?);
    }
    settled(&replicas).await;
    Some(replicas)
}

/// Returns when all of them know the same homes.
async fn settled(replicas: &[Replica]) {
    let deadline = Instant::now() + model::PATIENCE;
    loop {
        let mut homes = Vec::new();
        for replica in replicas {
            let status = status(&replica.server).await;
            let shards = status["shards"].as_array().cloned().unwrap_or_default();
            homes.push(shards.iter().map(|shard| shard["home"].clone()).collect::<Vec<_>>());
        }
        let all = homes[0].iter().map(Value::to_string).collect::<std::collections::BTreeSet<_>>();
        if all.len() == replicas.len() && homes.iter().all(|seen| *seen == homes[0]) {
            return;
        }
        assert!(Instant::now() < deadline, "they do not agree: {homes:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_has_acknowledged_the_others_show_at_once_and_no_two_write_the_same_log() {
    let Some(minio) = Minio::start() else { return };
    let Some(replicas) = three(&minio, "at-once").await else { return };
    let client = model::client();
    let conflicts = async || {
        let mut conflicts = 0;
        for replica in &replicas {
            let metric = "headwater_store_requests_total{operation=\"put\",outcome=\"conflict\"}";
            conflicts += replica.server.metric(metric).await;
        }
        conflicts
    };
    let before = conflicts().await;
    let mut turn = (0..3).cycle();
    let mut at = || &replicas[turn.next().unwrap_or(0)].server;
    for n in 0..40 {
        let path = format!("/v1/stream/at-once/{}", n % 10);
        let body = format!("{n};");
        let put = client.put(at().url(&path)).header("content-type", "text/plain").send().await;
        assert!(put.is_ok_and(|answer| answer.status().is_success()), "PUT {path}");
        let post = client.post(at().url(&path)).header("content-type", "text/plain").body(body.clone()).send().await;
        let post = post.unwrap_or_else(|error| panic!("POST: {error}"));
        assert_eq!(post.status(), StatusCode::NO_CONTENT);
        let end = post.headers().get("stream-next-offset").cloned();
        for _ in 0..2 {
            let server = at();
            let head = client.head(server.url(&path)).send().await.unwrap_or_else(|error| panic!("HEAD: {error}"));
            assert_eq!(head.headers().get("stream-next-offset"), end.as_ref(), "{n}");
            let read = client.get(server.url(&path)).send().await.unwrap_or_else(|error| panic!("GET: {error}"));
            let read = read.text().await.unwrap_or_else(|error| panic!("GET: {error}"));
            assert!(read.ends_with(&body), "after {body}: {read}");
        }
        if n >= 30 {
            let gone = client.delete(at().url(&path)).send().await;
            assert!(gone.is_ok_and(|answer| answer.status() == StatusCode::NO_CONTENT), "DELETE {path}");
            let read = client.get(at().url(&path)).send().await;
            assert!(read.is_ok_and(|answer| answer.status() == StatusCode::NOT_FOUND), "GET {path}");
        }
    }
    assert_eq!(conflicts().await - before, 0, "replicas have written to the same log");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_claims_to_be_a_replica_and_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let store = ["--store".to_owned(), format!("local:{}", directory.path().display())];
    let server = Server::start(&store).await;
    let client = model::client();
    for token in [None, Some("00"), Some("")] {
        let mut get = client.get(server.url("/__headwater/log/0/1/0"));
        let mut put = client.put(server.url("/v1/stream/s")).header("content-type", "text/plain");
        if let Some(token) = token {
            get = get.header("headwater-replica", token);
            put = put.header("headwater-replica", token);
        }
        let get = get.send().await.unwrap_or_else(|error| panic!("GET: {error}"));
        assert_eq!(get.status(), StatusCode::FORBIDDEN, "{token:?}");
        let put = put.send().await.unwrap_or_else(|error| panic!("PUT: {error}"));
        assert_eq!(put.status() == StatusCode::FORBIDDEN, token.is_some(), "{token:?}: {}", put.status());
    }
}

/// Two that share a directory, and know of each other.
async fn two(more: [&[&str]; 2]) -> (tempfile::TempDir, [Server; 2]) {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    let start = async |more: &[&str]| {
        let mut flags = vec!["--store".to_owned(), format!("local:{}", directory.path().display())];
        flags.extend(["--heartbeat-interval", "300ms", "--shards", "16"].map(str::to_owned));
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        Server::start(&flags).await
    };
    let servers = [start(more[0]).await, start(more[1]).await];
    let deadline = Instant::now() + model::PATIENCE;
    for server in &servers {
        while status(server).await["replicas"].as_array().is_none_or(|all| all.len() < 2) {
            assert!(Instant::now() < deadline, "they do not find each other");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    (directory, servers)
}

/// Whether the other one is passed over, as the server sees it.
async fn passes_over_the_other(server: &Server) -> bool {
    status(server).await["replicas"][1]["suspected"].as_bool().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_break_off_or_send_too_much_do_not_part_replicas() {
    let (_directory, [one, _two]) = two([&[], &[]]).await;
    for n in 0..20 {
        let mut half = TcpStream::connect(one.address()).await.unwrap_or_else(|error| panic!("connect: {error}"));
        let head = format!("POST /v1/stream/{n} HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n");
        half.write_all(format!("{head}content-length: 1000\r\n\r\nabc").as_bytes()).await.unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(half);
        let mut large = TcpStream::connect(one.address()).await.unwrap_or_else(|error| panic!("connect: {error}"));
        let huge = "x".repeat(100_000);
        let head = format!("{head}x-huge: {huge}\r\nproducer-id: {huge}\r\ncontent-length: 3\r\n\r\nabc");
        large.write_all(head.as_bytes()).await.unwrap_or_default();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_millis(300), large.read_to_string(&mut answer)).await;
        // It may be kept open for the next request.
        drop(read);
        assert!(!passes_over_the_other(&one).await, "{n}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!passes_over_the_other(&one).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_different_secrets_do_without_each_other() {
    let (_directory, [one, two]) = two([&[], &["--cluster-secret", "another"]]).await;
    let client = model::client();
    for (n, server) in (0..32).map(|n| (n, if n % 2 == 0 { &one } else { &two })) {
        let deadline = Instant::now() + model::PATIENCE;
        loop {
            let put = client.put(server.url(&format!("/v1/stream/{n}"))).header("content-type", "text/plain").send();
            let put = put.await.unwrap_or_else(|error| panic!("PUT: {error}"));
            if put.status().is_success() {
                break;
            }
            assert_eq!(put.status(), StatusCode::SERVICE_UNAVAILABLE, "{n}");
            assert!(put.headers().contains_key("retry-after") && Instant::now() < deadline, "{n}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(passes_over_the_other(&one).await && passes_over_the_other(&two).await);
}

/// How long: CHAOS_SECONDS, or two minutes.
fn duration() -> Duration {
    let seconds = std::env::var("CHAOS_SECONDS")
        .ok()
        .map(|text| text.parse().unwrap_or_else(|error| panic!("CHAOS_SECONDS={text}: {error}")));
    Duration::from_secs(seconds.unwrap_or(120))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_one_replica_after_the_other_nothing_acknowledged_is_lost() {
    let Some(minio) = Minio::start() else { return };
    let Some(mut replicas) = three(&minio, "chaos").await else { return };
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let size = Size { streams: 10, producers: 20, plain: 0, readers: 20, pause: Duration::from_millis(400) };
    let load = Load::start(&replicas.iter().map(|replica| &replica.server).collect::<Vec<_>>(), size, seed).await;
    let end = Instant::now() + duration();
    let mut events = [0; 4];
    for n in 0.. {
        let replica = &mut replicas[n % 3];
        // All to all of them, and most for longer than a heartbeat is believed.
        let (event, while_) = (n % 4, Duration::from_millis(rng.random_range(2000..6000)));
        events[event] += 1;
        match event {
            0 => {
                replica.server.kill();
                tokio::time::sleep(Duration::from_secs(2)).await;
                replica.server.restart().await;
            }
            1 => {
                replica.server.suspend();
                tokio::time::sleep(while_).await;
                replica.server.resume();
            }
            2 => {
                replica.store.enable(false).await;
                tokio::time::sleep(while_).await;
                replica.store.enable(true).await;
            }
            _ => {
                replica.door.enable(false).await;
                tokio::time::sleep(while_).await;
                replica.door.enable(true).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        if Instant::now() > end {
            break;
        }
    }
    let [killed, suspended, cut_from_store, cut_from_others] = events;
    eprintln!(
        "{killed} killed, {suspended} suspended, {cut_from_store} cut from the store, {cut_from_others} from the others"
    );
    let written = load.finish(&replicas[0].server).await;
    eprintln!("longest pause of a writer: {:.1} s", written.longest_pause.as_secs_f64());
    for replica in &replicas {
        assert_shows(&replica.server, &written).await;
    }
}
