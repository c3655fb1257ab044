//! Every change of the log is some client's: one who was told so, or who was not told that it did not happen.

use std::collections::BTreeMap;

use headwater::protocol::StreamName;

use crate::history::{Answer, Call, Request};
use crate::ledger::Ledger;
use crate::story::Story;
use crate::timeline::Moment;

/// Changes that nobody has asked for, and deletions that were acknowledged and did not happen.
pub fn complaints(ledger: &Ledger, history: &[Call]) -> Vec<String> {
    let mut calls: BTreeMap<&StreamName, Vec<&Call>> = BTreeMap::new();
    for call in history {
        calls.entry(&call.stream).or_default().push(call);
    }
    let mut complaints = Vec::new();
    for (stream, story) in &ledger.stories {
        let calls = calls.remove(stream).unwrap_or_default();
        complaints.extend(of_stream(story, &calls).into_iter().map(|what| format!("{stream}: {what}")));
    }
    complaints
}

/// Whether the call may have had an effect at that moment.
fn may_have(call: &Call, at: Moment) -> bool {
    let possible = match &call.answer {
        Answer::Open => true,
        Answer::Done(outcome) => outcome.fresh && at < call.replied,
        Answer::Deleted => at < call.replied,
        _ => false,
    };
    possible && call.invoked < at
}

fn of_stream(story: &Story, calls: &[&Call]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut senders: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if let Request::Append { message, .. } | Request::Create { message, .. } | Request::Fork { message, .. } =
            &call.request
        {
            senders.entry(message).or_default().push(call);
        }
    }
    for (message, place) in &story.messages {
        let all = senders.remove(message.as_str()).unwrap_or_default();
        if !all.iter().any(|call| may_have(call, place.committed)) {
            complaints.push(format!("{message} is there, and nobody has sent it to that end: {all:?}"));
        }
        let fresh = all.iter().filter(|call| matches!(&call.answer, Answer::Done(outcome) if outcome.fresh)).count();
        if fresh > 1 {
            complaints.push(format!("{message} was acknowledged as new {fresh} times: {all:?}"));
        }
    }
    for (incarnation, version) in &story.created {
        let at = story.versions[*version].from;
        let origin = story.versions[*version].state.as_ref().and_then(|state| state.origin.as_ref());
        let made = |call: &&&Call| match &call.request {
            Request::Create { incarnation: of, .. } => of.get() == *incarnation && origin.is_none(),
            Request::Fork { request, .. } => origin
                .is_some_and(|origin| origin.source.name == request.source && origin.requested == request.requested),
            _ => false,
        };
        if !calls.iter().filter(made).any(|call| may_have(call, at)) {
            complaints.push(format!("incarnation {incarnation} was made by nobody"));
        }
    }
    for (at, retention) in &story.retained {
        let set = |call: &&&Call| match &call.request {
            Request::Create { retention: asked, .. } => *asked == Some(*retention),
            Request::Fork { request, .. } => request.retention == Some(*retention),
            _ => false,
        };
        // Of a stream that was there it can be changed: what was asked for was not new.
        let done = |call: &Call| match call.answer {
            Answer::Open => true,
            Answer::Done(_) => *at < call.replied,
            _ => false,
        };
        if !calls.iter().filter(set).any(|call| call.invoked < *at && done(call)) {
            complaints.push(format!("nobody has set {retention:?}"));
        }
    }
    complaints.extend(deletions(story, calls));
    complaints
}

/// Gives each deletion to the call that may have made it and must have done so first.
fn deletions(story: &Story, calls: &[&Call]) -> Vec<String> {
    let mut asked: Vec<&Call> = calls.iter().copied().filter(|call| call.request == Request::Delete).collect();
    asked.sort_by_key(|call| if call.answer == Answer::Open { Moment::LAST } else { call.replied });
    let mut complaints = Vec::new();
    let ends_by_itself =
        story.versions.iter().filter_map(|version| version.state.as_ref()).any(|s| s.lifetime.ends_at(0).is_some());
    for at in &story.deleted {
        match asked.iter().position(|call| may_have(call, *at)) {
            Some(found) => drop(asked.remove(found)),
            None if ends_by_itself => {}
            None => complaints.push(format!("it was deleted by nobody, at {at:?}")),
        }
    }
    let not_done = asked.into_iter().filter(|call| call.answer == Answer::Deleted);
    complaints.extend(not_done.map(|call| format!("it was not deleted by {call:?}")));
    complaints
}
