//! Which streams there are, a page at a time: those with a manifest straight from the bucket, those that only the log knows
//! of from memory.
//!
//! The order is that of the bucket's keys. What is in the log is looked at before the bucket is: a stream that is sealed
//! in between is then found twice, which can be told, and never not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::error::no_answer;
use super::{Engine, EngineError, load};
use crate::layout::key::{self, Key};
use crate::protocol::{Malformed, Stream, StreamName};
use crate::store::LIST_PAGE;

/// The most LIST requests that a page costs.
const LISTS: usize = 10;
/// The most streams that a page looks at, deleted ones included.
const LOOKS: usize = 1000;
/// Streams looked at at a time.
const AT_A_TIME: usize = 8;
/// Greater than whatever may follow a folder in a key.
const PAST_FOLDER: &str = "/~";
/// The longest key that a store has.
const LONGEST_KEY: usize = 1024;

/// Streams that were there when they were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    pub found: Vec<(StreamName, Arc<Stream>)>,
    /// Where the next page starts; absent after the last. There may be one after a page without any stream.
    pub next: Option<Place>,
}

/// A place in the order of streams, which stays where it is whatever comes and goes: all up to it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(String);

impl Place {
    fn past_folder(folder: &str) -> Place {
        Place(format!("{folder}{PAST_FOLDER}"))
    }

