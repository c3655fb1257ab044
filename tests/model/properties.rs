//! What must hold in every state, and what must happen in some, lest the model prove something by never doing it.

use stateright::Property;

use crate::log::Fold;
use crate::rules::Bounds;
use crate::world::{Protocol, World};

pub const ACKNOWLEDGED: &str = "an acknowledged entry stays on the one chain";
pub const ONCE: &str = "no request is applied twice";
pub const SAME: &str = "every reader folds the same state, and a cold one all of it";
pub const FORWARD: &str = "a reader never reports a head below one that it has served";

pub fn all(bounds: &Bounds) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(ACKNOWLEDGED, |_, world| acknowledged_is_applied(world)),
        Property::always(ONCE, |_, world: &World| nothing_is_applied_twice(world)),
        Property::always(SAME, |_, world: &World| everyone_holds_the_chain(world)),
        Property::always(FORWARD, |_, world: &World| !world.went_back),
    ];
    if bounds.requests <= bounds.positions {
        properties.push(Property::sometimes("everything is acknowledged", |protocol: &Protocol, world: &World| {
            world.acknowledged.count_ones() == u32::from(protocol.bounds.requests)
        }));
    }
    if bounds.checkpoints > 0 {
        properties.push(Property::sometimes("something is deleted", |_, world: &World| world.bucket.has_deleted()));
    }
    if bounds.checkpoints > 0 && bounds.requests > 1 {
        properties.push(Property::sometimes("a PUT lands where something was deleted", |_, world: &World| {
            world.bucket.has_ghost()
        }));
    }
    properties
}

fn applied(world: &World) -> u8 {
    let chain = world.bucket.chain(world.bucket.head());
    chain.map_or(0, |chain| chain.applied().fold(0, |applied, request| applied | 1 << request))
}

fn acknowledged_is_applied(world: &World) -> bool {
    world.acknowledged & !applied(world) == 0
}

fn nothing_is_applied_twice(world: &World) -> bool {
    let chain = world.bucket.chain(world.bucket.head());
    chain.is_some_and(|chain| chain.applied().count() == applied(world).count_ones() as usize)
}

fn everyone_holds_the_chain(world: &World) -> bool {
    let is_on_chain = |fold: &Fold| world.bucket.chain(fold.next) == Some(*fold);
    let mut trusted = world.replicas.iter().filter(|replica| replica.is_trusted());
    !world.loaded_short && is_on_chain(&world.bucket.checkpoint) && trusted.all(|replica| is_on_chain(&replica.fold))
}
