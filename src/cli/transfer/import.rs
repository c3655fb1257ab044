//! Streams out of a file into a bucket.

use std::collections::BTreeSet;
use std::io::BufRead;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::export::{Part, hex, read};
use super::line::{End, Head};
use super::progress::Progress;
use super::reader::{Reader, Step};
use crate::clock::Millis;
use crate::engine::{Engine, EngineError};
use crate::protocol::json::Messages;
use crate::protocol::stream::{Append, Body, Create, Data};
use crate::protocol::{Lifetime, Rejection, StreamName};

/// Bytes of one append, or more if a page is larger. Written once: they are a chunk of their own.
const PIECE: usize = 8 << 20;

/// A stream of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub head: Head,
    pub end: End,
}

/// Reads the whole file, and says what is in it if nothing is wrong with it.
pub fn verify(file: impl BufRead) -> Result<Vec<Listed>, String> {
    let (mut reader, mut streams, mut current) = (Reader::new(file), Vec::new(), None);
    while let Some(step) = reader.next()? {
        match step {
            Step::Begin(head) => current = Some(head),
            Step::Bytes(_) => {}
            Step::End(end) => streams.extend(current.take().map(|head| Listed { head, end })),
        }
    }
    Ok(streams)
}

/// Names of those whose time was over between export and import.
pub fn over(streams: &[Listed], now: Millis) -> Result<BTreeSet<String>, String> {
    let mut over = BTreeSet::new();
    for Listed { head, .. } in streams {
        if matches!(head.lifetime()?, Lifetime::Until(moment) if moment <= now) {
            over.insert(head.name.clone());
        }
    }
    Ok(over)
}

/// Those of `streams` that are in the bucket already.
pub async fn present(engine: &Engine, streams: &[Listed]) -> Result<Vec<Listed>, String> {
    let mut present = Vec::new();
    for listed in streams {
        match engine.stat(&listed.head.name()?).await {
            Err(EngineError::Rejected(Rejection::NotFound)) => {}
            // Also one that was deleted and is kept for its forks: its name is not free.
            Ok(_) | Err(EngineError::Rejected(_)) => present.push(listed.clone()),
            Err(error) => return Err(format!("{}: {error}", listed.head.name)),
        }
    }
    Ok(present)
}

/// Creates the streams of a file that was verified, apart from those in `skipped`. Each must not be there yet.
pub async fn import(
    engine: &Engine,
    file: impl BufRead,
    skipped: &BTreeSet<String>,
    progress: &mut Progress,
) -> Result<(), String> {
    let (mut reader, mut current) = (Reader::new(file), None);
    while let Some(step) = reader.next()? {
        match (step, &mut current) {
            (Step::Begin(head), _) if skipped.contains(&head.name) => current = None,
            (Step::Begin(head), _) => current = Some(Writer::create(engine, head).await?),
            (Step::Bytes(messages), Some(writer)) => {
                writer.take(&messages).await?;
                progress.bytes(messages.bytes.len() as u64);
            }
            (Step::End(_), Some(writer)) => {
                writer.finish().await?;
                progress.streams += 1;
            }
            (_, None) => {}
        }
    }
    Ok(())
}

/// Whether a stream in the bucket is that of the file: `None`, or what differs.
pub async fn difference(engine: &Engine, listed: &Listed, progress: &mut Progress) -> Result<Option<String>, String> {
    let mut hash = Sha256::new();
    let mut take = |part: Part<'_>| {
        if let Part::Page { stored, .. } = part {
            hash.update(stored);
            progress.bytes(stored.len() as u64);
        }
        Ok(())
    };
    let found = read(engine, &listed.head.name()?, &mut take).await?;
    let Some(found) = found else { return Ok(Some("it is not there".to_owned())) };
    let Listed { head, end } = listed;
    let checks = [
        (found.content_type == head.content_type, "its content type is another one"),
        (found.lifetime()? == head.lifetime()?, "its lifetime is another one"),
        (found.closed == head.closed, "it is not closed as in the file, or the other way round"),
        (found.tail == end.bytes && hex(&hash.finalize()) == end.sha256, "its bytes are not those of the file"),
    ];
    Ok(checks.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what.to_owned()))
}

/// A stream that is being written.
struct Writer<'a> {
    engine: &'a Engine,
    head: Head,
    name: StreamName,
    /// Bytes that are in the bucket.
    written: u64,
    bytes: BytesMut,
    ends: Vec<u32>,
}

impl<'a> Writer<'a> {
    async fn create(engine: &'a Engine, head: Head) -> Result<Writer<'a>, String> {
        let name = head.name()?;
        let create = Create {
            incarnation: engine.new_incarnation(),
            content_type: head.content_type()?,
            lifetime: head.lifetime()?,
            closed: false,
            body: Body::default(),
            fork: None,
            retention: None,
        };
        let admission = engine.admit(0).map_err(|error| error.to_string())?;
        let created = engine.create(&name, create, admission).await.map_err(|error| format!("{name}: {error}"))?;
        if !created.fresh {
            return Err(format!("{name}: it exists, and is left as it is"));
        }
        Ok(Writer { engine, head, name, written: 0, bytes: BytesMut::new(), ends: Vec::new() })
    }

    async fn take(&mut self, messages: &Messages) -> Result<(), String> {
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&messages.bytes);
        self.ends.extend(messages.ends.iter().map(|end| start + end));
        if self.bytes.len() >= PIECE { self.append(false).await } else { Ok(()) }
    }

    async fn finish(&mut self) -> Result<(), String> {
        if self.head.closed || !self.bytes.is_empty() { self.append(self.head.closed).await } else { Ok(()) }
    }

    async fn append(&mut self, close: bool) -> Result<(), String> {
        let bytes: Bytes = std::mem::take(&mut self.bytes).freeze();
        let expected = self.written + bytes.len() as u64;
        let content_type = (!bytes.is_empty()).then(|| self.head.content_type()).transpose()?;
        let admission = self.engine.admit(bytes.len() as u64).map_err(|error| self.incomplete(&error.to_string()))?;
        let body = Body { data: Data::Inline(bytes), ends: std::mem::take(&mut self.ends) };
        let append = Append { content_type, body, seq: None, producer: None, close };
        let outcome = self.engine.append(&self.name, append, admission).await;
        let tail = outcome.map_err(|error| self.incomplete(&error.to_string()))?.tail.position;
        if tail != expected {
            return Err(self.incomplete("someone else writes to it"));
        }
        self.written = expected;
        Ok(())
    }

    fn incomplete(&self, why: &str) -> String {
        let (name, written, tail) = (&self.name, self.written, self.head.tail);
        format!("{name}: incomplete, {written} of {tail} bytes: {why}. Delete it, then import again with --resume")
    }
}
