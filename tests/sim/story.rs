//! What happened to a stream, one record of the log after the other, and whether it may happen. The rules are the
//! protocol's, told here a second time, so that the engine is not judged by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater::layout::entry::Header;
use headwater::protocol::fork::{ForkId, Origin};
use headwater::protocol::producer::Producer;
use headwater::protocol::stream::{Appended, Effect, Forked};
use headwater::protocol::{Incarnation, Lifetime, Offset, Retention, page};

use crate::history::View;
use crate::plan::PAGE;
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
    /// Of a fork: what it was made of, and where it branches off.
    pub origin: Option<Arc<Origin>>,
    pub forks: Arc<BTreeMap<ForkId, Reference>>,
    /// It was deleted, and is kept for its forks.
    pub is_gone: bool,
    pub retention: Retention,
    pub horizon: u64,
}

/// What a stream was like when the place for a fork of it was reserved.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    pub position: u64,
    pub tail: u64,
    pub horizon: u64,
}

impl State {
    fn new(incarnation: Incarnation, lifetime: Lifetime, at: u64) -> State {
        State {
            incarnation: incarnation.get(),
            lifetime,
            touched_at: at,
            tail: 0,
            closed: false,
            closed_by: None,
            last_seq: None,
            producers: Arc::default(),
            origin: None,
            forks: Arc::default(),
            is_gone: false,
            retention: Retention::default(),
            horizon: 0,
        }
    }

    pub fn view(&self) -> View {
        View { incarnation: self.incarnation, tail: self.tail, closed: self.closed, horizon: self.horizon }
    }

    /// Whose offset a position has: what was inherited keeps that of the stream that it was written to.
    pub fn offset_at(&self, position: u64) -> Offset {
        let inherited = self.origin.iter().flat_map(|origin| &origin.lineage);
        let own = Incarnation::new(self.incarnation).unwrap_or(Incarnation::ANY);
        let of = inherited.copied().find(|(end, _)| position <= *end).map_or(own, |(_, incarnation)| incarnation);
        Offset { position, incarnation: of }
    }

    /// Where it branches off.
    fn branch(&self) -> u64 {
        self.origin.as_ref().map_or(0, |origin| origin.position())
    }

    /// Whether something may be done to it that needs it to be there.
    fn takes(&self, at: u64) -> Result<(), String> {
        if self.is_gone || self.is_over(at) { Err("it was changed after its time".to_owned()) } else { Ok(()) }
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
    /// When each came, by the log's time.
    written: Vec<u64>,
}

impl Book {
    /// What a fork has of it that branches off there.
    fn up_to(&self, position: u64) -> Book {
        let count = self.ends.partition_point(|end| u64::from(*end) <= position);
        let (mut ends, mut written) = (self.ends[..count].to_vec(), self.written[..count].to_vec());
        if ends.last().map_or(0, |end| u64::from(*end)) < position {
            // Within a message.
            ends.push(position as u32);
            written.push(self.written[count]);
        }
        Book { content: self.content[..position as usize].to_owned(), ends, written }
    }
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
    /// When retention was set, and to what.
    pub retained: Vec<(Moment, Retention)>,
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
            retained: Vec::new(),
        }
    }
}

impl Story {
    pub fn last(&self) -> &Version {
        // There is always the first one.
        &self.versions[self.versions.len() - 1]
    }

    /// Takes in what an entry says that was committed at that moment. `body` are the bytes of an append, `inherited` those
    /// of a fork. The error is what must not be.
    pub fn tell(
        &mut self,
        committed: Moment,
        entry: &Header,
        effect: &Effect,
        (body, inherited): (&str, Book),
    ) -> Result<(), String> {
        let at = entry.at;
        let state = self.last().state.clone();
        let next = match effect {
            Effect::Created { incarnation, lifetime, .. } => {
                self.begin(state, at, *incarnation, Book::default())?;
                Some(State::new(*incarnation, *lifetime, at))
            }
            Effect::Forked(forked) => {
                self.begin(state, at, forked.incarnation, inherited)?;
                let (tail, horizon, origin) = (forked.tail(), forked.horizon, Some(Arc::clone(&forked.origin)));
                Some(State { tail, horizon, origin, ..State::new(forked.incarnation, forked.lifetime, at) })
            }
            Effect::Appended(appended) => {
                let state = own(state, appended.incarnation)?;
                state.takes(at)?;
                Some(self.append(state, committed, at, appended, body)?)
            }
            Effect::Deleted { incarnation } => {
                let state = own(state, *incarnation)?;
                if state.is_gone {
                    return Err("it was deleted twice".to_owned());
                }
                self.deleted.push(committed);
                (!state.forks.is_empty()).then_some(State { is_gone: true, ..state })
            }
            Effect::Touched { incarnation } => {
                let state = own(state, *incarnation)?;
                state.takes(at)?;
                Some(State { touched_at: state.touched_at.max(at), ..state })
            }
            Effect::ForkAdded { incarnation, fork, position, .. } => {
                let mut state = own(state, *incarnation)?;
                state.takes(at)?;
                if !(state.horizon..=state.tail).contains(position) {
                    return Err(format!("there is to be a fork at {position} of {state:?}"));
                }
                let reference = Reference { position: *position, tail: state.tail, horizon: state.horizon };
                Arc::make_mut(&mut state.forks).insert(fork.clone(), reference);
                Some(state)
            }
            Effect::ForkDropped { incarnation, fork } => {
                let mut state = own(state, *incarnation)?;
                if Arc::make_mut(&mut state.forks).remove(fork).is_none() {
                    return Err(format!("it has no fork {fork:?}"));
                }
                (!state.is_gone || !state.forks.is_empty()).then_some(state)
            }
            Effect::RetentionSet { incarnation, retention } => {
                let state = own(state, *incarnation)?;
                state.takes(at)?;
                self.retained.push((committed, *retention));
                Some(State { retention: *retention, ..state })
            }
            Effect::Trimmed { incarnation, horizon } => {
                let state = own(state, *incarnation)?;
                state.takes(at)?;
                self.may_start_at(&state, *horizon, at)?;
                Some(State { horizon: *horizon, ..state })
            }
        };
        let number = self.versions.len();
        self.versions[number - 1].until = committed;
        self.versions.push(Version { from: committed, until: Moment::LAST, entry: entry.position, state: next });
        Ok(())
    }

