//! Inputs that were kept: objects as each version of a format wrote them, and what once was a mistake.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::harness::{self, Target};

/// Reads all that is kept of a kind. Returns how many there were.
pub fn replay<T: Target>() -> usize {
    let files = files(T::NAME);
    for path in &files {
        let input = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let accepted = match harness::read::<T>(&Bytes::from(input)) {
            Ok(reading) => reading.value.is_some(),
            Err(why) => panic!("{}: {why}", path.display()),
        };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(name.starts_with(if accepted { "ok-" } else { "no-" }), "{}: accepted: {accepted}", path.display());
    }
    files.len()
}

fn files(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(kind);
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.sort();
    files
}
