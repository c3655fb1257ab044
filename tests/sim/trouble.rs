//! What befalls the machines while the storm lasts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headwater::store::faulty::{Cut, Direction};

use crate::machine::{Order, Station};
use crate::plan::{GRACE, calm};
use crate::world::World;

/// Starts a machine, and lets it suffer until the storm is over.
pub async fn torment(world: Arc<World>, station: Arc<Station>) {
    // They come one after the other, so the first ones set up the bucket.
    world.pause(0, 3_000).await;
    station.order(Order::Start);
    while world.is_storm() {
        world.pause(500, 12_000).await;
        let plan = &world.plan;
        match world.ids.between(0, 3) {
            0 if plan.cuts => cut_off(&world, &station).await,
            1 if plan.kills => restart(&world, &station).await,
            2 if plan.sleeps => sleep(&world, &station).await,
            _ => {}
        }
    }
    station.way.cut(Vec::new());
    station.way.set(calm());
}

/// Sometimes longer than the grace period.
async fn last(world: &World) {
    let grace = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
    let longest = if world.chance(20) { grace * 3 / 2 } else { 9_000 };
    world.pause(100, longest).await;
}

/// No way to the bucket, or to some of its keys, or back from there.
async fn cut_off(world: &World, station: &Station) {
    let shard = world.ids.between(0, u64::from(world.plan.settings.shards));
    let prefixes = match world.ids.between(0, 4) {
        0 => vec![format!("log/{shard}/"), format!("checkpoint/{shard}")],
        1 => vec!["streams/".to_owned()],
        _ => vec![String::new()],
    };
    let direction = if world.chance(50) { Direction::Requests } else { Direction::Answers };
    station.way.cut(prefixes.into_iter().map(|prefix| Cut { prefix, direction }).collect());
    last(world).await;
    station.way.cut(Vec::new());
}

/// A crash, or an orderly end that may not come to its end.
async fn restart(world: &World, station: &Station) {
    if let Some(process) = station.process().filter(|_| world.chance(30)) {
        process.handle.spawn(async move { process.engine.drain().await });
        world.pause(10, 3_000).await;
    }
    station.order(Order::Kill);
    world.pause(10, 5_000).await;
    station.order(Order::Start);
}

async fn sleep(world: &World, station: &Station) {
    station.order(Order::Sleep);
    last(world).await;
    station.order(Order::Wake { clock_stood: world.chance(70) });
}

/// Lets another replica be the one that all use, from time to time, and asks all of them whether they are ready, as a
/// balancer does: so an idle one hears of the store's time.
pub async fn balance(world: Arc<World>) {
    while world.is_storm() {
        for _ in 0..world.ids.between(5, 60) {
            world.pause(900, 1_100).await;
            for process in world.stations.iter().filter_map(|station| station.process()) {
                process.handle.spawn(async move { process.engine.ready().await });
            }
        }
        if world.plan.favourites {
            let next = world.ids.between(0, world.stations.len() as u64) as usize;
            world.favourite.store(next, Ordering::Relaxed);
        }
    }
    world.favourite.store(usize::MAX, Ordering::Relaxed);
}
