//! Verifying a whole bucket: checksums, the chain of every log, what manifests and the log name, and what nothing names.
//!
//! It only reads, and servers may go on meanwhile. What looks wrong is looked at again before it is called so: an object
//! that is not where a manifest says may have been moved by a newer manifest.

mod chunks;
mod log;
mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::EngineError;
use super::context::Context;
use super::open;
use super::state::Cells;
use super::walk::Folder;
use crate::clock::{Clock, Ids};
use crate::layout::key::{self, Key};
use crate::protocol::StreamName;
use crate::settings::EngineSettings;
use crate::store::{LIST_PAGE, Listed, Store, StoreTime};

const FOREIGN: &str = "no object of headwater's has such a key";

/// What is the matter with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Bytes that were acknowledged are wrong or missing, or can't be had any more.
    Damage,
    /// It is not as it usually is, and nothing is lost by it.
    Note,
    /// `headwater gc` removes it.
    Garbage,
    /// It is none of headwater's objects.
    Foreign,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub severity: Severity,
    pub key: String,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Damage => "damage",
            Severity::Note => "note",
            Severity::Garbage => "garbage",
            Severity::Foreign => "foreign",
        };
        write!(f, "{severity} {}: {}", self.key, self.what)
    }
}

/// How much was looked at, and how often something was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    pub streams: u64,
    pub entries: u64,
    pub chunks: u64,
    /// Bytes read.
    pub bytes: u64,
    pub findings: BTreeMap<Severity, u64>,
}

impl Checked {
    pub fn damaged(&self) -> u64 {
        self.findings.get(&Severity::Damage).copied().unwrap_or(0)
    }
}

/// Verifies the bucket. With `quick`, chunks are not read: only that they are there, and long enough. An error means that
/// it could not be verified; what is wrong with it is told as findings.
pub async fn check(
    store: Arc<dyn Store>,
    clock: Clock,
    quick: bool,
    tell: &(dyn Fn(&Finding) + Send + Sync),
) -> Result<Checked, EngineError> {
    let context = open::existing(store, EngineSettings::default(), clock, Ids::random()).await?;
    let check = Check { context, quick, tell, checked: Mutex::default(), suspects: Mutex::default() };
    check.run().await?;
    Ok(check.checked.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What is known of one shard.
struct Shard {
    cells: Cells,
    /// The log was read up to here; `None` if it can't be read.
    head: Option<u64>,
}

struct Check<'a> {
    context: Context,
    quick: bool,
    tell: &'a (dyn Fn(&Finding) + Send + Sync),
    checked: Mutex<Checked>,
    /// Folders with old chunks that nothing seems to name.
    suspects: Mutex<Vec<Folder>>,
}

impl Check<'_> {
    async fn run(&self) -> Result<(), EngineError> {
        self.foreign_keys().await?;
        let mut shards = Vec::new();
        for number in 0..self.context.shards {
            shards.push(self.log(number).await?);
        }
        self.folders(&shards).await?;
        self.look_at_suspects_again().await
    }

    fn found(&self, severity: Severity, key: impl Into<String>, what: impl Into<String>) {
        let finding = Finding { severity, key: key.into(), what: what.into() };
        (self.tell)(&finding);
        self.count(|checked| *checked.findings.entry(severity).or_default() += 1);
    }

    fn count(&self, count: impl FnOnce(&mut Checked)) {
        count(&mut self.checked.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A damaged object is a finding; that the store does not answer ends the check.
    fn damage(&self, error: EngineError) -> Result<(), EngineError> {
        match error {
            EngineError::Damaged { key, what } => {
                self.found(Severity::Damage, key, what);
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Whether what nothing names was written too long ago to be named yet.
    fn is_old(&self, modified: StoreTime) -> bool {
        self.context.store.last_seen().since(modified) > self.context.settings.grace
    }

    fn shard_of(&self, name: &StreamName) -> u32 {
        super::shard_of(name, self.context.shards)
    }

    /// Keys outside the folders of streams and logs, which are looked through later.
    async fn foreign_keys(&self) -> Result<(), EngineError> {
        let mut after: Option<String> = None;
        loop {
            let listing = self.context.store.list("", after.as_deref(), LIST_PAGE).await?.value;
            let skipped = self.foreign_keys_in(&listing.items);
            if skipped.is_none() && !listing.more {
                return Ok(());
            }
            after = skipped.or_else(|| listing.items.last().map(|item| item.key.clone()));
        }
    }

    /// Where to go on if the rest is to be skipped.
    fn foreign_keys_in(&self, items: &[Listed]) -> Option<String> {
        for item in items {
            if let Some(folder) = self.looked_through_later(&item.key) {
                // The first key that can't be in it: '0' comes after '/'.
                return Some(format!("{}0", folder.trim_end_matches('/')));
            }
            match Key::parse(&item.key) {
                None => self.found(Severity::Foreign, &item.key, FOREIGN),
                Some(Key::Probe) if self.is_old(item.modified) => {
                    self.found(Severity::Garbage, &item.key, "a start-up probe left it behind");
                }
                Some(_) => {}
            }
        }
        None
    }

    fn looked_through_later(&self, key: &str) -> Option<String> {
        let of_shard = key.strip_prefix(key::LOGS).and_then(|rest| rest.split('/').next()?.parse().ok());
        let logs = of_shard.filter(|shard| *shard < self.context.shards).map(key::logs);
        logs.into_iter().chain([key::STREAMS.to_owned()]).find(|folder| key.starts_with(folder))
    }
}

#[cfg(test)]
mod tests;
