//! Appends at many times what the store takes.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::budget::{self, Clients};
use super::{PATIENCE, alone, duration};
use crate::flood::Flood;
use crate::support::{Minio, Server, Toxiproxy, model, on_bucket};

const STREAMS: usize = 4;
/// Together their appends are several times what the server may queue.
const PRODUCERS: usize = 1000;
/// KB a second that each connection to the store takes.
const RATE: u32 = 128;

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
    let urls = (0..STREAMS).map(|n| server.url(&format!("/v1/stream/flood/{n}"))).collect::<Vec<_>>();
    proxy.add("bandwidth", "upstream", 1.0, json!({ "rate": RATE })).await;
    let flood = Flood::start(&model::client(), &urls, PRODUCERS).await;
    assert_refused_before_the_body(&server).await;
    tokio::time::sleep(duration()).await;
    let (attempts, acknowledged, refused) = flood.counted();
    eprintln!("{attempts} attempts, {acknowledged} acknowledged, {refused} refused while the store was slow");
    let clients = Clients { connections: PRODUCERS as u64, ..Clients::default() };
    // Without readers: what their responses may take is not used.
    budget::assert_kept_by_writers(&server, clients);
    assert!(attempts >= 10 * acknowledged, "the store was too fast for this test");
    assert!(refused > 0);

    proxy.heal().await;
    flood.finish().await;
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
