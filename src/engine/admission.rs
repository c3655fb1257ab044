//! How many bytes of request bodies may be in memory at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EngineError;

/// The unit of account, so that a semaphore's 32-bit counts reach far enough.
const UNIT: u64 = 1024;

#[derive(Debug)]
pub(super) struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new(bytes: u64) -> Gate {
        let units = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Gate(Arc::new(Semaphore::new(units)))
    }

    pub fn admit(&self, bytes: u64) -> Result<Admission, EngineError> {
        let full = || EngineError::Overloaded {
            what: "too many request bodies are waiting for the store",
            retry_after: Duration::from_secs(1),
        };
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).map_err(|_| full())?;
        Arc::clone(&self.0).try_acquire_many_owned(units).map(|permit| Admission { permit }).map_err(|_| full())
    }
}

/// Permission to hold some bytes of request body in memory; given back on drop.
#[derive(Debug)]
pub struct Admission {
    permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Joins two permissions into one, for a body whose length shows only as it is read.
    pub fn merge(&mut self, other: Admission) {
        self.permit.merge(other.permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_on_drop_and_only_then() {
        let gate = Gate::new(10 * UNIT);
        let mut first = gate.admit(4 * UNIT).unwrap_or_else(|e| panic!("{e}"));
        first.merge(gate.admit(4 * UNIT).unwrap_or_else(|e| panic!("{e}")));
        assert!(matches!(gate.admit(3 * UNIT), Err(EngineError::Overloaded { .. })));
        drop(first);
        assert!(gate.admit(10 * UNIT).is_ok());
        assert!(gate.admit(u64::MAX).is_err());
    }
}
