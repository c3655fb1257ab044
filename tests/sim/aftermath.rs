//! What is left in the bucket when all is over, as a replica sees it that has never been there, and as it lies there.

use std::sync::Arc;

use headwater::clock::{Clock, Ids};
use headwater::engine::{Engine, EngineError};
use headwater::protocol::{ReadFrom, Rejection, StreamName};

use crate::ledger::Ledger;
use crate::story::Story;
use crate::timeline::START;
use crate::world::{World, runtime};

/// Reads everything with a fresh replica, and compares it with what was written. The clock stands still meanwhile.
pub fn read_again(world: &World, ledger: &Ledger) -> Vec<String> {
    runtime().block_on(async {
        let now = START + world.timeline.ms();
        let settings = world.plan.settings.clone();
        let opened =
            Engine::open(Arc::clone(&world.bucket) as _, settings, Clock::of(move || now), Ids::seeded(1)).await;
        let engine = opened.unwrap_or_else(|e| panic!("{e}"));
        let mut complaints = Vec::new();
        for (name, story) in &ledger.stories {
            if let Err(what) = compare(&engine, name, story, now).await {
                complaints.push(format!("{name}, read again: {what}"));
            }
        }
        complaints
    })
}

async fn compare(engine: &Engine, name: &StreamName, story: &Story, now: u64) -> Result<(), String> {
    let read = content(engine, name).await;
    let written = story.last().state.as_ref().filter(|state| !state.is_over(now) || !state.forks.is_empty());
    match (read, written) {
        (Err(EngineError::Rejected(Rejection::NotFound)), None) => Ok(()),
        (Err(EngineError::Rejected(Rejection::Gone)), Some(state)) if state.is_gone || state.is_over(now) => Ok(()),
        (Ok((incarnation, closed, bytes)), Some(state)) => {
            let book = story.books.get(&state.incarnation).map_or("", |book| &book.content[state.horizon as usize..]);
            let is_same = (incarnation, closed, bytes.as_str()) == (state.incarnation, state.closed, book);
            if is_same { Ok(()) } else { Err(format!("{incarnation}, closed {closed}, {bytes}, not {state:?} {book}")) }
        }
        (read, written) => Err(format!("{read:?}, not {written:?}")),
    }
}

/// The incarnation, whether it is closed, and all bytes.
async fn content(engine: &Engine, name: &StreamName) -> Result<(u64, bool, String), EngineError> {
    let (mut from, mut read) = (ReadFrom::Start, String::new());
    loop {
        let page = engine.locate(name, from).await?;
        let (bytes, _) = engine.fetch(name, &page).await?;
        read.push_str(&String::from_utf8_lossy(&bytes));
        if page.reaches_tail() {
            return Ok((page.stream.incarnation.get(), page.is_final(), read));
        }
        from = ReadFrom::At(page.stream.offset_at(page.end));
    }
}
