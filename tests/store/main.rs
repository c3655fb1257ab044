//! The store contract: one suite, run against every store.

mod broken;
mod contract;
mod local;
mod races;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use bytes::Bytes;
use headwater::clock::{Clock, Ids};
use headwater::store::faulty::{Fate, Faulty};
use headwater::store::local::LocalStore;
use headwater::store::memory::MemoryStore;
use headwater::store::probe::probe;
use headwater::store::s3::{AccessKeys, S3Options};
use headwater::store::{Condition, FailureKind, Put, Reply, Store, StoreError, StoreResult, StoreUrl, open};
use support::{ACCESS_KEY, Minio, SECRET_KEY};
use tempfile::TempDir;

/// A store under test; assertions name it.
#[derive(Debug, Clone)]
pub struct Subject {
    pub name: &'static str,
    pub store: Arc<dyn Store>,
}

impl Subject {
    pub fn heard<T>(&self, result: StoreResult<T>) -> Reply<T> {
        result.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub async fn create(&self, key: &str, body: impl Into<Bytes>) -> Put {
        self.put(key, body, Condition::Absent).await
    }

    pub async fn put(&self, key: &str, body: impl Into<Bytes>, condition: Condition) -> Put {
        self.heard(self.store.put(key, body.into(), condition).await).value
    }

    pub async fn body(&self, key: &str) -> Option<Bytes> {
        self.heard(self.store.get(key).await).value.map(|object| object.body)
    }

    pub async fn delete(&self, key: &str) {
        self.heard(self.store.delete(key).await);
    }

    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
        let listing = self.heard(self.store.list(prefix, after, limit).await).value;
        (listing.items.into_iter().map(|item| item.key).collect(), listing.more)
    }
}

fn memory() -> Subject {
    Subject { name: "memory", store: Arc::new(MemoryStore::new(Clock::system())) }
}

async fn local(directory: &TempDir) -> Subject {
    let opened = LocalStore::open(directory.path(), Clock::system(), Ids::random()).await;
    Subject { name: "local", store: Arc::new(opened.unwrap_or_else(|error| panic!("{error}"))) }
}

async fn minio(minio: &Minio) -> Subject {
    let url: StoreUrl = format!("s3://{}/some/prefix", minio.bucket()).parse().expect("a store URL");
    let keys = AccessKeys { access_key: ACCESS_KEY.to_owned(), secret_key: SECRET_KEY.to_owned(), session_token: None };
    let endpoint = Some(minio.endpoint());
    let options = S3Options { endpoint, path_style: true, keys: Some(keys), ..S3Options::default() };
    let opened = open(&url, options, Clock::system(), Ids::random()).await;
    Subject { name: "minio", store: opened.unwrap_or_else(|error| panic!("{error}")) }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

async fn whole_contract(subject: &Subject) {
    contract::all(subject).await;
    races::all(subject, subject).await;
    for _ in 0..2 {
        probe(&*subject.store, &Ids::random()).await.unwrap_or_else(|error| panic!("{}: {error}", subject.name));
    }
    let left = subject.list("probe/", None, 10).await;
    assert_eq!(left, (vec![], false), "{}: the probe cleans up", subject.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    whole_contract(&memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_contract() {
    let directory = directory();
    whole_contract(&local(&directory).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_bucket_keeps_the_contract() {
    let Some(server) = Minio::start() else { return };
    whole_contract(&minio(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_of_a_bucket_agree() {
    let Some(server) = Minio::start() else { return };
    races::all(&minio(&server).await, &minio(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_bucket_is_told_and_ends_without_a_restart() {
    let Some(mut server) = Minio::start() else { return };
    let subject = minio(&server).await;
    subject.create("before", "kept").await;
    server.stop();
    let refused = subject.store.put("during", Bytes::new(), Condition::Absent).await;
    assert!(
        matches!(&refused, Err(StoreError::NotApplied(failure)) if failure.kind == FailureKind::Unavailable),
        "{refused:?}"
    );
    assert!(subject.store.get("before").await.is_err());
    server.restart();
    assert_eq!(subject.body("before").await.as_deref(), Some(&b"kept"[..]));
    assert_eq!(subject.body("during").await, None);
    assert!(matches!(subject.create("during", "now").await, Put::Written(_)));
}

#[tokio::test]
async fn a_bucket_that_is_missing_or_forbidden_fails_the_probe_clearly() {
    let Some(server) = Minio::start() else { return };
    for (bucket, secret_key, expected) in
        [("no-such-bucket", SECRET_KEY, "NoSuchBucket"), (server.bucket(), "wrong", "SignatureDoesNotMatch")]
    {
        let url: StoreUrl = format!("s3://{bucket}").parse().expect("a store URL");
        let keys =
            AccessKeys { access_key: ACCESS_KEY.to_owned(), secret_key: secret_key.to_owned(), session_token: None };
        let endpoint = Some(server.endpoint());
        let options = S3Options { endpoint, path_style: true, keys: Some(keys), ..S3Options::default() };
        let store = open(&url, options, Clock::system(), Ids::random()).await.expect("a store");
        let failure = probe(&*store, &Ids::random()).await.expect_err(expected);
        assert!(failure.what.contains(expected) && !failure.is_transient, "{failure:?}");
    }
}

#[tokio::test]
async fn the_probe_is_not_misled_by_puts_that_were_not_heard_of() {
    let faulty = Faulty::new(memory().store, Ids::seeded(1));
    for name in ["conditions", "elsewhere", "create", "update"] {
        faulty.next_put(&format!("probe/{:032x}/{name}", Ids::seeded(2).id()), Fate::Unheard);
    }
    assert_eq!(probe(&faulty, &Ids::seeded(2)).await, Ok(()));
}

#[tokio::test]
async fn the_probe_tells_an_outage_from_a_broken_store() {
    let faulty = Faulty::new(memory().store, Ids::seeded(1));
    faulty.outage(true);
    let failure = probe(&faulty, &Ids::seeded(2)).await.expect_err("an outage");
    assert!(failure.is_transient, "{failure:?}");
}
