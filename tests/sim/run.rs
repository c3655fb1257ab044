//! Runs of seeds.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::account::account;
use crate::aftermath;
use crate::history::Call;
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::world::{self, World};
use crate::{owners, panics, script};

/// Seeds that failed once, each with what was wrong.
const ONCE_FAILED: &[u64] = &[];

/// All that a run did, and what is wrong with it.
struct Run {
    history: Vec<Call>,
    changes: Vec<(u64, String, Option<bool>)>,
    complaints: Vec<String>,
}

fn run(seed: u64) -> Run {
    panics::listen();
    let played = std::panic::catch_unwind(|| {
        let (world, seen) = world::play(seed, script::all);
        let history = world.history();
        let complaints = complaints(&world, &history, &seen);
        let changes = std::mem::take(&mut world.bucket.seen().changes);
        Run { history, changes, complaints }
    });
    let mut run = played.unwrap_or_else(|_| Run { history: vec![], changes: vec![], complaints: vec![] });
    run.complaints.extend(panics::heard().into_iter().map(|what| format!("a panic: {what}")));
    run
}

fn complaints(world: &World, history: &[Call], seen: &script::Seen) -> Vec<String> {
    let ledger = Ledger::read(&world.bucket.seen(), world.plan.settings.shards);
    let mut complaints = [ledger.complaints.clone(), seen.complaints.clone()].concat();
    complaints.extend(Judge { world, ledger: &ledger }.complaints(history));
    complaints.extend(owners::complaints(&ledger, history));
    let reads_until = world.reads_until.load(Ordering::Relaxed);
    for (stream, copy) in &seen.copies {
        let story = ledger.stories.get(stream).unwrap_or_else(|| panic!("{stream} was made"));
        complaints.extend(story.is_copied(copy, reads_until).err().map(|what| format!("{stream}: {what}")));
    }
    complaints.extend(aftermath::read_again(world, &ledger));
    let left = world::runtime().block_on(account(&world.bucket, world.plan.settings.shards));
    complaints.extend(left.complaints());
    complaints
}

/// `SIM_SEED`: that one. `SIM_SEEDS`: the first so many, or from one to another as in `1001-2000`.
fn seeds() -> Vec<u64> {
    let given = |name: &str| std::env::var(name).ok();
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is not a number"));
    if let Some(seed) = given("SIM_SEED") {
        return vec![number(&seed)];
    }
    let many = given("SIM_SEEDS").unwrap_or_else(|| "200".to_owned());
    let (first, last) = many.split_once('-').unwrap_or(("1", &many));
    ONCE_FAILED.iter().copied().chain(number(first)..=number(last)).collect()
}

/// Runs them on all cores, and returns those that fail with what is wrong. Gives up after a few.
fn run_all(seeds: &[u64]) -> Vec<(u64, Vec<String>)> {
    let (next, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(seed) =
            seeds.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !enough.load(Ordering::Relaxed))
        {
            let complaints = run(*seed).complaints;
            if !complaints.is_empty() {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((*seed, complaints));
                enough.store(failed.len() >= 5, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_whatever_fails() {
    if let Ok(filter) = std::env::var("SIM_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let failed = run_all(&seeds());
    for (seed, complaints) in &failed {
        println!("SIM_SEED={seed} fails:");
        complaints.iter().take(8).for_each(|what| println!("  {what}"));
        println!("  {} complaints", complaints.len());
    }
    assert!(failed.is_empty(), "failed: SIM_SEED={}", failed[0].0);
}

#[test]
fn a_seed_replays_exactly() {
    // In another order and on another thread, among others: nothing that outlives a run may change the next.
    let again = std::thread::spawn(|| (1..=8).rev().map(run).collect::<Vec<Run>>());
    let once: Vec<Run> = (1..=8).map(run).collect();
    let again = again.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
    for (seed, (once, again)) in (1..).zip(once.iter().zip(again.iter().rev())) {
        assert!(once.history == again.history && once.changes == again.changes, "SIM_SEED={seed} does not replay");
        assert!(once.history.len() > 1_000, "SIM_SEED={seed} does little");
    }
}
