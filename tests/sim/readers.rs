//! Clients that read: from the start, on from where they were, and live.

use std::sync::atomic::Ordering;

use headwater::protocol::{ReadFrom, StreamName};

use crate::client::Client;
use crate::history::Answer;

/// How long a reader may take to get to the tail in the end, in virtual milliseconds.
const CATCH_UP: u64 = 90_000;

/// What a reader has of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub incarnation: u64,
    pub bytes: String,
}

impl Client {
    /// Reads a stream that is never deleted, from its start until some time after the storm: page by page, and live now
    /// and then if it may. Of a stream only one may: in which order a replica wakes those who wait for the same stream,
    /// the runtime leaves to chance, and not to the seed's.
    pub async fn read_on(self, stream: StreamName, live: bool) -> Copy {
        let mut copy = Copy { incarnation: 0, bytes: String::new() };
        let (mut from, mut reaches_tail) = (ReadFrom::Start, false);
        while self.reads_on(reaches_tail) {
            let live = live && self.world.chance(50);
            let answer = if live { self.follow(&stream, from).await } else { self.read(&stream, from).await };
            if let Answer::Page { view, end, next, bytes, .. } = answer {
                copy.incarnation = view.incarnation;
                copy.bytes.push_str(&bytes);
                from = ReadFrom::At(next);
                reaches_tail = end == view.tail;
            }
            self.world.pause(1, if reaches_tail { 300 } else { 60 }).await;
        }
        copy
    }

    /// One who is behind may take a bit longer.
    fn reads_on(&self, reaches_tail: bool) -> bool {
        let until = self.world.reads_until.load(Ordering::Relaxed);
        self.world.timeline.ms() < if reaches_tail { until } else { until.saturating_add(CATCH_UP) }
    }

    /// Looks at a stream's state again and again, as one who asks how far it is.
    pub async fn watch(self, stream: StreamName) {
        while self.world.is_storm() {
            self.stat(&stream).await;
            self.world.pause(1, 700).await;
        }
    }

    /// Looks seldom at any of these streams, at a replica that may have nothing else to do.
    pub async fn glance(self, streams: Vec<StreamName>) {
        while self.world.is_storm() {
            self.stat(&streams[self.world.ids.between(0, streams.len() as u64) as usize]).await;
            self.world.pause(500, 15_000).await;
        }
    }
}
