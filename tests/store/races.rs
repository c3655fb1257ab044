//! What conditions are for: several writers at a time, through one or two clients of the same objects.

use bytes::Bytes;
use futures::future::join_all;
use headwater::store::{Condition, Put};

use crate::Subject;

const WRITERS: usize = 12;
const ROUNDS: usize = 5;
const INCREMENTS: usize = 10;

pub async fn all(one: &Subject, other: &Subject) {
    one_of_many_creators_wins(one, other).await;
    one_of_many_updaters_wins(one, other).await;
    increments_add_up(one, other).await;
    creating_and_deleting_neighbours_always_works(one, other).await;
}

/// Runs `work` for each writer in a task of its own, writers taking turns with the clients.
async fn at_once<T, F>(one: &Subject, other: &Subject, work: impl Fn(Subject, usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let tasks = (0..WRITERS).map(|writer| {
        let subject = if writer % 2 == 0 { one } else { other };
        tokio::spawn(work(subject.clone(), writer))
    });
    join_all(tasks).await.into_iter().map(|task| task.unwrap_or_else(|error| panic!("{}: {error}", one.name))).collect()
}

/// Exactly one put was accepted, and its bytes are there.
async fn expect_one_winner(subject: &Subject, key: &str, puts: &[Put]) {
    let winners: Vec<usize> = (0..puts.len()).filter(|writer| puts[*writer] != Put::Conflict).collect();
    assert_eq!(winners.len(), 1, "{}: {puts:?}", subject.name);
    assert_eq!(subject.body(key).await, Some(Bytes::from(format!("writer {}", winners[0]))), "{}", subject.name);
}

async fn one_of_many_creators_wins(one: &Subject, other: &Subject) {
    for round in 0..ROUNDS {
        let key = format!("races/create/{round}");
        let puts = at_once(one, other, |subject, writer| {
            let key = key.clone();
            async move { subject.create(&key, format!("writer {writer}")).await }
        });
        expect_one_winner(other, &key, &puts.await).await;
    }
}

async fn one_of_many_updaters_wins(one: &Subject, other: &Subject) {
    let key = "races/update";
    one.create(key, "before").await;
    for _ in 0..ROUNDS {
        let found = one.heard(one.store.get(key).await).value;
        let version = found.unwrap_or_else(|| panic!("{}: no object", one.name)).version;
        // The winner of the round before writes the same bytes again, whose version would be the same.
        let fresh = one.put(key, format!("before {version:?}"), Condition::Unchanged(version)).await;
        let Put::Written(version) = fresh else { panic!("{}: a conflict without a rival", one.name) };
        let puts = at_once(one, other, |subject, writer| {
            let condition = Condition::Unchanged(version.clone());
            async move { subject.put(key, format!("writer {writer}"), condition).await }
        });
        expect_one_winner(other, key, &puts.await).await;
    }
}

async fn increments_add_up(one: &Subject, other: &Subject) {
    let key = "races/counter";
    one.create(key, "0 by nobody").await;
    at_once(one, other, |subject, writer| async move {
        for i in 0..INCREMENTS {
            increment(&subject, key, &format!("{writer}.{i}")).await;
        }
    })
    .await;
    let body = other.body(key).await.unwrap_or_default();
    assert_eq!(count(&body), WRITERS * INCREMENTS, "{}", one.name);
}

/// Reads and replaces until nobody was faster. The body names its writer, so that no two are alike.
async fn increment(subject: &Subject, key: &str, by: &str) {
    loop {
        let found = subject.heard(subject.store.get(key).await).value;
        let object = found.unwrap_or_else(|| panic!("{}: no object", subject.name));
        let next = format!("{} by {by}", count(&object.body) + 1);
        if subject.put(key, next, Condition::Unchanged(object.version)).await != Put::Conflict {
            return;
        }
    }
}

fn count(body: &[u8]) -> usize {
    let text = String::from_utf8_lossy(body);
    text.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("not a counter: {text}"))
}

/// In a directory store, the last delete removes the directory into which another is just writing.
async fn creating_and_deleting_neighbours_always_works(one: &Subject, other: &Subject) {
    at_once(one, other, |subject, writer| async move {
        let key = format!("races/neighbours/deep/down/{writer}");
        for _ in 0..ROUNDS {
            assert!(matches!(subject.create(&key, "x").await, Put::Written(_)), "{}", subject.name);
            assert!(subject.body(&key).await.is_some(), "{}", subject.name);
            subject.delete(&key).await;
        }
    })
    .await;
    assert_eq!(one.list("races/neighbours/", None, 10).await, (vec![], false), "{}", one.name);
}
