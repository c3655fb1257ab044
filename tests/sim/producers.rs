//! Idempotent producers, with several requests in flight at once, through several replicas. A producer is restarted now
//! and then, under its next epoch, while the one before still believes to be in charge.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use headwater::protocol::producer::Producer;
use headwater::protocol::{Rejection, StreamName};

use crate::client::{Client, Post};
use crate::history::Answer;

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Stored,
    /// A later epoch has taken over, or the stream takes nothing more.
    Over,
}

impl Client {
    /// Runs one instance after the other, each before the last one knows that it is over.
    pub async fn produce(self, stream: StreamName) {
        let mut instances = Vec::new();
        let mut epoch = 0;
        while self.world.is_storm() {
            instances.push(tokio::spawn(self.clone().produce_epoch(stream.clone(), epoch, u64::MAX, false)));
            epoch += 1;
            self.world.pause(4_000, 60_000).await;
        }
        for instance in instances {
            instance.await.unwrap_or_else(|e| panic!("{e}"));
        }
    }

    /// Sends messages until `end` of them are stored, the last of which closes the stream if that is wanted; or until
    /// something stops it.
    pub async fn produce_epoch(self, stream: StreamName, epoch: u64, end: u64, close: bool) {
        let depth = self.world.plan.depth;
        // Some wait for the first message of an epoch before they send others; others find out.
        let first_alone = self.world.chance(50);
        let mut in_flight = FuturesUnordered::new();
        let (mut next, mut stored) = (0, 0);
        loop {
            while in_flight.len() < depth && next < end && self.world.is_storm() {
                // What closes a stream goes last, once all else is there.
                let must_wait = (first_alone && next == 1 || close && next == end - 1) && stored < next;
                if must_wait {
                    break;
                }
                in_flight.push(self.send(&stream, epoch, next, close && next == end - 1));
                next += 1;
            }
            match in_flight.next().await {
                Some(Sent::Stored) => stored += 1,
                Some(Sent::Over) | None => return,
            }
            self.world.pause(1, 500).await;
        }
    }

    /// Sends one message until it is stored.
    async fn send(&self, stream: &StreamName, epoch: u64, seq: u64, close: bool) -> Sent {
        let message = format!("{}.e{epoch}.{}", self.id, self.compose(seq));
        let producer = Some(Producer { id: self.id.to_string(), epoch, seq });
        let post = Post { producer, close, ..Post::message(&message) };
        loop {
            match self.append(stream, &post).await {
                Answer::Done(_) => {
                    if self.world.chance(5) {
                        // A repetition that was under way.
                        self.append(stream, &post).await;
                    }
                    return Sent::Stored;
                }
                // Those before it are not there yet.
                Answer::Rejected(Rejection::ProducerGap { .. } | Rejection::EpochStartsAtZero) => {}
                Answer::Rejected(_) => return Sent::Over,
                _ => {}
            }
            if !self.world.is_storm() {
                return Sent::Over;
            }
            self.world.pause(5, 400).await;
        }
    }
}
