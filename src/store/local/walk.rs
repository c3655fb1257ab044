//! Listing: an ordered walk over the directories that can hold wanted keys, and over no others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::modified;
use super::path::{self, Entry};
use crate::store::{Listed, Listing};

pub(super) struct Wanted<'a> {
    pub prefix: &'a [u8],
    pub after: Option<&'a [u8]>,
    pub limit: usize,
}

pub(super) fn list(objects: &Path, wanted: &Wanted<'_>) -> io::Result<Listing> {
    let mut items = Vec::new();
    // One more than wanted tells whether there are more.
    walk(objects, &mut Vec::new(), wanted, &mut items)?;
    let more = items.len() > wanted.limit;
    items.truncate(wanted.limit);
    Ok(Listing { items, more })
}

fn walk(directory: &Path, key: &mut Vec<u8>, wanted: &Wanted<'_>, items: &mut Vec<Listed>) -> io::Result<()> {
    for (entry, path) in entries(directory)? {
        if items.len() > wanted.limit {
            return Ok(());
        }
        let depth = key.len();
        key.extend_from_slice(&entry.key_part);
        if entry.is_object && wanted.has(key) {
            items.extend(listed(key, &path)?);
        } else if !entry.is_object && wanted.may_lie_below(key) {
            walk(&path, key, wanted, items)?;
        }
        key.truncate(depth);
    }
    Ok(())
}

impl Wanted<'_> {
    fn has(&self, key: &[u8]) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    fn may_lie_below(&self, start: &[u8]) -> bool {
        let in_prefix = start.starts_with(self.prefix) || self.prefix.starts_with(start);
        in_prefix && self.after.is_none_or(|after| start > after || after.starts_with(start))
    }
}

/// In the order of the keys. Directories go while others walk, and a foreign file may be named like one.
fn entries(directory: &Path) -> io::Result<Vec<(Entry, PathBuf)>> {
    let found = match fs::read_dir(directory) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    for item in found {
        let item = item?;
        if let Some(entry) = item.file_name().to_str().and_then(path::of_name) {
            entries.push((entry, item.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

fn listed(key: &[u8], path: &Path) -> io::Result<Option<Listed>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        // Deleted since the directory was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let key = String::from_utf8(key.to_vec()).ok();
    Ok(key.map(|key| Listed { key, size: metadata.len(), modified: modified(&metadata) }))
}
