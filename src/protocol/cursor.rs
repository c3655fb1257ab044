//! Cursors and holds that are the same for every waiter of a stream, on every replica (§10.1).
//!
//! The protocol wants cursors that never go back and that exceed the client's. A random jitter would do and would
//! give each client a URL of its own; ours is a function of the stream, so that a cache can collapse all its waiters.

use std::fmt;
use std::time::Duration;

use super::plain_number;
use crate::clock::Millis;

/// 2024-10-09T00:00:00Z, the protocol's epoch of cursors.
const EPOCH: Millis = 1_728_432_000_000;
/// Cursors of clients past this (the year 33658) are not ours and are ignored.
const MAX_CURSOR: u64 = 1_000_000_000_000_000;

/// A cursor: milliseconds since 2024-10-09.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

impl Cursor {
    /// A client's cursor; `None` if it is malformed or absurd, which is to be ignored.
    pub fn from_client(text: &str) -> Option<Cursor> {
        plain_number(text).filter(|value| *value < MAX_CURSOR).map(Cursor)
    }

    /// The cursor of a response that reached what happened at `moment`, for a client that sent `client`.
    pub fn at(moment: Millis, client: Option<Cursor>) -> Cursor {
        let own = moment.saturating_sub(EPOCH);
        Cursor(client.map_or(own, |Cursor(sent)| own.max(sent + 1)))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// When a long-poll that starts at `now` ends without data: on a grid of period `hold` whose phase differs between
/// streams, at least half a period away. All waiters of a stream time out together and ask the same next URL.
pub fn hold_boundary(stream_hash: u64, hold: Duration, now: Millis) -> Millis {
    let period = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX).max(1);
    let phase = stream_hash % period;
    let earliest = now.saturating_add(period / 2);
    let since = earliest.saturating_sub(phase);
    phase.saturating_add(since.div_ceil(period).saturating_mul(period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_cursor_exceeds_the_clients_and_is_never_absurd() {
        let moment = EPOCH + 1000;
        assert_eq!(Cursor::at(moment, None), Cursor(1000));
        assert_eq!(Cursor::at(moment, Some(Cursor(999))), Cursor(1000));
        assert_eq!(Cursor::at(moment, Some(Cursor(1000))), Cursor(1001));
        assert_eq!(Cursor::at(moment, Some(Cursor(5000))), Cursor(5001));
        for text in ["", "-1", "+1", "1.5", "x", "99999999999999999999999", "1000000000000000"] {
            assert_eq!(Cursor::from_client(text), None, "{text}");
        }
        assert_eq!(Cursor::from_client("42"), Some(Cursor(42)));
    }

    proptest! {
        #[test]
        fn holds_last_between_half_and_one_and_a_half_periods(hash: u64, now in 0u64..1 << 45, hold in 2u64..100_000) {
            let wait = hold_boundary(hash, Duration::from_millis(hold), now) - now;
            prop_assert!(wait >= hold / 2 && wait <= hold / 2 + hold);
        }

        #[test]
        fn waiters_of_one_stream_end_together(hash: u64, now in 1u64 << 40..1 << 41, hold in 2u64..100_000, later in 0u64..1000) {
            let hold_for = Duration::from_millis(hold);
            let end = hold_boundary(hash, hold_for, now);
            // Whoever comes while the first still has half a period to wait shares its end.
            prop_assume!(now + later + hold / 2 <= end);
            prop_assert_eq!(hold_boundary(hash, hold_for, now + later), end);
        }
    }
}