    /// Past the folder of an object, or past what is in none.
    fn past_object(key: &str) -> Place {
        let below = key.strip_prefix(key::STREAMS).unwrap_or(key);
        below.split_once('/').map_or_else(|| Place(below.to_owned()), |(folder, _)| Place::past_folder(folder))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl FromStr for Place {
    type Err = Malformed;

    fn from_str(token: &str) -> Result<Place, Malformed> {
        let malformed = || Malformed::new("after is not a token of this server: expected the `next` of a page");
        let text = BASE64.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(malformed)?;
        let is_possible = (1..=LONGEST_KEY).contains(&text.len()) && !text.chars().any(char::is_control);
        if is_possible { Ok(Place(text)) } else { Err(malformed()) }
    }
}

/// A folder, and its stream if that is known.
struct Candidate {
    place: Place,
    folder: String,
    name: Option<StreamName>,
}

impl Candidate {
    fn of(folder: String, name: Option<StreamName>) -> Candidate {
        Candidate { place: Place::past_folder(&folder), folder, name }
    }
}

/// What one LIST gave.
struct Listed {
    folders: Vec<String>,
    /// Absent if there is no more.
    up_to: Option<Place>,
}

impl Engine {
    /// Up to `limit` streams whose names start with `prefix`, in order of their keys in the bucket. Does not count as a use.
    pub async fn list(&self, prefix: &str, after: Option<Place>, limit: usize) -> Result<Streams, EngineError> {
        let mut unsealed = self.unsealed(prefix).await?;
        let (mut page, mut at, mut left) = (Streams::default(), after, LOOKS);
        for _ in 0..LISTS {
            let Listed { folders, up_to } = self.folders(prefix, at.as_ref()).await?;
            unsealed.retain(|place, _| at.as_ref().is_none_or(|at| place > at));
            let mut rest = merge(folders, &unsealed, up_to.as_ref(), prefix);
            while !rest.is_empty() && page.found.len() < limit && left > 0 {
                let some = rest.len().min(limit - page.found.len()).min(left);
                left -= some;
                let batch = rest.drain(..some).collect::<Vec<_>>();
                at = batch.last().map(|candidate| candidate.place.clone());
                let looks = futures::stream::iter(batch).map(|candidate| self.look_at(candidate, prefix));
                let looked: Vec<_> = looks.buffered(AT_A_TIME).try_collect().await?;
                page.found.extend(looked.into_iter().flatten());
            }
            if !rest.is_empty() {
                break;
            }
            at = up_to;
            if at.is_none() || page.found.len() == limit || left == 0 {
                break;
            }
        }
        page.next = at;
        Ok(page)
    }

    /// Streams with records that no manifest has, perhaps with nothing else.
    async fn unsealed(&self, prefix: &str) -> Result<BTreeMap<Place, StreamName>, EngineError> {
        let mut found = BTreeMap::new();
        let since = self.reads_since(Instant::now());
        let fresh = self.0.shards.iter().map(|shard| self.freshen(shard, since));
        if !futures::future::try_join_all(fresh).await?.into_iter().all(|is_usable| is_usable) {
            return Err(no_answer());
        }
        for shard in &self.0.shards {
            let of_shard = shard.view.cells.unsealed().into_iter().map(|(name, _)| name);
            let wanted = of_shard.filter(|name| name.as_str().starts_with(prefix));
            found.extend(wanted.map(|name| (Place::past_folder(&key::folder(&name)), name)));
            if !self.is_usable(shard) {
                // It is being loaded anew: not all of them may be there yet.
                return Err(no_answer());
            }
        }
        Ok(found)
    }

    /// The folders after a place, as far as one LIST gets. What is left of a folder that it ends in is not asked for.
    async fn folders(&self, prefix: &str, after: Option<&Place>) -> Result<Listed, EngineError> {
        let prefix = format!("{}{}", key::STREAMS, key::folder_prefix(prefix));
        let after = after.map(|Place(place)| format!("{}{place}", key::STREAMS));
        let listing = self.0.context.store.list(&prefix, after.as_deref(), LIST_PAGE).await?.value;
        let up_to = listing.items.last().filter(|_| listing.more).map(|last| Place::past_object(&last.key));
        let of_streams = listing.items.iter().filter_map(|item| match Key::parse(&item.key) {
            Some(Key::Manifest { folder } | Key::Chunk { folder, .. }) => Some(folder),
            _ => None,
        });
        let mut folders = of_streams.collect::<Vec<_>>();
        folders.dedup();
        Ok(Listed { folders, up_to })
    }

    async fn look_at(
        &self,
        candidate: Candidate,
        prefix: &str,
    ) -> Result<Option<(StreamName, Arc<Stream>)>, EngineError> {
        match self.stream_in(candidate, prefix).await {
            Err(EngineError::Damaged { key, what }) => {
                // The others are no worse for it.
                tracing::error!(key, what, "damaged object, stream not listed");
                Ok(None)
            }
            looked => looked,
        }
    }

    async fn stream_in(
        &self,
        candidate: Candidate,
        prefix: &str,
    ) -> Result<Option<(StreamName, Arc<Stream>)>, EngineError> {
        let name = match candidate.name {
            Some(name) => Some(name),
            None => self.name_in(&candidate.folder).await?,
        };
        let Some(name) = name.filter(|name| name.as_str().starts_with(prefix)) else { return Ok(None) };
        let stream = self.cell(&name, false).await?.lock().stream.clone();
        Ok(stream.filter(|stream| stream.is_alive(self.now())).map(|stream| (name, stream)))
    }

    /// The stream of a folder whose name is shortened.
    async fn name_in(&self, folder: &str) -> Result<Option<StreamName>, EngineError> {
        Ok(load::manifest_in(&self.0.context, folder).await?.map(|(name, _)| name))
    }
}

/// What is in the bucket, and what is in the log up to where the bucket was looked at, in order.
fn merge(
    folders: Vec<String>,
    unsealed: &BTreeMap<Place, StreamName>,
    up_to: Option<&Place>,
    prefix: &str,
) -> Vec<Candidate> {
    let in_bucket = folders.into_iter().map(|folder| {
        let name = key::name_of(&folder);
        Candidate::of(folder, name)
    });
    let mut all: BTreeMap<Place, Candidate> = in_bucket.map(|found| (found.place.clone(), found)).collect();
    for (place, name) in unsealed.iter().filter(|(place, _)| up_to.is_none_or(|end| *place <= end)) {
        all.insert(place.clone(), Candidate::of(key::folder(name), Some(name.clone())));
    }
    all.retain(|_, found| found.name.as_ref().is_none_or(|name| name.as_str().starts_with(prefix)));
    all.into_values().collect()
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