    /// A new incarnation.
    fn begin(&mut self, before: Option<State>, at: u64, incarnation: Incarnation, book: Book) -> Result<(), String> {
        if before.is_some_and(|state| !state.is_over(at) || !state.forks.is_empty()) {
            return Err("it was made while it was there".to_owned());
        }
        if self.created.insert(incarnation.get(), self.versions.len()).is_some() {
            return Err("an incarnation came again".to_owned());
        }
        self.books.insert(incarnation.get(), book);
        Ok(())
    }

    /// What a fork has of this stream, if it may be made: the place for it was reserved, and is there still.
    pub fn forked(&self, id: &ForkId, forked: &Forked) -> Result<Book, String> {
        let Origin { source, requested, lineage } = &*forked.origin;
        let state = own(self.last().state.clone(), source.incarnation)?;
        let reference =
            state.forks.get(id).ok_or_else(|| format!("{id:?} was made, and {source:?} did not know of it"))?;
        let position = forked.origin.position();
        let wanted = requested.offset.map_or(reference.tail, |offset| offset.position + requested.sub_offset);
        if (position, position, forked.horizon) != (wanted, reference.position, reference.horizon) {
            return Err(format!("a fork was made at {position}: {forked:?} of {reference:?}"));
        }
        let own_part = (position > state.branch()).then_some((position, source.incarnation));
        let inherited = state.origin.iter().flat_map(|origin| &origin.lineage);
        let inherited = inherited.scan(0, |at, (end, incarnation)| {
            let of = (*at < position).then_some(((*end).min(position), *incarnation));
            *at = *end;
            of
        });
        // Of nothing at all there is one part too.
        let expected: Vec<_> = inherited.chain(own_part).collect();
        if position > 0 && *lineage != expected {
            return Err(format!("a fork has the offsets {lineage:?}, not {expected:?}"));
        }
        let book = self.books.get(&source.incarnation.get());
        Ok(book.map(|book| book.up_to(position)).unwrap_or_default())
    }

    /// Whether what is before a position may be let go of: it is where a page ends, and the stream need not keep it.
    fn may_start_at(&self, state: &State, horizon: u64, at: u64) -> Result<(), String> {
        let book = self.books.get(&state.incarnation).ok_or("no such incarnation")?;
        let is_page_end = page::ends_in(0, &book.ends, PAGE).contains(&horizon);
        let by_bytes = state.retention.bytes.is_some_and(|bytes| state.tail - horizon.min(state.tail) >= bytes);
        let before = book.ends.partition_point(|end| u64::from(*end) <= horizon);
        let is_old = |seconds| book.written[..before].iter().all(|written| written + seconds * 1000 <= at);
        let by_age = state.retention.age_seconds.is_some_and(is_old);
        if is_page_end && state.horizon < horizon && horizon < state.tail && (by_bytes || by_age) {
            return Ok(());
        }
        Err(format!("it lets go of what is before {horizon}: {state:?}"))
    }

    fn append(
        &mut self,
        mut state: State,
        committed: Moment,
        at: u64,
        appended: &Appended,
        body: &str,
    ) -> Result<State, String> {
        let branch = state.branch();
        let book = self.books.entry(state.incarnation).or_default();
        if state.closed {
            return Err(format!("it was appended to after it was closed: {body}"));
        }
        if appended.start != state.tail || body.len() as u64 != appended.body.data.len() {
            return Err(format!("it ended at {}, and {body} was put at {}", state.tail, appended.start));
        }
        if state.tail < branch {
            // What a fork inherits that is in no chunk.
            let (from, to) = (state.tail as usize, branch as usize);
            let is_inherited = book.content[from..to] == *body && appended.producer.is_none() && !appended.close;
            if !is_inherited {
                return Err(format!("{body} was put where {} is inherited", &book.content[from..to]));
            }
            // By the time of this log, which may not be that of the source's.
            let first = book.ends.partition_point(|end| (*end as usize) <= from);
            book.written[first..].fill(at);
            return Ok(State { tail: branch, ..state });
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
            book.written.push(at);
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

fn own(state: Option<State>, incarnation: Incarnation) -> Result<State, String> {
    let state = state.filter(|state| state.incarnation == incarnation.get());
    state.ok_or_else(|| format!("something was done to incarnation {incarnation}, which was not there"))
}
