//! When garbage was last looked for, so that one of all replicas does it.

use serde::{Deserialize, Serialize};

use super::Damaged;
use super::document::Document;
use crate::clock::Millis;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collector {
    /// When the last round began, by the store's clock.
    pub began: Millis,
}

impl Document for Collector {
    const FORMAT: &'static str = "headwater-collector";
    const VERSION: u32 = 1;

    fn check(&self) -> Result<(), Damaged> {
        Ok(())
    }
}
