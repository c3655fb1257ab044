//! The commit protocol of the log, exhaustively: everything that can happen within stated bounds, in every order.
//!
//! What is modelled is what `src/engine` does with one shard's log (`log`, `stage`, `load`, `checkpoint`), under the
//! names it has there: several writers with entries in flight on one another, PUTs that land late or never or twice,
//! outcomes that stay unknown, crashes, cold loads, checkpoints, deletion after the grace period, and a store's clock
//! that goes on while a replica sleeps at any point of what it does.
//!
//! The model is trusted because it finds what is broken: each [`Mistake`] is the protocol with one rule changed, and
//! for each there is a run that ends in what must not be.
//!
//! What is abstracted, and why nothing is lost by it:
//! - An entry carries one request. The requests of a batch share its fate.
//! - A state is the list of its valid entries. All else follows from that.
//! - The clock ticks in quarters of the grace period. Every duration of the protocol is a multiple of that, and any
//!   number of steps fits between two ticks. It never goes back and is the same for everyone: that a real store's shows
//!   whole seconds, and not the same ones everywhere, is what the last quarter of the grace period is left for.
//! - A GET of a position takes no time. Its answer changes nothing but the replica that waits for it, so a slow one is
//!   like a replica that sleeps before it asks or after.
//! - A checkpoint is swapped in one step, and anyone may delete what has been covered for the grace period, in any
//!   order. The engine does so only as part of writing the next checkpoint.
//! - States that will behave alike are made equal: times too old to matter are set to 0, and replicas are sorted,
//!   since nothing depends on which is which.
//!
//! What is not modelled: manifests, sealing and entries that unsealed streams still need; what requests mean, so not
//! the producers' repetitions either; answers that wait for a confirmed head. The simulation (`tests/sim`) runs those.
//!
//! `cargo test --test model -- --nocapture` prints states and times. `MODEL_BOUND=large` explores further: it takes
//! minutes and gigabytes.

mod batch;
mod bucket;
mod log;
mod properties;
mod replica;
mod rules;
mod world;

use stateright::{Checker, HasDiscoveries, Model};
use tokio::time::Instant;

use properties::{ACKNOWLEDGED, FORWARD, ONCE, SAME};
use rules::{Bounds, Mistake};
use world::Protocol;

/// One replica that does one thing at a time. Every bound below says what there is beyond that.
const LITTLE: Bounds = Bounds {
    replicas: 1,
    requests: 1,
    proposals: 1,
    positions: 1,
    pipeline: 1,
    unknown: 0,
    crashes: 0,
    checkpoints: 0,
    ticks: 0,
};
const TWO: Bounds = Bounds { replicas: 2, requests: 2, ..LITTLE };
const THREE: Bounds = Bounds { replicas: 3, requests: 3, ..LITTLE };
/// Two replicas while a position is covered, outlives its grace period and is deleted.
const TRUNCATED: Bounds = Bounds { checkpoints: 1, ticks: 5, ..TWO };

/// Enough for a mistake about freshness to do harm.
const SHORT: Bounds = Bounds { ticks: 4, ..TRUNCATED };

const BOUNDS: &[Bounds] = &[
    // The chain rule and what is unknown. Nothing here depends on the clock.
    Bounds { proposals: 2, positions: 3, pipeline: 2, unknown: 1, ..THREE },
    Bounds { requests: 3, proposals: 3, positions: 4, pipeline: 2, unknown: 1, crashes: 1, ..TWO },
    // Truncation and freshness, with some of everything else.
    Bounds { proposals: 2, positions: 2, ..TRUNCATED },
    Bounds { positions: 2, pipeline: 2, ..TRUNCATED },
    Bounds { unknown: 1, ..TRUNCATED },
    Bounds { crashes: 1, ..TRUNCATED },
    Bounds { crashes: 1, requests: 1, checkpoints: 2, ..TRUNCATED },
    Bounds { replicas: 3, requests: 1, ..TRUNCATED },
];

