//! A bucket with one damaged object, read and written by servers that know it and by servers that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater::clock::Ids;
use headwater::engine::{Engine, EngineError};
use headwater::http::{Api, router};
use headwater::protocol::ReadFrom;
use headwater::settings::HttpSettings;
use headwater::store::memory::MemoryStore;
use tokio_util::sync::CancellationToken;

use crate::bucket::{self, Bucket, Stream};
use crate::damage::{Case, Damage, Kind};
use crate::panics::panics;
use crate::reader::{Ended, Mode, Reader, Wrong};

/// What no read notices, because nothing else in the bucket tells of it: the streams in question are as they were at some
/// time before, or are not there. (An entry or a checkpoint that is gone is noticed if more than a pipeline of entries
/// come after it, see `lost`.)
pub const UNNOTICED: [(Kind, Damage); 5] = [
    (Kind::Log, Damage::Deleted),
    (Kind::Checkpoint, Damage::Older),
    (Kind::Checkpoint, Damage::Deleted),
    (Kind::Manifest, Damage::Older),
    (Kind::Manifest, Damage::Deleted),
];

/// Streams larger than this are seldom read, and from their end, unless they are what was damaged.
const LARGE: u64 = 100_000;

#[derive(Debug, Default)]
pub struct Report {
    /// How reads of what was damaged ended.
    pub ended: BTreeMap<(Kind, Damage), BTreeMap<String, u32>>,
    pub unnoticed: BTreeSet<(Kind, Damage)>,
    pub wrong: Vec<String>,
}

/// Whether the object of the case is needed for the stream.
pub fn touches(case: &Case, stream: &Stream) -> bool {
    let mut parts = case.key.split('/');
    match case.kind() {
        Kind::Cluster => true,
        Kind::Collector => false,
        Kind::Log | Kind::Checkpoint => parts.nth(1) == Some(&*stream.shard().to_string()),
        Kind::Manifest | Kind::Chunk => parts.nth(1) == Some(stream.name.as_str()),
    }
}

/// Whether an error names the object, or, if that is gone, one that contradicts its absence.
fn is_named(case: &Case, stream: &Stream, key: &str) -> bool {
    let shard = stream.shard();
    let near = [format!("log/{shard}/"), format!("checkpoint/{shard}"), format!("streams/{}/", stream.name)];
    let is_near = near.iter().any(|near| key.starts_with(near));
    key == case.key || matches!(case.damage, Damage::Deleted | Damage::Older) && is_near
}

pub fn reader(engine: &Engine) -> Reader {
    let settings = HttpSettings { long_poll_hold: Duration::from_millis(100), ..HttpSettings::default() };
    let api = Api::new(engine.clone(), settings, Ids::seeded(3), CancellationToken::new(), Arc::new(String::new));
    Reader { router: router(api), engine: engine.clone() }
}

/// A server that knows all streams and their manifests, but has none of their bytes in memory.
pub async fn warm(store: &Arc<MemoryStore>, bucket: &Bucket) -> Engine {
    let engine = bucket::open(store.clone(), &bucket.clock, 21).await.unwrap_or_else(|e| panic!("{e}"));
    for stream in &bucket.streams {
        engine.locate(&stream.name, ReadFrom::Start).await.unwrap_or_else(|e| panic!("{}: {e}", stream.name));
    }
    engine
}

struct Trial<'a> {
    report: &'a mut Report,
    case: &'a Case,
    ids: &'a Ids,
}

pub async fn try_case(report: &mut Report, bucket: &Bucket, case: &Case, ids: &Ids) {
    let before = panics();
    let store = Arc::new(bucket.store.copy());
    let warm = warm(&store, bucket).await;
    store.tamper(&case.key, case.body.clone());
    let mut trial = Trial { report, case, ids };
    trial.read_all(&bucket.streams, &reader(&warm), "warm", true).await;
    drop(warm);
    match bucket::open_as_another(store.clone(), &bucket.clock, 22).await {
        Ok(cold) => {
            trial.read_all(&bucket.streams, &reader(&cold), "cold", true).await;
            trial.read_all(&bucket.streams, &reader(&cold), "again", false).await;
            if !UNNOTICED.contains(&(case.kind(), case.damage)) {
                trial.write_all(bucket, &store, &cold).await;
            }
            if let Err(error) = cold.ready().await {
                trial.wrong(format!("the server is not ready: {error}"));
            }
        }
        Err(EngineError::Damaged { key, .. }) if key == case.key => {}
        Err(error) => trial.wrong(format!("the bucket is not opened: {error}")),
    }
    if panics() > before {
        trial.wrong("a task panics".to_owned());
    }
}

