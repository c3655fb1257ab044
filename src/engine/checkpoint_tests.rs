use super::*;
use crate::layout::checkpoint::{Nonce, Run};

const GRACE: Duration = Duration::from_secs(100);

fn log(next: u64) -> Log {
    Log { next, last_id: 7, last_at: 5, last_writer: 1, fresh_at: StoreTime::default() }
}

fn unsealed(runs: &[(u64, Option<u128>)]) -> Unsealed {
    let run = |(position, nonce): &(u64, Option<u128>)| Run {
        start: *position,
        len: 1,
        at: 0,
        position: *position,
        nonce: nonce.map(Nonce),
        foreign: None,
    };
    let runs = runs.iter().map(run).collect();
    Unsealed { name: "s".to_owned(), last: 9, stream: None, runs, page_ends: vec![], garbage: vec![], releases: vec![] }
}

/// Writes the next checkpoint at `now`, as if nobody interfered.
fn write(held: &Held, next: u64, streams: Vec<Unsealed>, now: u64) -> Held {
    let checkpoint = held.next(0, &log(next), streams, StoreTime(now), GRACE);
    assert!(checkpoint.is_some());
    Held { checkpoint, version: None, asked_at: StoreTime(now), known_at: StoreTime(now) }
}

fn floor_and_truncated(held: &Held) -> (u64, u64) {
    held.checkpoint.as_ref().map_or((0, 0), |checkpoint| (checkpoint.floor, checkpoint.truncated))
}

#[test]
fn the_floor_is_the_oldest_entry_with_bytes_that_no_chunk_has() {
    let held = write(&Held::default(), 20, vec![unsealed(&[(4, Some(1)), (8, None)]), unsealed(&[(12, None)])], 0);
    assert_eq!(floor_and_truncated(&held), (8, 0));
    assert_eq!(floor_and_truncated(&write(&Held::default(), 20, vec![unsealed(&[(4, Some(1))])], 0)), (20, 0));
}

#[test]
fn entries_are_deleted_only_after_a_checkpoint_without_them_was_in_place_for_the_grace_period() {
    let first = write(&Held::default(), 10, vec![], 1_000);
    let second = write(&first, 20, vec![], 100_999);
    assert_eq!(floor_and_truncated(&second), (20, 0), "the first was in place for less than the grace period");
    let third = write(&second, 30, vec![], 101_000);
    assert_eq!(floor_and_truncated(&third), (30, 10));
    // The second's time runs from when it was in place, not from the first's.
    let fourth = write(&third, 40, vec![], 200_998);
    assert_eq!(floor_and_truncated(&fourth), (40, 10));
    assert_eq!(floor_and_truncated(&write(&fourth, 41, vec![], 200_999)), (41, 20));
}

#[test]
fn truncation_never_goes_back_and_what_is_settled_is_not_carried_along() {
    let mut held = Held::default();
    let mut before = 0;
    for step in 0..50u64 {
        held = write(&held, 10 + step, vec![unsealed(&[(10 + step / 2, None)])], step * 10_000);
        let (floor, truncated) = floor_and_truncated(&held);
        assert!(truncated >= before && truncated <= floor, "{truncated} after {before}, floor {floor}");
        before = truncated;
        let published = held.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.published.len());
        assert!(published <= 12, "{published} old checkpoints are carried along");
    }
    assert!(before > 10, "nothing was ever truncated");
}

#[test]
fn a_checkpoint_never_goes_back() {
    let held = write(&Held::default(), 20, vec![], 0);
    assert_eq!(held.next(0, &log(19), vec![], StoreTime(1_000_000), GRACE), None);
    assert!(held.next(0, &log(20), vec![], StoreTime(1_000_000), GRACE).is_some());
}
