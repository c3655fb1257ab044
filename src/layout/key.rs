//! Keys of all objects, below the store's prefix.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::protocol::{Incarnation, StreamName};

pub const CLUSTER: &str = "cluster";
pub const COLLECTOR: &str = "collector";
/// What the start-up probe writes and removes lies under this.
pub const PROBES: &str = "probe/";
/// All logs lie under this.
pub const LOGS: &str = "log/";
/// All checkpoints lie under this.
pub const CHECKPOINTS: &str = "checkpoint/";
/// The replicas that are there lie under this.
pub const REPLICAS: &str = "replicas/";
/// Everything of streams lies under this.
pub const STREAMS: &str = "streams/";

/// Characters of a stream name that stay readable. `~` is not among them: it marks shortened names.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// MinIO keeps each segment of a key as a file name, which ends at 255 bytes; whole keys end at 1,024.
const LONGEST_NAME: usize = 250;
const SHORTENED_TO: usize = 128;

pub fn log(shard: u32, position: u64) -> String {
    format!("{}{position:020}", logs(shard))
}

/// All keys of a shard's log start with this.
pub fn logs(shard: u32) -> String {
    format!("{LOGS}{shard}/")
}

pub fn checkpoint(shard: u32) -> String {
    format!("{CHECKPOINTS}{shard}")
}

pub fn replica(id: &str) -> String {
    format!("{REPLICAS}{id}")
}

pub fn manifest(name: &StreamName) -> String {
    manifest_in(&folder(name))
}

pub fn manifest_in(folder: &str) -> String {
    format!("{STREAMS}{folder}/manifest")
}

pub fn chunk(name: &StreamName, incarnation: Incarnation, nonce: u128) -> String {
    format!("{STREAMS}{}/{incarnation}/{nonce:032x}", folder(name))
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Cluster,
    Collector,
    Log { shard: u32, position: u64 },
    Checkpoint { shard: u32 },
    Manifest { folder: String },
    Chunk { folder: String, incarnation: u64, nonce: u128 },
    Probe,
    Replica { id: String },
}

impl Key {
    /// `None`: no key of headwater's. Only keys exactly as they are written are known.
    pub fn parse(key: &str) -> Option<Key> {
        let segments: Vec<&str> = key.split('/').collect();
        let parsed = match segments[..] {
            [CLUSTER] => Key::Cluster,
            [COLLECTOR] => Key::Collector,
            ["log", shard, position] => Key::Log { shard: shard.parse().ok()?, position: position.parse().ok()? },
            ["checkpoint", shard] => Key::Checkpoint { shard: shard.parse().ok()? },
            ["streams", folder, "manifest"] => Key::Manifest { folder: folder.to_owned() },
            ["streams", folder, incarnation, nonce] => Key::Chunk {
                folder: folder.to_owned(),
                incarnation: incarnation.parse().ok()?,
                nonce: u128::from_str_radix(nonce, 16).ok()?,
            },
            ["probe", _, _] => Key::Probe,
            ["replicas", id] => Key::Replica { id: id.to_owned() },
            _ => return None,
        };
        let is_canonical = match &parsed {
            Key::Cluster | Key::Collector | Key::Manifest { .. } | Key::Probe | Key::Replica { .. } => true,
            Key::Log { shard, position } => key == log(*shard, *position),
            Key::Checkpoint { shard } => key == checkpoint(*shard),
            Key::Chunk { folder, incarnation, nonce } => {
                Incarnation::new(*incarnation).is_some_and(|i| key == format!("{STREAMS}{folder}/{i}/{nonce:032x}"))
            }
        };
        is_canonical.then_some(parsed)
    }
}

/// The stream of a folder; `None` if the folder's name is shortened: then only the manifest in it tells.
pub fn name_of(folder_name: &str) -> Option<StreamName> {
    let decoded = percent_decode_str(folder_name).decode_utf8().ok()?;
    StreamName::new(&decoded).ok().filter(|name| folder(name) == folder_name)
}

