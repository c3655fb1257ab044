//! Everything that can happen, one step at a time.

use stateright::{Model, Property};

use crate::batch::Attempt;
use crate::bucket::Bucket;
use crate::log::{self, Id};
use crate::properties;
use crate::replica::{Mode, Replica};
use crate::rules::{Bounds, GRACE, Mistake, PROPOSALS, REQUESTS};

/// The protocol, or a broken variant of it, within bounds.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub bounds: Bounds,
    pub mistake: Option<Mistake>,
    /// Replicas are alike, so of states that differ only in which is which, one is enough. A counterexample is easier
    /// to read without.
    pub symmetric: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub bucket: Bucket,
    pub replicas: Vec<Replica>,
    /// Requests that were taken in so far, and how often each was proposed.
    pub requests: u8,
    proposals: [u8; REQUESTS],
    /// Requests whose clients were told that they are stored, as bits.
    pub acknowledged: u8,
    /// What is left of the bounds.
    unknown: u8,
    crashes: u8,
    checkpoints: u8,
    /// A cold load ended before the head.
    pub loaded_short: bool,
    /// A reader was told of a head below one that it had been told of before.
    pub went_back: bool,
}

/// What a replica knows of the time when it takes a step: what the answers about this log told it, or what time it is
/// now, by an answer that has to do with another shard. Knowing the time matters to nobody before the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    AsItWas,
    Now,
}

/// A step. The number is the replica's; the second one is of its entry in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The store's clock goes on. Who does nothing meanwhile is asleep.
    Tick,
    /// A request is proposed: one of the queue, else a new one.
    Propose(usize, Clock),
    /// A PUT reaches the store.
    Land(usize, usize),
    /// A PUT that nobody waits for reaches the store.
    LandLate(Id),
    /// The answer to a PUT reaches the replica.
    Answer(usize, usize, Clock),
    /// No answer reaches the replica: the PUT, or the answer, is late or lost. A lost PUT is one that never lands.
    Unknown(usize, usize, Clock),
    /// A look at the head, which confirms it or finds an entry to take in.
    Probe(usize, Clock),
    /// What a probe needs when the head is not trusted any more.
    ReadCheckpoint(usize),
    /// A cold load reads the checkpoint, then the positions after it, one at a time.
    StartLoading(usize),
    ReadOn(usize, Clock),
    WriteCheckpoint(usize),
    /// A position is deleted that a checkpoint has covered for the grace period.
    Delete(u8),
    Crash(usize),
}

impl Protocol {
    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// The id of the entry that would be proposed next by a replica, and its position.
    fn next_entry(&self, world: &World, replica: &Replica) -> Option<(Id, u8)> {
        let position = replica.next_position()?;
        let is_new = replica.queue.is_empty() && world.requests < self.bounds.requests;
        let request = replica.queue.first().copied().or_else(|| is_new.then_some(world.requests))?;
        let proposal = world.proposals[usize::from(request)];
        let is_possible = position <= self.bounds.positions
            && proposal < self.bounds.proposals.min(PROPOSALS as u8)
            && replica.in_flight.len() < self.bounds.pipeline;
        is_possible.then(|| (log::id(request, proposal), position))
    }

    fn may_write_checkpoint(&self, world: &World, replica: &Replica) -> bool {
        let (old, new) = (world.bucket.checkpoint.next, replica.fold.next);
        world.checkpoints > 0 && (new > old || new < old && self.is(Mistake::CheckpointGoesBack))
    }

    fn steps_of(&self, world: &World, number: usize, steps: &mut Vec<Step>) {
        let replica = &world.replicas[number];
        let clocks = Clock::of(replica, &world.bucket);
        match replica.mode {
            Mode::Down => return steps.push(Step::StartLoading(number)),
            Mode::Loading { .. } => return steps.extend(clocks.iter().map(|clock| Step::ReadOn(number, *clock))),
            Mode::Doubting => steps.push(Step::ReadCheckpoint(number)),
            Mode::Serving { .. } if replica.in_flight.is_empty() => {
                steps.extend(clocks.iter().map(|clock| Step::Probe(number, *clock)));
            }
            Mode::Serving { .. } => {}
        }
        if self.next_entry(world, replica).is_some() {
            steps.extend(clocks.iter().map(|clock| Step::Propose(number, *clock)));
        }
        steps_in_flight(world, number, steps);
        if self.may_write_checkpoint(world, replica) {
            steps.push(Step::WriteCheckpoint(number));
        }
        if world.crashes > 0 {
            steps.push(Step::Crash(number));
        }
    }

    fn propose(&self, world: &mut World, number: usize) {
        let Some((id, position)) = self.next_entry(world, &world.replicas[number]) else { return };
        let (request, replica) = (log::request(id), &mut world.replicas[number]);
        if replica.queue.is_empty() {
            world.requests += 1;
        } else {
            replica.queue.remove(0);
        }
        world.proposals[usize::from(request)] += 1;
        replica.send(&mut world.bucket, id, position);
    }

