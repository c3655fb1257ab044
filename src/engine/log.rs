//! The shard log: agreement by put-if-absent.
//!
//! Positions are written once. Starting from a checkpoint, the entry at the next position is *valid* if its `prev` is
//! the id of the last valid entry; else it is *void*, and skipped by everyone alike. The first absent position is the
//! head. Whoever has read the same positions holds the same state, so a writer whose PUT succeeds at a position, having
//! seen everything below, has committed. There is no lease, no epoch and no clock in this argument.
//!
//! A clock comes in only because old positions are deleted: a deleted position looks like the head. So a replica
//! trusts its head for half of the grace period since it last knew the position after it to be absent, by the store's
//! clock ([`Log::is_fresh`]). Two rules are easy to get wrong: a refused PUT says nothing about the position after it
//! and renews nothing; a successful one renews as of the moment it was sent, not the moment it returned.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::EngineError;
use super::context::Context;
use super::peers::LogPart;
use crate::clock::Millis;
use crate::layout::entry::{self, Entry, Header};
use crate::layout::key;
use crate::store::{Condition, Put, StoreError, StoreTime};

/// The part of the grace period that a PUT may take. With the half for which the head is trusted before it, a quarter
/// is left for the store's clock: it shows whole seconds, and not the same ones everywhere.
const PATIENCE_PART: u32 = 4;
/// The most positions that are read at a time.
const WINDOW: u64 = 16;
/// Bytes after which reading ahead pauses, for what was read to be folded.
const READ_AHEAD_BYTES: usize = 32 << 20;

/// How far a shard's log has been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    /// The first position that was not read: the head, as far as it is known.
    pub next: u64,
    /// The last valid entry's id; zero before the first.
    pub last_id: u128,
    /// The last valid entry's time and writer.
    pub last_at: Millis,
    pub last_writer: u128,
    /// No checkpoint that covers `next` was in place at this time.
    pub fresh_at: StoreTime,
}

impl Log {
    /// Takes note of the entry at `next`. Whether it is valid: only then may it be folded.
    pub fn advance(&mut self, header: &Header) -> bool {
        assert_eq!(header.position, self.next, "log positions are read one after the other");
        self.next += 1;
        let valid = header.prev == self.last_id;
        if valid {
            self.last_id = header.id;
            self.last_at = self.last_at.max(header.at);
            self.last_writer = header.writer;
        }
        valid
    }

    /// `next` was known to be absent at `sent_at`.
    pub fn renew(&mut self, sent_at: StoreTime) {
        self.fresh_at = self.fresh_at.max(sent_at);
    }

    /// Whether `next` can't have been deleted by `now`.
    pub fn is_fresh(&self, now: StoreTime, grace: Duration) -> bool {
        now.since(self.fresh_at) <= grace / 2
    }
}

/// Reads the entry at a position.
pub(super) fn decode(key: &str, shard: u32, position: u64, object: &Bytes) -> Result<Entry, EngineError> {
    let damaged = |what: String| EngineError::Damaged { key: key.to_owned(), what };
    let entry = entry::decode(object).map_err(|error| damaged(error.0))?;
    if (entry.header.shard, entry.header.position) != (shard, position) {
        let Header { shard, position, .. } = entry.header;
        return Err(damaged(format!("it is the entry of shard {shard} at position {position}")));
    }
    Ok(entry)
}

/// What became of an entry that was proposed.
#[derive(Debug)]
pub(super) enum Settled {
    /// It is at its position, which was still absent at `sent_at`.
    Placed { sent_at: StoreTime },
    /// The position holds this object instead, for ever.
    Lost { object: Bytes },
    /// It took so long that old positions may have been deleted meanwhile: neither ack nor try again, but reload.
    TooLate,
}

