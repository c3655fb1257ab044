//! A client: asks some replica, and takes note of what it asked and heard.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater::engine::{Engine, EngineError};
use headwater::protocol::fork::ForkRequest;
use headwater::protocol::producer::Producer;
use headwater::protocol::stream::{Append, Body, Create, Data, Outcome};
use headwater::protocol::{ContentType, Lifetime, ReadFrom, Retention, StreamName};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::history::{Answer, Call, Request, View};
use crate::timeline::{Moment, Timeline};
use crate::world::World;

/// A client waits for so long, a bit longer than a replica does for the bucket.
const PATIENCE: Duration = Duration::from_secs(7);
/// How long a live read is held.
const HOLD: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Client {
    pub world: Arc<World>,
    pub id: Arc<str>,
    /// The only machine that it asks, if it asks only one.
    pub machine: Option<usize>,
}

/// What a replica did, and between which moments if that is known better than from when the client asked.
struct Served {
    answer: Answer,
    between: Option<(Moment, Moment)>,
}

impl From<Answer> for Served {
    fn from(answer: Answer) -> Served {
        Served { answer, between: None }
    }
}

/// A request that a replica is at. When the client leaves, the replica drops it.
struct AtWork(JoinHandle<Served>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An append.
#[derive(Debug, Clone, Default)]
pub struct Post {
    pub message: String,
    pub producer: Option<Producer>,
    pub seq: Option<Arc<str>>,
    pub close: bool,
}

impl Post {
    pub fn message(message: &str) -> Post {
        Post { message: message.to_owned(), ..Post::default() }
    }
}

impl Client {
    pub fn new(world: &Arc<World>, id: impl Into<Arc<str>>) -> Client {
        Client { world: Arc::clone(world), id: id.into(), machine: None }
    }

    /// Has some replica do `work`, and waits for the answer.
    async fn ask<F: Future<Output = Served> + Send + 'static>(
        &self,
        stream: &StreamName,
        patience: Duration,
        work: impl FnOnce(Engine) -> (Request, F),
    ) -> Answer {
        let world = &self.world;
        let process = match self.machine {
            Some(number) => world.stations[number].process(),
            None => world.any_process(),
        };
        let Some(process) = process else { return Answer::NotDone };
        let (request, work) = work(process.engine);
        let number = world.begin(Call {
            client: Arc::clone(&self.id),
            stream: stream.clone(),
            life: process.life,
            invoked: world.timeline.mark(),
            replied: Moment::LAST,
            request,
            answer: Answer::Open,
        });
        let mut at_work = AtWork(process.handle.spawn(work));
        let served = tokio::select! {
            biased;
            () = process.dead.cancelled() => return Answer::Open,
            // The client leaves.
            () = sleep(patience) => return Answer::Open,
            served = &mut at_work.0 => served.unwrap_or_else(|_| Answer::Open.into()),
        };
        let (invoked, replied) = served.between.map_or((None, world.timeline.mark()), |(from, to)| (Some(from), to));
        world.end(number, invoked, replied, &served.answer);
        served.answer
    }

    pub async fn create(&self, stream: &StreamName, lifetime: Lifetime, closed: bool, message: &str) -> Answer {
        self.create_with(stream, lifetime, closed, message, None).await
    }

    pub async fn create_with(
        &self,
        stream: &StreamName,
        lifetime: Lifetime,
        closed: bool,
        message: &str,
        retention: Option<Retention>,
    ) -> Answer {
        self.ask(stream, PATIENCE, |engine| {
            let (name, incarnation) = (stream.clone(), engine.new_incarnation());
            let content_type = text();
            let body = body(message);
            let create = Create { incarnation, content_type, lifetime, closed, body, fork: None, retention };
            let request = Request::Create { incarnation, lifetime, closed, message: message.to_owned(), retention };
            (request, async move {
                let admission = engine.admit(create.body.data.len());
                let created = async { engine.create(&name, create, admission?).await };
                done(created.await).into()
            })
        })
        .await
    }

    pub async fn fork(&self, stream: &StreamName, request: &ForkRequest, message: &str) -> Answer {
        self.ask(stream, PATIENCE, |engine| {
            let (name, request, body) = (stream.clone(), request.clone(), body(message));
            let asked = Request::Fork { request: request.clone(), message: message.to_owned() };
            (asked, async move {
                let admission = engine.admit(body.data.len());
                let forked = async { engine.fork(&name, request, body, admission?).await };
                done(forked.await).into()
            })
        })
        .await
    }

    pub async fn append(&self, stream: &StreamName, post: &Post) -> Answer {
        self.append_for(stream, post, PATIENCE).await
    }

    /// An append whose client waits only so long.
    pub async fn append_for(&self, stream: &StreamName, post: &Post, patience: Duration) -> Answer {
        self.ask(stream, patience, |engine| {
            let (name, Post { message, producer, seq, close }) = (stream.clone(), post.clone());
            let append = Append {
                content_type: Some(text()),
                body: body(&message),
                seq: seq.clone(),
                producer: producer.clone(),
                close,
            };
            (Request::Append { message, producer, seq, close }, async move {
                let admission = engine.admit(append.body.data.len());
                let appended = async { engine.append(&name, append, admission?).await };
                done(appended.await).into()
            })
        })
        .await
    }

    pub async fn delete(&self, stream: &StreamName) -> Answer {
        self.ask(stream, PATIENCE, |engine| {
            let name = stream.clone();
            (Request::Delete, async move {
                engine.delete(&name).await.map_or_else(Answer::from, |()| Answer::Deleted).into()
            })
        })
        .await
    }

    pub async fn stat(&self, stream: &StreamName) -> Answer {
        self.ask(stream, PATIENCE, |engine| {
            let name = stream.clone();
            (Request::Stat, async move {
                engine.stat(&name).await.map_or_else(Answer::from, |stream| Answer::Stat(View::from(&*stream))).into()
            })
        })
        .await
    }

    /// Catches up: one page.
    pub async fn read(&self, stream: &StreamName, from: ReadFrom) -> Answer {
        self.ask(stream, PATIENCE, |engine| {
            let (name, timeline) = (stream.clone(), Arc::clone(&self.world.timeline));
            (Request::Read { from }, async move { read(&engine, &timeline, &name, from).await })
        })
        .await
    }

    /// Reads live: waits for something to come, for a while.
    pub async fn follow(&self, stream: &StreamName, from: ReadFrom) -> Answer {
        self.ask(stream, PATIENCE + HOLD, |engine| {
            let (name, timeline) = (stream.clone(), Arc::clone(&self.world.timeline));
            (Request::Read { from }, async move { follow(&engine, &timeline, &name, from).await })
        })
        .await
    }
}

