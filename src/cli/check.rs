//! `headwater check`: verifies a whole bucket.

use std::process::ExitCode;

use clap::Args;

use super::tools::{ToolSettings, count, exit, size};
use crate::clock::Clock;
use crate::engine::{self, Checked, Severity};

/// Exits with 0 if nothing is damaged, with 1 if something is, with 2 if that can't be told. One line per finding.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Look whether chunks are there and long enough, but do not read them
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    settings: ToolSettings,
}

pub(super) fn run(check: &Check) -> ExitCode {
    let tell = |finding: &engine::Finding| println!("{finding}");
    let checked = check.settings.run(async |store| {
        let place = store.describe();
        let checked = engine::check(store, Clock::system(), check.quick, &tell).await;
        checked.map_err(|error| format!("{place} could not be checked: {error}"))
    });
    exit(checked.map(|checked| {
        println!("{}", summary(&checked));
        if checked.damaged() == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }))
}

fn summary(checked: &Checked) -> String {
    let of = |severity| checked.findings.get(&severity).copied().unwrap_or(0);
    format!(
        "checked {}, {}, {}, {}: {} damaged, {}, {} of garbage, {} foreign",
        count(checked.streams, "stream"),
        count(checked.entries, "log object"),
        count(checked.chunks, "chunk"),
        size(checked.bytes),
        checked.damaged(),
        count(of(Severity::Note), "note"),
        count(of(Severity::Garbage), "piece"),
        of(Severity::Foreign),
    )
}
