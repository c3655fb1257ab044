//! Judges what clients heard by the one history of the bucket.
//!
//! - A write takes effect between its call and its answer, in the order of the log: an append that was acknowledged before
//!   another was sent comes before it. What was said to have done nothing is not there. Rejections, and acknowledgements
//!   of repetitions, are true of a state that there was between call and answer. That, for all calls of a stream at once,
//!   is linearizability: the log is the order, and [`Story`] has checked that it is a history the protocol allows.
//! - A read tells of a state that is at most the sync interval old, or older if its replica had trouble with the bucket;
//!   of no state that is older than what this replica has told or acknowledged before; and of the bytes of that state.
//! - That there is nothing to read is said only if that is true between call and answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use headwater::protocol::stream::Outcome;
use headwater::protocol::{ReadFrom, Rejection, StreamName, page};

use crate::history::{Answer, Call, Request, View};
use crate::ledger::Ledger;
use crate::machine::Life;
use crate::story::{State, Story, Version};
use crate::timeline::{Moment, START};
use crate::world::World;

/// How far a turn of the machines may put things off, and whole seconds of clocks, in milliseconds.
const SLACK: u64 = 100;
const CLOCK_SLACK: u64 = 3_000;
/// A replica that had trouble finds out that it is over within so long.
const AFTER_TROUBLE: u64 = 4_000;

pub struct Judge<'a> {
    pub world: &'a World,
    pub ledger: &'a Ledger,
}

/// The version of which an answer tells, if it tells of one; or what is wrong with it.
type Verdict = Result<Option<usize>, String>;

impl Judge<'_> {
    /// All that is wrong with the answers.
    pub fn complaints(&self, history: &[Call]) -> Vec<String> {
        let mut by_reader: BTreeMap<(Life, &StreamName), Vec<&Call>> = BTreeMap::new();
        for call in history {
            by_reader.entry((call.life, &call.stream)).or_default().push(call);
        }
        let none = Story::default();
        let mut complaints = Vec::new();
        for ((_, stream), mut calls) in by_reader {
            let story = self.ledger.stories.get(stream).unwrap_or(&none);
            calls.sort_by_key(|call| call.invoked);
            let mut told: BinaryHeap<Reverse<(Moment, usize)>> = BinaryHeap::new();
            let mut floor = 0;
            for call in calls {
                while let Some(Reverse((_, version))) = told.peek().filter(|earlier| earlier.0.0 < call.invoked) {
                    floor = floor.max(*version);
                    told.pop();
                }
                match self.judge(story, call, floor) {
                    Ok(Some(version)) => told.push(Reverse((call.replied, version))),
                    Ok(None) => {}
                    Err(what) => complaints.push(format!("{what}: {call:?}")),
                }
            }
        }
        complaints
    }

    fn judge(&self, story: &Story, call: &Call, floor: usize) -> Verdict {
        match (&call.request, &call.answer) {
            (_, Answer::Damaged(what)) => Err(format!("damaged: {what}")),
            (_, Answer::Open | Answer::NotDone) => Ok(None),
            (Request::Stat, Answer::Stat(view)) => self.seen(story, call, floor, *view),
            (Request::Read { from }, Answer::Page { view, start, end, bytes }) => {
                page_of(story, *from, *view, (*start, *end), bytes)?;
                self.seen(story, call, floor, *view)
            }
            (Request::Append { .. } | Request::Create { .. }, Answer::Done(outcome)) => {
                done(story, call, floor, outcome)
            }
            (Request::Delete, Answer::Deleted) => {
                let within = |version: &Version| version.state.is_none() && version.from > call.invoked;
                strict(story, call, floor, "deleted, but it was not", within)
            }
            (request, Answer::Rejected(rejection)) => {
                // The log's time may be as far ahead as the most advanced clock.
                let latest = START + call.replied.ms + self.world.plan.skew + CLOCK_SLACK;
                let is_true = |version: &Version| is_true(request, rejection, version.state.as_ref(), latest);
                strict(story, call, floor, "this was never true while it was asked", is_true)
            }
            _ => Err("no such answer".to_owned()),
        }
    }

    /// A reader was told of a state.
    fn seen(&self, story: &Story, call: &Call, floor: usize, view: View) -> Verdict {
        let bound = self.world.plan.settings.sync_interval.as_millis() as u64 + SLACK;
        let troubles = self.world.stations[call.life.machine].troubles(call.life.number);
        let is_late = troubles.any(call.invoked.ms.saturating_sub(bound + AFTER_TROUBLE), call.replied.ms);
        let oldest = if is_late { 0 } else { call.invoked.ms.saturating_sub(bound) };
        let told = |version: &Version| version.state.as_ref().is_some_and(|state| state.view() == view);
        let mut from = floor;
        while let Some(found) = story.find(from, (Moment::FIRST, call.replied), told) {
            if !story.is_whole(found) || story.versions[found].until.ms < oldest {
                from = found + 1;
                continue;
            }
            return Ok(Some(found));
        }
        let ever = story.find(0, (Moment::FIRST, Moment::LAST), told);
        let known = ever
            .map(|number| (number, story.is_whole(number), story.versions[number].from, story.versions[number].until));
        Err(format!("no such state from version {floor} on, since {oldest} ms; it was {known:?}"))
    }
}

