//! The bucket: positions that are written if absent, one checkpoint, and a clock. Beside it, what an observer knows
//! who has seen every write: the properties are judged by that, and no replica sees it.

use crate::log::{Entry, Fold, IDS, Id};
use crate::rules::{GRACE, POSITIONS, Time};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// The store's clock. It starts at 1; 0 is never.
    pub now: Time,
    /// The object at each position; 0 if there is none.
    stored: [Id; POSITIONS],
    /// When a checkpoint that covers the position was first published; 0 if none was.
    covered: [Time; POSITIONS],
    /// What the checkpoint says. A replica that read it may start from there.
    pub checkpoint: Fold,
    /// PUTs still on their way for which nobody waits any more. They may land at any time, more than once, or never.
    pub late: u16,
    /// What is written in each entry.
    pub entries: [Entry; IDS],
    /// For the observer: the first object at each position. What lands where something was deleted is not the log.
    first: [Id; POSITIONS],
}

fn index(position: u8) -> usize {
    usize::from(position) - 1
}

impl Bucket {
    pub fn new() -> Bucket {
        Bucket {
            now: 1,
            stored: [0; POSITIONS],
            covered: [0; POSITIONS],
            checkpoint: Fold::default(),
            late: 0,
            entries: [Entry::default(); IDS],
            first: [0; POSITIONS],
        }
    }

    /// A GET. Nothing is ever written past the last position of the model.
    pub fn get(&self, position: u8) -> Option<Id> {
        self.stored.get(index(position)).copied().filter(|id| *id != 0)
    }

    /// A PUT with `If-None-Match: *`. Whether it was written.
    pub fn put(&mut self, id: Id) -> bool {
        let at = index(self.entries[usize::from(id)].position);
        if self.stored[at] != 0 {
            return false;
        }
        self.stored[at] = id;
        if self.first[at] == 0 {
            self.first[at] = id;
        }
        true
    }

    /// The PUT goes on being on its way though its writer does not wait for it.
    pub fn leave(&mut self, id: Id) {
        self.late |= 1 << id;
    }

    /// PUTs that may land late and change something.
    pub fn late_ids(&self) -> impl Iterator<Item = Id> {
        let may_land =
            |id: &Id| self.late & (1 << id) != 0 && self.get(self.entries[usize::from(*id)].position).is_none();
        (1..IDS as Id).filter(may_land)
    }

    /// Replaces the checkpoint. The real one is swapped if it is still the one that was read.
    pub fn publish(&mut self, fold: Fold) {
        self.checkpoint = fold;
        for covered in &mut self.covered[..index(fold.next)] {
            if *covered == 0 {
                *covered = self.now;
            }
        }
    }

    /// Positions that may be deleted. The real bucket keeps the times beside the checkpoint, and deletes when the
    /// next one is written; here anyone may, in any order, as early as is allowed.
    pub fn deletable(&self, grace: Time) -> impl Iterator<Item = u8> {
        let is_old =
            move |at: &usize| self.stored[*at] != 0 && self.covered[*at] != 0 && self.now - self.covered[*at] >= grace;
        (0..POSITIONS).filter(is_old).map(|at| at as u8 + 1)
    }

    pub fn delete(&mut self, position: u8) {
        self.stored[index(position)] = 0;
    }

    /// The first position that was never written.
    pub fn head(&self) -> u8 {
        self.first.iter().take_while(|id| **id != 0).count() as u8 + 1
    }

    /// The one chain: what everyone who has read up to `next` must hold. `None` if nobody can have read so far.
    pub fn chain(&self, next: u8) -> Option<Fold> {
        let mut fold = Fold::default();
        for id in self.first[..index(next)].iter().copied() {
            if id == 0 {
                return None;
            }
            fold.absorb(id, self.entries[usize::from(id)]);
        }
        Some(fold)
    }

    /// Something that was written is deleted.
    pub fn has_deleted(&self) -> bool {
        self.stored.iter().zip(&self.first).any(|(stored, first)| *stored == 0 && *first != 0)
    }

    /// Where something was deleted, another entry has landed.
    pub fn has_ghost(&self) -> bool {
        self.stored.iter().zip(&self.first).any(|(stored, first)| *stored != 0 && stored != first)
    }

    /// Forgets what can't matter any more, so that states are equal that will behave alike. `used` are the entries
    /// that replicas have in flight.
    pub fn forget(&mut self, used: u16) {
        for covered in &mut self.covered {
            if *covered != 0 && self.now - *covered >= GRACE {
                *covered = 1;
            }
        }
        let mut used = used | self.late;
        self.stored.iter().chain(&self.first).for_each(|id| used |= 1 << id);
        for (id, entry) in self.entries.iter_mut().enumerate() {
            if used & (1 << id) == 0 {
                *entry = Entry::default();
            }
        }
    }
}
