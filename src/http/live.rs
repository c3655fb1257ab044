//! How many live reads there may be at a time. Over HTTP/2 their number does not follow from that of connections.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Problem;

pub struct Live {
    limit: usize,
    room: Arc<Semaphore>,
}

/// One live read; it counts until this is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for as long as the read lasts")] OwnedSemaphorePermit);

impl Live {
    pub fn new(limit: u32) -> Live {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Live { limit, room: Arc::new(Semaphore::new(limit)) }
    }

    pub fn enter(&self) -> Result<Place, Problem> {
        let full = |_| Problem::overloaded("as many live reads are under way as this server takes");
        Arc::clone(&self.room).try_acquire_owned().map(Place).map_err(full)
    }

    pub fn count(&self) -> usize {
        self.limit - self.room.available_permits()
    }
}
