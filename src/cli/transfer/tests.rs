//! Out of one bucket, into another, without one byte more or less.

use bytes::Bytes;

use super::*;
use crate::clock::Ids;
use crate::engine::Engine;
use crate::protocol::stream::{Append, Body, Create, Data};
use crate::protocol::{ContentType, Lifetime, json};
use crate::settings::EngineSettings;
use crate::store::memory::MemoryStore;

const NOW: u64 = 1_800_000_000_000;

async fn engine(number: u64) -> Engine {
    let clock = Clock::tokio(NOW);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let settings = EngineSettings { page_bytes: 64, direct_bytes: 200, ..EngineSettings::default() };
    Engine::open(store, settings, clock, Ids::seeded(number)).await.unwrap_or_else(|e| panic!("{e}"))
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap_or_else(|e| panic!("{e}"))
}

fn stored(content_type: &ContentType, body: &[u8]) -> Body {
    if body.is_empty() {
        return Body::default();
    }
    if content_type.is_json() {
        let messages = json::split(body).unwrap_or_else(|e| panic!("{e}"));
        return Body { data: Data::Inline(messages.bytes), ends: messages.ends };
    }
    Body { data: Data::Inline(Bytes::copy_from_slice(body)), ends: vec![body.len() as u32] }
}

async fn fill(engine: &Engine, stream: &str, content_type: &str, lifetime: Lifetime, closed: bool, appends: &[&[u8]]) {
    let content_type = ContentType::new(content_type).unwrap_or_else(|e| panic!("{e}"));
    let admission = || engine.admit(0).unwrap_or_else(|e| panic!("{e}"));
    let (incarnation, body) = (engine.new_incarnation(), Body::default());
    let create = Create {
        incarnation,
        content_type: content_type.clone(),
        lifetime,
        closed: false,
        body,
        fork: None,
        retention: None,
    };
    engine.create(&name(stream), create, admission()).await.unwrap_or_else(|e| panic!("{e}"));
    let last = closed.then_some(&b""[..]);
    for body in appends.iter().copied().chain(last) {
        let (body, content_type) = (stored(&content_type, body), Some(content_type.clone()));
        let close = body.ends.is_empty();
        let append = Append { content_type, body, seq: None, producer: None, close };
        engine.append(&name(stream), append, admission()).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Streams of every kind, some of many pages.
async fn filled() -> Engine {
    let engine = engine(1).await;
    let all: Vec<u8> = (0..=255).collect();
    fill(&engine, "binary", "application/octet-stream", Lifetime::Forever, false, &[&all, b"\n\"}", &all]).await;
    fill(&engine, "closed", "text/plain", Lifetime::Until(NOW + 86_400_001), true, &["é".repeat(77).as_bytes()]).await;
    fill(&engine, "empty", "text/plain", Lifetime::Ttl(3600), false, &[]).await;
    fill(&engine, "empty/closed json", "application/json", Lifetime::Forever, true, &[]).await;
    let odd = b"[ {\"a\" :  [1,\n  2]}, \"x,]\\u0000\", 1e400 ]";
    let many = format!("[{}]", vec!["{\"n\": 1234567}"; 40].join(" , "));
    fill(&engine, "json", "application/json; charset=utf-8", Lifetime::Forever, false, &[odd, many.as_bytes()]).await;
    engine
}

async fn exported(engine: &Engine, selection: Selection) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    export::export(engine, &selection, &mut file, &mut Progress::new("exported", None)).await?;
    Ok(file)
}

async fn all_of(engine: &Engine) -> Vec<u8> {
    exported(engine, Selection::Prefix(String::new())).await.unwrap_or_else(|e| panic!("{e}"))
}

async fn imported(engine: &Engine, file: &[u8]) -> Result<(), String> {
    import::import(engine, file, &BTreeSet::new(), &mut Progress::new("imported", None)).await
}

/// Without what an import can't keep.
fn comparable(file: &[u8]) -> Vec<line::Line> {
    let lines = std::str::from_utf8(file).unwrap_or_else(|e| panic!("{e}")).lines();
    let lines = lines.map(|text| line::Line::decode(text).unwrap_or_else(|e| panic!("{text}: {e}")));
    let plain = lines.map(|line| match line {
        line::Line::Stream(head) => {
            line::Line::Stream(line::Head { incarnation: String::new(), created_at: String::new(), ..head })
        }
        other => other,
    });
    plain.collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_imported_is_what_was_exported_page_by_page() {
    let file = all_of(&filled().await).await;
    let lines = comparable(&file);
    assert!(lines.iter().filter(|line| matches!(line, line::Line::Page(_))).count() > 10, "pages of several streams");
    let other = engine(2).await;
    imported(&other, &file).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(comparable(&all_of(&other).await), lines);
    for listed in import::verify(&file[..]).unwrap_or_else(|e| panic!("{e}")) {
        let difference = import::difference(&other, &listed, &mut Progress::new("verified", None)).await;
        assert_eq!(difference, Ok(None), "{}", listed.head.name);
    }
    let present = import::present(&other, &import::verify(&file[..]).unwrap_or_default()).await;
    assert_eq!(present.map(|streams| streams.len()), Ok(5));
}

#[tokio::test(start_paused = true)]
async fn every_changed_byte_and_every_cut_is_told_by_its_line() {
    let file = all_of(&filled().await).await;
    let line_at = |at: usize| file[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    for at in 0..file.len() {
        let expected = format!("line {}: ", line_at(at));
        for flip in [1, 0x20] {
            let mut changed = file.clone();
            changed[at] ^= flip;
            let error = import::verify(&changed[..]).err().unwrap_or_default();
            assert!(error.starts_with(&expected), "byte {at}: {error}");
        }
        let error = import::verify(&file[..at]).err().unwrap_or_default();
        assert!(error.starts_with(&expected), "cut after {at}: {error}");
    }
    let more = [&file[..], b"\n"].concat();
    assert!(import::verify(&more[..]).is_err());
    assert_eq!(import::verify(&file[..]).map(|streams| streams.len()), Ok(5));
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_whole_but_not_where_they_belong_are_refused() {
    let file = all_of(&filled().await).await;
    let text = String::from_utf8(file).unwrap_or_default();
    let lines = text.lines().collect::<Vec<_>>();
    for left_out in 0..lines.len() {
        let rest = lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| format!("{line}\n"));
        assert!(import::verify(rest.collect::<String>().as_bytes()).is_err(), "without line {}", left_out + 1);
        let twice =
            lines.iter().enumerate().map(|(at, line)| format!("{line}\n").repeat(1 + usize::from(at == left_out)));
        assert!(import::verify(twice.collect::<String>().as_bytes()).is_err(), "line {} twice", left_out + 1);
    }
    let other_hash = text.replace(lines[lines.len() - 2], &{
        let end = line::End { bytes: 0, sha256: String::new() };
        line::Line::End(end).encode()
    });
    assert!(import::verify(other_hash.as_bytes()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_exists_is_left_alone() {
    let file = all_of(&filled().await).await;
    let other = engine(2).await;
    fill(&other, "closed", "text/plain", Lifetime::Forever, false, &[b"mine"]).await;
    let before = all_of(&other).await;
    let present = import::present(&other, &import::verify(&file[..]).unwrap_or_default()).await.unwrap_or_default();
    assert_eq!(present.iter().map(|listed| listed.head.name.as_str()).collect::<Vec<_>>(), ["closed"]);
    let difference = import::difference(&other, &present[0], &mut Progress::new("", None)).await;
    assert_eq!(difference, Ok(Some("its lifetime is another one".to_owned())));
    assert!(imported(&other, &file).await.is_err_and(|why| why.starts_with("closed: ")));
    let mine = exported(&other, Selection::Stream(name("closed"))).await.unwrap_or_default();
    assert_eq!(mine, before);
}

#[tokio::test(start_paused = true)]
async fn streams_whose_time_is_over_are_left_out_and_others_are_not() {
    let file = all_of(&filled().await).await;
    let streams = import::verify(&file[..]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(import::over(&streams, NOW + 86_400_000), Ok(BTreeSet::new()));
    let over = import::over(&streams, NOW + 86_400_001).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(over, BTreeSet::from(["closed".to_owned()]));
    let other = engine(2).await;
    let progress = &mut Progress::new("imported", None);
    import::import(&other, &file[..], &over, progress).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((progress.streams, other.stat(&name("closed")).await.is_err()), (4, true));
}

#[tokio::test(start_paused = true)]
async fn one_stream_or_those_of_a_prefix_are_exported() {
    let engine = filled().await;
    let names = |file: Vec<u8>| {
        let streams = import::verify(&file[..]).unwrap_or_else(|e| panic!("{e}"));
        streams.into_iter().map(|listed| listed.head.name).collect::<Vec<_>>()
    };
    let prefix = exported(&engine, Selection::Prefix("empty".to_owned())).await.unwrap_or_default();
    assert_eq!(names(prefix), ["empty/closed json", "empty"]);
    assert_eq!(names(exported(&engine, Selection::Stream(name("json"))).await.unwrap_or_default()), ["json"]);
    assert_eq!(names(exported(&engine, Selection::Prefix("none".to_owned())).await.unwrap_or_default()), [""; 0]);
    let none = exported(&engine, Selection::Stream(name("none"))).await;
    assert_eq!(none, Err("none: there is no such stream".to_owned()));
}