fn strict(story: &Story, call: &Call, floor: usize, what: &str, wanted: impl Fn(&Version) -> bool) -> Verdict {
    match story.find(floor, (call.invoked, call.replied), wanted) {
        Some(number) => Ok(Some(number)),
        None => {
            let states = story.find(0, (call.invoked, call.replied), |_| true).map(|first| &story.versions[first..]);
            let states: Vec<_> = states.unwrap_or_default().iter().take(3).collect();
            Err(format!("{what} (floor {floor}, at first {states:?})"))
        }
    }
}

fn done(story: &Story, call: &Call, floor: usize, outcome: &Outcome) -> Verdict {
    let told =
        View { incarnation: outcome.tail.incarnation.get(), tail: outcome.tail.position, closed: outcome.closed };
    let as_told = |version: &Version| version.state.as_ref().is_some_and(|state| state.view() == told);
    let (message, producer) = match &call.request {
        Request::Append { message, producer, .. } => (message, producer.as_ref()),
        Request::Create { incarnation, message, .. } if outcome.fresh => {
            let created = story.created.get(&incarnation.get()).ok_or("acknowledged, and was never made")?;
            let from = story.versions[*created].from;
            if from < call.invoked || call.replied < from {
                return Err("it was made at another time".to_owned());
            }
            (message, None)
        }
        Request::Create { .. } => return strict(story, call, floor, "it was not there like that", as_told),
        _ => return Err("no such answer".to_owned()),
    };
    if let Some(accepted) = outcome.producer
        && producer.is_none_or(|by| {
            by.epoch != accepted.epoch || by.seq > accepted.seq || outcome.fresh && by.seq != accepted.seq
        })
    {
        return Err("another producer's numbers".to_owned());
    }
    if !outcome.fresh || message.is_empty() {
        let repeated = |version: &Version| as_told(version) && stands_for(version.state.as_ref(), producer, outcome);
        return strict(story, call, floor, "it was not there like that", repeated);
    }
    let place = story.messages.get(message).ok_or("acknowledged, and was never stored")?;
    if place.committed < call.invoked || call.replied < place.committed {
        return Err(format!("it took effect at another time: {:?}", place.committed));
    }
    let version = &story.versions[place.version];
    if !as_told(version) || place.version < floor {
        return Err(format!("it was another state after it, or one before {floor}: {version:?}"));
    }
    Ok(Some(place.version))
}

