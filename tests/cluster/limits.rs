//! Memory is bounded, whatever clients do, and everything works again when they stop.
//!
//! `LIMITS_SECONDS=120` makes each of these last longer.

mod appends;
pub mod budget;
mod readers;

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use crate::support::Server;

/// Clients of each kind.
const MANY: usize = 10_000;
/// File descriptors of a test besides its clients'.
const SPARE: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the load lasts.
fn duration() -> Duration {
    let given = std::env::var("LIMITS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(5))
}

/// One of these tests at a time: together they would need more descriptors and processors than there are.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// `MANY`, or as many as this process may open connections for. The server's limit is the same.
fn as_many_as_possible() -> usize {
    let wanted = MANY as u64 + SPARE;
    let limit = rlimit::increase_nofile_limit(wanted).unwrap_or_else(|error| panic!("file descriptors: {error}"));
    let count = MANY.min(usize::try_from(limit.saturating_sub(SPARE)).unwrap_or(MANY));
    // The server leaves a quarter of a low limit for its store, see src/cli/descriptors.rs.
    let count = if limit < wanted + 1024 { count.min(usize::try_from(limit / 2).unwrap_or(MANY)) } else { count };
    if count < MANY {
        eprintln!("only {count} clients instead of {MANY}: the limit of file descriptors is {limit} (ulimit -Hn)");
    }
    assert!(count > 0, "the limit of file descriptors is {limit}");
    count
}

async fn until_live_readers(server: &Server, wanted: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + PATIENCE + duration();
    loop {
        let count = server.metric("headwater_live_readers").await;
        if wanted(count) {
            return;
        }
        assert!(Instant::now() < deadline, "{count} live readers after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
