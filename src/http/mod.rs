//! HTTP: turns requests into protocol values, and the engine's answers into responses.
//!
//! | module | what it does |
//! |---|---|
//! | `routes` | which request goes where; what every response carries (CORS, security headers); health |
//! | `request` | headers and query parameters as protocol values, once |
//! | `body` | request bodies: admitted, limited, timed, JSON validated |
//! | `unread` | says so if a connection ends because a body was not read |
//! | `write` | PUT, POST, DELETE |
//! | `read` | HEAD, GET, long-poll |
//! | `sse` | the live read as server-sent events |
//! | `listing` | which streams there are, an extension |
//! | `live` | how many live reads there may be |
//! | `caching` | Cache-Control, ETag: the whole contract with caches, as pure functions |
//! | `replicas` | writes passed on to a shard's home, and what replicas ask of each other |
//! | `error` | the only map from a "no" to status, headers and problem+json |
//! | `listen` | accepts connections, bounds them, and ends them |
//! | `stall` | resets HTTP/2 streams whose client does not take their response |

mod body;
mod caching;
mod error;
mod listen;
pub mod listing;
mod live;
mod metrics;
mod read;
mod replicas;
pub mod request;
mod routes;
mod sse;
mod stall;
mod unread;
mod write;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::clock::Ids;
use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::settings::HttpSettings;

pub use listen::serve;
pub use routes::router;

/// More lines for `/metrics`, in Prometheus' text format.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the handlers share. One per server.
pub struct Api {
    engine: Engine,
    settings: HttpSettings,
    ids: Ids,
    /// Cancelled when the server is to stop: readiness is off, and live reads end.
    stopping: CancellationToken,
    frames: sse::Frames,
    live: live::Live,
    counters: metrics::Counters,
    metrics: MetricsText,
    /// The other replicas, if this one looks for any.
    cluster: Option<Arc<Cluster>>,
}

impl Api {
    /// Of a replica on its own. `metrics` is asked for what is below HTTP (the store's requests) whenever `/metrics` is read.
    pub fn new(
        engine: Engine,
        settings: HttpSettings,
        ids: Ids,
        stopping: CancellationToken,
        metrics: MetricsText,
    ) -> Arc<Api> {
        Api::of_replica(engine, settings, ids, stopping, metrics, None)
    }

    /// Like [`new`](Api::new), with what is known of the other replicas.
    pub fn of_replica(
        engine: Engine,
        settings: HttpSettings,
        ids: Ids,
        stopping: CancellationToken,
        metrics: MetricsText,
        cluster: Option<Arc<Cluster>>,
    ) -> Arc<Api> {
        let (frames, live) = (sse::Frames::new(settings.sse_cache), live::Live::new(settings.max_live_readers));
        let counters = metrics::Counters::default();
        Arc::new(Api { engine, settings, ids, stopping, frames, live, counters, metrics, cluster })
    }
}

/// Header names of the protocol, as they are written in it.
pub(crate) mod header {
    pub const NEXT_OFFSET: &str = "stream-next-offset";
    pub const UP_TO_DATE: &str = "stream-up-to-date";
    pub const CLOSED: &str = "stream-closed";
    pub const CURSOR: &str = "stream-cursor";
    pub const TTL: &str = "stream-ttl";
    pub const RETENTION_BYTES: &str = "stream-retention-bytes";
    pub const RETENTION_AGE: &str = "stream-retention-age";
    pub const EARLIEST_OFFSET: &str = "stream-earliest-offset";
    pub const EXPIRES_AT: &str = "stream-expires-at";
    pub const SEQ: &str = "stream-seq";
    pub const SSE_ENCODING: &str = "stream-sse-data-encoding";
    pub const FORKED_FROM: &str = "stream-forked-from";
    pub const FORK_OFFSET: &str = "stream-fork-offset";
    pub const FORK_SUB_OFFSET: &str = "stream-fork-sub-offset";
    pub const PRODUCER_ID: &str = "producer-id";
    pub const PRODUCER_EPOCH: &str = "producer-epoch";
    pub const PRODUCER_SEQ: &str = "producer-seq";
    pub const PRODUCER_EXPECTED_SEQ: &str = "producer-expected-seq";
    pub const PRODUCER_RECEIVED_SEQ: &str = "producer-received-seq";
}
