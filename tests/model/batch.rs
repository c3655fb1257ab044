//! An entry in flight, and what is known of the PUT that writes it.

use crate::log::Id;
use crate::rules::{PATIENCE, Time};

/// What became of a proposed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Settled {
    /// It is at its position, which was absent at that time.
    Placed(Time),
    /// The position holds this one instead.
    Lost(Id),
    TooLate,
}

/// The last attempt to PUT an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attempt {
    /// On its way to the store.
    Sent,
    /// Applied at that time; the answer is on its way back.
    Written(Time),
    /// The position was taken; the answer is on its way back.
    Refused,
    /// Settled, and waiting for those before it.
    Settled(Settled),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Batch {
    pub id: Id,
    pub position: u8,
    /// When it was first sent, and when its last attempt was; 0 if so long ago that only a late answer can come.
    pub first_sent: Time,
    pub sent: Time,
    pub attempt: Attempt,
}

impl Batch {
    /// The time as of which it may turn out to have been placed.
    pub fn placed_at(&self) -> Option<Time> {
        match self.attempt {
            Attempt::Sent | Attempt::Written(_) | Attempt::Refused => Some(self.sent),
            Attempt::Settled(Settled::Placed(sent)) => Some(sent),
            Attempt::Settled(_) => None,
        }
    }

    /// Forgets what can't matter any more.
    pub fn forget(&mut self, seen: Time) {
        let late = match self.attempt {
            Attempt::Sent => is_late(self.sent, seen) && is_late(self.first_sent, seen),
            Attempt::Written(at) => is_late(self.sent, at.max(seen)) && is_late(self.first_sent, at.max(seen)),
            Attempt::Refused => is_late(self.first_sent, seen),
            Attempt::Settled(_) => true,
        };
        if late {
            (self.first_sent, self.sent) = (0, 0);
        }
        match &mut self.attempt {
            Attempt::Written(at) => *at = seen.max(*at),
            Attempt::Refused => self.sent = self.first_sent,
            Attempt::Sent | Attempt::Settled(_) => {}
        }
    }
}

/// Whether a PUT took too long. What was sent at 0 has for so long that it does not matter how long.
pub fn is_late(sent: Time, seen: Time) -> bool {
    sent == 0 || seen - sent > PATIENCE
}
