//! What several test programs share. Each includes it with `#[path = "../support/mod.rs"] mod support;`.

#![allow(dead_code, unused_imports, reason = "every test program uses another part of it")]
#![allow(clippy::disallowed_methods, reason = "tests of real processes wait for real time")]

mod crowd;
mod memory;
mod minio;
pub mod model;
mod server;
mod slow_down;
mod toxiproxy;

pub use crowd::Crowd;
pub use memory::Memory;
pub use minio::{ACCESS_KEY, Minio, SECRET_KEY};
pub use server::Server;
pub use slow_down::SlowDown;
pub use toxiproxy::Toxiproxy;

/// The flags of a server whose store is the bucket at `endpoint`.
pub fn on_bucket(endpoint: &str, bucket: &str, prefix: &str) -> Vec<String> {
    let store = format!("s3://{bucket}/{prefix}");
    let flags = ["--store", &store, "--endpoint", endpoint, "--region", "us-east-1"];
    let keys = ["--access-key-id", ACCESS_KEY, "--secret-access-key", SECRET_KEY];
    flags.into_iter().chain(keys).map(str::to_owned).collect()
}

/// `HEADWATER_SEED`, or a new one. Printed, so that a failure says how to get the same choices again.
pub fn seed() -> u64 {
    let given = std::env::var("HEADWATER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("seed: HEADWATER_SEED={seed}");
    seed
}
