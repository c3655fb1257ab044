//! Keys of all objects, below the store's prefix.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::protocol::{Incarnation, StreamName};

pub const CLUSTER: &str = "cluster";

/// Characters of a stream name that stay readable. `~` is not among them: it marks shortened names.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// MinIO keeps each segment of a key as a file name, which ends at 255 bytes; whole keys end at 1,024.
const LONGEST_NAME: usize = 250;
const SHORTENED_TO: usize = 128;

pub fn log(shard: u32, position: u64) -> String {
    format!("log/{shard}/{position:020}")
}

pub fn checkpoint(shard: u32) -> String {
    format!("checkpoint/{shard}")
}

pub fn manifest(name: &StreamName) -> String {
    format!("streams/{}/manifest", stream(name))
}

pub fn chunk(name: &StreamName, incarnation: Incarnation, nonce: u128) -> String {
    format!("streams/{}/{incarnation}/{nonce:032x}", stream(name))
}

/// The name, percent-encoded so that it is one path segment; a name too long for a key keeps its start and gets a
/// hash.
fn stream(name: &StreamName) -> String {
    let encoded = utf8_percent_encode(name.as_str(), ENCODED).to_string();
    if encoded.len() <= LONGEST_NAME {
        return encoded;
    }
    let digest: String = Sha256::digest(name.as_str().as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{}~{digest}", &encoded[..SHORTENED_TO])
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
    fn the_longest_names_fit_a_key_and_stay_apart() {
        let long = |last: char| name(&format!("{}{last}", "é".repeat(255)));
        assert!(chunk(&long('a'), Incarnation::ANY, u128::MAX).len() < 800);
        assert_ne!(manifest(&long('a')), manifest(&long('b')));
    }

    proptest! {
        #[test]
        fn different_names_have_different_keys(a in "[a-z/%~. ]{1,20}", b in "[a-z/%~. ]{1,20}") {
            let (Ok(a), Ok(b)) = (StreamName::new(&a), StreamName::new(&b)) else { return Ok(()) };
            prop_assert_eq!(a == b, manifest(&a) == manifest(&b));
            prop_assert_eq!(manifest(&a).split('/').count(), 3);
        }
    }
}
