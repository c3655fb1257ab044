//! What a command comes to: judged on the stream that has the path now.

use std::sync::Arc;

use super::super::fork;
use super::super::producer::{self, Accepted, Verdict};
use super::super::{ContentType, Offset, Rejection, Retention};
use super::{
    AddFork, Append, Appended, Branch, Closed, Command, Create, Decision, Effect, Forked, MAX_FORKS, MAX_PRODUCERS,
    Outcome, Stream, Trim, answering, fold,
};
use crate::clock::Millis;

/// Judges `command` on `current`, the stream that has the path now (if any), at `now`.
pub fn decide(current: Option<&Stream>, command: &Command, now: Millis) -> Result<Decision, Rejection> {
    let alive = current.filter(|stream| stream.is_alive(now));
    match command {
        Command::Create(_) if current.is_some_and(|stream| stream.is_kept_for_forks(now)) => {
            Err(Rejection::KEPT_FOR_FORKS)
        }
        Command::Create(create) => decide_create(alive, create, now),
        Command::FindFork(request) => match answering(current, now) {
            Ok(stream) => {
                request.is_met_by(stream)?;
                Ok(found_with(stream, request.retention))
            }
            Err(Rejection::Gone) => Err(Rejection::KEPT_FOR_FORKS),
            Err(rejection) => Err(rejection),
        },
        Command::Append(append) => decide_append(answering(current, now)?, append),
        Command::Delete => {
            let incarnation = answering(current, now)?.incarnation;
            Ok(Decision { effects: vec![Effect::Deleted { incarnation }], outcome: None })
        }
        Command::Trim(Trim { incarnation, horizon, retention }) => {
            let trimmed = alive.filter(|stream| {
                let is_meant = stream.incarnation == *incarnation && stream.retention == *retention;
                is_meant && stream.horizon < *horizon && *horizon < stream.tail
            });
            let effects = trimmed.map(|_| Effect::Trimmed { incarnation: *incarnation, horizon: *horizon });
            Ok(Decision { effects: effects.into_iter().collect(), outcome: None })
        }
        Command::AddFork(add) => decide_add_fork(answering(current, now), add),
        Command::DropFork { source, fork } => {
            let held = current.filter(|stream| stream.incarnation == *source && stream.forks.contains_key(fork));
            let effects = held.map(|_| Effect::ForkDropped { incarnation: *source, fork: fork.clone() });
            Ok(Decision { effects: effects.into_iter().collect(), outcome: None })
        }
        Command::Touch => {
            let due = alive.filter(|stream| stream.lifetime.needs_renewal(stream.touched_at, now));
            let effects = due.map(|stream| Effect::Touched { incarnation: stream.incarnation });
            Ok(Decision { effects: effects.into_iter().collect(), outcome: None })
        }
        Command::Expire => {
            let dead = current.filter(|stream| !stream.is_alive(now) && !stream.is_gone);
            let effects = dead.map(|stream| Effect::Deleted { incarnation: stream.incarnation });
            Ok(Decision { effects: effects.into_iter().collect(), outcome: None })
        }
    }
}

fn decide_create(alive: Option<&Stream>, create: &Create, now: Millis) -> Result<Decision, Rejection> {
    if let Some(stream) = alive {
        match &create.fork {
            Some(branch) => branch.request.is_met_by(stream)?,
            None => Rejection::of_differences([
                ("content type", stream.content_type != create.content_type),
                ("lifetime", stream.lifetime != create.lifetime),
                ("closure status", stream.closed.is_some() != create.closed),
                ("source", stream.origin.is_some()),
            ])?,
        }
        return Ok(found_with(stream, create.retention));
    }
    let Create { incarnation, content_type, lifetime, .. } = create.clone();
    let (mut effects, mut start) = (Vec::new(), 0);
    match create.fork.as_deref() {
        None => effects.push(Effect::Created { incarnation, content_type, lifetime }),
        Some(Branch { origin, inherited, horizon, .. }) => {
            let (origin, inherited, horizon) = (Arc::clone(origin), Arc::clone(inherited), *horizon);
            let forked = Forked { incarnation, content_type, lifetime, origin, horizon, inherited };
            start = forked.tail();
            effects.push(Effect::Forked(forked));
        }
    }
    let retention = create.retention.filter(|retention| *retention != Retention::default());
    effects.extend(retention.map(|retention| Effect::RetentionSet { incarnation, retention }));
    let rest = create.fork.as_ref().map(|branch| (&branch.rest, false));
    for (body, close) in rest.into_iter().chain([(&create.body, create.closed)]) {
        if close || !body.data.is_empty() {
            let body = body.clone();
            let len = body.data.len();
            effects.push(Effect::Appended(Appended { incarnation, start, body, seq: None, producer: None, close }));
            start += len;
        }
    }
    let stream = effects.iter().fold(None, |stream, effect| fold(stream, effect, now));
    let outcome = stream.as_ref().map(|stream| outcome(stream, true, None));
    Ok(Decision { effects, outcome })
}

