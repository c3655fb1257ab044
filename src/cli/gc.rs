//! `headwater gc`: removes garbage from a bucket, now instead of when a server gets to it.

use std::process::ExitCode;

use clap::Args;

use super::tools::{ToolSettings, count, exit, open_engine, size};
use crate::engine::{self, Collected};

/// Exits with 0 if all garbage is removed, with 2 if some could not be. One line per piece.
#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: ToolSettings,
}

pub(super) fn run(gc: &Gc) -> ExitCode {
    let verb = if gc.dry_run { "would remove" } else { "removed" };
    let tell = |garbage: &engine::Garbage| println!("{verb} {}: {}", garbage.key, garbage.why);
    let collected = gc.settings.run(async |store| {
        let place = store.describe();
        let collect = async {
            let engine = open_engine(store).await?;
            let collected = engine.collect(!gc.dry_run, &tell).await?;
            engine.drain().await;
            Ok(collected)
        };
        collect.await.map_err(|error: engine::EngineError| format!("{place}: {error}"))
    });
    exit(collected.map(|collected| {
        println!("{}", summary(verb, &collected));
        if collected.left == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) }
    }))
}

fn summary(verb: &str, collected: &Collected) -> String {
    let left = match collected.left {
        0 => String::new(),
        left => format!("; {} left, see the log", count(left, "stream")),
    };
    format!(
        "{verb} {}, {}, {}, {} of probes: {}{left}",
        count(collected.chunks, "chunk"),
        count(collected.expired, "expired stream"),
        count(collected.entries, "old log object"),
        count(collected.probes, "object"),
        size(collected.bytes),
    )
}
