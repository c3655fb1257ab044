//! Entries, and the chain rule by which everyone folds them.

use crate::rules::{POSITIONS, PROPOSALS, REQUESTS};

/// An entry's id: each proposal of each request has one. 0 is none.
pub type Id = u8;
pub const IDS: usize = REQUESTS * PROPOSALS + 1;

/// The id of a request's n-th proposal. That ids follow from what they stand for, not from the order in which they
/// were drawn, keeps states equal that differ in nothing else.
pub fn id(request: u8, proposal: u8) -> Id {
    1 + request * PROPOSALS as u8 + proposal
}

/// The request that an entry carries. Batches of one are enough: the requests of a batch share its fate.
pub fn request(id: Id) -> u8 {
    (id - 1) / PROPOSALS as u8
}

/// What is written in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    pub position: u8,
    /// The entry that it was validated on.
    pub prev: Id,
}

/// The state that follows from a log up to a position: which entries are valid. Whatever else a shard's state holds
/// follows from that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fold {
    /// The first position that was not read.
    pub next: u8,
    /// By position, the entry if it is valid, 0 if it is void.
    chain: [Id; POSITIONS],
}

impl Default for Fold {
    fn default() -> Fold {
        Fold { next: 1, chain: [0; POSITIONS] }
    }
}

impl std::fmt::Debug for Fold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", &self.chain[..usize::from(self.next) - 1])
    }
}

impl Fold {
    /// The last valid entry.
    pub fn last(&self) -> Id {
        self.chain.iter().rev().copied().find(|id| *id != 0).unwrap_or(0)
    }

    /// Takes in the entry at the next position.
    pub fn absorb(&mut self, id: Id, entry: Entry) {
        assert_eq!(entry.position, self.next, "positions are read one after the other");
        if entry.prev == self.last() {
            self.chain[usize::from(self.next) - 1] = id;
        }
        self.next += 1;
    }

    /// Requests that were applied, in order.
    pub fn applied(&self) -> impl Iterator<Item = u8> {
        self.chain.iter().filter(|id| **id != 0).map(|id| request(*id))
    }
}
