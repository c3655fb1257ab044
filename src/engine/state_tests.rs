use bytes::Bytes;

use super::*;
use crate::layout::manifest::ChunkRef;
use crate::protocol::stream::Body;
use crate::protocol::{ContentType, Incarnation, Lifetime};

const PAGE: u64 = 10;

fn incarnation(n: u64) -> Incarnation {
    Incarnation::new(n).unwrap_or(Incarnation::ANY)
}

fn created(n: u64) -> Effect {
    Effect::Created { incarnation: incarnation(n), content_type: ContentType::default(), lifetime: Lifetime::Forever }
}

fn appended(n: u64, start: u64, len: u32) -> Effect {
    let body = Body { data: Data::Inline(Bytes::from(vec![b'x'; len as usize])), ends: vec![len] };
    Effect::Appended(Appended { incarnation: incarnation(n), start, body, seq: None, producer: None, close: false })
}

fn uploaded(n: u64, start: u64, nonce: u128) -> Effect {
    let body = Body { data: Data::Chunk { nonce, len: 7 }, ends: vec![7] };
    Effect::Appended(Appended { incarnation: incarnation(n), start, body, seq: None, producer: None, close: false })
}

fn deleted(n: u64) -> Effect {
    Effect::Deleted { incarnation: incarnation(n) }
}

fn folded(effects: &[(u64, Effect)]) -> Committed {
    let mut committed = Committed::default();
    for (position, effect) in effects {
        assert!(committed.fold(*position, *position, effect, PAGE).is_ok());
    }
    committed
}

/// What a replica that sealed `committed` would have written.
fn manifest_of(committed: &Committed, log_position: u64) -> Base {
    let len = tail(committed).unwrap_or(0);
    let chunk = ChunkRef { start: 0, len, nonce: 1, at: 0, overshoots: Vec::new() };
    let manifest = Manifest {
        name: "s".to_owned(),
        log_position,
        stream: committed.stream.as_deref().map(Facts::from),
        chunks: if len > 0 { vec![chunk] } else { Vec::new() },
        inline: None,
    };
    Base { manifest: Some(Arc::new(manifest)), version: Some(Version(log_position.to_string())) }
}

fn tail(committed: &Committed) -> Option<u64> {
    committed.stream.as_ref().map(|stream| stream.tail)
}

#[test]
fn a_stream_created_in_the_log_is_known_without_its_manifest_and_another_is_not() {
    assert!(folded(&[(1, created(1)), (2, appended(1, 0, 4))]).is_known());
    assert!(!folded(&[(2, appended(1, 0, 4))]).is_known());
}

#[test]
fn records_before_the_manifest_was_read_are_folded_onto_it() {
    let sealed = folded(&[(1, created(1)), (2, appended(1, 0, 4))]);
    // Position 2 is in the manifest already, 5 is not.
    let mut cold = folded(&[(2, appended(1, 0, 4)), (5, appended(1, 4, 3))]);
    assert_eq!(cold.rebase(manifest_of(&sealed, 3), PAGE), Ok(()));
    assert_eq!(tail(&cold), Some(7));
    assert_eq!(cold.runs.iter().map(|run| (run.start, run.len)).collect::<Vec<_>>(), [(4, 3)]);
    assert!(cold.is_unsealed());
}

#[test]
fn a_manifest_replaces_what_it_has_and_keeps_what_came_later() {
    let mut committed = folded(&[(1, created(1)), (2, appended(1, 0, 12)), (3, appended(1, 12, 9))]);
    assert_eq!(committed.page_ends, [12, 21]);
    let sealed = folded(&[(1, created(1)), (2, appended(1, 0, 12))]);
    assert_eq!(committed.rebase(manifest_of(&sealed, 2), PAGE), Ok(()));
    assert_eq!((tail(&committed), committed.unsealed_start()), (Some(21), 12));
    assert_eq!(committed.page_ends, [21]);
    let all = folded(&[(1, created(1)), (2, appended(1, 0, 12)), (3, appended(1, 12, 9))]);
    assert_eq!(committed.rebase(manifest_of(&all, 3), PAGE), Ok(()));
    assert!(!committed.is_unsealed() && committed.runs.is_empty());
    // An older manifest that was read before changes nothing.
    assert_eq!(committed.rebase(manifest_of(&sealed, 2), PAGE), Ok(()));
    assert_eq!((tail(&committed), committed.last), (Some(21), 3));
}

#[test]
fn a_manifest_ahead_of_the_log_makes_later_reading_of_the_log_skip() {
    let ahead = folded(&[(1, created(1)), (2, appended(1, 0, 4)), (7, appended(1, 4, 4))]);
    let mut committed = folded(&[(1, created(1))]);
    assert_eq!(committed.rebase(manifest_of(&ahead, 8), PAGE), Ok(()));
    assert_eq!(committed.fold(2, 2, &appended(1, 0, 4), PAGE), Ok(false));
    assert_eq!(committed.fold(7, 7, &appended(1, 4, 4), PAGE), Ok(false));
    assert_eq!(committed.fold(9, 9, &appended(1, 8, 1), PAGE), Ok(true));
    assert_eq!(tail(&committed), Some(9));
}

