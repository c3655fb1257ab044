//! Which replica is home of a shard: the one whose hash with it is the highest (rendezvous hashing). When a replica comes or
//! goes, only its own shards move.

use sha2::{Digest, Sha256};

/// The one of `ids` that is the shard's home.
pub fn of<'a>(shard: u32, ids: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    ids.into_iter().max_by_key(|id| (weight(shard, id), *id))
}

fn weight(shard: u32, id: &str) -> u64 {
    let digest = Sha256::digest(format!("{shard} {id}"));
    digest.iter().take(8).fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes(ids: &[&'static str], shards: u32) -> Vec<&'static str> {
        (0..shards).filter_map(|shard| of(shard, ids.iter().copied())).collect()
    }

    #[test]
    fn only_the_shards_of_a_replica_that_goes_move() {
        let (all, fewer) = (homes(&["a", "b", "c", "d"], 400), homes(&["a", "b", "d"], 400));
        for (before, after) in all.iter().zip(&fewer) {
            assert!(before == after || *before == "c", "from {before} to {after}");
        }
        for id in ["a", "b", "c", "d"] {
            let count = all.iter().filter(|home| **home == id).count();
            assert!((70..130).contains(&count), "{count} of 400 shards are at {id}");
        }
        assert_eq!(of(0, []), None);
    }

    #[test]
    fn a_hundred_replicas_share_the_shards_evenly() {
        let ids: Vec<String> = (0..100).map(|n| format!("{n:032x}")).collect();
        for (shards, most) in [(4096, 1.6), (1024, 2.2)] {
            let mut counts = std::collections::BTreeMap::<&str, u32>::new();
            for shard in 0..shards {
                *counts.entry(of(shard, ids.iter().map(String::as_str)).unwrap_or_default()).or_default() += 1;
            }
            let largest = f64::from(counts.values().copied().max().unwrap_or(0)) / (f64::from(shards) / 100.0);
            println!("{shards} shards: the fullest of 100 replicas has {largest:.2} times its share");
            assert!(counts.len() == 100 && largest < most, "{largest}, {} replicas have any", counts.len());
        }
    }
}
