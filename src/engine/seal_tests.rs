use std::time::Duration;

use super::*;
use crate::clock::{Clock, Ids};
use crate::layout::entry::{self, Header};
use crate::protocol::stream::{Appended, Body, Data, Effect};
use crate::protocol::{ContentType, Lifetime};
use crate::settings::EngineSettings;
use crate::store::Store;
use crate::store::faulty::{Fate, Faulty};
use crate::store::memory::MemoryStore;

const PAGE: u64 = 1 << 20;

fn context(store: Arc<dyn Store>, seed: u64) -> Context {
    Context {
        settings: EngineSettings { inline_bytes: 4, ..EngineSettings::default() },
        ..crate::engine::context::for_tests(store, seed)
    }
}

fn name() -> StreamName {
    StreamName::new("s").unwrap_or_else(|e| panic!("{e}"))
}

fn incarnation() -> Incarnation {
    Incarnation::new(7).unwrap_or_else(|| panic!("it is in range"))
}

fn created() -> Effect {
    Effect::Created { incarnation: incarnation(), content_type: ContentType::default(), lifetime: Lifetime::Forever }
}

fn appended(start: u64, text: &'static str) -> Effect {
    let body = Body { data: Data::Inline(Bytes::from_static(text.as_bytes())), ends: vec![text.len() as u32] };
    Effect::Appended(Appended { incarnation: incarnation(), start, body, seq: None, producer: None, close: false })
}

