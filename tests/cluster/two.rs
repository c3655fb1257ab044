//! Two servers on one bucket, which write the same streams: slow, never wrong.

use std::time::Duration;

use reqwest::{Client, StatusCode};

use crate::load::{Load, Size, assert_shows};
use crate::support::{Minio, Server, model, on_bucket, seed};

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_bucket_agree() {
    let Some(minio) = Minio::start() else { return };
    let flags = on_bucket(&minio.endpoint(), minio.bucket(), "two");
    agree(&flags).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_directory_agree() {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("temporary directory: {error}"));
    agree(&["--store".to_owned(), format!("local:{}", directory.path().display())]).await;
}

async fn agree(flags: &[String]) {
    let (one, mut other) = (Server::start(flags).await, Server::start(flags).await);
    let size = Size { streams: 8, producers: 4, plain: 2, readers: 2, pause: Duration::from_millis(50) };
    let load = Load::start(&[&one, &other], size, seed()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // One of them dies and comes back, meanwhile the other goes on.
    other.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    other.restart().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let written = load.finish(&one).await;
    assert_shows(&other, &written).await;
    let third = Server::start(flags).await;
    assert_shows(&third, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_was_replaced_at_one_server_is_fenced_at_the_other() {
    let Some(minio) = Minio::start() else { return };
    let flags = on_bucket(&minio.endpoint(), minio.bucket(), "fence");
    let (one, other) = (Server::start(&flags).await, Server::start(&flags).await);
    let client = model::client();
    let urls = [&one, &other].map(|server| server.url("/v1/stream/fence"));
    model::create(&client, &urls).await;
    assert_eq!(append(&client, &urls[0], 0, 0).await.0, StatusCode::OK);
    for epoch in 1..20 {
        let (new, old) = if epoch % 2 == 0 { (&urls[0], &urls[1]) } else { (&urls[1], &urls[0]) };
        assert_eq!(append(&client, new, epoch, 0).await.0, StatusCode::OK, "epoch {epoch}");
        let (status, current) = append(&client, old, epoch - 1, 1).await;
        assert_eq!((status, current), (StatusCode::FORBIDDEN, Some(epoch)), "the epoch before {epoch}");
    }
    assert_eq!(model::content(&client, &urls[0]).await.len(), 20);
}

/// The status, and the epoch that the server names.
async fn append(client: &Client, url: &str, epoch: u64, seq: u64) -> (StatusCode, Option<u64>) {
    let request = client.post(url).json(&model::Message { by: "fenced".to_owned(), seq: epoch, part: 0 });
    let request = request.header("producer-id", "fenced").header("producer-epoch", epoch.to_string());
    let answer = request.header("producer-seq", seq.to_string()).send().await;
    let answer = answer.unwrap_or_else(|error| panic!("{url}: {error}"));
    let current = answer.headers().get("producer-epoch").and_then(|epoch| epoch.to_str().ok()?.parse().ok());
    (answer.status(), current)
}
