//! Replacing an object that others may replace too.

use bytes::Bytes;

use super::EngineError;
use super::context::Context;
use crate::layout::document;
use crate::store::{Condition, Put, Version};

/// Attempts before it is left open what became of the write.
const ATTEMPTS: u32 = 8;

/// What became of a document that was to replace another.
#[derive(Debug)]
pub(super) enum Replaced {
    Written(Version),
    /// Someone else's write is there now. If an attempt of this one had an unknown outcome, that may have been applied
    /// and then replaced, by someone who built on it.
    Lost,
}

/// Writes `body`, a document with `write_id`, if `condition` holds. A write of unknown outcome is sent again, and when
/// that is refused, the write id tells whether the object is ours. An error leaves the outcome open.
pub(super) async fn replace(
    context: &Context,
    key: &str,
    body: &Bytes,
    write_id: u128,
    condition: Condition,
) -> Result<Replaced, EngineError> {
    let mut attempt = 0;
    loop {
        let error = match context.store.put(key, body.clone(), condition.clone()).await.map(|reply| reply.value) {
            Ok(Put::Written(version)) => return Ok(Replaced::Written(version)),
            Ok(Put::Conflict) => match context.store.get(key).await.map(|reply| reply.value) {
                Ok(Some(found)) if document::was_written_as(&found.body, write_id) => {
                    return Ok(Replaced::Written(found.version));
                }
                Ok(_) => return Ok(Replaced::Lost),
                Err(error) => error,
            },
            Err(error) => error,
        };
        attempt += 1;
        if attempt == ATTEMPTS || !error.failure().kind.is_transient() {
            return Err(error.into());
        }
        context.pause(attempt, &error).await;
    }
}
