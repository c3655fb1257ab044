//! What all parts of a run share, and the loop that lets its machines take turns.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use headwater::clock::Ids;
use headwater::store::faulty::Faulty;
use tokio::runtime::{Builder, Runtime};

use crate::bucket::Bucket;
use crate::history::{Answer, Call};
use crate::machine::{Machine, Process, Station};
use crate::plan::{Plan, STORM};
use crate::timeline::{Moment, Timeline};

/// Virtual milliseconds of a turn: within one, machines don't hear of each other.
const TURN: (u64, u64) = (3, 15);
/// The same when nothing much happens any more.
const CALM_TURN: (u64, u64) = (40, 60);

pub struct World {
    pub plan: Plan,
    pub ids: Ids,
    pub timeline: Arc<Timeline>,
    pub bucket: Arc<Bucket>,
    pub stations: Vec<Arc<Station>>,
    history: Mutex<Vec<Call>>,
    /// When the last readers stop, in virtual milliseconds.
    pub reads_until: AtomicU64,
    /// The replica that all clients use, if they all use one.
    pub favourite: AtomicUsize,
    /// The replicas know of each other.
    pub has_neighbours: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let ids = Ids::seeded(seed);
        let plan = Plan::of(&ids);
        let timeline = Arc::<Timeline>::default();
        let bucket = Arc::new(Bucket::new(&timeline));
        let station = |number| {
            let way = Faulty::new(Arc::clone(&bucket) as _, Ids::seeded(ids.between(0, u64::MAX)));
            way.set(plan.weather());
            let skew = ids.between(0, plan.skew * 2 + 1) as i64 - plan.skew as i64;
            Station::new(number, way, skew)
        };
        let stations = (0..plan.machines).map(station).collect();
        let favourite = AtomicUsize::new(if plan.favourites { 0 } else { usize::MAX });
        World {
            plan,
            ids,
            timeline,
            bucket,
            stations,
            history: Mutex::default(),
            reads_until: u64::MAX.into(),
            favourite,
            has_neighbours: seed.is_multiple_of(3),
        }
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.ids.between(0, 100) < percent
    }

    /// Waits for some milliseconds of virtual time.
    pub async fn pause(&self, low: u64, high: u64) {
        tokio::time::sleep(Duration::from_millis(self.ids.between(low, high))).await;
    }

    pub fn is_storm(&self) -> bool {
        Duration::from_millis(self.timeline.ms()) < STORM
    }

    /// Some replica, if it runs. It may be asleep.
    pub fn any_process(&self) -> Option<Process> {
        let any = self.ids.between(0, self.stations.len() as u64) as usize;
        let favourite = self.favourite.load(Ordering::Relaxed);
        self.stations[if favourite < self.stations.len() { favourite } else { any }].process()
    }

    /// Takes note of a call. Its answer is open until it is [`end`](World::end)ed.
    pub fn begin(&self, call: Call) -> usize {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(call);
        history.len() - 1
    }

    pub fn end(&self, number: usize, invoked: Option<Moment>, replied: Moment, answer: &Answer) {
        let call = &mut self.history.lock().unwrap_or_else(PoisonError::into_inner)[number];
        (call.replied, call.answer) = (replied, answer.clone());
        call.invoked = invoked.unwrap_or(call.invoked);
    }

    pub fn history(&self) -> Vec<Call> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs `script` with all machines until it ends, then kills them. Returns what the script does.
pub fn play<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    seed: u64,
    script: impl FnOnce(Arc<World>) -> F,
) -> (Arc<World>, T) {
    let network = runtime();
    let world = Arc::new(World::new(seed));
    let ids = Ids::seeded(world.ids.between(0, u64::MAX));
    let all = Arc::<OnceLock<_>>::default();
    if world.has_neighbours {
        // It was empty.
        let _ = all.set(world.stations.clone());
    }
    let machine = |station| {
        let ids = Ids::seeded(ids.between(0, u64::MAX));
        Machine::new(station, &world.timeline, network.handle().clone(), &world.plan.settings, ids, &all)
    };
    let mut machines: Vec<Machine> = world.stations.iter().map(machine).collect();
    let script = network.spawn(script(Arc::clone(&world)));
    while !script.is_finished() {
        let (low, high) = if world.is_storm() { TURN } else { CALM_TURN };
        let turn = ids.between(low, high);
        world.timeline.advance(turn);
        let turn = Duration::from_millis(turn);
        network.block_on(async { tokio::time::sleep(turn).await });
        let first = ids.between(0, machines.len() as u64) as usize;
        machines.rotate_left(first);
        machines.iter_mut().for_each(|machine| machine.run(turn));
    }
    drop(machines);
    let done = network.block_on(script).unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    (world, done)
}

pub fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap_or_else(|e| panic!("{e}"))
}
