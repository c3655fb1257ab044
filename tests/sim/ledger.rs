//! The one history of a bucket: its logs, folded by whoever has seen every write. This is the order by which all that
//! clients saw is judged.

use std::collections::BTreeMap;

use headwater::layout::entry::{self, Entry};
use headwater::layout::{chunk, key};
use headwater::protocol::StreamName;
use headwater::protocol::stream::{Data, Effect};

use crate::bucket::Seen;
use crate::story::Story;
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
        (0..shards).for_each(|shard| ledger.read_shard(seen, shard));
        ledger
    }

    fn read_shard(&mut self, seen: &Seen, shard: u32) {
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
                    self.read_entry(seen, committed, &entry);
                }
                Ok(_) => {}
                Err(error) => self.complaints.push(format!("shard {shard}, entry {position}: {}", error.0)),
            }
            position += 1;
        }
        self.heads.insert(shard, position);
    }

    fn read_entry(&mut self, seen: &Seen, committed: Moment, entry: &Entry) {
        for placed in &entry.records {
            let (name, effect) = (&placed.record.name, &placed.record.effect);
            let told = body(seen, name, effect).and_then(|body| {
                let story = self.stories.entry(name.clone()).or_default();
                story.tell(committed, &entry.header, effect, &body)
            });
            if let Err(what) = told {
                self.complaints.push(format!("{name}, entry {}: {what}", entry.header.position));
            }
        }
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
