//! A network between the server and its store that delays, cuts and loses.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::load::{Load, Size, assert_shows};
use crate::support::{Minio, Server, Toxiproxy, on_bucket, seed};

const FAULTS: u32 = 40;

/// Kind, direction, details. What cuts answers (`downstream`) leaves a request applied but not heard of.
fn fault(rng: &mut StdRng) -> (&'static str, &'static str, Value) {
    let millis = rng.random_range(0..400);
    let faults = [
        ("latency", "downstream", json!({ "latency": millis, "jitter": millis / 2 })),
        ("latency", "upstream", json!({ "latency": millis, "jitter": millis / 2 })),
        ("reset_peer", "downstream", json!({ "timeout": millis / 4 })),
        ("reset_peer", "upstream", json!({ "timeout": millis / 4 })),
        ("timeout", "downstream", json!({ "timeout": millis })),
        ("timeout", "upstream", json!({ "timeout": millis })),
        ("timeout", "downstream", json!({ "timeout": 0 })),
        ("limit_data", "downstream", json!({ "bytes": millis * 4 })),
        ("bandwidth", "downstream", json!({ "rate": 16 })),
        ("bandwidth", "upstream", json!({ "rate": 32 })),
        ("slicer", "upstream", json!({ "average_size": 200, "size_variation": 100, "delay": 500 })),
    ];
    faults.choose(rng).cloned().unwrap_or(("timeout", "downstream", json!({ "timeout": 0 })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_to_the_store_loses_and_doubles_nothing() {
    let Some(minio) = Minio::start() else { return };
    let upstream = minio.endpoint().trim_start_matches("http://").to_owned();
    let Some(proxy) = Toxiproxy::start(&upstream).await else { return };
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut flags = on_bucket(&proxy.endpoint(), minio.bucket(), "faults");
    // Shorter than the faults, so that what is lost is noticed and repeated, by the server and by its clients.
    flags.extend(["--store-attempt-timeout", "500ms", "--store-operation-timeout", "5s"].map(str::to_owned));
    flags.extend(["--append-timeout", "400ms"].map(str::to_owned));
    let server = Server::start(&flags).await;
    let size = Size { streams: 8, producers: 4, plain: 2, readers: 2, pause: Duration::from_millis(20) };
    let load = Load::start(&[&server], size, seed).await;
    for _ in 0..FAULTS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..400))).await;
        if rng.random_ratio(1, 8) {
            proxy.enable(false).await;
        } else {
            let (kind, stream, attributes) = fault(&mut rng);
            proxy.add(kind, stream, rng.random_range(0.2..1.0), attributes).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..1200))).await;
        proxy.heal().await;
    }
    let written = load.finish(&server).await;
    assert!(written.repeated > 0, "the faults have hit nothing");

    let elsewhere = on_bucket(&minio.endpoint(), minio.bucket(), "faults");
    assert_shows(&Server::start(&elsewhere).await, &written).await;
}
