//! Who does what in a run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headwater::protocol::{Lifetime, StreamName};

use crate::client::{Client, Post, name};
use crate::history::Answer;
use crate::plan::CALM;
use crate::readers::Copy;
use crate::trouble;
use crate::world::World;

/// Streams that are never deleted.
pub const LASTING: usize = 3;
/// How long a replica may take to be of use again when the storm is over, in virtual milliseconds.
const RECOVERY: u64 = 60_000;

/// What the script itself has to say of a run, beside the history.
pub struct Seen {
    /// What readers have of the lasting streams who read until all was said.
    pub copies: Vec<(StreamName, Copy)>,
    pub complaints: Vec<String>,
}

pub async fn all(world: Arc<World>) -> Seen {
    let mut tasks = Vec::new();
    for station in &world.stations {
        tasks.push(tokio::spawn(trouble::torment(Arc::clone(&world), Arc::clone(station))));
    }
    tasks.push(tokio::spawn(trouble::balance(Arc::clone(&world))));
    let lasting: Vec<StreamName> = (0..LASTING).map(|number| name(&format!("lasting/{number}"))).collect();
    let client = |id: String| Client::new(&world, id);
    for stream in &lasting {
        while !matches!(client("maker".into()).create(stream, Lifetime::Forever, false, "").await, Answer::Done(_)) {
            world.pause(10, 200).await;
        }
    }
    let mut readers = Vec::new();
    for (number, stream) in lasting.iter().enumerate() {
        for writer in 0..2 {
            tasks.push(tokio::spawn(client(format!("p{number}{writer}")).produce(stream.clone())));
            tasks.push(tokio::spawn(client(format!("u{number}{writer}")).shout(stream.clone())));
            readers.push((stream.clone(), tokio::spawn(client("r".into()).read_on(stream.clone(), writer == 0))));
        }
        tasks.push(tokio::spawn(client(format!("s{number}")).count(stream.clone())));
        tasks.push(tokio::spawn(client("w".into()).watch(stream.clone())));
    }
    let reborn: Vec<StreamName> = ["reborn", "reborn/short"].map(name).into();
    for number in 0..3 {
        tasks.push(tokio::spawn(client(format!("x{number}")).roam(reborn.clone())));
    }
    let family: Vec<StreamName> = ["family", "family/a", "family/b", "family/short"].map(name).into();
    for number in 0..3 {
        tasks.push(tokio::spawn(client(format!("f{number}")).branch_out(family.clone())));
    }
    tasks.push(tokio::spawn(client("closing".into()).close_by_turns()));
    for machine in 0..world.stations.len() {
        let client = Client { machine: Some(machine), ..client("g".into()) };
        tasks.push(tokio::spawn(client.glance(lasting.clone())));
    }
    for task in tasks {
        task.await.unwrap_or_else(|e| panic!("{e}"));
    }
    let calm_since = world.timeline.ms();
    let mut complaints = Vec::new();
    for machine in 0..world.stations.len() {
        for stream in &lasting {
            complaints.extend(recovers(&world, machine, stream, calm_since + RECOVERY).await);
        }
    }
    world.reads_until.store(world.timeline.ms() + 10_000, Ordering::Relaxed);
    let mut copies = Vec::new();
    for (stream, reader) in readers {
        copies.push((stream, reader.await.unwrap_or_else(|e| panic!("{e}"))));
    }
    tokio::time::sleep(CALM).await;
    Seen { copies, complaints }
}

/// Every replica is of use again without having been started anew.
async fn recovers(world: &Arc<World>, machine: usize, stream: &StreamName, until_ms: u64) -> Option<String> {
    let client = Client { machine: Some(machine), ..Client::new(world, format!("after{machine}")) };
    let mut answer = Answer::Open;
    for attempt in 0.. {
        if world.timeline.ms() >= until_ms {
            break;
        }
        let post = Post::message(&format!("{}.{stream}.{attempt};", client.id));
        answer = client.append(stream, &post).await;
        if matches!(answer, Answer::Done(_)) {
            return None;
        }
        world.pause(50, 500).await;
    }
    Some(format!("replica {machine} does not recover: {stream}: {answer:?}"))
}
