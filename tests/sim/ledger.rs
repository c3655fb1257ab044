//! The one history of a bucket: its logs, folded by whoever has seen every write. This is the order by which all that
//! clients saw is judged.

use std::collections::BTreeMap;

use headwater::layout::entry::{self, Entry};
use headwater::layout::{chunk, key};
use headwater::protocol::StreamName;
use headwater::protocol::fork::ForkId;
use headwater::protocol::stream::{Data, Effect};

use crate::bucket::Seen;
use crate::story::{Book, Story};
use crate::timeline::Moment;

#[derive(Debug, Default)]
pub struct Ledger {
    pub stories: BTreeMap<StreamName, Story>,
    /// Of each shard: the first position that was never written, and the highest time of an entry.
    pub heads: BTreeMap<u32, u64>,
    pub complaints: Vec<String>,
}

impl Ledger {
    pub fn read(seen: &Seen, shards: u32) -> Ledger {
        let mut ledger = Ledger::default();
        let mut entries = Vec::new();
        (0..shards).for_each(|shard| entries.extend(ledger.read_shard(seen, shard)));
        // A fork and its source may be in different logs: one follows from the other.
        entries.sort_by_key(|(committed, _)| *committed);
        entries.iter().for_each(|(committed, entry)| ledger.read_entry(seen, *committed, entry));
        let dangling = ledger.dangling_references();
        ledger.complaints.extend(dangling);
        ledger
    }

    /// The valid entries of a log, each with when it was committed.
    fn read_shard(&mut self, seen: &Seen, shard: u32) -> Vec<(Moment, Entry)> {
        let mut entries = Vec::new();
        let (mut position, mut last_id, mut last_at, mut committed) = (1, 0, 0, Moment::FIRST);
        while let Some((placed, object)) = seen.log.get(&(shard, position)) {
            // An entry is committed once all below are there too.
            committed = committed.max(*placed);
            match entry::decode(object) {
                Ok(entry) if entry.header.prev == last_id => {
                    let at = entry.header.at;
                    if at < last_at {
                        self.complaints.push(format!("shard {shard}, entry {position}: time went back"));
                    }
                    (last_id, last_at) = (entry.header.id, at);
                    entries.push((committed, entry));
                }
                Ok(_) => {}
                Err(error) => self.complaints.push(format!("shard {shard}, entry {position}: {}", error.0)),
            }
            position += 1;
        }
        self.heads.insert(shard, position);
        entries
    }

    fn read_entry(&mut self, seen: &Seen, committed: Moment, entry: &Entry) {
        for placed in &entry.records {
            let (name, effect) = (&placed.record.name, &placed.record.effect);
            let told = self.other(name, effect).and_then(|inherited| {
                let body = body(seen, name, effect)?;
                let story = self.stories.entry(name.clone()).or_default();
                story.tell(committed, &entry.header, effect, (&body, inherited))
            });
            if let Err(what) = told {
                self.complaints.push(format!("{name}, entry {}: {what}", entry.header.position));
            }
        }
    }
}

impl Ledger {
    /// What an effect has to do with another stream: the source of a fork, or a fork that is no more.
    fn other(&self, name: &StreamName, effect: &Effect) -> Result<Book, String> {
        match effect {
            Effect::Forked(forked) => {
                let id = ForkId { name: name.clone(), incarnation: forked.incarnation };
                let source = self.stories.get(&forked.origin.source.name).ok_or("its source was never there")?;
                source.forked(&id, forked)
            }
            Effect::ForkDropped { fork, .. } if self.is_there(fork) => {
                Err(format!("it forgets {fork:?}, which is there"))
            }
            _ => Ok(Book::default()),
        }
    }

    fn is_there(&self, fork: &ForkId) -> bool {
        let state = self.stories.get(&fork.name).and_then(|story| story.last().state.as_ref());
        state.is_some_and(|state| state.incarnation == fork.incarnation.get())
    }

    /// In the end, nothing is kept for forks that are not there.
    fn dangling_references(&self) -> Vec<String> {
        let all = self.stories.iter().filter_map(|(name, story)| Some((name, story.last().state.as_ref()?)));
        let references = all.flat_map(|(name, state)| state.forks.keys().map(move |fork| (name, fork)));
        let dangling = references.filter(|(_, fork)| !self.is_there(fork));
        dangling.map(|(name, fork)| format!("{name} is kept for {fork:?}, which is not there")).collect()
    }
}

fn body(seen: &Seen, name: &StreamName, effect: &Effect) -> Result<String, String> {
    let Effect::Appended(appended) = effect else { return Ok(String::new()) };
    let bytes = match &appended.body.data {
        Data::Inline(bytes) => bytes.to_vec(),
        Data::Chunk { nonce, .. } => {
            let key = key::chunk(name, appended.incarnation, *nonce);
            let object = seen.chunks.get(&key).ok_or_else(|| format!("{key} was never written"))?;
            chunk::decode(*nonce, object).map_err(|error| format!("{key}: {}", error.0))?.blocks.concat()
        }
    };
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
