use std::sync::Arc;

use super::*;
use crate::protocol::stream::Closed;
use crate::protocol::{ContentType, Incarnation, Lifetime, Stream};

const SHARE: &str = "public, max-age=60, stale-while-revalidate=300";
const TAIL: &str = "public, max-age=0, s-maxage=1, must-revalidate, stale-while-revalidate=0, stale-if-error=0";
const BRIEF: &str = "public, max-age=1, stale-while-revalidate=0";

fn page(start: u64, end: u64, tail: u64, closed: bool, lifetime: Lifetime) -> Page {
    let incarnation = Incarnation::new(42).unwrap_or(Incarnation::ANY);
    let stream = Stream {
        tail,
        closed: closed.then_some(Closed { by: None }),
        ..Stream::new(incarnation, ContentType::default(), lifetime, 0)
    };
    Page { stream: Arc::new(stream), start, end, ends_at: 0 }
}

fn forever(start: u64, end: u64, tail: u64, closed: bool) -> Page {
    page(start, end, tail, closed, Lifetime::Forever)
}

#[test]
fn every_kind_of_read_has_its_policy() {
    let settings = HttpSettings::default();
    let below = forever(0, 10, 20, false);
    let open_tail = forever(10, 20, 20, false);
    let empty = forever(20, 20, 20, false);
    let below_closed = forever(0, 10, 20, true);
    let end = forever(10, 20, 20, true);
    let eof = forever(20, 20, 20, true);
    let cases = [
        ("full page below the tail", Anchor::Token, Answer::CatchUp, &below, SHARE),
        ("partial page at the tail", Anchor::Token, Answer::CatchUp, &open_tail, TAIL),
        ("empty at the tail", Anchor::Token, Answer::CatchUp, &empty, TAIL),
        ("page of a closed stream, below its end", Anchor::Token, Answer::CatchUp, &below_closed, SHARE),
        ("closed stream, reaching the end", Anchor::Token, Answer::CatchUp, &end, SHARE),
        ("closed stream, at the end", Anchor::Token, Answer::CatchUp, &eof, SHARE),
        ("from -1, full page", Anchor::AnyIncarnation, Answer::CatchUp, &below, TAIL),
        ("from -1, closed", Anchor::AnyIncarnation, Answer::CatchUp, &end, TAIL),
        ("no offset, full page", Anchor::Absent, Answer::CatchUp, &below, NO_STORE),
        ("no offset, closed", Anchor::Absent, Answer::CatchUp, &end, NO_STORE),
        ("now", Anchor::Now, Answer::CatchUp, &empty, NO_STORE),
        ("now, closed", Anchor::Now, Answer::CatchUp, &eof, NO_STORE),
        ("long-poll data", Anchor::Token, Answer::LivePage, &open_tail, SHARE),
        ("long-poll data below the tail", Anchor::Token, Answer::LivePage, &below, SHARE),
        ("long-poll data from -1", Anchor::AnyIncarnation, Answer::LivePage, &open_tail, TAIL),
        ("long-poll data from now", Anchor::Now, Answer::LivePage, &open_tail, NO_STORE),
        ("long-poll 204", Anchor::Token, Answer::LiveTimeout, &empty, BRIEF),
        ("long-poll 204 from -1", Anchor::AnyIncarnation, Answer::LiveTimeout, &empty, BRIEF),
        ("long-poll 204 from now", Anchor::Now, Answer::LiveTimeout, &empty, NO_STORE),
        ("long-poll 204 of a closed stream", Anchor::Token, Answer::LiveEnd, &eof, SHARE),
        ("long-poll 204 of a closed stream from -1", Anchor::AnyIncarnation, Answer::LiveEnd, &eof, TAIL),
        ("long-poll 204 of a closed stream from now", Anchor::Now, Answer::LiveEnd, &eof, NO_STORE),
    ];
    for (what, anchor, answer, page, expected) in cases {
        assert_eq!(cache_control(&settings, anchor, answer, page, 0), expected, "{what}");
    }
}

#[test]
fn nothing_is_kept_longer_than_the_stream_lives() {
    let settings = HttpSettings::default();
    let at = |now, answer| {
        let page = page(0, 10, 20, false, Lifetime::Until(100_000));
        cache_control(&settings, Anchor::Token, answer, &page, now)
    };
    assert_eq!(at(0, Answer::CatchUp), "public, max-age=60, stale-while-revalidate=40");
    assert_eq!(at(60_000, Answer::CatchUp), "public, max-age=40, stale-while-revalidate=0");
    assert_eq!(at(99_500, Answer::CatchUp), "public, max-age=0, stale-while-revalidate=0");
    assert_eq!(at(99_500, Answer::LiveTimeout), "public, max-age=0, stale-while-revalidate=0");
    assert_eq!(at(200_000, Answer::CatchUp), "public, max-age=0, stale-while-revalidate=0");
    let tail = page(0, 20, 20, false, Lifetime::Until(100_000));
    let control = cache_control(&settings, Anchor::Token, Answer::CatchUp, &tail, 99_500);
    assert!(control.contains("s-maxage=0"), "{control}");
}

#[test]
fn a_year_is_immutable() {
    let year = Duration::from_secs(365 * 24 * 3600);
    let settings = HttpSettings { share_max_age: year, ..HttpSettings::default() };
    let control = cache_control(&settings, Anchor::Token, Answer::CatchUp, &forever(0, 10, 20, false), 0);
    assert_eq!(control, "public, max-age=31536000, stale-while-revalidate=300, immutable");
    let mortal = page(0, 10, 20, false, Lifetime::Until(1_000_000));
    let control = cache_control(&settings, Anchor::Token, Answer::CatchUp, &mortal, 0);
    assert_eq!(control, "public, max-age=1000, stale-while-revalidate=0");
}

#[test]
fn the_tag_tells_incarnation_range_closure_and_tail() {
    let tag = |page: &Page| etag(Anchor::Token, page).unwrap_or_default();
    assert_eq!(tag(&forever(0, 10, 20, false)), "\"42:0:10\"");
    assert_eq!(tag(&forever(0, 20, 20, false)), "\"42:0:20:u\"");
    assert_eq!(tag(&forever(0, 20, 20, true)), "\"42:0:20:c\"");
    assert_eq!(tag(&forever(0, 10, 20, true)), "\"42:0:10\"");
    assert_eq!(etag(Anchor::Now, &forever(20, 20, 20, false)), None);
}

#[test]
fn tags_are_compared_weakly_and_in_lists() {
    let tag = "\"42:0:10:u\"";
    for list in [tag, "W/\"42:0:10:u\"", "\"x\", W/\"42:0:10:u\"", "*", " \"42:0:10:u\" "] {
        assert!(matches(Some(list), tag), "{list}");
    }
    for list in ["\"42:0:10\"", "42:0:10:u", "", "\"42:0:10:c\""] {
        assert!(!matches(Some(list), tag), "{list}");
    }
    assert!(!matches(None, tag));
}
