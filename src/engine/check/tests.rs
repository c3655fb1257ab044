use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::engine::testing::{World, name, seconds, settings};
use crate::protocol::Lifetime;

impl World {
    async fn check(&self, quick: bool) -> (Vec<Finding>, Checked) {
        let found = Mutex::new(Vec::new());
        let tell = |finding: &Finding| found.lock().unwrap_or_else(PoisonError::into_inner).push(finding.clone());
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let checked = check(store, Clock::tokio(1_800_000_000_000), quick, &tell).await;
        let checked = checked.unwrap_or_else(|e| panic!("{e}"));
        (found.into_inner().unwrap_or_else(PoisonError::into_inner), checked)
    }

    async fn damage(&self, quick: bool) -> Vec<String> {
        let (found, _) = self.check(quick).await;
        found.into_iter().filter(|f| f.severity == Severity::Damage).map(|f| f.key).collect()
    }

    async fn object(&self, key: &str) -> Bytes {
        let object = self.store.get(key).await.unwrap_or_else(|e| panic!("{e}")).value;
        object.unwrap_or_else(|| panic!("{key} is not there")).body
    }

    /// Puts something else where an object is, or nothing.
    async fn replace(&self, key: &str, object: Option<Bytes>) {
        self.store.delete(key).await.unwrap_or_else(|e| panic!("{e}"));
        if let Some(object) = object {
            self.plant(key, object).await;
        }
    }

