//! A machine that runs one replica, in a runtime of its own: it can be killed without anything being finished, and it can
//! be put to sleep, while which its monotonic clock stands still and the store's goes on.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use headwater::clock::{Clock, Ids};
use headwater::engine::Engine;
use headwater::settings::EngineSettings;
use headwater::store::faulty::Faulty;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::link::{Link, Troubles};
use crate::neighbours::Neighbours;
use crate::timeline::{START, Timeline};

/// One run of the replica's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    pub machine: usize,
    pub number: usize,
}

/// A process that has opened the bucket.
#[derive(Debug, Clone)]
pub struct Process {
    pub life: Life,
    pub engine: Engine,
    pub handle: Handle,
    /// Cancelled when it dies. Its runtime would tell too, but in an order that depends on how many tasks there ever were.
    pub dead: CancellationToken,
}

/// What may be done to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Start,
    /// Nothing is finished.
    Kill,
    Sleep,
    /// With its monotonic clock where it was, or where it would be without the sleep: a suspended machine, or a stopped
    /// process.
    Wake {
        clock_stood: bool,
    },
}

/// What everyone may know of a machine, and ask of it.
#[derive(Debug)]
pub struct Station {
    pub number: usize,
    /// The machine's way to the bucket, for all its processes.
    pub way: Arc<Faulty>,
    /// How far its wall clock is off, in milliseconds.
    pub skew: i64,
    process: Mutex<Option<Process>>,
    /// Of each of its processes so far.
    troubles: Mutex<Vec<Arc<Troubles>>>,
    orders: Mutex<Vec<Order>>,
}

impl Station {
    pub fn new(number: usize, way: Faulty, skew: i64) -> Arc<Station> {
        let (process, troubles, orders) = Default::default();
        Arc::new(Station { number, way: Arc::new(way), skew, process, troubles, orders })
    }

    /// The running process, if it has come so far. That it sleeps nobody can tell.
    pub fn process(&self) -> Option<Process> {
        self.process_slot().clone()
    }

    /// The troubles of the process of that number.
    pub fn troubles(&self, process: usize) -> Arc<Troubles> {
        let all = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(process).cloned().unwrap_or_default()
    }

    fn process_slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be done before the machine goes on.
    pub fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
    }
}

pub struct Machine {
    pub station: Arc<Station>,
    timeline: Arc<Timeline>,
    network: Handle,
    settings: EngineSettings,
    ids: Ids,
    runtime: Option<Runtime>,
    asleep_since: Option<u64>,
    /// All replicas, if they know of each other.
    all: Arc<OnceLock<Vec<Arc<Station>>>>,
}

impl Machine {
    pub fn new(
        station: &Arc<Station>,
        timeline: &Arc<Timeline>,
        network: Handle,
        settings: &EngineSettings,
        ids: Ids,
        all: &Arc<OnceLock<Vec<Arc<Station>>>>,
    ) -> Machine {
        let all = Arc::clone(all);
        let (station, timeline, settings) = (Arc::clone(station), Arc::clone(timeline), settings.clone());
        Machine { station, timeline, network, settings, ids, runtime: None, asleep_since: None, all }
    }

    /// Lets it run for a while, if it does.
    pub fn run(&mut self, time: Duration) {
        let orders = std::mem::take(&mut *self.station.orders.lock().unwrap_or_else(PoisonError::into_inner));
        orders.into_iter().for_each(|order| self.obey(order));
        if let Some(runtime) = self.runtime.as_ref().filter(|_| self.asleep_since.is_none()) {
            runtime.block_on(async { tokio::time::sleep(time).await });
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Start => self.start(),
            Order::Kill => {
                self.asleep_since = None;
                if let Some(process) = self.station.process_slot().take() {
                    process.dead.cancel();
                }
                self.runtime = None;
            }
            Order::Sleep => self.asleep_since = self.asleep_since.or(Some(self.timeline.ms())),
            Order::Wake { clock_stood } => self.wake(clock_stood),
        }
    }

    fn wake(&mut self, clock_stood: bool) {
        let Some(since) = self.asleep_since.take() else { return };
        let now = self.timeline.ms();
        if let Some(troubles) = self.station.troubles.lock().unwrap_or_else(PoisonError::into_inner).last() {
            troubles.add(since, now);
        }
        if let Some(runtime) = self.runtime.as_ref().filter(|_| !clock_stood) {
            runtime.block_on(async { tokio::time::advance(Duration::from_millis(now - since)).await });
        }
    }

    fn start(&mut self) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|e| panic!("{e}"));
        let troubles = Arc::<Troubles>::default();
        let mut all = self.station.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let life = Life { machine: self.station.number, number: all.len() };
        all.push(Arc::clone(&troubles));
        drop(all);
        let link = Link {
            bucket: Arc::clone(&self.station.way),
            network: self.network.clone(),
            timeline: Arc::clone(&self.timeline),
            troubles,
            last_seen: Default::default(),
        };
        let (timeline, skew) = (Arc::clone(&self.timeline), self.station.skew);
        let clock = Clock::of(move || (START + timeline.ms()).saturating_add_signed(skew));
        let (settings, ids) = (self.settings.clone(), Ids::seeded(self.ids.between(0, u64::MAX)));
        let (station, handle) = (Arc::clone(&self.station), runtime.handle().clone());
        let (own, all) = (self.station.number, Arc::clone(&self.all));
        let neighbours = Neighbours { own, all, timeline: Arc::clone(&self.timeline) };
        runtime.spawn(async move {
            let engine = open(Arc::new(link), settings, clock, ids).await;
            if neighbours.all.get().is_some() {
                engine.join(Arc::new(neighbours));
            }
            *station.process_slot() = Some(Process { life, engine, handle, dead: CancellationToken::new() });
        });
        self.station.process_slot().take();
        self.runtime = Some(runtime);
    }
}

/// As whoever looks after the process does: until it works.
async fn open(link: Arc<Link>, settings: EngineSettings, clock: Clock, ids: Ids) -> Engine {
    loop {
        match Engine::open(Arc::clone(&link) as _, settings.clone(), clock.clone(), ids.clone()).await {
            Ok(engine) => return engine,
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}
