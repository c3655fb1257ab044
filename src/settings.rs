//! Every tunable: one field is one flag, one environment variable and one line of the TOML file.
//!
//! Each says what it costs. Values are plain; components (store, clock, caches) are made from them elsewhere.

mod cluster;
pub mod file;
mod http;
mod log;
mod store;

use std::time::Duration;

use clap::Args;
use serde::Serialize;

pub use cluster::ClusterSettings;
pub use http::HttpSettings;
pub(crate) use http::is_a_year;
pub use log::{LogFormat, LogSettings};
pub use store::{Secret, StoreSettings};

/// The most log objects of a shard that a replica may have in flight. Positions further than this after one that is absent
/// are never written, and an entry there is taken for a sign of loss: it must not be raised on a bucket in use.
pub const LONGEST_PIPELINE: u32 = 64;
/// A hundred years.
const LONGEST: Duration = Duration::from_secs(876_000 * 3600);

/// All of them.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    pub store: StoreSettings,
    #[command(flatten)]
    #[serde(flatten)]
    pub http: HttpSettings,
    #[command(flatten, next_help_heading = "Engine")]
    #[serde(flatten)]
    pub engine: EngineSettings,
    #[command(flatten)]
    #[serde(flatten)]
    pub cluster: ClusterSettings,
    #[command(flatten)]
    #[serde(flatten)]
    pub log: LogSettings,
    /// A TOML file of settings: keys are the names of these flags. A flag or variable wins over the file
    #[arg(long, env = "HEADWATER_CONFIG", value_name = "FILE", help_heading = "Log and configuration")]
    pub config: Option<std::path::PathBuf>,
}

impl Settings {
    /// What no single setting can be blamed for: one line that names the settings.
    pub fn validate(&self) -> Result<(), String> {
        self.engine.validate()?;
        self.http.validate(&self.engine)
    }
}

/// How the engine batches, seals, caches and forgets.
#[derive(Debug, Clone, Args, Serialize)]
pub struct EngineSettings {
    /// Longest wait of an append for company: at most one log object per shard and interval, on average. Longer is
    /// cheaper, shorter is faster: four busy shards cost at most $3.60 an hour at 20ms, $0.29 at 250ms (at $5 per
    /// million PUTs). A shard that was idle writes at once
    #[arg(long, env = "HEADWATER_COMMIT_INTERVAL", default_value = "20ms", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub commit_interval: Duration,
    /// Appended bytes in one log object, at which it is written without waiting
    #[arg(long, env = "HEADWATER_BATCH_BYTES", default_value = "8MiB", value_parser = bytes, value_name = "BYTES")]
    pub batch_bytes: u64,
    /// Log objects of a shard that are being written at a time
    #[arg(long, env = "HEADWATER_PIPELINE", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(LONGEST_PIPELINE)), value_name = "N")]
    pub pipeline: u32,
    /// Appends larger than this are uploaded as an object of their own, and the log only names them
    #[arg(long, env = "HEADWATER_DIRECT_BYTES", default_value = "1MiB", value_parser = bytes, value_name = "BYTES")]
    pub direct_bytes: u64,
    /// Request bodies held in memory at a time, and 8KiB for each; more are refused with 503 and Retry-After
    #[arg(long, env = "HEADWATER_QUEUE_BYTES", default_value = "256MiB", value_parser = bytes, value_name = "BYTES")]
    pub queue_bytes: u64,
    /// Longest wait of a write for the store, after which it is answered 503
    #[arg(long, env = "HEADWATER_APPEND_TIMEOUT", default_value = "20s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub append_timeout: Duration,
    /// Bytes of a stream that wait in the log before they are moved to a chunk of its own
    #[arg(long, env = "HEADWATER_SEAL_BYTES", default_value = "8MiB", value_parser = bytes, value_name = "BYTES")]
    pub seal_bytes: u64,
    /// Log objects with bytes of one stream, at which they are moved to a chunk of its own
    #[arg(long, env = "HEADWATER_SEAL_RUNS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub seal_runs: u32,
    /// A stream without appends for this long is moved out of the log
    #[arg(long, env = "HEADWATER_SEAL_IDLE", default_value = "60s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub seal_idle: Duration,
    /// Longest stay of bytes in the log
    #[arg(long, env = "HEADWATER_SEAL_AGE", default_value = "10m", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub seal_age: Duration,
    /// Sealed bytes up to this many are kept in the stream's manifest instead of a chunk
    #[arg(long, env = "HEADWATER_INLINE_BYTES", default_value = "64KiB", value_parser = bytes, value_name = "BYTES")]
    pub inline_bytes: u64,
    /// Small chunks of a stream are merged into ones of about this size, and those later into ones of 8 and of 64 times as
    /// much. At most 1MiB
    #[arg(long, env = "HEADWATER_MERGE_BYTES", default_value = "1MiB", value_parser = bytes, value_name = "BYTES")]
    pub merge_bytes: u64,
    /// Log objects between two checkpoints of a shard: what a cold start has to read
    #[arg(long, env = "HEADWATER_CHECKPOINT_ENTRIES", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub checkpoint_entries: u64,
    /// How long log objects of a new bucket stay after the last one who may need them; a replica that was away for half
    /// of it starts over. Fixed at its creation, because replicas must agree on it
    #[arg(long, env = "HEADWATER_GRACE", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub grace: Duration,
    /// How often one of the replicas looks through the bucket for garbage: chunks that nothing names, streams whose time is
    /// over, old log objects. One LIST per thousand objects and one GET per stream. 0s: only `headwater gc` does
    #[arg(long, env = "HEADWATER_COLLECT_INTERVAL", default_value = "24h", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub collect_interval: Duration,
    /// How much older than the bucket a read may be when other replicas write: one GET per shard and interval while
    /// there are readers, none when idle
    #[arg(long, env = "HEADWATER_SYNC_INTERVAL", default_value = "1s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub sync_interval: Duration,
    /// Confirms with the bucket before each read that it is of the latest: a GET per shard for all reads that wait at a
    /// time. Else a read is older than the bucket by up to sync-interval when other replicas write that do not reach the
    /// shard's home
    #[arg(long, env = "HEADWATER_STRICT_READS", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub strict_reads: bool,
    /// Memory for manifests of streams without bytes in the log
    #[arg(long, env = "HEADWATER_MANIFEST_CACHE", default_value = "64MiB", value_parser = bytes, value_name = "BYTES")]
    pub manifest_cache: u64,
    /// Memory for recent log objects: the live tails
    #[arg(long, env = "HEADWATER_LOG_CACHE", default_value = "256MiB", value_parser = bytes, value_name = "BYTES")]
    pub log_cache: u64,
    /// Memory for pages as they are served
    #[arg(long, env = "HEADWATER_PAGE_CACHE", default_value = "256MiB", value_parser = bytes, value_name = "BYTES")]
    pub page_cache: u64,
    /// Logs of a new bucket; fixed at its creation
    #[arg(long, env = "HEADWATER_SHARDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "N")]
    pub shards: u32,
    /// Size of catch-up pages of a new bucket; fixed at its creation, because page ends are part of URLs in caches
    #[arg(long, env = "HEADWATER_PAGE_BYTES", default_value = "1MiB", value_parser = bytes, value_name = "BYTES")]
    pub page_bytes: u64,
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        defaults()
    }
}

