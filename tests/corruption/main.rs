//! Every object of a bucket is damaged in turn, in every way that is likely, and then everything is read and written: all
//! answers are right, or say that the server cannot give them. Wrong bytes, too few of them with a clean end, and a stream
//! that is said not to be there, are mistakes, but for what [`judge::UNNOTICED`] lists.
//!
//! `CORRUPTION_ROUNDS=N cargo test --test corruption` does it all N times, with other choices each time; `HEADWATER_SEED=S`
//! makes the same choices again.

mod bucket;
mod damage;
#[path = "../support/forge.rs"]
mod forge;
mod forged;
mod judge;
mod lost;
#[path = "../support/panics.rs"]
mod panics;
mod reader;

use std::collections::BTreeSet;

use bucket::Bucket;
use headwater::clock::Ids;
use judge::{Report, UNNOTICED};

#[allow(clippy::disallowed_methods, reason = "a new seed for each run is what is wanted; it is printed")]
fn seed() -> u64 {
    let given = std::env::var("HEADWATER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("seed: HEADWATER_SEED={seed}");
    seed
}

fn rounds() -> u64 {
    std::env::var("CORRUPTION_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_of_a_damaged_bucket_are_right_or_fail() {
    let seed = seed();
    let mut report = Report::default();
    for round in 0..rounds() {
        let ids = Ids::seeded(seed.wrapping_add(round));
        let bucket = Bucket::fill(ids.between(0, 1 << 40)).await;
        let cases = damage::cases(&bucket, &ids);
        println!("{} objects of {} streams, {} cases", bucket.objects.len(), bucket.streams.len(), cases.len());
        for case in &cases {
            judge::try_case(&mut report, &bucket, case, &ids).await;
        }
    }
    for (case, ended) in &report.ended {
        println!("{case:?}: {ended:?}");
    }
    assert!(
        report.wrong.is_empty(),
        "{} mistakes\n{}",
        report.wrong.len(),
        report.wrong[..report.wrong.len().min(40)].join("\n")
    );
    // Not each time: it depends on what the seed leaves in the bucket.
    let said = BTreeSet::from(UNNOTICED);
    assert!(report.unnoticed.is_subset(&said), "goes unnoticed without being said: {:?}", report.unnoticed);
}
