//! A directory as a bucket: for one machine, without any other service.
//!
//! Below the directory, `objects/` holds the objects (see [`path`] for how keys become file names), `temporary/` what is
//! being written, and `locks/` files that processes lock. Several processes may use one directory at a time, if it is
//! on a local file system: then the machine's clock is the store's, and what was acknowledged survives a crash.

mod files;
mod path;
mod walk;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use self::files::{Broke, Files, modified};
use super::{Condition, Failure, FailureKind, LIST_PAGE, LastSeen, Listing, Object, Put, Reply, Store, StoreError};
use super::{StoreResult, StoreTime};
use crate::clock::{Clock, Ids};

#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    files: Files,
    clock: Clock,
    last_seen: LastSeen,
}

impl LocalStore {
    /// Makes the directory if it is not there.
    pub async fn open(root: &Path, clock: Clock, ids: Ids) -> Result<LocalStore, String> {
        let root = root.to_path_buf();
        let (directory, its_clock) = (root.clone(), clock.clone());
        let opened = tokio::task::spawn_blocking(move || Files::open(&directory, its_clock, ids)).await;
        let files = match opened {
            Ok(Ok(files)) => files,
            Ok(Err(error)) => return Err(format!("local:{}: {}", root.display(), explain(&error))),
            Err(stopped) => return Err(format!("local:{}: {stopped}", root.display())),
        };
        Ok(LocalStore { root, files, clock, last_seen: LastSeen::default() })
    }

    /// Runs `work` where it may block. Dropping the future does not stop it.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Files) -> Result<T, Broke> + Send + 'static,
    ) -> StoreResult<T> {
        let files = self.files.clone();
        match tokio::task::spawn_blocking(move || work(&files)).await {
            Ok(Ok(value)) => Ok(Reply { value, at: self.last_seen.saw(StoreTime::whole_second(self.clock.now())) }),
            Ok(Err(broke)) => Err(self.failed(operation, key, &broke)),
            Err(stopped) => {
                let error = io::Error::other(stopped);
                Err(self.failed(operation, key, &Broke { error, perhaps_applied: true }))
            }
        }
    }

    fn failed(&self, operation: &'static str, key: &str, broke: &Broke) -> StoreError {
        let kind = match broke.error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => FailureKind::Denied,
            _ => FailureKind::Unavailable,
        };
        let message = format!("{}: {}", self.describe(), explain(&broke.error));
        let failure = Failure { operation, key: key.to_owned(), kind, message, retry_after: None };
        if broke.perhaps_applied { StoreError::Unknown(failure) } else { StoreError::NotApplied(failure) }
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        _ => error.to_string(),
    }
}

fn reading(error: io::Error) -> Broke {
    Broke { error, perhaps_applied: false }
}

#[async_trait]
impl Store for LocalStore {
    async fn get(&self, key: &str) -> StoreResult<Option<Object>> {
        let wanted = key.to_owned();
        self.blocking("GET", key, move |files| files.get(&wanted).map_err(reading)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> StoreResult<Option<Bytes>> {
        let wanted = key.to_owned();
        self.blocking("GET", key, move |files| files.get_range(&wanted, &range).map_err(reading)).await
    }

    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> StoreResult<Put> {
        let wanted = key.to_owned();
        self.blocking("PUT", key, move |files| files.put(&wanted, &body, &condition)).await
    }

    async fn delete(&self, key: &str) -> StoreResult<()> {
        let wanted = key.to_owned();
        self.blocking("DELETE", key, move |files| files.delete(&wanted)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> StoreResult<Listing> {
        let (wanted, after, limit) = (prefix.to_owned(), after.map(str::to_owned), limit.clamp(1, LIST_PAGE));
        let work = move |files: &Files| {
            let after = after.as_deref().map(str::as_bytes);
            walk::list(&files.objects, &walk::Wanted { prefix: wanted.as_bytes(), after, limit }).map_err(reading)
        };
        self.blocking("LIST", prefix, work).await
    }

    fn last_seen(&self) -> StoreTime {
        self.last_seen.get()
    }

    fn heard(&self, at: StoreTime) {
        self.last_seen.saw(at);
    }

    fn describe(&self) -> String {
        format!("local:{}", self.root.display())
    }
}