fn done(outcome: Result<Outcome, EngineError>) -> Answer {
    outcome.map_or_else(Answer::from, Answer::Done)
}

async fn read(engine: &Engine, timeline: &Timeline, name: &StreamName, from: ReadFrom) -> Served {
    let asked = timeline.mark();
    let located = engine.locate(name, from).await;
    let between = Some((asked, timeline.mark()));
    let page = match located {
        Ok(page) => page,
        Err(error) => return Served { answer: error.into(), between },
    };
    Served { answer: fetch(engine, name, &page).await, between }
}

/// As a long poll does it.
async fn follow(engine: &Engine, timeline: &Timeline, name: &StreamName, from: ReadFrom) -> Served {
    let (end, mut touch) = (Instant::now() + HOLD, true);
    loop {
        let asked = timeline.mark();
        let followed = engine.follow(name, from, std::mem::take(&mut touch)).await;
        let between = Some((asked, timeline.mark()));
        let (page, mut changes) = match followed {
            Ok(followed) => followed,
            Err(error) => return Served { answer: error.into(), between },
        };
        let waits = page.is_empty() && !page.is_final() && from != ReadFrom::Now;
        if !waits || timeout_at(end, changes.next()).await.is_err() {
            return Served { answer: fetch(engine, name, &page).await, between };
        }
    }
}

async fn fetch(engine: &Engine, name: &StreamName, page: &headwater::engine::Page) -> Answer {
    match engine.fetch(name, page).await {
        Ok((bytes, _)) => Answer::page(page, &bytes),
        // Replaced while it was fetched.
        Err(EngineError::Rejected(_)) => Answer::Open,
        Err(error) => error.into(),
    }
}

pub fn text() -> ContentType {
    ContentType::new("text/plain").unwrap_or_default()
}

pub fn body(message: &str) -> Body {
    let ends = if message.is_empty() { vec![] } else { vec![message.len() as u32] };
    Body { data: Data::Inline(Bytes::from(message.to_owned())), ends }
}

pub fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap_or_else(|e| panic!("{e}"))
}
