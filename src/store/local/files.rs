//! The blocking half: a write that is there as a whole or not at all, whatever crashes, and one writer at a time where
//! that matters, also among processes.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::path;
use crate::clock::{Clock, Ids, Millis};
use crate::store::{Condition, Object, Put, StoreTime, Version, clip};

const LOCKS: u32 = 64;
/// A write that takes longer than this has crashed.
const ABANDONED_AFTER: Millis = 3600 * 1000;
/// How often a directory that another's DELETE removed under our feet is made again.
const MKDIR_ATTEMPTS: u32 = 100;

/// The directories of one store.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub objects: PathBuf,
    temporary: PathBuf,
    locks: PathBuf,
    clock: Clock,
    ids: Ids,
}

/// An I/O error, and whether the change may have been made before it came.
pub(super) struct Broke {
    pub error: io::Error,
    pub perhaps_applied: bool,
}

fn before(error: io::Error) -> Broke {
    Broke { error, perhaps_applied: false }
}

fn after(error: io::Error) -> Broke {
    Broke { error, perhaps_applied: true }
}

impl Files {
    pub fn open(root: &Path, clock: Clock, ids: Ids) -> io::Result<Files> {
        let [objects, temporary, locks] = ["objects", "temporary", "locks"].map(|name| root.join(name));
        for directory in [&objects, &temporary, &locks] {
            fs::create_dir_all(directory)?;
        }
        sync(root)?;
        let files = Files { objects, temporary, locks, clock, ids };
        files.remove_abandoned()?;
        Ok(files)
    }

    fn remove_abandoned(&self) -> io::Result<()> {
        let oldest = self.clock.now().saturating_sub(ABANDONED_AFTER);
        for entry in fs::read_dir(&self.temporary)? {
            let entry = entry?;
            if entry.metadata().is_ok_and(|metadata| modified(&metadata).0 < oldest) {
                // Another process may be faster.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    pub fn get(&self, key: &str) -> io::Result<Option<Object>> {
        let Some(mut file) = open_existing(&self.path(key))? else { return Ok(None) };
        let metadata = file.metadata()?;
        let mut body = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.read_to_end(&mut body)?;
        let version = Version::of(&body);
        Ok(Some(Object { body: body.into(), version, modified: modified(&metadata) }))
    }

    pub fn get_range(&self, key: &str, range: &Range<u64>) -> io::Result<Option<Bytes>> {
        let Some(mut file) = open_existing(&self.path(key))? else { return Ok(None) };
        let range = clip(range, file.metadata()?.len());
        file.seek(SeekFrom::Start(range.start))?;
        let mut body = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        file.take(range.end - range.start).read_to_end(&mut body)?;
        Ok(Some(body.into()))
    }

    pub fn put(&self, key: &str, body: &[u8], condition: &Condition) -> Result<Put, Broke> {
        let path = self.path(key);
        match condition {
            Condition::Absent => self.put_absent(&path, body),
            Condition::Unchanged(version) => self.put_unchanged(key, &path, body, version),
        }
    }

    /// `link` fails if there is a file, so the file system itself decides between racing writers.
    fn put_absent(&self, path: &Path, body: &[u8]) -> Result<Put, Broke> {
        let temporary = self.write_temporary(body).map_err(before)?;
        let linked = self.in_directory(path, || fs::hard_link(&temporary, path));
        // It stays until it counts as abandoned if this fails.
        let _ = fs::remove_file(&temporary);
        match linked {
            Ok(()) => {
                self.sync_above(path).map_err(after)?;
                Ok(Put::Written(Version::of(body)))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Who hears of a conflict goes on from what is there, so it must be there to stay.
                self.sync_above(path).map_err(before)?;
                Ok(Put::Conflict)
            }
            Err(error) => Err(before(error)),
        }
    }

    /// Comparing and replacing happen under a lock that all processes honour.
    fn put_unchanged(&self, key: &str, path: &Path, body: &[u8], expected: &Version) -> Result<Put, Broke> {
        let _lock = self.lock(key).map_err(before)?;
        let current = self.get(key).map_err(before)?;
        if current.is_none_or(|object| object.version != *expected) {
            self.sync_above(path).map_err(before)?;
            return Ok(Put::Conflict);
        }
        let temporary = self.write_temporary(body).map_err(before)?;
        if let Err(error) = fs::rename(&temporary, path) {
            let _ = fs::remove_file(&temporary);
            return Err(before(error));
        }
        self.sync_above(path).map_err(after)?;
        Ok(Put::Written(Version::of(body)))
    }

    pub fn delete(&self, key: &str) -> Result<(), Broke> {
        let path = self.path(key);
        let _lock = self.lock(key).map_err(before)?;
        match fs::remove_file(&path) {
            Ok(()) => self.sync_above(&path).map_err(after)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(before(error)),
        }
        // As in a bucket, there are no empty directories. The first that is not empty ends it.
        let mut directory = path.parent();
        while let Some(empty) = directory.filter(|directory| *directory != self.objects) {
            if fs::remove_dir(empty).is_err() {
                break;
            }
            directory = empty.parent();
        }
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.objects.join(path::of_key(key))
    }

    /// The bytes in a file of their own, on the disk, with the store's time on it.
    fn write_temporary(&self, body: &[u8]) -> io::Result<PathBuf> {
        let path = self.temporary.join(format!("{:032x}", self.ids.id()));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(body)?;
            file.set_modified(UNIX_EPOCH + Duration::from_millis(self.clock.now()))?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// `change` in a directory that exists, although a DELETE may be removing it as empty.
    fn in_directory(&self, path: &Path, change: impl Fn() -> io::Result<()>) -> io::Result<()> {
        for _ in 0..MKDIR_ATTEMPTS {
            match change() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match fs::create_dir_all(path.parent().unwrap_or(&self.objects)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                result => return result,
            }
        }
        change()
    }

    /// Makes a new entry permanent, and those of the directories above it: whoever made them may not have come so far.
    fn sync_above(&self, path: &Path) -> io::Result<()> {
        for directory in path.ancestors().skip(1) {
            match sync(directory) {
                // Removed as empty since, by a DELETE.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
            if directory == self.objects {
                break;
            }
        }
        Ok(())
    }

    /// Held until dropped. Each call opens the file anew, so it also keeps threads apart.
    fn lock(&self, key: &str) -> io::Result<File> {
        let name = format!("{:02}", crc32fast::hash(key.as_bytes()) % LOCKS);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.locks.join(name))?;
        file.lock()?;
        Ok(file)
    }
}

fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

pub(super) fn modified(metadata: &Metadata) -> StoreTime {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    StoreTime::whole_second(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
