//! What a server may take, as docs/operations.md says it ("Memory").

use crate::support::Server;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The settings that count, small ones, so that what grows beside them shows.
const QUEUE: u64 = 16;
const LOG_CACHE: u64 = 32;
const MANIFEST_CACHE: u64 = 8;
const PAGE_CACHE: u64 = 16;
const SSE_CACHE: u64 = 16;
const SHARDS: u64 = 2;
const SEAL: u64 = 1;

/// Connections over HTTP/1.1, and requests at a time over HTTP/2.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clients {
    pub connections: u64,
    pub http2_requests: u64,
}

pub fn flags() -> Vec<String> {
    let sizes = [
        ("--queue-bytes", QUEUE),
        ("--max-append-bytes", QUEUE / 2),
        ("--log-cache", LOG_CACHE),
        ("--manifest-cache", MANIFEST_CACHE),
        ("--page-cache", PAGE_CACHE),
        ("--sse-cache", SSE_CACHE),
        ("--seal-bytes", SEAL),
    ];
    let sizes = sizes.into_iter().flat_map(|(flag, mib)| [flag.to_owned(), format!("{mib}MiB")]);
    sizes.chain(["--shards".to_owned(), SHARDS.to_string()]).collect()
}

/// Without responses of any size.
fn of_writers(clients: Clients) -> u64 {
    let program = 64;
    let seals = SHARDS * 16 * 2 * SEAL;
    let fixed = program + LOG_CACHE + MANIFEST_CACHE + 3 * QUEUE + seals;
    fixed * MIB + clients.connections * 48 * KIB + clients.http2_requests * 16 * KIB
}

/// What responses hold: cached, and beside the caches.
fn of_responses() -> u64 {
    [PAGE_CACHE, SSE_CACHE].iter().map(|cache| (cache + cache.max(&64)) * MIB).sum()
}

/// That the server has never taken more.
pub fn assert_kept(server: &Server, clients: Clients) {
    assert_at_most(server, of_writers(clients) + of_responses());
}

/// That it has never taken more, although chunks of long streams were merged meanwhile.
pub fn assert_kept_with_merging(server: &Server, clients: Clients) {
    const MERGING: u64 = 200 * MIB;
    assert_at_most(server, of_writers(clients) + of_responses() + MERGING);
}

/// That it has never taken more, although nobody was sent a page yet.
pub fn assert_kept_by_writers(server: &Server, clients: Clients) {
    assert_at_most(server, of_writers(clients));
}

fn assert_at_most(server: &Server, budget: u64) {
    let memory = server.memory();
    eprintln!("{memory}, {} MiB allowed", budget / MIB);
    assert!(memory.peak <= budget, "{memory}, more than {} MiB", budget / MIB);
}