impl Trial<'_> {
    fn wrong(&mut self, what: String) {
        let Case { key, damage, note, .. } = self.case;
        self.report.wrong.push(format!("{key} {damage:?} {note}: {what}"));
    }

    /// What is less than it should be, where that is known to go unnoticed, is only noted.
    fn judge(&mut self, who: &str, wrong: Wrong) {
        let class = (self.case.kind(), self.case.damage);
        match wrong {
            Wrong::Less(_) if UNNOTICED.contains(&class) => drop(self.report.unnoticed.insert(class)),
            Wrong::Less(what) | Wrong::Other(what) => self.wrong(format!("{who}: {what}")),
        }
    }

    /// From where to read, and how: everything of what may be touched, and a little of the rest.
    fn reads(&self, stream: &Stream, thoroughly: bool) -> Vec<(Mode, u64)> {
        let modes = [Mode::CatchUp, Mode::LongPoll, Mode::Sse];
        let (ids, tail) = (self.ids, stream.tail());
        let (touched, is_own) = (touches(self.case, stream), matches!(self.case.kind(), Kind::Manifest | Kind::Chunk));
        if tail > LARGE && !(touched && is_own) {
            // Verifying a whole block for each read takes long, so only some do.
            let start = tail - ids.between(0, LARGE);
            return if ids.between(0, 8) == 0 { vec![(modes[ids.between(0, 3) as usize], start)] } else { vec![] };
        }
        if !touched && ids.between(0, 2) == 0 {
            return vec![];
        }
        let start = || ids.between(0, 2) * ids.between(0, tail + 1);
        if thoroughly && touched {
            return modes.map(|mode| (mode, start())).to_vec();
        }
        vec![(modes[ids.between(0, 3) as usize], start())]
    }

    async fn read_all(&mut self, streams: &[Stream], reader: &Reader, who: &str, thoroughly: bool) {
        for stream in streams {
            self.read(stream, reader, who, thoroughly).await;
        }
    }

    async fn read(&mut self, stream: &Stream, reader: &Reader, who: &str, thoroughly: bool) {
        let (touched, who) = (touches(self.case, stream), format!("{who} {}", stream.name));
        let reads = self.reads(stream, thoroughly);
        let Some((_, start)) = reads.first() else { return };
        match reader.fetch(stream, *start).await {
            Ok(Ok(())) => {}
            Ok(Err(EngineError::Damaged { key, .. })) if touched && is_named(self.case, stream, &key) => {}
            Ok(Err(error)) => self.wrong(format!("{who}: touched {touched}, {error:?}")),
            Err(wrong) => self.judge(&who, wrong),
        }
        for (mode, start) in reads {
            let read = reader.read(stream, mode, start).await;
            let shown = match &read {
                Ok(Ended::Whole) => "whole".to_owned(),
                Ok(Ended::Refused(status, code)) => format!("{status} {code}"),
                Ok(Ended::BrokenOff) => "broken off".to_owned(),
                Err(_) => "unnoticed".to_owned(),
            };
            if touched {
                let class = (self.case.kind(), self.case.damage);
                *self.report.ended.entry(class).or_default().entry(shown).or_default() += 1;
            }
            match read {
                Ok(ended) if touched || ended == Ended::Whole => {}
                Ok(ended) => self.wrong(format!("{who}: it is not touched, but {mode:?} from {start} gives {ended:?}")),
                Err(wrong) => self.judge(&format!("{who} {mode:?} from {start}"), wrong),
            }
        }
    }

    /// Appends to every stream, lets time pass in which streams are sealed, and reads all with another server. What was
    /// acknowledged must be there, or be refused.
    async fn write_all(&mut self, bucket: &Bucket, store: &Arc<MemoryStore>, engine: &Engine) {
        let mut streams = bucket.streams.clone();
        for stream in streams.iter_mut().filter(|stream| !stream.is_closed) {
            let touched = touches(self.case, stream);
            let bytes = bucket::content(9, 50, stream.content_type);
            let appended = bucket::append(engine, stream, &bytes, false).await;
            let is_right = match &appended {
                Ok(()) => true,
                Err(EngineError::Rejected(_)) => false,
                Err(_) => touched,
            };
            if !is_right {
                self.wrong(format!("append to {}, touched {touched}: {appended:?}", stream.name));
            }
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        match bucket::open(store.clone(), &bucket.clock, 23).await {
            Ok(other) => self.read_all(&streams, &reader(&other), "after writing,", false).await,
            Err(error) => self.wrong(format!("after writing, the bucket is not opened: {error}")),
        }
    }
}