impl EngineSettings {
    fn validate(&self) -> Result<(), String> {
        let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        demand(self.sync_interval >= Duration::from_millis(10), "sync-interval must be at least 10ms")?;
        demand(!self.append_timeout.is_zero(), "append-timeout must be more than zero")?;
        demand(
            self.grace > self.seal_age * 2,
            "grace must be more than twice seal-age: else the log is cut too early",
        )?;
        demand(self.sync_interval < self.grace / 4, "sync-interval must be less than a quarter of grace")?;
        demand(self.seal_idle <= self.seal_age, "seal-idle must not be more than seal-age")?;
        demand(self.commit_interval < self.append_timeout, "commit-interval must be less than append-timeout")?;
        demand(self.direct_bytes <= self.batch_bytes, "direct-bytes must not be more than batch-bytes")?;
        demand(self.inline_bytes <= self.seal_bytes, "inline-bytes must not be more than seal-bytes")?;
        // What merging takes in memory follows from it.
        demand((1..=1 << 20).contains(&self.merge_bytes), "merge-bytes must be between 1 byte and 1MiB")
    }
}

/// The values that a command line without flags gives, environment not looked at.
fn defaults<A: Args>() -> A {
    let command = A::augment_args(clap::Command::new("headwater")).mut_args(|arg| arg.env(None::<&str>));
    let matches = command.get_matches_from(["headwater"]);
    A::from_arg_matches(&matches).unwrap_or_else(|error| panic!("defaults: {error}"))
}

/// `20ms`, `1h 30m`, … Not longer than a hundred years: durations are added to moments, and multiplied.
pub fn duration(text: &str) -> Result<Duration, String> {
    let explain = |_| "not a duration such as 20ms, 25s or 1h".to_owned();
    let signed = text.parse::<jiff::SignedDuration>().map_err(explain)?;
    let duration = Duration::try_from(signed).map_err(|_| "must not be negative".to_owned())?;
    if duration > LONGEST { Err("must not be longer than 876000h".to_owned()) } else { Ok(duration) }
}

/// `1024`, `64KiB`, `1MB`, …
pub fn bytes(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.0 > 0 => Ok(size.0),
        Ok(_) => Err("must be more than zero".to_owned()),
        Err(_) => Err("not a size such as 512KiB or 8MiB".to_owned()),
    }
}

fn show_duration<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let signed = jiff::SignedDuration::try_from(*duration).unwrap_or(jiff::SignedDuration::MAX);
    serializer.serialize_str(&format!("{signed:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_what_the_flags_say() {
        let settings = EngineSettings::default();
        assert_eq!(settings.commit_interval, Duration::from_millis(20));
        assert_eq!((settings.batch_bytes, settings.grace), (8 << 20, Duration::from_secs(3600)));
    }

    #[test]
    fn durations_and_sizes_are_explained_when_wrong() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(bytes("64KiB"), Ok(65536));
        assert_eq!(duration("876000h"), Ok(LONGEST));
        for wrong in ["", "5", "-1s", "fast", "876001h", "9223372036854775807s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "0", "-1", "many"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }
}
