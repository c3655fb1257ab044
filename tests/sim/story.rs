//! What happened to a stream, one record of the log after the other, and whether it may happen. The rules are the
//! protocol's, told here a second time, so that the engine is not judged by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater::layout::entry::Header;
use headwater::protocol::Lifetime;
use headwater::protocol::producer::Producer;
use headwater::protocol::stream::{Appended, Effect};

use crate::history::View;
use crate::readers::Copy;
use crate::timeline::Moment;

/// A reader gets to see everything within so long, in virtual milliseconds.
const READING: u64 = 8_000;

/// A stream as it was for a while.
#[derive(Debug, Clone)]
pub struct State {
    pub incarnation: u64,
    pub lifetime: Lifetime,
    pub touched_at: u64,
    pub tail: u64,
    pub closed: bool,
    pub closed_by: Option<Producer>,
    pub last_seq: Option<Arc<str>>,
    /// Epoch and sequence number.
    pub producers: Arc<BTreeMap<String, (u64, u64)>>,
}

impl State {
    pub fn view(&self) -> View {
        View { incarnation: self.incarnation, tail: self.tail, closed: self.closed }
    }

    /// Whether its time is over, by a clock.
    pub fn is_over(&self, now: u64) -> bool {
        self.lifetime.ends_at(self.touched_at).is_some_and(|end| end <= now)
    }
}

/// From when to when something was the last committed word.
#[derive(Debug, Clone)]
pub struct Version {
    pub from: Moment,
    pub until: Moment,
    /// The entry that made it so.
    pub entry: u64,
    /// `None`: there was no stream.
    pub state: Option<State>,
}

/// The bytes of one incarnation.
#[derive(Debug, Default)]
pub struct Book {
    pub content: String,
    /// Where its messages end.
    pub ends: Vec<u32>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The version that it made.
    pub version: usize,
    pub committed: Moment,
}

#[derive(Debug)]
pub struct Story {
    pub versions: Vec<Version>,
    pub books: BTreeMap<u64, Book>,
    pub messages: BTreeMap<String, Place>,
    /// By incarnation, the version that its creation made.
    pub created: BTreeMap<u64, usize>,
    /// When something was deleted, or was found to be over.
    pub deleted: Vec<Moment>,
}

impl Default for Story {
    fn default() -> Story {
        let versions = vec![Version { from: Moment::FIRST, until: Moment::LAST, entry: 0, state: None }];
        Story {
            versions,
            books: BTreeMap::new(),
            messages: BTreeMap::new(),
            created: BTreeMap::new(),
            deleted: Vec::new(),
        }
    }
}

impl Story {
    pub fn last(&self) -> &Version {
        // There is always the first one.
        &self.versions[self.versions.len() - 1]
    }

    /// Takes in what an entry says that was committed at that moment. `body` are the bytes of an append. The error is
    /// what must not be.
    pub fn tell(&mut self, committed: Moment, entry: &Header, effect: &Effect, body: &str) -> Result<(), String> {
        let at = entry.at;
        let state = self.last().state.clone();
        let next = match effect {
            Effect::Created { incarnation, lifetime, .. } => {
                if state.is_some_and(|state| !state.is_over(at)) {
                    return Err("it was created while it was there".to_owned());
                }
                if self.created.insert(incarnation.get(), self.versions.len()).is_some() {
                    return Err("an incarnation came again".to_owned());
                }
                self.books.insert(incarnation.get(), Book::default());
                Some(State {
                    incarnation: incarnation.get(),
                    lifetime: *lifetime,
                    touched_at: at,
                    tail: 0,
                    closed: false,
                    closed_by: None,
                    last_seq: None,
                    producers: Arc::default(),
                })
            }
            Effect::Appended(appended) => {
                let state = own(state, appended.incarnation.get())?;
                if state.is_over(at) {
                    return Err("it was appended to after its time".to_owned());
                }
                Some(self.append(state, committed, at, appended, body)?)
            }
            Effect::Deleted { incarnation } => {
                own(state, incarnation.get())?;
                self.deleted.push(committed);
                None
            }
            Effect::Touched { incarnation } => {
                let state = own(state, incarnation.get())?;
                Some(State { touched_at: state.touched_at.max(at), ..state })
            }
            Effect::Forked(_) | Effect::ForkAdded { .. } | Effect::ForkDropped { .. } => {
                return Err("nobody asked for a fork".to_owned());
            }
            Effect::RetentionSet { .. } | Effect::Trimmed { .. } => {
                return Err("nobody asked for retention".to_owned());
            }
        };
        let number = self.versions.len();
        self.versions[number - 1].until = committed;
        self.versions.push(Version { from: committed, until: Moment::LAST, entry: entry.position, state: next });
        Ok(())
    }

