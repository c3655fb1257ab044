//! What a replica asks of the home of a shard. Who that is changes again and again, and not all know it at the same time;
//! some don't reach each other for a while.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use headwater::engine::{LogPart, Peers};
use tokio::time::{sleep, timeout};

use crate::machine::Station;
use crate::timeline::Timeline;

/// Virtual milliseconds after which shards move, and by how much later each machine knows of it.
const ERA: u64 = 7_000;
const LATER: u64 = 900;
/// For so long two machines don't reach each other, now and then.
const CUT: u64 = 3_000;
/// As over a real network.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Neighbours {
    pub own: usize,
    pub all: Arc<OnceLock<Vec<Arc<Station>>>>,
    pub timeline: Arc<Timeline>,
}

impl Neighbours {
    fn stations(&self) -> &[Arc<Station>] {
        self.all.get().map_or(&[], Vec::as_slice)
    }

    /// The shard's home, as the machine of that number sees it.
    fn home(&self, shard: u32, seen_by: usize) -> usize {
        let era = self.timeline.ms().saturating_sub(seen_by as u64 * LATER) / ERA;
        (mixed([u64::from(shard), era, 0]) % self.stations().len().max(1) as u64) as usize
    }

    fn reaches(&self, other: usize) -> bool {
        let pair = [self.own.min(other) as u64, self.own.max(other) as u64, self.timeline.ms() / CUT];
        !mixed(pair).is_multiple_of(8)
    }
}

fn mixed(numbers: [u64; 3]) -> u64 {
    numbers.iter().fold(0x9E37_79B9_7F4A_7C15, |hash: u64, number| {
        let hash = (hash ^ number).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        hash ^ hash >> 29
    })
}

#[async_trait]
impl Peers for Neighbours {
    fn has_other_home(&self, shard: u32) -> bool {
        self.home(shard, self.own) != self.own
    }

    async fn log_after(&self, shard: u32, next: u64, wait: Duration) -> Option<LogPart> {
        let home = self.home(shard, self.own);
        if !self.reaches(home) {
            sleep(PATIENCE).await;
            return None;
        }
        let process = self.stations().get(home)?.process()?;
        if self.home(shard, home) != home {
            return None;
        }
        let asked = process.handle.spawn(async move { process.engine.log_after(shard, next, wait).await });
        tokio::select! {
            biased;
            () = process.dead.cancelled() => None,
            told = timeout(wait + PATIENCE, asked) => told.ok()?.ok()?.ok()?,
        }
    }
}
