//! What a directory has beyond a bucket: several processes, crashes, a disk that says no.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use headwater::clock::{Clock, Ids};
use headwater::store::local::LocalStore;
use headwater::store::{Put, Store};

use crate::{directory, local, races};

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_on_one_directory_agree() {
    let directory = directory();
    races::all(&local(&directory).await, &local(&directory).await).await;
}

#[tokio::test]
async fn objects_are_there_when_the_directory_is_opened_again() {
    let directory = directory();
    local(&directory).await.create("streams/a/manifest", "content").await;
    assert_eq!(local(&directory).await.body("streams/a/manifest").await.as_deref(), Some(&b"content"[..]));
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_no_object_and_is_removed_when_old() {
    let directory = directory();
    let subject = local(&directory).await;
    subject.create("log/0/1", "content").await;
    let temporary = directory.path().join("temporary");
    assert_eq!(names_in(&temporary), [""; 0], "a finished write leaves nothing");
    let fresh = temporary.join("fresh");
    let old = temporary.join("old");
    for path in [&fresh, &old] {
        fs::write(path, "half of it").expect("a file");
    }
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(&old).and_then(|file| file.set_modified(long_ago)).expect("an old file");
    assert_eq!(local(&directory).await.list("", None, 10).await, (vec!["log/0/1".to_owned()], false));
    assert_eq!(names_in(&temporary), ["fresh"], "another process may be writing it");
}

#[tokio::test]
async fn foreign_files_among_the_objects_are_not_listed() {
    let directory = directory();
    let subject = local(&directory).await;
    subject.create("a", "content").await;
    fs::write(directory.path().join("objects/notes.txt"), "foreign").expect("a file");
    assert_eq!(subject.list("", None, 10).await, (vec!["a".to_owned()], false));
}

#[tokio::test]
async fn deleting_the_last_object_leaves_no_directories() {
    let directory = directory();
    let subject = local(&directory).await;
    subject.create("streams/a/manifest", "content").await;
    subject.delete("streams/a/manifest").await;
    assert_eq!(names_in(&directory.path().join("objects")), [""; 0]);
    assert!(matches!(subject.create("streams/a/manifest", "again").await, Put::Written(_)));
}

#[tokio::test]
async fn times_are_those_of_the_clock() {
    let directory = directory();
    let store = LocalStore::open(directory.path(), Clock::tokio(7_777), Ids::seeded(1)).await.expect("a store");
    let subject = crate::Subject { name: "local", store: std::sync::Arc::new(store) };
    subject.create("a", "content").await;
    let reply = subject.store.get("a").await.expect("an answer");
    let modified = reply.value.expect("an object").modified;
    assert_eq!((modified.0, reply.at.0 / 1_000_000), (7_000, 0));
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_explained() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    let error = LocalStore::open(&file, Clock::system(), Ids::random()).await.expect_err("a file is no directory");
    assert!(error.starts_with(&format!("local:{}: ", file.display())), "{error}");
}

#[tokio::test]
async fn describe_names_the_directory() {
    let directory = directory();
    let store = LocalStore::open(directory.path(), Clock::system(), Ids::random()).await.expect("a store");
    assert_eq!(store.describe(), format!("local:{}", directory.path().display()));
}
