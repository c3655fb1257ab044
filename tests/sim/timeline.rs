//! The order of everything that happens in a run, and its virtual time.

use std::sync::atomic::{AtomicU64, Ordering};

/// The store's clock, in milliseconds since the Unix epoch, when a run begins.
pub const START: u64 = 1_800_000_000_000;

/// A point in the order of events. No two are the same, so whether one call ended before another began is never in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    count: u64,
    /// Virtual time since the run began.
    pub ms: u64,
}

impl Moment {
    /// Before everything.
    pub const FIRST: Moment = Moment { count: 0, ms: 0 };
    /// After everything.
    pub const LAST: Moment = Moment { count: u64::MAX, ms: u64::MAX };
}

#[derive(Debug, Default)]
pub struct Timeline {
    count: AtomicU64,
    ms: AtomicU64,
}

impl Timeline {
    /// A moment after all that were handed out before.
    pub fn mark(&self) -> Moment {
        Moment { count: self.count.fetch_add(1, Ordering::Relaxed) + 1, ms: self.ms() }
    }

    pub fn ms(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }

    pub fn advance(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::Relaxed);
    }
}
