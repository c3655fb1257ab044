//! What all parts of one engine share.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Inner;
use super::peers::Peers;
use super::tail::Tails;
use crate::clock::{Clock, Ids};
use crate::store::{Store, StoreError};

#[derive(Debug)]
pub(super) struct Context {
    pub store: Arc<dyn Store>,
    pub settings: crate::settings::EngineSettings,
    pub clock: Clock,
    pub ids: Ids,
    /// This process, in the entries that it writes.
    pub writer: u128,
    /// The bucket's, not the settings'.
    pub shards: u32,
    pub page_bytes: u64,
    pub tails: Tails,
    /// One merge of chunks at a time.
    pub merging: Semaphore,
    /// The bucket's, as its document has it.
    pub cluster_id: String,
    /// The other replicas, if there are any.
    pub peers: OnceLock<Arc<dyn Peers>>,
    /// The engine of which this is, for what one shard asks of another.
    pub engine: OnceLock<Weak<Inner>>,
}

impl Context {
    /// Those to ask about the shard: another replica is its home.
    pub fn home_elsewhere(&self, shard: u32) -> Option<&Arc<dyn Peers>> {
        self.peers.get().filter(|peers| peers.has_other_home(shard))
    }

    /// Waits before attempt `attempt` (from 1) of something that the store failed at: longer each time, never in step
    /// with others.
    pub async fn pause(&self, attempt: u32, error: &StoreError) {
        let ceiling = 50u64.saturating_mul(1 << attempt.min(6)).min(2_000);
        let wanted = error.failure().retry_after.map_or(0, |pause| u64::try_from(pause.as_millis()).unwrap_or(5_000));
        let pause = self.ids.between(ceiling / 2, ceiling).max(wanted.min(5_000));
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Like that of an engine with the usual settings.
#[cfg(test)]
pub(super) fn for_tests(store: Arc<dyn Store>, seed: u64) -> Context {
    Context {
        tails: Tails::new(1 << 20, 1 << 20),
        merging: Semaphore::new(1),
        cluster_id: String::new(),
        peers: OnceLock::new(),
        engine: OnceLock::new(),
        store,
        settings: crate::settings::EngineSettings::default(),
        clock: Clock::tokio(1_800_000_000_000),
        ids: Ids::seeded(seed),
        writer: u128::from(seed),
        shards: 1,
        page_bytes: 1 << 20,
    }
}
