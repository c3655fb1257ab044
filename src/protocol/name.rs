//! Stream names: the decoded path of a stream URL below the stream root.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::Malformed;

/// The longest name, in bytes after decoding.
pub const MAX_NAME_BYTES: usize = 512;
/// The most path segments in a name.
pub const MAX_NAME_SEGMENTS: usize = 32;
/// Paths whose first segment is this belong to the protocol's control APIs (§6).
pub const RESERVED_SEGMENT: &str = "__ds";

/// A valid stream name: `/`-separated, no empty, `.` or `..` segment, no control characters, at most
/// [`MAX_NAME_BYTES`], not under `__ds`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// From the percent-encoded part of the URL path below the stream root, without a leading slash.
    pub fn from_url_path(path: &str) -> Result<StreamName, Malformed> {
        if path.as_bytes().windows(3).any(|w| w.eq_ignore_ascii_case(b"%2f")) {
            return Err(Malformed::new("stream path contains an encoded slash (%2F); use a plain one"));
        }
        check_escapes(path)?;
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| Malformed::new("stream path is not UTF-8"))?;
        StreamName::new(&decoded)
    }

    /// From the decoded name.
    pub fn new(name: &str) -> Result<StreamName, Malformed> {
        if name.is_empty() {
            return Err(Malformed::new("stream path is empty"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Malformed::new(format!("stream path is longer than {MAX_NAME_BYTES} bytes")));
        }
        if name.chars().any(char::is_control) {
            return Err(Malformed::new("stream path contains a control character"));
        }
        if name.split('/').count() > MAX_NAME_SEGMENTS {
            return Err(Malformed::new(format!("stream path has more than {MAX_NAME_SEGMENTS} segments")));
        }
        if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(Malformed::new("stream path has an empty, '.' or '..' segment"));
        }
        if name.split('/').next() == Some(RESERVED_SEGMENT) {
            return Err(Malformed::new("stream paths under __ds are reserved (protocol section 6)"));
        }
        Ok(StreamName(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hash of the name that is the same on every machine and in every version.
    pub fn stable_hash(&self) -> u64 {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        u64::from_be_bytes(first)
    }
}

fn check_escapes(path: &str) -> Result<(), Malformed> {
    let bytes = path.as_bytes();
    let broken = bytes.iter().enumerate().any(|(at, byte)| {
        *byte == b'%' && !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if broken { Err(Malformed::new("stream path has a '%' that starts no percent-encoding")) } else { Ok(()) }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_are_names() {
        for (path, name) in
            [("a", "a"), ("chat/room-1", "chat/room-1"), ("a%20b", "a b"), ("%C3%A9", "é"), ("...", "...")]
        {
            assert_eq!(StreamName::from_url_path(path).map(|n| n.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn ambiguous_and_hostile_paths_are_refused() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let deep = vec!["a"; MAX_NAME_SEGMENTS + 1].join("/");
        for path in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/./b",
            "%2e%2e",
            "a%2Fb",
            "a%00b",
            "a%0ab",
            "%ff",
            "%",
            "%4",
            "%zz",
            "__ds",
            "__ds/subscriptions/x",
            &long,
            &deep,
        ] {
            assert!(StreamName::from_url_path(path).is_err(), "{path} was accepted");
        }
    }

    #[test]
    fn the_hash_never_changes() {
        // Streams would move to other shards, where nobody finds them.
        assert_eq!(StreamName::new("chat/room-1").map(|n| n.stable_hash()), Ok(0x519f_8913_d06a_dbb9));
    }
}
