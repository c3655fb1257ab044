//! Appends of one producer that overtake each other.

use std::time::Duration;

use tokio::time::Instant;

use super::EngineError;
use super::testing::{World, body, name, text};
use crate::protocol::stream::Append;
use crate::protocol::{Lifetime, Producer, Rejection, StreamName};

impl World {
    /// Appends after some milliseconds. Returns how it ended, and after how many milliseconds.
    async fn produce(&self, stream: &StreamName, seq: u64, after: u64) -> (Result<u64, EngineError>, u128) {
        tokio::time::sleep(Duration::from_millis(after)).await;
        let began = Instant::now();
        let producer = Some(Producer { id: "p".into(), epoch: 0, seq });
        let append =
            Append { content_type: Some(text()), body: body(&format!("{seq};")), seq: None, producer, close: false };
        let admission = self.engine.admit(1).unwrap_or_else(|e| panic!("{e}"));
        let outcome = self.engine.append(stream, append, admission).await;
        (outcome.map(|outcome| outcome.producer.map_or(0, |accepted| accepted.seq)), began.elapsed().as_millis())
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_overtook_others_waits_for_them() {
    let world = World::new().await;
    let stream = name("s");
    world.create(&stream, Lifetime::Forever).await;
    let at = |seq, after| world.produce(&stream, seq, after);
    let (a, b, c, d) = tokio::join!(at(3, 0), at(2, 10), at(1, 50), at(0, 100));
    for ((outcome, _), seq) in [a, b, c, d].into_iter().zip([3, 2, 1, 0]) {
        assert_eq!(outcome.unwrap_or_else(|e| panic!("{seq}: {e}")), seq);
    }
    assert_eq!(world.content(&stream).await, "0;1;2;3;");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_is_a_gap() {
    let world = World::new().await;
    let stream = name("s");
    world.create(&stream, Lifetime::Forever).await;
    for (seq, waits) in [(1, 200..400), (64, 200..400), (65, 0..100)] {
        let (outcome, waited) = world.produce(&stream, seq, 0).await;
        let is_gap = |error: &EngineError| matches!(error, EngineError::Rejected(Rejection::ProducerGap { expected: 0, received }) if *received == seq);
        assert!(outcome.as_ref().is_err_and(is_gap), "{outcome:?}");
        assert!(waits.contains(&waited), "{seq} waited for {waited} ms");
    }
    let (late, early) = tokio::join!(world.produce(&stream, 0, 300), world.produce(&stream, 1, 0));
    assert!(late.0.is_ok() && early.0.is_err(), "{late:?} {early:?}");
}

#[tokio::test(start_paused = true)]
async fn an_append_waits_for_what_another_replica_is_sent() {
    let world = World::new().await;
    let stream = name("s");
    world.create(&stream, Lifetime::Forever).await;
    let other = world.cold(super::testing::settings()).await;
    let (second, first) = tokio::join!(other.produce(&stream, 1, 0), world.produce(&stream, 0, 50));
    assert_eq!(first.0.unwrap_or_else(|e| panic!("{e}")), 0);
    assert_eq!(second.0.unwrap_or_else(|e| panic!("{e}")), 1);
    assert_eq!(other.content(&stream).await, "0;1;");
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_those_who_wait() {
    let world = World::new().await;
    let stream = name("s");
    world.create(&stream, Lifetime::Forever).await;
    let ((outcome, _), ()) = tokio::join!(world.produce(&stream, 1, 0), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.engine.drain().await;
    });
    assert!(matches!(outcome, Err(EngineError::Rejected(Rejection::ProducerGap { .. }))), "{outcome:?}");
}