/// The state has what the repetition of a producer's request is said to have done.
fn stands_for(
    state: Option<&State>,
    producer: Option<&headwater::protocol::producer::Producer>,
    outcome: &Outcome,
) -> bool {
    let (Some(state), Some(producer)) = (state, producer) else { return outcome.producer.is_none() };
    let accepted = outcome.producer.map(|accepted| (accepted.epoch, accepted.seq));
    accepted.is_some() && state.producers.get(&producer.id).copied() == accepted
}

/// Whether a rejection is true of a state. `latest`: no clock has shown more.
fn is_true(request: &Request, rejection: &Rejection, state: Option<&State>, latest: u64) -> bool {
    let Some(state) = state.filter(|state| *rejection != Rejection::NotFound || !state.is_over(latest)) else {
        return *rejection == Rejection::NotFound;
    };
    match (request, rejection) {
        (Request::Create { closed, lifetime, .. }, Rejection::Exists { .. }) => {
            state.closed != *closed || state.lifetime != *lifetime
        }
        (Request::Append { producer, seq, .. }, rejection) => {
            let known = producer.as_ref().and_then(|by| state.producers.get(&by.id).copied());
            match (rejection, producer) {
                (Rejection::Closed { tail }, by) => {
                    state.closed && *tail == state_tail(state) && (by.is_none() || *by != state.closed_by)
                }
                (Rejection::StaleEpoch { current }, Some(by)) => {
                    known.is_some_and(|(epoch, _)| epoch == *current && by.epoch < epoch)
                }
                (Rejection::EpochStartsAtZero, Some(by)) => {
                    known.is_some_and(|(epoch, _)| epoch < by.epoch) && by.seq > 0
                }
                (Rejection::ProducerGap { expected, received }, Some(by)) => {
                    let next = known.map_or(0, |(_, seq)| seq + 1);
                    known.is_none_or(|(epoch, _)| epoch == by.epoch)
                        && *expected == next
                        && *received == by.seq
                        && by.seq > next
                }
                (Rejection::SeqRegression { last }, _) => {
                    state.last_seq.as_deref() == Some(last) && seq.as_deref().is_some_and(|seq| seq <= last.as_str())
                }
                _ => false,
            }
        }
        (Request::Read { from: ReadFrom::At(offset) }, Rejection::Replaced { current }) => {
            state.incarnation == current.get() && offset.incarnation != *current
        }
        (Request::Read { from: ReadFrom::At(offset) }, Rejection::BeyondTail { tail }) => {
            *tail == state_tail(state) && offset.position > state.tail
        }
        _ => false,
    }
}

fn state_tail(state: &State) -> headwater::protocol::Offset {
    let incarnation = headwater::protocol::Incarnation::new(state.incarnation);
    let incarnation = incarnation.unwrap_or(headwater::protocol::Incarnation::ANY);
    headwater::protocol::Offset { position: state.tail, incarnation }
}

/// A page holds what was written there, starts where it was asked for, and ends where pages end or at the tail.
fn page_of(story: &Story, from: ReadFrom, view: View, (start, end): (u64, u64), bytes: &str) -> Result<(), String> {
    let book = story.books.get(&view.incarnation).ok_or("no such incarnation")?;
    if book.content.get(start as usize..end as usize) != Some(bytes) {
        return Err("these bytes are not there".to_owned());
    }
    let asked = match from {
        ReadFrom::Start => Some(0),
        ReadFrom::Now => None,
        ReadFrom::At(offset) => Some(offset.position),
    };
    if asked.is_some_and(|asked| asked != start) {
        return Err("it starts elsewhere".to_owned());
    }
    let page_end = page::ends_in(0, &book.ends, 64).into_iter().find(|page_end| *page_end > start);
    let right_end = page_end.filter(|page_end| *page_end <= view.tail).unwrap_or(view.tail);
    if end == right_end { Ok(()) } else { Err(format!("it should end at {right_end}")) }
}
