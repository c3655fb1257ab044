//! Where a key's object lies below the directory of objects, and back.
//!
//! A segment of a key (the part between slashes) becomes a directory, the last one a file. In their names
//! - `a`–`z`, `0`–`9`, `-`, `_`, `%`, `~` and a `.` that is not the first byte stand for themselves, every other byte is
//!   `=` and two hexadecimal digits. Upper-case letters are among those, for file systems that don't tell case apart;
//! - a file's name ends in a lone `=`, so that `a` and `a/b` can both be keys;
//! - a directory for an empty segment is `=d`;
//! - a segment of 80 bytes or more is cut after each 80, because a name can have 255 bytes: a piece that goes on in
//!   the next directory level ends in `+`.
//!
//! So `streams/chat%20A/manifest` is `streams/chat%20=41/manifest=`.
//!
//! Below one directory, the keys of two entries never interleave: files come at exactly their key, and since only
//! pieces of full length end in `+`, no entry's piece is a prefix of a `+` piece next to it. Walking the entries in the
//! order of [`Entry::key_part`] therefore gives keys in byte order.

use std::path::PathBuf;

const PIECE: usize = 80;
const EMPTY: &str = "=d";

/// The path of `key`, relative to the directory of objects.
pub(super) fn of_key(key: &str) -> PathBuf {
    let mut path = PathBuf::new();
    let mut segments = key.as_bytes().split(|byte| *byte == b'/').peekable();
    while let Some(mut rest) = segments.next() {
        while rest.len() >= PIECE {
            let (piece, later) = rest.split_at(PIECE);
            path.push(encode(piece) + "+");
            rest = later;
        }
        let is_last = segments.peek().is_none();
        path.push(match (is_last, rest) {
            (true, _) => encode(rest) + "=",
            (false, []) => EMPTY.to_owned(),
            (false, _) => encode(rest),
        });
    }
    path
}

fn encode(piece: &[u8]) -> String {
    let mut name = String::with_capacity(piece.len());
    for (i, byte) in piece.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'%' | b'~' => name.push(*byte as char),
            b'.' if i > 0 => name.push('.'),
            _ => name.push_str(&format!("={byte:02x}")),
        }
    }
    name
}

/// A directory entry, as a part of keys.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// What the entry adds to the key: with a slash at the end if a segment is complete.
    pub key_part: Vec<u8>,
    pub is_object: bool,
}

/// `None` if this store did not make it.
pub(super) fn of_name(name: &str) -> Option<Entry> {
    if name == EMPTY {
        return Some(Entry { key_part: b"/".to_vec(), is_object: false });
    }
    if let Some(piece) = name.strip_suffix('+') {
        return Some(Entry { key_part: decode(piece)?, is_object: false });
    }
    if let Some(piece) = name.strip_suffix('=') {
        return Some(Entry { key_part: decode(piece)?, is_object: true });
    }
    let mut key_part = decode(name)?;
    key_part.push(b'/');
    Some(Entry { key_part, is_object: false })
}

fn decode(piece: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(piece.len());
    let mut rest = piece.as_bytes();
    while let [byte, later @ ..] = rest {
        rest = later;
        if *byte != b'=' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(key: &str) -> Vec<String> {
        of_key(key).iter().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn paths_are_readable_and_never_leave_the_directory() {
        assert_eq!(names("streams/chat%2Froom%20A/manifest"), ["streams", "chat%2=46room%20=41", "manifest="]);
        assert_eq!(names("log/0/00000000000000000042"), ["log", "0", "00000000000000000042="]);
        assert_eq!(names("../a.b/./c"), ["=2e.", "a.b", "=2e", "c="]);
        assert_eq!(names("/a//"), ["=d", "a", "=d", "="]);
    }

    fn any_key() -> impl Strategy<Value = String> {
        let segment = prop_oneof!["[aB.%=+-]{0,3}", "[ab]{79,81}", "é{39,41}", "[a/]{160,161}"];
        proptest::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"))
    }

    proptest! {
        #[test]
        fn every_key_has_a_path_that_leads_back(key in any_key()) {
            let names = names(&key);
            let entries: Vec<Entry> = names.iter().map(|name| of_name(name).expect("made here")).collect();
            let parts: Vec<u8> = entries.iter().flat_map(|entry| entry.key_part.clone()).collect();
            prop_assert_eq!(String::from_utf8(parts).ok(), Some(key));
            prop_assert!(entries.iter().rev().skip(1).all(|entry| !entry.is_object));
            prop_assert!(entries.last().is_some_and(|entry| entry.is_object));
            prop_assert!(names.iter().all(|name| name.len() <= 255 && name != "." && name != ".."));
        }

        /// What the ordered walk relies on.
        #[test]
        fn walking_entries_in_order_gives_keys_in_byte_order(a in any_key(), b in any_key()) {
            let parts = |key: &str| names(key).iter().map(|name| of_name(name).expect("made here")).collect::<Vec<_>>();
            prop_assert_eq!(parts(&a).cmp(&parts(&b)), a.as_bytes().cmp(b.as_bytes()));
        }
    }
}
