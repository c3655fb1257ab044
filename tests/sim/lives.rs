//! Clients that make, close, delete and make again: what becomes of a name is for the checks to say.

use std::collections::BTreeMap;

use headwater::protocol::fork::{ForkRequest, Requested};
use headwater::protocol::{Lifetime, Offset, ReadFrom, Retention, StreamName};

use crate::client::{Client, Post, name};
use crate::history::Answer;
use crate::world::World;

impl Client {
    /// Several writers race to close a stream, with others who append or close without a word; then the next one.
    pub async fn close_by_turns(self) {
        let mut round = 0;
        while self.world.is_storm() {
            round += 1;
            let stream = name(&format!("{}/{round}", self.id));
            while !matches!(self.create(&stream, Lifetime::Forever, false, "").await, Answer::Done(_)) {
                if !self.world.is_storm() {
                    return;
                }
                self.world.pause(10, 300).await;
            }
            let mut writers = Vec::new();
            for number in 0..2 {
                let writer = Client::new(&self.world, format!("{}.{round}.c{number}", self.id));
                let end = self.world.ids.between(3, 10);
                writers.push(tokio::spawn(writer.produce_epoch(stream.clone(), 0, end, true)));
            }
            let racer = Client::new(&self.world, format!("{}.{round}.r", self.id));
            writers.push(tokio::spawn(racer.race(stream.clone())));
            for writer in writers {
                writer.await.unwrap_or_else(|e| panic!("{e}"));
            }
            self.stat(&stream).await;
        }
    }

    /// Appends until the stream is closed, and closes it itself if nobody does.
    async fn race(self, stream: StreamName) {
        for number in 0..30 {
            let close = number > 5 && self.world.chance(20);
            let message = if close && self.world.chance(50) { String::new() } else { self.compose(number) };
            let answer = self.append(&stream, &Post { close, ..Post::message(&message) }).await;
            if matches!(answer, Answer::Rejected(_)) || !self.world.is_storm() {
                return;
            }
            self.world.pause(1, 700).await;
        }
    }

    /// Does anything to any of these streams.
    pub async fn roam(self, streams: Vec<StreamName>) {
        let mut places: BTreeMap<StreamName, ReadFrom> = BTreeMap::new();
        let mut number = 0;
        while self.world.is_storm() {
            number += 1;
            let stream = &streams[self.world.ids.between(0, streams.len() as u64) as usize];
            let message = self.compose(number);
            match self.world.ids.between(0, 100) {
                0..20 => {
                    let closed = self.world.chance(10);
                    let message = if self.world.chance(50) { message } else { String::new() };
                    self.create(stream, lifetime(stream), closed, &message).await;
                }
                20..30 => drop(self.delete(stream).await),
                30..35 => drop(self.append(stream, &Post { close: true, ..Post::default() }).await),
                35..38 => drop(self.append(stream, &Post { close: true, ..Post::message(&message) }).await),
                38..65 => drop(self.append(stream, &Post::message(&message)).await),
                65..75 => drop(self.stat(stream).await),
                _ => {
                    let from = places.get(stream).copied().unwrap_or(ReadFrom::Start);
                    match self.read(stream, from).await {
                        Answer::Page { next, .. } => places.insert(stream.clone(), ReadFrom::At(next)),
                        Answer::Rejected(_) => places.remove(stream),
                        _ => None,
                    };
                }
            }
            self.world.pause(1, 600).await;
        }
    }

    /// Does anything to any of these streams, forks of one another among it.
    pub async fn branch_out(self, streams: Vec<StreamName>) {
        let mut places: BTreeMap<StreamName, Offset> = BTreeMap::new();
        let mut number = 0;
        let any = |world: &World| streams[world.ids.between(0, streams.len() as u64) as usize].clone();
        while self.world.is_storm() {
            number += 1;
            let stream = &any(&self.world);
            let message = self.compose(number);
            let maybe = |world: &World| if world.chance(50) { message.clone() } else { String::new() };
            match self.world.ids.between(0, 100) {
                0..12 => {
                    let (message, retention) = (maybe(&self.world), self.any_retention());
                    self.create_with(stream, lifetime(stream), false, &message, retention).await;
                }
                12..34 => {
                    let source = any(&self.world);
                    let request = self.any_fork(&source, places.get(&source).copied());
                    let message = maybe(&self.world);
                    self.fork(stream, &request, &message).await;
                }
                34..42 => drop(self.delete(stream).await),
                42..44 => drop(self.append(stream, &Post { close: true, ..Post::message(&message) }).await),
                44..76 => drop(self.append(stream, &Post::message(&message)).await),
                76..82 => drop(self.stat(stream).await),
                _ => {
                    let from = places.get(stream).map_or(ReadFrom::Start, |offset| ReadFrom::At(*offset));
                    match self.read(stream, from).await {
                        Answer::Page { next, .. } => places.insert(stream.clone(), next),
                        Answer::Rejected(_) => places.remove(stream),
                        _ => None,
                    };
                }
            }
            self.world.pause(1, 600).await;
        }
    }

    fn any_retention(&self) -> Option<Retention> {
        let bytes = Some(self.world.ids.between(50, 400));
        match self.world.ids.between(0, 10) {
            0..3 => Some(Retention { bytes, age_seconds: None }),
            3..5 => Some(Retention { bytes: None, age_seconds: Some(self.world.ids.between(2, 20)) }),
            5 => Some(Retention::default()),
            _ => None,
        }
    }

    /// A fork at the tail, or at a place that was once seen, or a bit after it.
    fn any_fork(&self, source: &StreamName, seen: Option<Offset>) -> ForkRequest {
        let offset = seen.filter(|_| self.world.chance(60));
        let sub_offset = if offset.is_some() && self.world.chance(30) { self.world.ids.between(1, 12) } else { 0 };
        ForkRequest {
            source: source.clone(),
            requested: Requested { offset, sub_offset },
            content_type: None,
            lifetime: self.world.chance(20).then_some(Lifetime::Forever),
            closed: false,
            retention: self.any_retention(),
        }
    }
}

/// Of streams that are made again and again: a short one, if the name says so.
fn lifetime(stream: &StreamName) -> Lifetime {
    if stream.as_str().contains("short") { Lifetime::Ttl(4) } else { Lifetime::Forever }
}
