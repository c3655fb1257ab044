//! A replica: what `src/engine` does with one shard's log, step by step. The names are those of the engine.

use crate::batch::{Attempt, Batch, Settled, is_late};
use crate::bucket::Bucket;
use crate::log::{self, Entry, Fold, Id};
use crate::rules::{Mistake, TRUST, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Knows nothing: it has crashed, or does not trust what it knew.
    Down,
    /// Reading the log from a checkpoint that was in place at `started`. It must come as far as the head was then. Not
    /// `handled` is for a mistake only: the answer is there, and the replica has not looked at it.
    Loading { started: Time, handled: bool, must_reach: u8 },
    /// `probing` until it has found the head absent.
    Serving { probing: bool },
    /// Found the head absent when it did not trust it any more: the checkpoint must be read.
    Doubting,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    pub mode: Mode,
    pub fold: Fold,
    /// The latest time of the store's clock that any answer has brought. The only clock there is.
    pub seen: Time,
    /// No checkpoint that covers the head was in place at this time; 0 if that is too long ago to matter.
    pub fresh: Time,
    pub in_flight: Vec<Batch>,
    /// Requests that are to be proposed again.
    pub queue: Vec<u8>,
    /// The furthest head that readers were told of, also by this replica's earlier lives.
    pub served: u8,
}

