//! Objects that were changed and have right checksums: nobody can tell, but nothing may panic or hang, and what they are
//! not of goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater::clock::Ids;
use headwater::engine::{Engine, EngineError};
use headwater::layout::checkpoint::Checkpoint;
use headwater::layout::cluster::Cluster;
use headwater::layout::document::Document;
use headwater::layout::manifest::Manifest;

use crate::bucket::{self, Bucket};
use crate::damage::{Case, Damage, Kind};
use crate::judge::{self, touches};
use crate::panics::panics;
use crate::reader::{Ended, Mode};
use crate::{forge, rounds, seed};

const NUMBERS: [&str; 8] = ["0", "1", "18446744073709551615", "9999999999999999", "4294967295", "-1", "null", "[]"];

/// Some bytes of a body changed: a flipped bit, another number in a text, a piece that is gone or twice there.
fn changed(body: &[u8], ids: &Ids) -> Vec<u8> {
    let mut bytes = body.to_vec();
    let length = bytes.len().max(1) as u64;
    let (at, to) = (ids.between(0, length) as usize, ids.between(0, length) as usize);
    match ids.between(0, 5) {
        0 => drop(bytes.drain(at.min(to)..at.max(to))),
        1 => drop(bytes.splice(at..at, body[at.min(to)..at.max(to)].to_vec())),
        2 | 3 => {
            let digit = |from: usize| bytes[from..].iter().position(u8::is_ascii_digit).map(|found| from + found);
            if let Some(start) = digit(at).or_else(|| digit(0)) {
                let count = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = NUMBERS[ids.between(0, NUMBERS.len() as u64) as usize];
                bytes.splice(start..start + count, number.bytes());
            }
        }
        _ => bytes[at] ^= 1 << ids.between(0, 8),
    }
    bytes
}

fn forged_document<D: Document>(object: &Bytes, ids: &Ids) -> Bytes {
    let text = String::from_utf8_lossy(object);
    let body = text.split_once("\"body\":").and_then(|(_, body)| body.strip_suffix('}')).unwrap_or_default();
    forge::document(D::FORMAT, D::VERSION, &changed(body.as_bytes(), ids))
}

fn forged(key: &str, object: &Bytes, ids: &Ids) -> Option<Bytes> {
    Some(match Kind::of(key) {
        Kind::Cluster => forged_document::<Cluster>(object, ids),
        Kind::Checkpoint => forged_document::<Checkpoint>(object, ids),
        Kind::Manifest => forged_document::<Manifest>(object, ids),
        Kind::Log => forge::entry(&changed(&object[..object.len() - 4], ids)),
        Kind::Chunk => {
            let nonce = key.rsplit_once('/').and_then(|(_, nonce)| u128::from_str_radix(nonce, 16).ok());
            forge::chunk(nonce.unwrap_or_default(), &changed(object, ids))
        }
        Kind::Collector => return None,
    })
}

#[tokio::test(start_paused = true)]
async fn forged_objects_neither_panic_nor_reach_further_than_their_shard() {
    let seed = seed();
    let ids = Ids::seeded(seed);
    let bucket = Bucket::fill(seed & 0xffff).await;
    let (mut wrong, mut cases) = (Vec::new(), 0);
    for _ in 0..rounds() * 2 {
        for (key, object) in bucket.objects.iter().filter(|(_, object)| object.len() < 100_000) {
            let Some(body) = forged(key, object, &ids) else { continue };
            let case = Case { key: key.clone(), damage: Damage::Flipped, body: Some(body), note: String::new() };
            cases += 1;
            let found = try_forged(&bucket, &case, &ids).await;
            wrong.extend(found.into_iter().map(|what| format!("{key}: {what}\n{:?}", case.body)));
        }
    }
    println!("{cases} forged objects");
    assert!(wrong.is_empty(), "{} mistakes\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

async fn try_forged(bucket: &Bucket, case: &Case, ids: &Ids) -> Vec<String> {
    let (before, mut wrong) = (panics(), Vec::new());
    for is_warm in [true, false] {
        let store = Arc::new(bucket.store.copy());
        let engine = if is_warm {
            let engine = judge::warm(&store, bucket).await;
            store.tamper(&case.key, case.body.clone());
            engine
        } else {
            store.tamper(&case.key, case.body.clone());
            match bucket::open(store.clone(), &bucket.clock, 22).await {
                // Nobody can tell that it is another cluster's document.
                Ok(_) | Err(_) if case.kind() == Kind::Cluster => continue,
                Ok(engine) => engine,
                Err(error) => {
                    wrong.push(format!("the bucket is not opened: {error}"));
                    continue;
                }
            }
        };
        use_all(bucket, case, &engine, ids, &mut wrong).await;
        // Streams are sealed meanwhile, or cannot be.
        tokio::time::sleep(Duration::from_secs(30)).await;
        if let Err(error) = engine.ready().await
            && !matches!(&error, EngineError::Damaged { .. })
        {
            wrong.push(format!("the server is not ready: {error}"));
        }
    }
    if panics() > before {
        wrong.push("a task panics".to_owned());
    }
    wrong
}

/// Reads and writes every stream that is not large. What the object is not of must go on.
async fn use_all(bucket: &Bucket, case: &Case, engine: &Engine, ids: &Ids, wrong: &mut Vec<String>) {
    let reader = judge::reader(engine);
    for stream in bucket.streams.iter().filter(|stream| stream.tail() < 100_000) {
        let mode = [Mode::CatchUp, Mode::LongPoll, Mode::Sse][ids.between(0, 3) as usize];
        let read = reader.read(stream, mode, 0).await;
        if read == Err("it does not end".into()) {
            wrong.push(format!("reading {} does not end", stream.name));
        }
        let mut written = stream.clone();
        let bytes = bucket::content(9, 50, stream.content_type);
        let appended = bucket::append(engine, &mut written, &bytes, false).await;
        let is_well = read == Ok(Ended::Whole) && (stream.is_closed || appended.is_ok());
        if !is_well && !touches(case, stream) {
            wrong.push(format!("{} is not touched, but {read:?}, {appended:?}", stream.name));
        }
    }
}