/// The name, percent-encoded so that it is one path segment; a name too long for a key keeps its start and gets a
/// hash.
pub fn folder(name: &StreamName) -> String {
    let encoded = utf8_percent_encode(name.as_str(), ENCODED).to_string();
    if encoded.len() <= LONGEST_NAME {
        return encoded;
    }
    let digest: String = Sha256::digest(name.as_str().as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{}~{digest}", &encoded[..SHORTENED_TO])
}

/// What the folders of all streams start with whose names start with `prefix`. Those of others may, too, if it is long.
pub fn folder_prefix(prefix: &str) -> String {
    let encoded = utf8_percent_encode(prefix, ENCODED).to_string();
    encoded[..encoded.len().min(SHORTENED_TO)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> StreamName {
        StreamName::new(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn keys_are_readable() {
        assert_eq!(manifest(&name("chat/room 1")), "streams/chat%2Froom%201/manifest");
        assert_eq!(log(3, 42), "log/3/00000000000000000042");
        let incarnation = Incarnation::new(7).unwrap_or(Incarnation::ANY);
        assert_eq!(
            chunk(&name("a.b~c"), incarnation, 255),
            "streams/a.b%7Ec/0000000000000007/000000000000000000000000000000ff"
        );
    }

    #[test]
    fn keys_say_what_they_name() {
        let stream = name("chat/room 1");
        let folder = folder(&stream);
        let incarnation = Incarnation::new(7).unwrap_or(Incarnation::ANY);
        assert_eq!(Key::parse(&manifest(&stream)), Some(Key::Manifest { folder: folder.clone() }));
        let parsed = Key::parse(&chunk(&stream, incarnation, 255));
        assert_eq!(parsed, Some(Key::Chunk { folder: folder.clone(), incarnation: 7, nonce: 255 }));
        assert_eq!(Key::parse(&log(3, 42)), Some(Key::Log { shard: 3, position: 42 }));
        assert_eq!(Key::parse(&checkpoint(3)), Some(Key::Checkpoint { shard: 3 }));
        assert_eq!(Key::parse(CLUSTER), Some(Key::Cluster));
        assert_eq!(Key::parse(&replica("a")), Some(Key::Replica { id: "a".to_owned() }));
        for foreign in ["", "log/3/42", "log/03/00000000000000000042", "streams/a/7/ff", "streams/a", "readme.txt"] {
            assert_eq!(Key::parse(foreign), None, "{foreign}");
        }
        assert_eq!(name_of(&folder), Some(stream));
    }

    #[test]
    fn the_longest_names_fit_a_key_and_stay_apart() {
        let long = |last: char| name(&format!("{}{last}", "é".repeat(255)));
        assert!(chunk(&long('a'), Incarnation::ANY, u128::MAX).len() < 800);
        assert_ne!(manifest(&long('a')), manifest(&long('b')));
        assert_eq!(name_of(&folder(&long('a'))), None);
    }

    proptest! {
        #[test]
        fn different_names_have_different_keys(a in "[a-z/%~. ]{1,20}", b in "[a-z/%~. ]{1,20}") {
            let (Ok(a), Ok(b)) = (StreamName::new(&a), StreamName::new(&b)) else { return Ok(()) };
            prop_assert_eq!(a == b, manifest(&a) == manifest(&b));
            prop_assert_eq!(manifest(&a).split('/').count(), 3);
        }

        #[test]
        fn the_folder_of_a_name_starts_as_its_prefixes_say(text in "[a-zé/%~. ]{1,300}", cut: prop::sample::Index) {
            let Ok(name) = StreamName::new(&text) else { return Ok(()) };
            let prefix: String = text.chars().take(cut.index(text.chars().count() + 1)).collect();
            prop_assert!(folder(&name).starts_with(&folder_prefix(&prefix)), "{}", prefix);
        }
    }
}