/// The stream is there as it was asked for, but for its retention, which may be changed at any time.
fn found_with(stream: &Stream, retention: Option<Retention>) -> Decision {
    let incarnation = stream.incarnation;
    let changed = retention.filter(|retention| *retention != stream.retention);
    let effects = changed.map(|retention| Effect::RetentionSet { incarnation, retention });
    Decision { effects: effects.into_iter().collect(), outcome: Some(outcome(stream, false, None)) }
}

fn decide_add_fork(source: Result<&Stream, Rejection>, add: &AddFork) -> Result<Decision, Rejection> {
    let source = source.map_err(Rejection::of_source)?;
    must_be_of_type(source, add.content_type.as_ref())?;
    if source.forks.len() >= MAX_FORKS && !source.forks.contains_key(&add.fork) {
        return Err(Rejection::TooMany { what: "the stream has as many forks as it may have" });
    }
    let beyond = match add.beyond {
        Some((_, of)) if of != source.incarnation => return Err(Rejection::Replaced { current: source.incarnation }),
        beyond => beyond.map_or(0, |(beyond, _)| beyond),
    };
    let position = fork::position(source, add.offset)?.saturating_add(beyond);
    if position > source.tail {
        return Err(Rejection::BeyondTail { tail: source.tail_offset() });
    }
    let mut after = outcome(source, true, None);
    after.tail = source.offset_at(position);
    let AddFork { fork, since, .. } = add.clone();
    let added = Effect::ForkAdded { incarnation: source.incarnation, fork, position, since };
    Ok(Decision { effects: vec![added], outcome: Some(after) })
}

/// The order of the checks is the protocol's error precedence: a zombie producer first (it must learn of its epoch
/// even when the stream is closed), then closed, content type, producer sequence, `Stream-Seq`.
fn decide_append(stream: &Stream, append: &Append) -> Result<Decision, Rejection> {
    let known = append.producer.as_ref().and_then(|p| stream.producers.get(&p.id).copied());
    if let (Some(producer), Some(known)) = (&append.producer, known)
        && producer.epoch < known.epoch
    {
        return Err(Rejection::StaleEpoch { current: known.epoch });
    }
    if let Some(closed) = &stream.closed {
        return decide_on_closed(stream, closed, append, known);
    }
    must_be_of_type(stream, append.content_type.as_ref().filter(|_| !append.body.data.is_empty()))?;
    if let Some(producer) = &append.producer {
        if let Verdict::Duplicate(accepted) = producer::judge(known, producer)? {
            let outcome = Some(outcome(stream, false, Some(accepted)));
            return Ok(Decision { effects: Vec::new(), outcome });
        }
        if known.is_none() && stream.producers.len() >= MAX_PRODUCERS {
            return Err(Rejection::TooMany { what: "the stream has as many producers as this server remembers" });
        }
    }
    if let (Some(seq), Some(last)) = (&append.seq, &stream.last_seq)
        && seq.as_bytes() <= last.as_bytes()
    {
        return Err(Rejection::SeqRegression { last: last.to_string() });
    }
    Ok(accept(stream, append))
}

fn must_be_of_type(stream: &Stream, content_type: Option<&ContentType>) -> Result<(), Rejection> {
    let Some(received) = content_type.filter(|received| **received != stream.content_type) else { return Ok(()) };
    let (expected, received) = (stream.content_type.as_str().to_owned(), received.as_str().to_owned());
    Err(Rejection::ContentTypeMismatch { expected, received })
}

/// A closed stream takes nothing more; a retry of what closed it, and a close without a body, succeed again.
fn decide_on_closed(
    stream: &Stream,
    closed: &Closed,
    append: &Append,
    known: Option<Accepted>,
) -> Result<Decision, Rejection> {
    let repeats = match &append.producer {
        Some(producer) => closed.by.as_ref() == Some(producer),
        None => append.close && append.body.data.is_empty(),
    };
    if repeats {
        let accepted = append.producer.as_ref().and(known);
        return Ok(Decision { effects: Vec::new(), outcome: Some(outcome(stream, false, accepted)) });
    }
    Err(Rejection::Closed { tail: stream.tail_offset() })
}

fn accept(stream: &Stream, append: &Append) -> Decision {
    let mut after = outcome(stream, true, append.producer.as_ref().map(|p| Accepted { epoch: p.epoch, seq: p.seq }));
    if !append.body.data.is_empty() {
        after.tail = Offset { position: stream.tail + append.body.data.len(), incarnation: stream.incarnation };
    }
    after.closed = append.close;
    let appended = Appended {
        incarnation: stream.incarnation,
        start: stream.tail,
        body: append.body.clone(),
        seq: append.seq.clone(),
        producer: append.producer.clone(),
        close: append.close,
    };
    Decision { effects: vec![Effect::Appended(appended)], outcome: Some(after) }
}

fn outcome(stream: &Stream, fresh: bool, producer: Option<Accepted>) -> Outcome {
    Outcome {
        tail: stream.tail_offset(),
        closed: stream.closed.is_some(),
        content_type: stream.content_type.clone(),
        lifetime: stream.lifetime,
        horizon: stream.horizon,
        fresh,
        producer,
    }
}