const LARGE: &[Bounds] = &[
    Bounds { proposals: 3, positions: 4, pipeline: 2, unknown: 2, crashes: 1, ..THREE },
    Bounds { unknown: 1, crashes: 1, ticks: 6, ..TRUNCATED },
    Bounds { crashes: 1, checkpoints: 2, ticks: 7, ..TRUNCATED },
    Bounds { positions: 2, pipeline: 2, unknown: 1, ..TRUNCATED },
    Bounds { positions: 2, pipeline: 2, crashes: 1, ..TRUNCATED },
    Bounds { replicas: 3, ..TRUNCATED },
];

fn explore(bounds: Bounds) {
    let began = Instant::now();
    let protocol = Protocol { bounds, mistake: None, symmetric: true };
    let checker = protocol.checker().spawn_bfs().join();
    let (states, depth, took) = (checker.unique_state_count(), checker.max_depth(), began.elapsed());
    println!("{states} states, up to {depth} steps, in {took:.1?}: {bounds:?}");
    checker.assert_properties();
}

#[test]
fn the_protocol_keeps_its_promises() {
    BOUNDS.iter().copied().for_each(explore);
    if std::env::var("MODEL_BOUND").is_ok_and(|bound| bound == "large") {
        LARGE.iter().copied().for_each(explore);
    }
}

/// A mistake leads to what `property` forbids. The search goes by the number of steps, so the run that it finds is short.
fn is_caught(mistake: Mistake, property: &'static str, bounds: Bounds) {
    let began = Instant::now();
    let protocol = Protocol { bounds, mistake: Some(mistake), symmetric: false };
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = protocol.checker().finish_when(wanted).spawn_bfs().join();
    let (states, took) = (checker.unique_state_count(), began.elapsed());
    let Some(path) = checker.discovery(property) else {
        panic!("{mistake:?}: not caught in {states} states");
    };
    let steps = path.into_actions();
    println!("{mistake:?}, after {states} states, in {took:.1?}, does not keep to \"{property}\":");
    println!("  {} steps: {steps:?}", steps.len());
}

#[test]
fn deletion_without_grace_is_caught() {
    is_caught(Mistake::NoGrace, ACKNOWLEDGED, Bounds { positions: 1, ..SHORT });
}

#[test]
fn freshness_from_a_refused_put_is_caught() {
    let bounds = Bounds { requests: 3, proposals: 2, positions: 2, ..SHORT };
    is_caught(Mistake::RefusalRenews, ACKNOWLEDGED, bounds);
}

#[test]
fn freshness_from_the_return_of_a_put_is_caught() {
    is_caught(Mistake::RenewedAtReturn, ACKNOWLEDGED, Bounds { requests: 3, positions: 2, ..SHORT });
}

#[test]
fn proposing_again_what_is_unresolved_is_caught() {
    is_caught(
        Mistake::ReproposedUnresolved,
        ONCE,
        Bounds { proposals: 2, positions: 2, unknown: 1, requests: 1, ..TWO },
    );
}

#[test]
fn freshness_from_a_probe_that_came_too_late_is_caught() {
    is_caught(Mistake::StaleProbeRenews, ACKNOWLEDGED, SHORT);
}

#[test]
fn an_entry_read_too_late_is_caught() {
    is_caught(Mistake::StaleProbeAbsorbs, SAME, Bounds { crashes: 1, ..SHORT });
}

#[test]
fn a_checkpoint_taken_for_newer_than_it_is_is_caught() {
    is_caught(Mistake::CheckpointKnownAtReturn, SAME, Bounds { crashes: 1, requests: 1, ..SHORT });
}

#[test]
fn a_checkpoint_that_goes_back_is_caught() {
    let bounds = Bounds { crashes: 1, requests: 1, checkpoints: 2, ..SHORT };
    is_caught(Mistake::CheckpointGoesBack, FORWARD, bounds);
}