/// Puts an entry in the log and folds it.
async fn write(store: &dyn Store, committed: &mut Committed, position: u64, effects: &[Effect]) {
    let header = Header { shard: 0, position, id: 1, prev: 0, writer: 0, at: 0 };
    let stream = name();
    let object = entry::encode(&header, effects.iter().map(|effect| (&stream, effect)));
    let put = store.put(&key::log(0, position), object, Condition::Absent).await;
    assert!(put.is_ok_and(|reply| matches!(reply.value, Put::Written(_))));
    for effect in effects {
        assert!(committed.fold(position, 0, effect, PAGE).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_stays_if_a_manifest_that_was_not_heard_of_had_named_it_and_another_builds_on_that() {
    let bucket: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let faulty = Arc::new(Faulty::new(Arc::clone(&bucket), Ids::seeded(1)));
    let (one, other) = (context(faulty.clone(), 2), context(Arc::clone(&bucket), 3));

    let mut committed = Committed::default();
    write(&*bucket, &mut committed, 1, &[created(), appended(0, "first")]).await;
    committed.base = Some(Base { manifest: None, version: None });
    let plan = Plan::new(0, &name(), 1, &committed).unwrap_or_else(|| panic!("the manifest is known"));

    // One seals; its manifest is written, but it does not hear of it. Before it tries again, the other has sealed too.
    faulty.next_put(&key::manifest(&name()), Fate::Unheard);
    let sealing_again = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let base = load::read_manifest(&other, &name()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(base.manifest.is_some(), "the first manifest was to be there by now");
        assert_eq!(committed.rebase(base, PAGE), Ok(()));
        write(&*bucket, &mut committed, 2, &[appended(5, "second")]).await;
        let plan = Plan::new(0, &name(), 2, &committed).unwrap_or_else(|| panic!("the manifest is known"));
        assert!(matches!(seal(&other, &plan).await, Ok(Sealed::Written { .. })));
    };
    let (first, ()) = tokio::join!(seal(&one, &plan), sealing_again);
    assert!(matches!(first, Ok(Sealed::Outdated)), "{first:?}");

    let base = load::read_manifest(&other, &name()).await.unwrap_or_else(|e| panic!("{e}"));
    let chunks = base.manifest.map_or_else(Vec::new, |manifest| manifest.chunks.clone());
    assert_eq!(chunks.len(), 2);
    for chunk in chunks {
        let object = bucket.get(&key::chunk(&name(), incarnation(), chunk.nonce)).await;
        assert!(object.is_ok_and(|reply| reply.value.is_some()), "the chunk at {} is gone", chunk.start);
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_in_crowds_is_sealed_a_chunk_at_a_time() {
    // It was all in memory at once, however much that was.
    let bucket: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let mut context = context(Arc::clone(&bucket), 2);
    context.settings.seal_bytes = 10;
    let mut committed = Committed::default();
    write(&*bucket, &mut committed, 1, &[created()]).await;
    for (start, text) in [(0, "1234"), (4, "5678"), (8, "90"), (10, "larger than all"), (25, "and"), (28, "the rest")] {
        write(&*bucket, &mut committed, start + 2, &[appended(start, text)]).await;
    }
    committed.base = Some(Base { manifest: None, version: None });
    let plan = Plan::new(0, &name(), 30, &committed).unwrap_or_else(|| panic!("the manifest is known"));
    let Ok(Sealed::Written { base, .. }) = seal(&context, &plan).await else { panic!("it was to be written") };
    let manifest = base.manifest.unwrap_or_else(|| panic!("there is no manifest"));
    assert_eq!(manifest.chunks.iter().map(|chunk| chunk.len).collect::<Vec<_>>(), [10, 15, 3, 8]);
    assert_eq!(manifest.end(), 36);
}

#[test]
fn of_many_small_chunks_only_as_many_are_merged_as_are_enough() {
    let chunk = |start| ChunkRef { start, len: 8 << 20, nonce: 0, at: 0, overshoots: vec![], foreign: None };
    let mut chunks: Vec<ChunkRef> = (0..30).map(|n| chunk(n * (8 << 20))).collect();
    assert_eq!(mergeable(&chunks, 1 << 20, u64::MAX), Some(0..8));
    chunks[20].len = 64 << 20;
    assert_eq!(mergeable(&chunks, 1 << 20, u64::MAX), Some(21..29));
}

/// Seals a stream again and again, `len` bytes at a time. Returns the chunks' sizes and how many bytes were rewritten.
fn grow(len: u64, times: u64) -> (Vec<u64>, u64) {
    let chunk = |start, len| ChunkRef { start, len, nonce: 0, at: 0, overshoots: vec![], foreign: None };
    let (mut chunks, mut rewritten): (Vec<ChunkRef>, u64) = (Vec::new(), 0);
    for time in 0..times {
        chunks.push(chunk(time * len, len));
        if let Some(merged) = mergeable(&chunks, 1 << 20, u64::MAX) {
            let total = chunks[merged.clone()].iter().map(|chunk| chunk.len).sum();
            rewritten += total;
            chunks.splice(merged.clone(), [chunk(chunks[merged.start].start, total)]);
        }
    }
    (chunks.iter().map(|chunk| chunk.len).collect(), rewritten)
}

#[test]
fn chunks_of_a_long_stream_grow_whatever_it_is_sealed_in() {
    let ten_gib = 10 << 30;
    for len in [100 << 10, 700 << 10, 8 << 20, 10 << 20, 23 << 20, 40 << 20] {
        let (chunks, rewritten) = grow(len, ten_gib / len);
        assert!(chunks.len() <= 320, "{} chunks of 10 GiB sealed {len} at a time", chunks.len());
        assert!(rewritten <= 3 * ten_gib, "{rewritten} bytes rewritten, sealed {len} at a time");
        assert!(chunks.iter().all(|chunk| *chunk < 160 << 20), "a chunk of {:?}", chunks.iter().max());
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_does_not_take_a_manifest_back() {
    // It did, when it wrote the manifest of a stream anew without having read as much of the log as the one who had
    // written it: the records in between would have been folded twice.
    let bucket: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let context = context(Arc::clone(&bucket), 2);
    let mut committed = Committed::default();
    write(&*bucket, &mut committed, 1, &[created(), appended(0, "first")]).await;
    committed.base = Some(Base { manifest: None, version: None });
    let plan = Plan::new(0, &name(), 7, &committed).unwrap_or_else(|| panic!("the manifest is known"));
    let Ok(Sealed::Written { base, .. }) = seal(&context, &plan).await else { panic!("it was to be written") };
    let mut behind = Committed::default();
    assert_eq!(behind.rebase(base, PAGE), Ok(()));
    let plan = Plan::new(0, &name(), 3, &behind).unwrap_or_else(|| panic!("the manifest is known"));
    let Ok(Sealed::Written { base, .. }) = seal(&context, &plan).await else { panic!("it was to be written") };
    assert_eq!(base.log_position(), 7);
}

#[tokio::test]
async fn neither_a_page_nor_what_is_to_be_sealed_keeps_a_log_object_in_memory() {
    let bucket: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let context = Arc::new(context(Arc::clone(&bucket), 2));
    let mut committed = Committed::default();
    write(&*bucket, &mut committed, 1, &[created(), appended(0, "first")]).await;
    committed.base = Some(Base { manifest: None, version: None });
    let plan = Plan::new(0, &name(), 1, &committed).unwrap_or_else(|| panic!("the manifest is known"));
    let owner = Owner { shard: 0, name: &plan.name, incarnation: incarnation(), is_json: false };

    let parts = read::parts(&committed, &(0..5)).unwrap_or_else(|| panic!("no parts"));
    let page = read::fetch(&context, owner, 0..5, parts).await;
    let (page, _) = page.unwrap_or_else(|e| panic!("{e:?}"));
    let mut builder = Builder { context: &context, plan: &plan, owner, open: Open::default(), built: nothing(&plan) };
    builder.take_from_log(&plan.runs[0]).await.unwrap_or_else(|e| panic!("{e:?}"));

    let object = bucket.get(&key::log(0, 1)).await.ok().and_then(|reply| reply.value);
    let object = object.unwrap_or_else(|| panic!("no log object")).body;
    for (what, bytes) in [("a page", &page), ("what is to be sealed", &builder.open.pieces[0])] {
        assert_eq!(&**bytes, b"first");
        assert!(!object.as_ptr_range().contains(&bytes.as_ptr()), "{what} is a slice of the log object");
    }
}

fn nothing(plan: &Plan) -> Built {
    let (name, log_position) = (plan.name.as_str().to_owned(), plan.log_position);
    let manifest = Manifest { name, log_position, stream: None, chunks: vec![], kept: vec![], inline: None };
    Built { manifest, uploaded: vec![], dropped: vec![] }
}
