//! kill -9 under load, again and again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::load::{Load, Size, assert_shows};
use crate::support::{Minio, Server, on_bucket, seed};

const ROUNDS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_append_survives_kill_9_exactly_once_and_in_order() {
    let Some(minio) = Minio::start() else { return };
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let flags = on_bucket(&minio.endpoint(), minio.bucket(), "crash");
    let mut server = Server::start(&flags).await;
    let pause = Duration::from_millis(10);
    let size = Size { streams: 20, producers: 5, plain: 1, readers: 2, pause };
    let load = Load::start(&[&server], size, seed).await;
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..1500))).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        server.restart().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let written = load.finish(&server).await;
    assert!(written.repeated >= u64::from(ROUNDS), "the kills have hit nothing");
    server.restart().await;
    assert_shows(&server, &written).await;
}
