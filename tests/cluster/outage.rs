//! The store is gone for a while.

use std::time::{Duration, Instant};

use crate::load::{Load, Size, assert_shows};
use crate::support::model::{self, Producer};
use crate::support::{Minio, Server, on_bucket, seed};

const OUTAGE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_store_is_survived_without_a_restart() {
    let Some(mut minio) = Minio::start() else { return };
    let mut flags = on_bucket(&minio.endpoint(), minio.bucket(), "outage");
    flags.extend(["--append-timeout", "3s"].map(str::to_owned));
    let mut server = Server::start(&flags).await;
    let client = model::client();
    let cached = server.url("/v1/stream/cached");
    model::create(&client, std::slice::from_ref(&cached)).await;
    let mut producer = Producer::new(&client, std::slice::from_ref(&cached), "before", 0);
    for _ in 0..10 {
        producer.append().await;
    }
    let size = Size { streams: 4, producers: 4, plain: 1, readers: 2, pause: Duration::from_millis(20) };
    let load = Load::start(&[&server], size, seed()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    minio.stop();
    let began = Instant::now();
    let mut refused = 0;
    while began.elapsed() < OUTAGE {
        let content = model::content(&client, &cached).await;
        model::verify(&content, &[&producer], &[]).unwrap_or_else(|why| panic!("during the outage: {why}"));
        refused += u32::from(is_refused_politely(&client, &server.url("/v1/stream/refused")).await);
        assert!(server.is_running(), "the server has ended");
    }
    assert!(refused > 0, "nothing was refused during the outage");
    minio.restart();

    let written = load.finish(&server).await;
    producer.append().await;
    let content = model::content(&client, &cached).await;
    model::verify(&content, &[&producer], &[]).unwrap_or_else(|why| panic!("after the outage: {why}"));
    server.restart().await;
    assert_shows(&server, &written).await;
}

/// Whether a write was answered 503 with `Retry-After`. It may also be unheard; anything else is wrong.
async fn is_refused_politely(client: &reqwest::Client, url: &str) -> bool {
    let answer = client.put(url).header("content-type", "application/json").send().await;
    let Ok(answer) = answer else { return false };
    assert_eq!(answer.status(), reqwest::StatusCode::SERVICE_UNAVAILABLE, "{:?}", answer.headers());
    assert!(answer.headers().contains_key("retry-after"), "{:?}", answer.headers());
    true
}
