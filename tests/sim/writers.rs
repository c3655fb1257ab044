//! Clients that append: plain ones, and ones with `Stream-Seq`. None of them judges what it hears.

use std::sync::Arc;
use std::time::Duration;

use headwater::protocol::{Rejection, StreamName};

use crate::client::{Client, Post};
use crate::history::Answer;

impl Client {
    /// A message that nobody else sends. Some are long enough to be uploaded as chunks of their own.
    pub fn compose(&self, number: u64) -> String {
        let padding = if number % 7 == 3 { "x".repeat(50) } else { String::new() };
        format!("{}.{number}.{padding};", self.id)
    }

    /// Sends messages once each, whatever comes of it.
    pub async fn shout(self, stream: StreamName) {
        let mut number = 0;
        while self.world.is_storm() {
            let post = Post::message(&self.compose(number));
            number += 1;
            if self.world.chance(15) {
                // Leaves before it has its answer.
                let patience = Duration::from_millis(self.world.ids.between(0, 80));
                self.append_for(&stream, &post, patience).await;
                continue;
            }
            self.append(&stream, &post).await;
            self.world.pause(1, 900).await;
        }
    }

    /// Sends each message until it is known to be stored: a repetition is refused by its `Stream-Seq`.
    pub async fn count(self, stream: StreamName) {
        let mut number = 0;
        while self.world.is_storm() {
            let seq: Arc<str> = format!("{number:06}").into();
            let post = Post { seq: Some(Arc::clone(&seq)), ..Post::message(&self.compose(number)) };
            match self.append(&stream, &post).await {
                Answer::Done(_) => number += 1,
                Answer::Rejected(Rejection::SeqRegression { last }) if *last == *seq => number += 1,
                _ => {}
            }
            self.world.pause(1, 900).await;
        }
    }
}