    fn append(
        &mut self,
        mut state: State,
        committed: Moment,
        at: u64,
        appended: &Appended,
        body: &str,
    ) -> Result<State, String> {
        let book = self.books.entry(state.incarnation).or_default();
        if state.closed {
            return Err(format!("it was appended to after it was closed: {body}"));
        }
        if appended.start != state.tail || body.len() as u64 != appended.body.data.len() {
            return Err(format!("it ended at {}, and {body} was put at {}", state.tail, appended.start));
        }
        if let Some(Producer { id, epoch, seq }) = &appended.producer {
            let known = Arc::make_mut(&mut state.producers).insert(id.clone(), (*epoch, *seq));
            let follows = match known {
                Some((last, at)) if last == *epoch => *seq == at + 1,
                Some((last, _)) => last < *epoch && *seq == 0,
                None => *seq == 0,
            };
            if !follows {
                return Err(format!("{id} came to ({epoch}, {seq}) from {known:?}"));
            }
        }
        if let Some(seq) = &appended.seq {
            if state.last_seq.as_ref().is_some_and(|last| last >= seq) {
                return Err(format!("Stream-Seq {seq} came after {:?}", state.last_seq));
            }
            state.last_seq = Some(Arc::clone(seq));
        }
        state.tail += body.len() as u64;
        state.touched_at = state.touched_at.max(at);
        if appended.close {
            (state.closed, state.closed_by) = (true, appended.producer.clone());
        }
        if !body.is_empty() {
            book.content.push_str(body);
            book.ends.push(u32::try_from(state.tail).unwrap_or(u32::MAX));
            let place = Place { version: self.versions.len(), committed };
            if self.messages.insert(body.to_owned(), place).is_some() {
                return Err(format!("{body} is there twice"));
            }
        }
        Ok(state)
    }

    /// The first version from `floor` on that was the last word at some moment between these and is as wanted.
    pub fn find(&self, floor: usize, (from, to): (Moment, Moment), wanted: impl Fn(&Version) -> bool) -> Option<usize> {
        let first = self.versions.partition_point(|version| version.until < from).max(floor);
        (first..self.versions.len())
            .take_while(|number| self.versions[*number].from < to)
            .find(|number| wanted(&self.versions[*number]))
    }

    /// Whether a reader who read on until then has all that was there some time before, and nothing else. What was given
    /// up long ago may land later.
    pub fn is_copied(&self, copy: &Copy, until_ms: u64) -> Result<(), String> {
        let there = self.versions.iter().rev().find(|version| version.from.ms + READING <= until_ms);
        let tail = there.and_then(|version| version.state.as_ref()).map_or(0, |state| state.tail);
        let content = self.books.get(&copy.incarnation).map_or("", |book| book.content.as_str());
        if content.starts_with(&copy.bytes) && copy.bytes.len() as u64 >= tail {
            return Ok(());
        }
        Err(format!("a reader has {} bytes of {tail}: {}", copy.bytes.len(), copy.bytes))
    }

    /// Whether it is what the whole of an entry made: readers see nothing in between.
    pub fn is_whole(&self, number: usize) -> bool {
        self.versions.get(number + 1).is_none_or(|next| next.entry != self.versions[number].entry)
    }
}

fn own(state: Option<State>, incarnation: u64) -> Result<State, String> {
    let state = state.filter(|state| state.incarnation == incarnation);
    state.ok_or_else(|| format!("something was done to incarnation {incarnation}, which was not there"))
}
