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

pub fn bytes(clients: Clients) -> u64 {
    let program = 64;
    let caches = LOG_CACHE + MANIFEST_CACHE;
    let beside = |cache: u64| cache + cache.max(64);
    let seals = SHARDS * 16 * 2 * SEAL;
    let fixed = program + caches + beside(PAGE_CACHE) + beside(SSE_CACHE) + 3 * QUEUE + seals;
    fixed * MIB + clients.connections * 32 * KIB + clients.http2_requests * 16 * KIB
}

/// That the server has never taken more.
pub fn assert_kept(server: &Server, clients: Clients) {
    let (memory, budget) = (server.memory(), bytes(clients));
    eprintln!("{memory}, {} MiB allowed with {clients:?}", budget / MIB);
    assert!(memory.peak <= budget, "{memory}, more than {} MiB", budget / MIB);
}
