//! Streams out of a bucket into a file.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::line::{End, Head, Line, Page, VERSION, stored};
use super::progress::Progress;
use crate::engine::{Engine, EngineError, Place, Streams};
use crate::protocol::{ReadFrom, Rejection, StreamName};

/// Streams asked for at a time.
const LISTED: usize = 1000;

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    Stream(StreamName),
    Prefix(String),
}

/// Writes the streams as they are when each is looked at. What is appended later is left out.
pub async fn export(
    engine: &Engine,
    selection: &Selection,
    out: &mut impl Write,
    progress: &mut Progress,
) -> Result<(), String> {
    put(out, &Line::Export { version: VERSION })?;
    match selection {
        Selection::Stream(name) => {
            if !export_stream(engine, name, out, progress).await? {
                return Err(format!("{name}: there is no such stream"));
            }
        }
        Selection::Prefix(prefix) => {
            let mut after: Option<Place> = None;
            loop {
                let listed = engine.list(prefix, after, LISTED).await;
                let Streams { found, next } = listed.map_err(|error| error.to_string())?;
                for (name, _) in found {
                    // It may have been deleted since it was listed.
                    export_stream(engine, &name, out, progress).await?;
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
    }
    put(out, &Line::Done { streams: progress.streams })
}

fn put(out: &mut impl Write, line: &Line) -> Result<(), String> {
    writeln!(out, "{}", line.encode()).map_err(|error| format!("the file could not be written: {error}"))
}

/// False if there is no such stream.
async fn export_stream(
    engine: &Engine,
    name: &StreamName,
    out: &mut impl Write,
    progress: &mut Progress,
) -> Result<bool, String> {
    let mut hash = Sha256::new();
    let head = read(engine, name, &mut |part| match part {
        Part::Head(head) => put(out, &Line::Stream(head.clone())),
        Part::Page { start, served, stored, is_json } => {
            hash.update(stored);
            progress.bytes(stored.len() as u64);
            put(out, &Line::Page(Page::of(start, served, is_json)?))
        }
    })
    .await?;
    let Some(head) = head else { return Ok(false) };
    put(out, &Line::End(End { bytes: head.tail, sha256: hex(&hash.finalize()) }))?;
    progress.streams += 1;
    Ok(true)
}

/// What is read of a stream.
pub enum Part<'a> {
    Head(&'a Head),
    Page { start: u64, served: &'a bytes::Bytes, stored: &'a bytes::Bytes, is_json: bool },
}

/// Reads a stream up to where it ends now. `None` if there is none. Counts as no use of it.
pub async fn read(
    engine: &Engine,
    name: &StreamName,
    take: &mut impl FnMut(Part<'_>) -> Result<(), String>,
) -> Result<Option<Head>, String> {
    let named = |error: EngineError| format!("{name}: {error}");
    let stream = match engine.stat(name).await {
        Ok(stream) => stream,
        Err(EngineError::Rejected(Rejection::NotFound | Rejection::Gone)) => return Ok(None),
        Err(error) => return Err(named(error)),
    };
    let head = Head::of(name, &stream);
    let is_json = stream.content_type.is_json();
    take(Part::Head(&head))?;
    let mut at = 0;
    while at < stream.tail {
        let from = ReadFrom::At(stream.offset_at(at));
        let (mut page, _) = engine.follow(name, from, false).await.map_err(named)?;
        if page.stream.incarnation != stream.incarnation {
            return Err(format!("{name}: it was replaced while it was read"));
        }
        page.end = page.end.min(stream.tail);
        let (served, _) = engine.fetch(name, &page).await.map_err(named)?;
        let stored = stored(&served, is_json)?;
        if stored.is_empty() || stored.len() as u64 != page.end - at {
            return Err(format!("{name}: {} bytes at {at} instead of {}", stored.len(), page.end - at));
        }
        take(Part::Page { start: at, served: &served, stored: &stored, is_json })?;
        at = page.end;
    }
    Ok(Some(head))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
