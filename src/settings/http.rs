//! Settings of the HTTP side.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{EngineSettings, bytes, defaults, duration, show_duration};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How requests are taken, how long they may last, and what caches are told.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// Where to listen; port 0 takes any free one
    #[arg(long, env = "HEADWATER_LISTEN", default_value = "127.0.0.1:4437", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// How long a long-poll waits for data: from half to one and a half of this, all waiters of a stream together.
    /// Every proxy in between must wait longer
    #[arg(long, env = "HEADWATER_LONG_POLL_HOLD", default_value = "25s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub long_poll_hold: Duration,
    /// How long an SSE response lasts, give or take a tenth
    #[arg(long, env = "HEADWATER_SSE_LIFE", default_value = "60s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub sse_life: Duration,
    /// Longest silence of an SSE response: a comment is sent, so that proxies do not take it for dead
    #[arg(long, env = "HEADWATER_SSE_KEEP_ALIVE", default_value = "15s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub sse_keep_alive: Duration,
    /// Memory for encoded SSE events, which all subscribers of a stream share
    #[arg(long, env = "HEADWATER_SSE_CACHE", default_value = "64MiB", value_parser = bytes, value_name = "BYTES")]
    pub sse_cache: u64,
    /// How long caches may keep what can never change; a year adds `immutable`
    #[arg(long, env = "HEADWATER_SHARE_MAX_AGE", default_value = "60s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub share_max_age: Duration,
    /// How much longer caches may serve it while they ask again
    #[arg(long, env = "HEADWATER_SHARE_STALE_WHILE_REVALIDATE", default_value = "5m", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub share_stale_while_revalidate: Duration,
    /// How long caches may keep what can change (the end of an open stream): how late a plain reader may see new data
    #[arg(long, env = "HEADWATER_TAIL_TTL", default_value = "1s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub tail_ttl: Duration,
    /// Largest request body; larger ones are answered 413
    #[arg(long, env = "HEADWATER_MAX_APPEND_BYTES", default_value = "64MiB", value_parser = bytes, value_name = "BYTES")]
    pub max_append_bytes: u64,
    /// Connections at a time; more wait to be accepted
    #[arg(long, env = "HEADWATER_MAX_CONNECTIONS", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub max_connections: u32,
    /// Long-polls and SSE responses at a time, on all connections together; more are answered 503 with Retry-After
    #[arg(long, env = "HEADWATER_MAX_LIVE_READERS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub max_live_readers: u32,
    /// Requests at a time on one HTTP/2 connection
    #[arg(long, env = "HEADWATER_HTTP2_STREAMS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub http2_streams: u32,
    /// Longest wait for the first request of a new connection, until its last header
    #[arg(long, env = "HEADWATER_HEADER_TIMEOUT", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub header_timeout: Duration,
    /// Longest wait for the next request of a connection; over HTTP/2 those under way are finished. Longer than the
    /// keep-alive of proxies in front, or they meet closed connections
    #[arg(long, env = "HEADWATER_IDLE_TIMEOUT", default_value = "75s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub idle_timeout: Duration,
    /// Longest time that a request body with a Content-Length may take, and each piece of one without
    #[arg(long, env = "HEADWATER_BODY_TIMEOUT", default_value = "60s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub body_timeout: Duration,
    /// Longest time that a client may not take what is sent to it; then its connection is closed, or its HTTP/2 stream
    /// reset
    #[arg(long, env = "HEADWATER_WRITE_STALL_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub write_stall_timeout: Duration,
    /// Longest wait at shutdown for requests under way
    #[arg(long, env = "HEADWATER_DRAIN_TIMEOUT", default_value = "20s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub drain_timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        defaults()
    }
}

impl HttpSettings {
    pub(super) fn validate(&self, engine: &EngineSettings) -> Result<(), String> {
        let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let second = Duration::from_secs(1);
        demand(!self.long_poll_hold.is_zero(), "long-poll-hold must be more than zero")?;
        let waits = [self.header_timeout, self.idle_timeout, self.body_timeout, self.write_stall_timeout];
        demand(waits.iter().all(|wait| !wait.is_zero()), "timeouts must be more than zero")?;
        demand(self.sse_life >= second, "sse-life must be at least 1s")?;
        demand(self.sse_keep_alive >= second, "sse-keep-alive must be at least 1s")?;
        demand(self.share_max_age <= YEAR, "share-max-age must not be more than a year (8760h)")?;
        demand(self.tail_ttl <= self.share_max_age, "tail-ttl must not be more than share-max-age")?;
        // Message boundaries are kept in 32 bits, and JSON mode adds a byte.
        demand(self.max_append_bytes <= 1 << 30, "max-append-bytes must not be more than 1GiB")?;
        // The queue holds more of a request than its body.
        let fits = self.max_append_bytes + (64 << 10) <= engine.queue_bytes;
        demand(fits, "max-append-bytes must be less than queue-bytes, by 64KiB at least")
    }
}

/// Whether it is a whole year, which caches take for "for ever".
pub(crate) fn is_a_year(age: Duration) -> bool {
    age >= YEAR
}
