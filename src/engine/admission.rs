//! How many bytes may be in memory at a time: of request bodies, and of responses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EngineError;

/// The unit of account, so that a semaphore's 32-bit counts reach far enough.
const UNIT: u64 = 1024;

#[derive(Debug)]
pub struct Gate {
    room: Arc<Semaphore>,
    bytes: u64,
    /// What is said when there is no room.
    full: &'static str,
}

impl Gate {
    pub fn new(bytes: u64, full: &'static str) -> Gate {
        let units = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Gate { room: Arc::new(Semaphore::new(units)), bytes, full }
    }

    pub fn admit(&self, bytes: u64) -> Result<Admission, EngineError> {
        let full = || EngineError::Overloaded { what: self.full, retry_after: Duration::from_secs(1) };
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).map_err(|_| full())?;
        Arc::clone(&self.room).try_acquire_many_owned(units).map(|permit| Admission { permit }).map_err(|_| full())
    }

    /// Like [`admit`](Gate::admit), but never asks for more than half of the room: what is larger is let in, too.
    pub fn admit_part(&self, bytes: u64) -> Result<Admission, EngineError> {
        self.admit(bytes.min(self.bytes / 2))
    }
}

/// Permission to hold some bytes in memory; given back on drop.
#[derive(Debug)]
pub struct Admission {
    permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Joins two permissions into one, for a body whose length shows only as it is read.
    pub fn merge(&mut self, other: Admission) {
        self.permit.merge(other.permit);
    }

    /// Holds the permission for as long as anybody holds a slice of `bytes`.
    pub fn cover(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Covered { bytes, _admission: self })
    }
}

struct Covered {
    bytes: Bytes,
    _admission: Admission,
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_on_drop_and_only_then() {
        let gate = Gate::new(10 * UNIT, "full");
        let mut first = gate.admit(4 * UNIT).unwrap_or_else(|e| panic!("{e}"));
        first.merge(gate.admit(4 * UNIT).unwrap_or_else(|e| panic!("{e}")));
        assert!(matches!(gate.admit(3 * UNIT), Err(EngineError::Overloaded { .. })));
        drop(first);
        assert!(gate.admit(10 * UNIT).is_ok());
        assert!(gate.admit(u64::MAX).is_err());
    }
}
