//! Judges what clients heard by the one history of the bucket.
//!
//! - A write takes effect between its call and its answer, in the order of the log: an append that was acknowledged before
//!   another was sent comes before it. What was said to have done nothing is not there. Rejections, and acknowledgements
//!   of repetitions, are true of a state that there was between call and answer. That, for all calls of a stream at once,
//!   is linearizability: the log is the order, and [`Story`] has checked that it is a history the protocol allows.
//! - A read tells of a state that is at most the sync interval old (twice that where replicas follow a shard's home, because
//!   here others write past it), or older if its replica had trouble with the bucket;
//!   of no state that is older than what this replica has told or acknowledged before; and of the bytes of that state.
//! - That there is nothing to read is said only if that is true between call and answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use headwater::protocol::fork::{ForkRequest, Origin};
use headwater::protocol::stream::Outcome;
use headwater::protocol::{Offset, ReadFrom, Rejection, StreamName, page};

use crate::history::{Answer, Call, Request, View};
use crate::ledger::Ledger;
use crate::machine::Life;
use crate::plan::PAGE;
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
            (Request::Read { from }, Answer::Page { view, start, end, next, bytes }) => {
                page_of(story, *from, *view, (*start, *end), bytes)?;
                let seen = self.seen(story, call, floor, *view)?;
                let state = seen.and_then(|version| story.versions[version].state.as_ref());
                let right = state.map(|state| state.offset_at(*end));
                if right == Some(*next) { Ok(seen) } else { Err(format!("one is to read on at {right:?}")) }
            }
            (Request::Append { .. } | Request::Create { .. } | Request::Fork { .. }, Answer::Done(outcome)) => {
                done(story, call, floor, outcome)
            }
            (Request::Delete, Answer::Deleted) => {
                let is_deleted = |state: &State| state.is_gone;
                let within =
                    |version: &Version| version.state.as_ref().is_none_or(is_deleted) && version.from > call.invoked;
                strict(story, call, floor, "deleted, but it was not", within)
            }
            (request, Answer::Rejected(rejection)) => {
                // The log's time may be as far ahead as the most advanced clock.
                let latest = START + call.replied.ms + self.world.plan.skew + CLOCK_SLACK;
                let what = "this was never true while it was asked";
                let is_true = |version: &Version| is_true(request, rejection, version.state.as_ref(), latest);
                let of_source = |asked: &ForkRequest| self.of_source(call, asked, rejection, latest);
                match (strict(story, call, floor, what, is_true), request) {
                    (Err(_), Request::Fork { request, .. }) if of_source(request) => Ok(None),
                    (verdict, _) => verdict,
                }
            }
            _ => Err("no such answer".to_owned()),
        }
    }

    /// Whether a fork was refused for what its source was like meanwhile.
    fn of_source(&self, call: &Call, asked: &ForkRequest, rejection: &Rejection, latest: u64) -> bool {
        let none = Story::default();
        let story = self.ledger.stories.get(&asked.source).unwrap_or(&none);
        let is_true = |version: &Version| is_true_of_source(asked, rejection, version.state.as_ref(), latest);
        story.find(0, (call.invoked, call.replied), is_true).is_some()
    }

    /// A reader was told of a state.
    fn seen(&self, story: &Story, call: &Call, floor: usize, view: View) -> Verdict {
        // What the home tells may itself be as old as that.
        let hops = if self.world.has_neighbours { 2 } else { 1 };
        let bound = hops * self.world.plan.settings.sync_interval.as_millis() as u64 + SLACK;
        let troubles = self.world.stations[call.life.machine].troubles(call.life.number);
        let is_late = troubles.any(call.invoked.ms.saturating_sub(bound + AFTER_TROUBLE), call.replied.ms);
        let oldest = if is_late { 0 } else { call.invoked.ms.saturating_sub(bound) };
        let is_told = |state: &State| !state.is_gone && state.view() == view;
        let told = |version: &Version| version.state.as_ref().is_some_and(is_told);
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
    let told = (outcome.tail, outcome.closed, outcome.horizon, outcome.lifetime);
    let is_told = |state: &State| {
        !state.is_gone && (state.offset_at(state.tail), state.closed, state.horizon, state.lifetime) == told
    };
    let as_told = |version: &Version| version.state.as_ref().is_some_and(is_told);
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
        Request::Fork { request, message } => {
            let is_it = |state: &State| is_fork(state, request);
            let as_told = |version: &Version| as_told(version) && version.state.as_ref().is_some_and(is_it);
            if !outcome.fresh || message.is_empty() {
                let is_new = |version: &Version| {
                    version.state.as_ref().is_some_and(|state| {
                        let made = story.created.get(&state.incarnation).map(|made| story.versions[*made].from);
                        made.is_some_and(|at| call.invoked < at && at < call.replied)
                    })
                };
                let is_right = |version: &Version| as_told(version) && (!outcome.fresh || is_new(version));
                return strict(story, call, floor, "no such fork was there", is_right);
            }
            (message, None)
        }
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
    let is_kept = |state: &State| state.is_gone || state.is_over(latest) && !state.forks.is_empty();
    match (request, rejection) {
        (_, Rejection::NotFound) => return state.is_none_or(|state| state.is_over(latest) && state.forks.is_empty()),
        (Request::Create { .. } | Request::Fork { .. }, rejection) if *rejection == Rejection::KEPT_FOR_FORKS => {
            return state.is_some_and(is_kept);
        }
        (_, Rejection::Gone) => return state.is_some_and(is_kept),
        _ => {}
    }
    let Some(state) = state.filter(|state| !state.is_gone) else { return false };
    match (request, rejection) {
        (Request::Create { closed, lifetime, .. }, Rejection::Exists { .. }) => {
            state.closed != *closed || state.lifetime != *lifetime || state.origin.is_some()
        }
        (Request::Fork { request, .. }, Rejection::Exists { .. }) => {
            !is_fork(state, request)
                || state.closed != request.closed
                || request.lifetime.is_some_and(|lifetime| lifetime != state.lifetime)
        }
        (Request::Append { producer, seq, .. }, rejection) => {
            let known = producer.as_ref().and_then(|by| state.producers.get(&by.id).copied());
            match (rejection, producer) {
                (Rejection::Closed { tail }, by) => {
                    state.closed && *tail == state.offset_at(state.tail) && (by.is_none() || *by != state.closed_by)
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
            state.incarnation == current.get() && !admits(state, *offset)
        }
        (Request::Read { from: ReadFrom::At(offset) }, Rejection::Trimmed { earliest }) => {
            offset.position < state.horizon && *earliest == state.offset_at(state.horizon)
        }
        (Request::Read { from: ReadFrom::At(offset) }, Rejection::BeyondTail { tail }) => {
            *tail == state.offset_at(state.tail) && offset.position > state.tail
        }
        _ => false,
    }
}

/// Whether a fork's rejection is true of its source.
fn is_true_of_source(asked: &ForkRequest, rejection: &Rejection, state: Option<&State>, latest: u64) -> bool {
    let is_over = |state: &State| state.is_over(latest);
    match rejection {
        Rejection::NoSource => state.is_none_or(|state| is_over(state) && state.forks.is_empty()),
        Rejection::SourceGone => state.is_some_and(|s| s.is_gone || is_over(s) && !s.forks.is_empty()),
        Rejection::BeyondTail { tail } => {
            let end = asked.requested.offset.map_or(0, |offset| offset.position + asked.requested.sub_offset);
            state.is_some_and(|state| *tail == state.offset_at(state.tail) && end > state.tail)
        }
        Rejection::ForkOffset { .. } => {
            let sub_offset = asked.requested.sub_offset;
            let is_wrong = |state: &State, offset: Offset| offset.position < state.horizon || !admits(state, offset);
            state.zip(asked.requested.offset).is_some_and(|(state, offset)| sub_offset > 0 || is_wrong(state, offset))
        }
        _ => false,
    }
}

/// Whether an offset can be one of the stream.
fn admits(state: &State, offset: Offset) -> bool {
    offset.incarnation.admits(state.offset_at(offset.position).incarnation)
}

fn is_fork(state: &State, asked: &ForkRequest) -> bool {
    let is_it = |origin: &Origin| origin.source.name == asked.source && origin.requested == asked.requested;
    state.origin.as_deref().is_some_and(is_it)
}

/// A page holds what was written there, starts where it was asked for, and ends where pages end or at the tail.
fn page_of(story: &Story, from: ReadFrom, view: View, (start, end): (u64, u64), bytes: &str) -> Result<(), String> {
    let book = story.books.get(&view.incarnation).ok_or("no such incarnation")?;
    if book.content.get(start as usize..end as usize) != Some(bytes) {
        return Err("these bytes are not there".to_owned());
    }
    let asked = match from {
        ReadFrom::Start => Some(view.horizon),
        ReadFrom::Now => None,
        ReadFrom::At(offset) => Some(offset.position),
    };
    if asked.is_some_and(|asked| asked != start) {
        return Err("it starts elsewhere".to_owned());
    }
    let page_end = page::ends_in(0, &book.ends, PAGE).into_iter().find(|page_end| *page_end > start);
    let right_end = page_end.filter(|page_end| *page_end <= view.tail).unwrap_or(view.tail);
    if end == right_end { Ok(()) } else { Err(format!("it should end at {right_end}")) }
}