    fn step_of(&self, world: &mut World, number: usize, step: &Step) {
        if step.clock() == Some(Clock::Now) {
            world.replicas[number].seen = world.bucket.now;
        }
        if matches!(step, Step::Propose(..)) {
            return self.propose(world, number);
        }
        let (bucket, replica) = (&mut world.bucket, &mut world.replicas[number]);
        match *step {
            Step::Land(_, at) => {
                let batch = &mut replica.in_flight[at];
                batch.attempt = if bucket.put(batch.id) { Attempt::Written(bucket.now) } else { Attempt::Refused };
            }
            Step::Answer(_, at, _) => replica.answered(bucket, at, self.mistake),
            Step::Unknown(_, at, _) => {
                world.unknown -= 1;
                replica.unknown(bucket, at, self.mistake);
            }
            Step::Probe(..) => replica.probe(bucket, self.mistake),
            Step::ReadCheckpoint(_) => replica.read_checkpoint(bucket),
            Step::StartLoading(_) => replica.start_loading(bucket, self.mistake),
            Step::ReadOn(..) => world.loaded_short |= replica.read_on(bucket),
            Step::WriteCheckpoint(_) => {
                world.checkpoints -= 1;
                bucket.publish(replica.fold);
            }
            Step::Crash(_) => {
                world.crashes -= 1;
                replica.crash(bucket);
            }
            Step::Tick | Step::Propose(..) | Step::LandLate(_) | Step::Delete(_) => {}
        }
        world.acknowledged |= replica.settle(bucket, self.mistake);
        if replica.is_trusted() {
            world.went_back |= replica.fold.next < replica.served;
            replica.served = replica.served.max(replica.fold.next);
        }
    }
}

/// What may become of a replica's entries in flight.
fn steps_in_flight(world: &World, number: usize, steps: &mut Vec<Step>) {
    let replica = &world.replicas[number];
    let clocks = Clock::of(replica, &world.bucket);
    for (at, batch) in replica.in_flight.iter().enumerate() {
        match batch.attempt {
            Attempt::Sent => steps.push(Step::Land(number, at)),
            // Then the position is read, and that answer tells the time.
            Attempt::Refused => steps.push(Step::Answer(number, at, Clock::AsItWas)),
            Attempt::Written(_) => steps.extend(clocks.iter().map(|clock| Step::Answer(number, at, *clock))),
            Attempt::Settled(_) => continue,
        }
        if world.unknown > 0 {
            steps.extend(clocks.iter().map(|clock| Step::Unknown(number, at, *clock)));
        }
    }
}

impl Clock {
    fn of(replica: &Replica, bucket: &Bucket) -> &'static [Clock] {
        if replica.seen == bucket.now { &[Clock::AsItWas] } else { &[Clock::AsItWas, Clock::Now] }
    }
}

impl Step {
    fn replica(&self) -> Option<usize> {
        match *self {
            Step::Tick | Step::LandLate(_) | Step::Delete(_) => None,
            Step::Land(number, _) | Step::Answer(number, ..) | Step::Unknown(number, ..) => Some(number),
            Step::Propose(number, _) | Step::Probe(number, _) | Step::ReadOn(number, _) => Some(number),
            Step::ReadCheckpoint(number) | Step::StartLoading(number) => Some(number),
            Step::WriteCheckpoint(number) | Step::Crash(number) => Some(number),
        }
    }

    fn clock(&self) -> Option<Clock> {
        match *self {
            Step::Propose(_, clock) | Step::Probe(_, clock) | Step::ReadOn(_, clock) => Some(clock),
            Step::Answer(_, _, clock) | Step::Unknown(_, _, clock) => Some(clock),
            _ => None,
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let Bounds { unknown, crashes, checkpoints, .. } = self.bounds;
        vec![World {
            bucket: Bucket::new(),
            replicas: vec![Replica::new(); self.bounds.replicas],
            requests: 0,
            proposals: [0; REQUESTS],
            acknowledged: 0,
            unknown,
            crashes,
            checkpoints,
            loaded_short: false,
            went_back: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.bucket.now <= self.bounds.ticks {
            steps.push(Step::Tick);
        }
        for number in 0..world.replicas.len() {
            self.steps_of(world, number, steps);
        }
        steps.extend(world.bucket.late_ids().map(Step::LandLate));
        let grace = if self.is(Mistake::NoGrace) { 0 } else { GRACE };
        steps.extend(world.bucket.deletable(grace).map(Step::Delete));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        match step {
            Step::Tick => world.bucket.now += 1,
            Step::LandLate(id) => drop(world.bucket.put(id)),
            Step::Delete(position) => world.bucket.delete(position),
            ref step => self.step_of(&mut world, step.replica()?, step),
        }
        world.replicas.iter_mut().for_each(|replica| replica.forget(world.bucket.now));
        let in_flight = world.replicas.iter().flat_map(|replica| &replica.in_flight);
        let used = in_flight.fold(0, |used, batch| used | 1 << batch.id);
        world.bucket.forget(used);
        if self.symmetric {
            world.replicas.sort_unstable();
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        properties::all(&self.bounds)
    }
}
