//! Appends to many streams at once and says how long it took and what it cost: `cargo run --release --example load -- URL`.
//!
//! Closed loop: each writer sends its next append when the last one is acknowledged. The store's requests are read from
//! the server's `/metrics` before and after, so use a server that nobody else uses.

#![allow(clippy::disallowed_methods, reason = "a measurement asks the machine for the time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use reqwest::{Client, StatusCode};

/// What S3 asks for a million requests, in dollars: PUT, LIST and the like, and GET. DELETE is free.
const PUT_PRICE: f64 = 5.0;
const GET_PRICE: f64 = 0.4;

#[derive(Debug, Parser)]
struct Options {
    /// Where the server is, such as http://127.0.0.1:4437
    url: String,
    #[arg(long, default_value_t = 100)]
    streams: u64,
    /// Writers of each stream, each with one append at a time
    #[arg(long, default_value_t = 1)]
    writers: u64,
    /// Appends of all writers together
    #[arg(long, default_value_t = 10_000)]
    appends: u64,
    /// Bytes of each append
    #[arg(long, default_value_t = 100)]
    bytes: usize,
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let options = Options::parse();
    let client = Client::builder().pool_max_idle_per_host(usize::MAX).build().map_err(|error| error.to_string())?;
    let run = format!("{}/v1/stream/load/{:x}", options.url.trim_end_matches('/'), rand::random::<u64>());
    for stream in 0..options.streams {
        let put = client.put(format!("{run}/{stream}")).header("content-type", "application/octet-stream");
        let answer = put.send().await.map_err(|error| format!("create: {error}"))?;
        expect(answer.status() == StatusCode::CREATED, || format!("create: {}", answer.status()))?;
    }

    let before = store_requests(&client, &options.url).await?;
    let began = Instant::now();
    let (mut times, refused) = append(&client, &run, &options).await?;
    let took = began.elapsed();
    let after = store_requests(&client, &options.url).await?;

    times.sort_unstable();
    let (appends, streams, writers, bytes) = (times.len(), options.streams, options.writers, options.bytes);
    println!("{appends} appends of {bytes} bytes, {streams} streams, {writers} writers each");
    println!("{:.1} s, {:.0} appends/s, {refused} refused and repeated", took.as_secs_f64(), rate(appends, took));
    for (name, share) in [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999), ("max", 1000)] {
        println!("{name:>6} {:8.1} ms", at(&times, share).as_secs_f64() * 1000.0);
    }
    tell_cost(&before, &after, appends);
    Ok(())
}

/// The time of each append, and how many attempts were refused.
async fn append(client: &Client, run: &str, options: &Options) -> Result<(Vec<Duration>, u64), String> {
    let writers = options.streams * options.writers;
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let share = options.appends / writers + u64::from(writer < options.appends % writers);
        let (client, url) = (client.clone(), format!("{run}/{}", writer % options.streams));
        tasks.push(tokio::spawn(write(client, url, share, vec![b'x'; options.bytes])));
    }
    let (mut times, mut refused) = (Vec::new(), 0);
    for task in tasks {
        let (of_one, refused_one) = task.await.map_err(|error| error.to_string())??;
        times.extend(of_one);
        refused += refused_one;
    }
    Ok((times, refused))
}

async fn write(client: Client, url: String, appends: u64, body: Vec<u8>) -> Result<(Vec<Duration>, u64), String> {
    let (mut times, mut refused) = (Vec::new(), 0);
    for _ in 0..appends {
        let began = Instant::now();
        loop {
            let post = client.post(&url).header("content-type", "application/octet-stream").body(body.clone());
            let status = post.send().await.map_err(|error| format!("append: {error}"))?.status();
            if status.is_success() {
                break;
            }
            expect(status == StatusCode::SERVICE_UNAVAILABLE, || format!("append: {status}"))?;
            refused += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        times.push(began.elapsed());
    }
    Ok((times, refused))
}

/// Requests to the store so far, by operation, whatever their outcome: failed ones are billed, too.
async fn store_requests(client: &Client, url: &str) -> Result<BTreeMap<String, f64>, String> {
    let answer = client.get(format!("{}/metrics", url.trim_end_matches('/'))).send().await;
    let text = answer.map_err(|error| format!("metrics: {error}"))?.text().await.map_err(|error| error.to_string())?;
    let mut requests = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("headwater_store_requests_total{")) {
        let operation = line.split("operation=\"").nth(1).and_then(|rest| rest.split('"').next());
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        if let (Some(operation), Some(count)) = (operation, count) {
            *requests.entry(operation.to_owned()).or_insert(0.0) += count;
        }
    }
    Ok(requests)
}

fn tell_cost(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, appends: usize) {
    let mut dollars = 0.0;
    println!("requests to the store:");
    for (operation, count) in after {
        let count = count - before.get(operation).unwrap_or(&0.0);
        dollars += count / 1e6 * price(operation);
        println!("{operation:>10} {count:8.0} ({:.4} per append)", count / appends as f64);
    }
    let per_million = dollars / appends as f64 * 1e6;
    println!("${per_million:.4} per million appends at ${PUT_PRICE} (PUT, LIST) and ${GET_PRICE} (GET) per million");
}

fn price(operation: &str) -> f64 {
    match operation {
        "delete" => 0.0,
        "get" | "get_range" => GET_PRICE,
        _ => PUT_PRICE,
    }
}

fn rate(appends: usize, took: Duration) -> f64 {
    appends as f64 / took.as_secs_f64()
}

/// The time that `share` of a thousand did not pass.
fn at(sorted: &[Duration], share: usize) -> Duration {
    let index = (sorted.len() * share).div_ceil(1000).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

fn expect(holds: bool, otherwise: impl Fn() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