/// Puts an entry at its position, and does not return before it is known what is there. A PUT of unknown outcome is
/// sent again, the same bytes to the same position; when it is refused, the position is read to see whose it is.
pub(super) async fn propose(context: &Context, key: &str, id: u128, object: &Bytes) -> Settled {
    let (store, patience) = (&context.store, context.settings.grace / PATIENCE_PART);
    let first_sent = store.last_seen();
    let mut attempt = 0;
    loop {
        let sent_at = store.last_seen();
        if sent_at.since(first_sent) > patience {
            return Settled::TooLate;
        }
        match store.put(key, object.clone(), Condition::Absent).await.map(|reply| reply.value) {
            Ok(Put::Written(_)) if store.last_seen().since(sent_at) > patience => return Settled::TooLate,
            Ok(Put::Written(_)) => return Settled::Placed { sent_at },
            Ok(Put::Conflict) => {
                let Some(found) = read_until_answered(context, key).await else { return Settled::TooLate };
                if store.last_seen().since(first_sent) > patience {
                    return Settled::TooLate;
                }
                // An earlier attempt of our own may have been applied without our hearing of it.
                let own = entry::decode(&found).is_ok_and(|entry| entry.header.id == id);
                return if own { Settled::Placed { sent_at: first_sent } } else { Settled::Lost { object: found } };
            }
            Err(error) => {
                attempt += 1;
                tracing::warn!(%error, attempt, "log entry not confirmed, sending it again");
                context.pause(attempt, &error).await;
            }
        }
    }
}

async fn read_until_answered(context: &Context, key: &str) -> Option<Bytes> {
    let mut attempt = 0;
    loop {
        match context.store.get(key).await {
            Ok(reply) => return reply.value.map(|object| object.body),
            Err(error) => {
                attempt += 1;
                tracing::warn!(%error, attempt, "log position not read, trying again");
                context.pause(attempt, &error).await;
            }
        }
    }
}

/// Reads the log from `position` to its head, or until enough was read for now.
pub(super) async fn read_ahead(context: &Context, shard: u32, position: u64) -> Result<LogPart, StoreError> {
    let mut ahead = LogPart { from: position, ..LogPart::default() };
    let (mut next, mut window, mut bytes) = (position, 1, 0);
    while bytes < READ_AHEAD_BYTES {
        let sent_at = context.store.last_seen();
        let keys: Vec<String> = (next..next + window).map(|position| key::log(shard, position)).collect();
        for reply in join_all(keys.iter().map(|key| context.store.get(key))).await {
            let Some(object) = reply?.value else {
                ahead.absent_at = Some(sent_at);
                return Ok(ahead);
            };
            bytes += object.body.len();
            ahead.objects.push(object.body);
        }
        next += window;
        window = (window * 2).min(WINDOW);
    }
    Ok(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        Log { next: 5, last_id: 40, last_at: 100, last_writer: 1, fresh_at: StoreTime(1_000) }
    }

    fn header(position: u64, id: u128, prev: u128) -> Header {
        Header { shard: 0, position, id, prev, writer: 2, at: 90 }
    }

    #[test]
    fn an_entry_is_valid_only_after_the_last_valid_one() {
        let mut log = log();
        assert!(!log.advance(&header(5, 50, 39)), "a void entry was taken");
        assert_eq!((log.next, log.last_id, log.last_writer), (6, 40, 1));
        assert!(log.advance(&header(6, 60, 40)));
        assert!(!log.advance(&header(7, 70, 50)), "the successor of a void entry is void");
        assert_eq!((log.next, log.last_id, log.last_at), (8, 60, 100), "time went back");
    }

    #[test]
    fn the_head_is_trusted_for_half_of_the_grace_period() {
        let (mut log, grace) = (log(), Duration::from_secs(10));
        assert!(log.is_fresh(StoreTime(6_000), grace));
        assert!(!log.is_fresh(StoreTime(6_001), grace));
        log.renew(StoreTime(2_000));
        log.renew(StoreTime(1_500));
        assert!(log.is_fresh(StoreTime(7_000), grace) && !log.is_fresh(StoreTime(7_001), grace));
    }
}
