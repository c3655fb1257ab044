//! What all replicas of one bucket must agree on, written once.

use serde::{Deserialize, Serialize};

use super::Damaged;
use super::document::Document;
use crate::clock::Millis;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: String,
    /// How many logs there are; a stream's log is its name's hash modulo this.
    pub shards: u32,
    /// The size of catch-up pages. Fixed, because page ends are part of URLs that caches keep.
    pub page_bytes: u64,
    /// How long log objects stay after the last one who may need them, in milliseconds. Replicas that disagreed would
    /// delete what others still trust to be there.
    pub grace: Millis,
    pub created_at: Millis,
}

/// The most logs that a bucket may have: each is a task in every replica.
const MAX_SHARDS: u32 = 4096;

impl Document for Cluster {
    const FORMAT: &'static str = "headwater-cluster";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), Damaged> {
        if !(1..=MAX_SHARDS).contains(&self.shards) || self.page_bytes == 0 || self.grace == 0 {
            return Err(Damaged::new("it has no shards or too many, pages without bytes, or no grace period"));
        }
        Ok(())
    }
}