    /// All kinds of objects: sealed and merged chunks, chunks of single appends, inline bytes, a tombstone, bytes in the
    /// log behind and after the checkpoint.
    async fn with_everything() -> World {
        let world = World::with(EngineSettings { page_bytes: 64, ..settings() }).await;
        let [sealed, gone, busy] = ["sealed/é", "gone", "busy"].map(name);
        for stream in [&sealed, &gone] {
            world.create(stream, Lifetime::Forever).await;
            world.append(stream, "short;").await;
        }
        world.append(&sealed, &"x".repeat(50)).await;
        world.append(&sealed, "more than is kept inline;").await;
        world.engine.delete(&gone).await.unwrap_or_else(|e| panic!("{e}"));
        // Long enough for the log to be cut.
        for _ in 0..20 {
            seconds(7).await;
            world.append(&sealed, "more;").await;
        }
        world.create(&busy, Lifetime::Forever).await;
        for number in 0..8 {
            world.append(&busy, &format!("{number};")).await;
        }
        world.append(&busy, &"y".repeat(50)).await;
        seconds(2).await;
        world.append(&busy, "the last;").await;
        world
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_bucket_has_no_findings() {
    let world = World::with_everything().await;
    for quick in [false, true] {
        let (found, checked) = world.check(quick).await;
        assert_eq!(found, vec![], "quick: {quick}");
        assert!(checked.streams >= 3 && checked.entries > 8 && checked.chunks >= 3, "{checked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn any_changed_cut_or_exchanged_object_is_named() {
    let world = World::with_everything().await;
    let keys = world.keys().await;
    assert!(keys.len() > 15, "{keys:?}");
    for key in keys.iter().filter(|key| *key != "cluster") {
        let whole = world.object(key).await;
        // A document's write id is before its body, and is not covered by the checksum.
        let body = whole.windows(6).position(|window| window == b"\"body\"").unwrap_or(0);
        for at in [body + 8, (body + whole.len()) / 2, whole.len() - 6] {
            let mut changed = whole.to_vec();
            changed[at] ^= 4;
            world.replace(key, Some(changed.into())).await;
            assert_eq!(world.damage(false).await.first(), Some(key), "byte {at} of {}", whole.len());
        }
        let other = keys.iter().find(|other| *other != key && other[..4] == key[..4]);
        let other = world.object(other.unwrap_or(key)).await;
        for (what, object) in [("cut", whole.slice(..whole.len() - 1)), ("emptied", Bytes::new()), ("other", other)] {
            // Chunks do not say which they are: one of the same length would do as well.
            if object.len() != whole.len() {
                world.replace(key, Some(object)).await;
                assert!(world.damage(false).await.contains(key), "{what}: {key}");
            }
        }
        world.replace(key, Some(whole)).await;
    }
    assert_eq!(world.damage(false).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn any_missing_object_is_noticed() {
    let world = World::with_everything().await;
    let keys = world.keys().await;
    // The last entry of a log leaves no trace until a checkpoint or a manifest says that it was there; and a stream that is
    // all in its manifest leaves none but that.
    let traceless = [keys.iter().rfind(|key| key.starts_with("log/")), keys.iter().find(|key| key.contains("/gone/"))];
    let traceless = traceless.map(|key| key.cloned().unwrap_or_default());
    assert!(traceless[0].starts_with("log/0/") && traceless[1] == "streams/gone/manifest");
    for key in keys.iter().filter(|key| *key != "cluster") {
        let whole = world.object(key).await;
        world.replace(key, None).await;
        for quick in [false, true] {
            let (found, _) = world.check(quick).await;
            let is_damaged = found.iter().any(|finding| finding.severity == Severity::Damage);
            assert_eq!(is_damaged, !traceless.contains(key), "{key}: {found:?}");
        }
        world.replace(key, Some(whole)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_cluster_document_is_an_error() {
    let world = World::with_everything().await;
    world.replace("cluster", None).await;
    let store = Arc::clone(&world.store) as Arc<dyn Store>;
    let checked = check(store, Clock::tokio(0), false, &|_| {}).await;
    assert!(matches!(&checked, Err(EngineError::Damaged { key, .. }) if key == "cluster"), "{checked:?}");
}

#[tokio::test(start_paused = true)]
async fn garbage_and_foreign_objects_are_told_apart_from_damage() {
    let world = World::with_everything().await;
    let stream = name("gone");
    let incarnation = world.engine.new_incarnation();
    let orphan = world.orphan(&stream, incarnation, 1).await;
    let foreign = ["README", "log/0/x", "log/zero", "streams/gone/notes", "zzz"];
    for key in foreign {
        world.plant(key, Bytes::from_static(b"hello")).await;
    }
    let (found, checked) = world.check(false).await;
    let mut keys: Vec<&str> = found.iter().map(|finding| &*finding.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["README", "log/0/x", "log/zero", "streams/gone/notes", "zzz"], "{found:?}");
    assert_eq!(checked.findings.keys().collect::<Vec<_>>(), [&Severity::Foreign]);
    seconds(70).await;
    let (found, checked) = world.check(false).await;
    assert!(found.iter().any(|f| f.severity == Severity::Garbage && f.key == orphan), "{found:?}");
    assert_eq!(checked.damaged(), 0);
}

#[tokio::test(start_paused = true)]
async fn chunks_whose_manifest_is_lost_are_damage_and_are_kept() {
    let world = World::with_everything().await;
    let manifest = key::manifest(&name("sealed/é"));
    world.replace(&manifest, None).await;
    seconds(70).await;
    assert!(world.damage(false).await.contains(&manifest));
    let before = world.keys().await;
    // As another replica does, that has not seen the manifest.
    let store = Arc::clone(&world.store) as Arc<dyn Store>;
    let engine = crate::engine::Engine::open(store, settings(), Clock::tokio(1_800_000_200_000), Ids::seeded(9)).await;
    let collected = engine.unwrap_or_else(|e| panic!("{e}")).collect(true, &|_| {}).await;
    let collected = collected.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((collected.chunks, collected.left), (0, 1), "{collected:?}");
    let after = world.keys().await;
    assert!(before.iter().filter(|key| key.starts_with("streams/")).all(|key| after.contains(key)));
}

#[tokio::test(start_paused = true)]
async fn an_entry_beyond_a_gap_is_a_note_and_several_writers_beyond_it_are_damage() {
    use crate::layout::entry::{self, Header};
    let world = World::with_everything().await;
    let keys = world.keys().await;
    let last = keys.iter().filter_map(|key| match Key::parse(key) {
        Some(Key::Log { position, .. }) => Some(position),
        _ => None,
    });
    let last = last.max().unwrap_or(0);
    for (position, writer, expected) in
        [(last + 2, 5, Severity::Note), (last + 3, 5, Severity::Note), (last + 4, 6, Severity::Damage)]
    {
        let header = Header { shard: 0, position, id: u128::from(position), prev: 1, writer, at: 0 };
        world.plant(&key::log(0, position), entry::encode(&header, std::iter::empty())).await;
        let (found, _) = world.check(false).await;
        assert_eq!(found.iter().map(|f| f.severity).collect::<Vec<_>>(), [expected], "{found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn checking_while_streams_are_written_sealed_merged_and_deleted_finds_nothing() {
    let world = World::with(EngineSettings { seal_runs: 3, ..settings() }).await;
    let (stream, mortal) = (name("s"), name("mortal"));
    world.create(&stream, Lifetime::Forever).await;
    for round in 0..60 {
        world.create(&mortal, Lifetime::Forever).await;
        for _ in 0..4 {
            world.append(&stream, &"z".repeat(30 + round)).await;
            world.append(&mortal, "to be deleted, in a chunk").await;
            let ((found, _), ()) = tokio::join!(world.check(false), tokio::time::sleep(Duration::from_millis(700)));
            assert_eq!(found, vec![]);
        }
        world.engine.delete(&mortal).await.unwrap_or_else(|e| panic!("{e}"));
    }
}
