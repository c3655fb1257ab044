//! The whole contract with caches, as pure functions.
//!
//! Two rules give the rest: a URL whose answer can never change may be kept (`share`), and nothing that can become
//! stale is kept longer than `tail_ttl`. The official suite and the protocol allow both.

use std::time::Duration;

use super::request::Anchor;
use crate::clock::Millis;
use crate::engine::Page;
use crate::settings::{HttpSettings, is_a_year};

pub const NO_STORE: &str = "no-store";
/// SSE: a cache must not collapse readers onto one body unless it is told to, and a proxy must not hold it back.
pub const EVENT_STREAM: &str = "no-cache, no-transform";

/// What is answered to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A plain read's page.
    CatchUp,
    /// A long-poll's data.
    LivePage,
    /// A long-poll without data: 204, with a cursor beyond the client's, so that the next URL is another one.
    LiveTimeout,
    /// A long-poll at the end of a closed stream: 204.
    LiveEnd,
}

/// `Cache-Control` of the answer to a read of `page`.
pub fn cache_control(settings: &HttpSettings, anchor: Anchor, answer: Answer, page: &Page, now: Millis) -> String {
    let life = page.stream.lifetime.ends_at(page.stream.touched_at).map(|end| end.saturating_sub(now) / 1000);
    // What a fork inherited is read with its source's offsets: another fork under the same path, later, would be asked with
    // the same ones, and may have less of it.
    let is_inherited = page.stream.offset_at(page.start).incarnation != page.stream.incarnation;
    let anchor = if anchor == Anchor::Token && is_inherited { Anchor::AnyIncarnation } else { anchor };
    match (anchor, answer) {
        (Anchor::Absent | Anchor::Now, _) => NO_STORE.to_owned(),
        (_, Answer::LiveTimeout) => brief(settings, life),
        (Anchor::AnyIncarnation, _) => tail(settings, life),
        (Anchor::Token, Answer::LivePage | Answer::LiveEnd) => share(settings, life),
        (Anchor::Token, Answer::CatchUp) if page.reaches_tail() && !page.is_final() => tail(settings, life),
        (Anchor::Token, Answer::CatchUp) => share(settings, life),
    }
}

/// It is right for ever under its URL, but no longer than the stream lives.
fn share(settings: &HttpSettings, life: Option<u64>) -> String {
    let left = life.unwrap_or(u64::MAX);
    let age = settings.share_max_age.as_secs().min(left);
    let stale = settings.share_stale_while_revalidate.as_secs().min(left - age);
    let immutable = if is_a_year(Duration::from_secs(age)) { ", immutable" } else { "" };
    format!("public, max-age={age}, stale-while-revalidate={stale}{immutable}")
}

/// It may be overtaken at any moment. Browsers ask every time; shared caches may answer a herd with it.
fn tail(settings: &HttpSettings, life: Option<u64>) -> String {
    let age = settings.tail_ttl.as_secs().min(life.unwrap_or(u64::MAX));
    format!("public, max-age=0, s-maxage={age}, must-revalidate, stale-while-revalidate=0, stale-if-error=0")
}

/// Long enough for a cache to release all who wait for it at once; a 204 that is not to be stored releases them one
/// by one.
fn brief(settings: &HttpSettings, life: Option<u64>) -> String {
    let age = settings.tail_ttl.as_secs().min(life.unwrap_or(u64::MAX));
    format!("public, max-age={age}, stale-while-revalidate=0")
}

/// The page's entity tag; `offset=now` has none. It changes when the stream is closed, and when a page that reached
/// the tail no longer does, or a 304 would hide either.
pub fn etag(anchor: Anchor, page: &Page) -> Option<String> {
    let mark = match (page.is_final(), page.reaches_tail()) {
        (true, _) => ":c",
        (false, true) => ":u",
        (false, false) => "",
    };
    let Page { stream, start, end, .. } = page;
    (anchor != Anchor::Now).then(|| format!("\"{}:{start}:{end}{mark}\"", stream.incarnation.get()))
}

/// Whether `If-None-Match` holds the tag. Compared weakly: compression on the way turns a tag into a weak one.
pub fn matches(if_none_match: Option<&str>, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    if_none_match.is_some_and(|list| list.split(',').any(|tag| tag.trim() == "*" || strong(tag) == etag))
}

#[cfg(test)]
#[path = "caching_tests.rs"]
mod tests;
