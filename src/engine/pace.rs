//! How often a shard writes an entry: at most once per commit interval on average, which is what bounds the bill, and
//! at once when it has been idle, which is what a lone writer feels.

use std::time::Duration;

use tokio::time::Instant;

/// Entries of this much time may be written ahead of their turn after an idle time.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// When the next entry would be due if all before had come one interval apart.
    turn: Option<Instant>,
}

impl Pace {
    /// When the next entry may be written; `None`: at any time. While others are in flight it waits for company.
    pub fn due(&self, is_idle: bool, interval: Duration) -> Option<Instant> {
        let earliest = self.turn.and_then(|turn| turn.checked_sub(BURST));
        let spaced = self.last.filter(|_| !is_idle).map(|last| last + interval);
        earliest.max(spaced)
    }

    /// An entry is written.
    pub fn spend(&mut self, now: Instant, interval: Duration) {
        self.last = Some(now);
        self.turn = Some(self.turn.map_or(now, |turn| turn.max(now)) + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    /// Writes whenever it may for `time`, with PUTs that take `latency`, and counts.
    fn entries(time: Duration, latency: Duration, is_idle: bool) -> u32 {
        let start = Instant::now() + Duration::from_secs(10);
        let (mut pace, mut now, mut count) = (Pace::default(), start, 0);
        while now < start + time {
            pace.spend(now, INTERVAL);
            count += 1;
            now = pace.due(is_idle, INTERVAL).map_or(now, |due| due.max(now)).max(now + latency);
        }
        count
    }

    #[test]
    fn a_lone_writer_is_fast_at_first_and_no_dearer_in_the_long_run() {
        let millis = Duration::from_millis;
        assert!(entries(millis(50), millis(5), true) >= 10, "an idle shard made a lone writer wait");
        assert!(entries(millis(100_000), millis(5), true) <= 1_012, "more than one entry per interval");
    }

    #[test]
    fn entries_in_flight_are_an_interval_apart() {
        assert_eq!(entries(Duration::from_millis(1_000), Duration::ZERO, false), 10);
    }

    #[test]
    fn what_was_not_written_while_idle_can_be_written_later() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut pace = Pace::default();
        for _ in 0..11 {
            pace.spend(start, INTERVAL);
        }
        assert!(pace.due(true, INTERVAL) > Some(start));
        let later = start + Duration::from_secs(60);
        pace.spend(later, INTERVAL);
        assert!(pace.due(true, INTERVAL) <= Some(later));
    }
}