impl Replica {
    /// One that has loaded the empty bucket.
    pub fn new() -> Replica {
        let mode = Mode::Serving { probing: false };
        Replica { mode, fold: Fold::default(), seen: 1, fresh: 1, in_flight: Vec::new(), queue: Vec::new(), served: 1 }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.mode, Mode::Serving { .. } | Mode::Doubting)
    }

    /// Whether the head is trusted at a time.
    pub fn is_fresh(&self, at: Time) -> bool {
        self.fresh != 0 && at.saturating_sub(self.fresh) <= TRUST
    }

    /// Whether readers are served from memory.
    pub fn is_trusted(&self) -> bool {
        self.is_up() && self.is_fresh(self.seen)
    }

    fn saw(&mut self, at: Time) {
        self.seen = self.seen.max(at);
    }

    fn renew(&mut self, at: Time) {
        self.fresh = self.fresh.max(at);
    }

    /// Where the next entry goes. None while it must not be written: with nothing in flight, freshness is checked; an
    /// entry that follows one in flight relies on that one.
    pub fn next_position(&self) -> Option<u8> {
        let may_write = self.mode == Mode::Serving { probing: false };
        let relies = !self.in_flight.is_empty() || self.is_fresh(self.seen);
        (may_write && relies).then(|| self.fold.next + self.in_flight.len() as u8)
    }

    /// `send_entry`: proposes an entry after what is in flight.
    pub fn send(&mut self, bucket: &mut Bucket, id: Id, position: u8) {
        let prev = self.in_flight.last().map_or(self.fold.last(), |batch| batch.id);
        bucket.entries[usize::from(id)] = Entry { position, prev };
        let (first_sent, sent) = (self.seen, self.seen);
        self.in_flight.push(Batch { id, position, first_sent, sent, attempt: Attempt::Sent });
    }

    /// `propose`: the answer to a PUT is here.
    pub fn answered(&mut self, bucket: &Bucket, at: usize, mistake: Option<Mistake>) {
        let batch = &self.in_flight[at];
        let (id, position, sent, first_sent) = (batch.id, batch.position, batch.sent, batch.first_sent);
        let settled = match batch.attempt {
            Attempt::Written(applied) => {
                self.saw(applied);
                if is_late(sent, self.seen) { Settled::TooLate } else { Settled::Placed(sent) }
            }
            // Whose is it? The position is read, and that answer takes no time here: a slow one does not differ from
            // a slow refusal.
            Attempt::Refused => {
                self.saw(bucket.now);
                match bucket.get(position) {
                    None => Settled::TooLate,
                    Some(_) if is_late(first_sent, self.seen) => Settled::TooLate,
                    Some(found) if found == id => Settled::Placed(first_sent),
                    Some(found) => {
                        if mistake == Some(Mistake::RefusalRenews) {
                            self.renew(self.seen);
                        }
                        Settled::Lost(found)
                    }
                }
            }
            Attempt::Sent | Attempt::Settled(_) => return,
        };
        self.in_flight[at].attempt = Attempt::Settled(settled);
    }

    /// `propose`: the outcome of an attempt stays unknown, so the same bytes are sent to the same position.
    pub fn unknown(&mut self, bucket: &mut Bucket, at: usize, mistake: Option<Mistake>) {
        let seen = self.seen;
        let batch = &mut self.in_flight[at];
        if batch.attempt == Attempt::Sent {
            bucket.leave(batch.id);
        }
        if mistake == Some(Mistake::ReproposedUnresolved) {
            return self.propose_again(bucket, at);
        }
        if is_late(batch.first_sent, seen) {
            batch.attempt = Attempt::Settled(Settled::TooLate);
        } else {
            (batch.sent, batch.attempt) = (seen, Attempt::Sent);
        }
    }

    /// `settled`: commits entries in their order. Returns the requests that are acknowledged.
    pub fn settle(&mut self, bucket: &mut Bucket, mistake: Option<Mistake>) -> u8 {
        let mut acknowledged = 0;
        while let Some(Batch { id, attempt: Attempt::Settled(settled), .. }) = self.in_flight.first().cloned() {
            match settled {
                Settled::Placed(sent) if self.is_fresh(sent) => {
                    self.renew(if mistake == Some(Mistake::RenewedAtReturn) { self.seen } else { sent });
                    self.in_flight.remove(0);
                    self.fold.absorb(id, bucket.entries[usize::from(id)]);
                    acknowledged |= 1 << log::request(id);
                }
                Settled::Lost(found) => {
                    self.propose_again(bucket, 0);
                    self.fold.absorb(found, bucket.entries[usize::from(found)]);
                }
                Settled::Placed(_) | Settled::TooLate => self.reload(bucket),
            }
        }
        acknowledged
    }

    /// `start_over`: what is in flight from `at` on is void wherever it lands.
    fn propose_again(&mut self, bucket: &mut Bucket, at: usize) {
        let void = self.in_flight.split_off(at);
        void.iter().filter(|batch| batch.attempt == Attempt::Sent).for_each(|batch| bucket.leave(batch.id));
        self.queue.splice(..0, void.iter().map(|batch| log::request(batch.id)));
        self.mode = Mode::Serving { probing: true };
    }

    /// `abandon`: forgets all that was known. What is in flight may or may not be committed, and clients are told so.
    pub fn reload(&mut self, bucket: &mut Bucket) {
        let in_flight = std::mem::take(&mut self.in_flight);
        in_flight.iter().filter(|batch| batch.attempt == Attempt::Sent).for_each(|batch| bucket.leave(batch.id));
        (self.mode, self.fold, self.fresh) = (Mode::Down, Fold::default(), 0);
    }

    /// The process dies: whom it had not answered is not answered.
    pub fn crash(&mut self, bucket: &mut Bucket) {
        self.reload(bucket);
        self.queue.clear();
    }

    /// `probe`: asks what is at the head, one position at a time.
    pub fn probe(&mut self, bucket: &Bucket, mistake: Option<Mistake>) {
        let sent = self.seen;
        self.saw(bucket.now);
        // Judged by what was known before the answer: that the head is absent now does not say that it was never there.
        let was_fresh = self.is_fresh(self.seen);
        match bucket.get(self.fold.next) {
            Some(found) if was_fresh || mistake == Some(Mistake::StaleProbeAbsorbs) => {
                self.fold.absorb(found, bucket.entries[usize::from(found)]);
                self.mode = Mode::Serving { probing: true };
            }
            None if was_fresh || mistake == Some(Mistake::StaleProbeRenews) => {
                self.renew(sent);
                self.mode = Mode::Serving { probing: false };
            }
            Some(_) | None => self.mode = Mode::Doubting,
        }
    }

    /// `read_checkpoint`: if the checkpoint has not passed the head, nothing from there on was deleted.
    pub fn read_checkpoint(&mut self, bucket: &mut Bucket) {
        let asked = self.seen;
        self.saw(bucket.now);
        if bucket.checkpoint.next <= self.fold.next {
            self.renew(asked);
            self.mode = Mode::Serving { probing: true };
        } else {
            self.reload(bucket);
        }
    }

    /// `load`: starts from the checkpoint.
    pub fn start_loading(&mut self, bucket: &Bucket, mistake: Option<Mistake>) {
        let handled = mistake != Some(Mistake::CheckpointKnownAtReturn);
        self.mode = Mode::Loading { started: self.seen, handled, must_reach: bucket.head() };
        self.fold = bucket.checkpoint;
        self.saw(bucket.now);
    }

    /// `load`: reads one more position. Whether it ended short of what was there when it began.
    pub fn read_on(&mut self, bucket: &Bucket) -> bool {
        let Mode::Loading { mut started, handled, must_reach } = self.mode else { return false };
        if !handled {
            started = self.seen;
        }
        let sent = self.seen;
        self.saw(bucket.now);
        if let Some(found) = bucket.get(self.fold.next) {
            self.fold.absorb(found, bucket.entries[usize::from(found)]);
            self.mode = Mode::Loading { started, handled: true, must_reach };
            return false;
        }
        if self.seen - started > TRUST {
            (self.mode, self.fold) = (Mode::Down, Fold::default());
            return false;
        }
        self.mode = Mode::Serving { probing: false };
        self.renew(sent);
        self.fold.next < must_reach
    }

    /// Forgets what can't matter any more, so that states are equal that will behave alike.
    pub fn forget(&mut self, now: Time) {
        let seen = self.seen;
        self.in_flight.iter_mut().for_each(|batch| batch.forget(seen));
        // Freshness is compared to what the replica has seen, and to when the first entry in flight was sent.
        let sent = self.in_flight.first().and_then(Batch::placed_at);
        if !self.is_fresh(seen) && !sent.is_some_and(|sent| self.is_fresh(sent)) {
            self.fresh = 0;
        }
        match &mut self.mode {
            Mode::Loading { started, handled: true, .. } if seen - *started > TRUST => *started = 0,
            Mode::Loading { .. } => {}
            // The next answer will tell the time, and nothing is compared to it before.
            Mode::Down => self.seen = now,
            Mode::Serving { .. } | Mode::Doubting => {
                if self.fresh == 0 && self.in_flight.is_empty() {
                    self.seen = now;
                }
            }
        }
    }
}