#[test]
fn a_new_incarnation_inherits_nothing_but_the_duty_to_clean_up() {
    let effects = [(1, created(1)), (2, uploaded(1, 0, 99)), (3, deleted(1)), (4, created(2)), (5, appended(2, 0, 4))];
    let committed = folded(&effects);
    assert_eq!(committed.garbage, [(1, 99)]);
    assert_eq!((tail(&committed), committed.runs.len()), (Some(4), 1));
    assert_eq!(committed.stream.map(|stream| stream.incarnation), Some(incarnation(2)));
}

#[test]
fn several_appends_in_one_entry_are_one_run() {
    let committed = folded(&[(1, created(1)), (2, appended(1, 0, 4)), (2, appended(1, 4, 5)), (3, appended(1, 9, 1))]);
    let runs: Vec<_> = committed.runs.iter().map(|run| (run.position, run.start, run.len)).collect();
    assert_eq!(runs, [(2, 0, 9), (3, 9, 1)]);
}

#[test]
fn a_checkpoint_brings_back_the_same_state() {
    let name = StreamName::new("s").unwrap_or_else(|e| panic!("{e}"));
    let effects = [(1, created(1)), (2, uploaded(1, 0, 99)), (3, deleted(1)), (4, created(2)), (5, appended(2, 0, 14))];
    let before = folded(&effects);
    let kept = before.to_unsealed(&name).unwrap_or_else(|| panic!("the stream is known"));
    let after = Committed::from_unsealed(kept, 5).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((&after.stream, &after.runs, &after.page_ends), (&before.stream, &before.runs, &before.page_ends));
    assert_eq!((after.last, &after.garbage), (before.last, &before.garbage));
    assert!(folded(&[(2, appended(1, 0, 4))]).to_unsealed(&name).is_none(), "a stream that is not known was kept");
}

#[test]
fn nothing_of_an_idle_stream_outlives_a_reload() {
    // moka hands out, on removal, what was invalidated but not yet swept: a replica that had loaded its shard again
    // went on from a state without the entries in between.
    let name = StreamName::new("s").unwrap_or_else(|e| panic!("{e}"));
    let cells = Cells::new(1 << 20);
    let base = manifest_of(&folded(&[(1, created(1))]), 1);
    assert!(cells.rebase(&name, base, PAGE).is_ok());
    cells.clear();
    assert!(cells.get(&name).is_none(), "a cell is still found");
    assert!(!cells.pin(&name).lock().is_known(), "a cell is still there to be pinned");
}

#[test]
fn a_manifest_that_is_gone_or_ends_before_the_log_goes_on_is_damage() {
    let sealed = folded(&[(1, created(1)), (2, appended(1, 0, 4))]);
    let nothing = || Base { manifest: None, version: None };
    let mut unknown = folded(&[(3, appended(1, 4, 4))]);
    assert!(unknown.rebase(nothing(), PAGE).is_err(), "the stream was not created in the log");
    let mut known = folded(&[(1, created(1)), (2, appended(1, 0, 4)), (3, appended(1, 4, 4))]);
    assert_eq!(known.rebase(manifest_of(&sealed, 2), PAGE), Ok(()));
    known.base = None;
    assert!(known.rebase(nothing(), PAGE).is_err(), "nothing has the first four bytes");
    assert_eq!(known.rebase(manifest_of(&sealed, 2), PAGE), Ok(()), "it is back");
}

#[test]
fn an_append_that_does_not_start_at_the_tail_is_damage() {
    let mut committed = folded(&[(1, created(1)), (2, appended(1, 0, 4))]);
    assert!(committed.fold(3, 3, &appended(1, 5, 4), PAGE).is_err());
    assert_eq!(tail(&committed), Some(4));
}

#[test]
fn a_manifest_that_is_older_than_the_log_goes_on_is_damage_however_often_it_is_read() {
    let sealed = folded(&[(1, created(1)), (2, appended(1, 0, 4))]);
    let mut cold = folded(&[(7, appended(1, 9, 3))]);
    for _ in 0..3 {
        assert!(cold.rebase(manifest_of(&sealed, 2), PAGE).is_err());
        assert!(!cold.is_known(), "what contradicts was taken in");
    }
    let newer = folded(&[(1, created(1)), (2, appended(1, 0, 4)), (5, appended(1, 4, 5))]);
    assert_eq!(cold.rebase(manifest_of(&newer, 5), PAGE), Ok(()));
    assert_eq!(tail(&cold), Some(12));
}

#[test]
fn a_record_of_a_stream_that_is_not_there_is_damage() {
    for effect in [appended(2, 4, 3), deleted(2), Effect::Touched { incarnation: incarnation(2) }] {
        let mut committed = folded(&[(1, created(1)), (2, appended(1, 0, 4))]);
        assert!(committed.fold(3, 3, &effect, PAGE).is_err(), "{effect:?}");
        let mut gone = folded(&[(1, created(2)), (2, deleted(2))]);
        assert!(gone.fold(3, 3, &effect, PAGE).is_err(), "{effect:?}");
    }
}

#[test]
fn a_record_that_the_manifest_says_it_has_but_has_not_is_damage() {
    let sealed = folded(&[(1, created(1)), (2, appended(1, 0, 4))]);
    let mut warm = Committed::default();
    assert_eq!(warm.rebase(manifest_of(&sealed, 9), PAGE), Ok(()));
    assert_eq!(warm.fold(2, 2, &appended(1, 0, 4), PAGE), Ok(false));
    // As if the log had begun anew: what is written to it now would never be seen.
    assert!(warm.fold(3, 3, &appended(1, 4, 5), PAGE).is_err());
}
