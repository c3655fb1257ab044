//! What the model is told: the durations, the ways in which the protocol can be broken, and how much may happen.

/// Ticks of the store's clock. One is a quarter of the grace period: every duration of the protocol is a multiple.
pub type Time = u8;

/// How long a checkpoint must have been published before what it covers may be deleted.
pub const GRACE: Time = 4;
/// How long a replica trusts its head.
pub const TRUST: Time = GRACE / 2;
/// How long a PUT may take.
pub const PATIENCE: Time = GRACE / 4;

/// Positions of the log, requests, and how often a request may be proposed: at most, see [`Bounds`].
pub const POSITIONS: usize = 4;
pub const REQUESTS: usize = 3;
pub const PROPOSALS: usize = 3;

/// A mistake in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// What a checkpoint covers is deleted at once.
    NoGrace,
    /// A refused PUT renews freshness: its position is filled, so the next one is taken for just known to be absent.
    RefusalRenews,
    /// A successful PUT renews freshness as of its return, not as of when it was sent.
    RenewedAtReturn,
    /// When the outcome of a PUT is unknown, its requests are proposed again as if it had failed.
    ReproposedUnresolved,
    /// A probe that finds the head absent renews freshness though the replica was not fresh any more.
    StaleProbeRenews,
    /// A probe that finds an entry takes it in though the replica was not fresh any more.
    StaleProbeAbsorbs,
    /// A checkpoint counts as in place when the answer was handled, not when the store was asked.
    CheckpointKnownAtReturn,
    /// A checkpoint may replace one of a later position.
    CheckpointGoesBack,
}

/// How much may happen in a run. Within these, everything that can happen does, in every order.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub replicas: usize,
    pub requests: u8,
    /// How often each may be proposed. After that it stays in the queue.
    pub proposals: u8,
    pub positions: u8,
    /// Entries that a replica may have in flight.
    pub pipeline: usize,
    /// Attempts to PUT whose outcome stays unknown to a replica that goes on.
    pub unknown: u8,
    pub crashes: u8,
    pub checkpoints: u8,
    /// Ticks of the clock.
    pub ticks: Time,
}
